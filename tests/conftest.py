"""Fixtures and settings that all tests share."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import nnx

# no deadline: tests never time, and the first example pays for imports; CI draws the same examples
# every time
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(20240229)


@pytest.fixture(autouse=True, scope="session")
def _one_torch_thread():
    """PyTorch's workers spin beside ours and make its tests several times slower than one thread."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fresh_state():
    """Every test starts from the same seed and leaves the number of threads as it was."""
    threads = nnx.get_num_threads()
    nnx.manual_seed(0)
    yield
    if nnx.get_num_threads() != threads:
        nnx.set_num_threads(threads)


@pytest.fixture
def every_kernel_threaded(monkeypatch):
    """Kernels use all threads, however small their input is."""
    from nnx.backends import cpu

    for info in pkgutil.iter_modules(cpu.__path__):
        module = importlib.import_module(f"{cpu.__name__}.{info.name}")
        if hasattr(module, "threads_for"):
            monkeypatch.setattr(module, "threads_for", lambda elements, cost=1.0: nnx.get_num_threads())
