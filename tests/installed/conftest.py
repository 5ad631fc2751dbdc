"""Fixtures for tests that need a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import nnx


@pytest.fixture
def run_python():
    """Run code in a new interpreter that imports the same nnx as this one.

    ``run_python(code, NNX_LEVEL="base")`` returns the CompletedProcess; keyword arguments are
    environment variables, None removes one.
    """

    def run(code: str, *flags: str, **variables: str | None) -> subprocess.CompletedProcess:
        environment = dict(os.environ, PYTHONPATH=str(Path(nnx.__file__).parents[1]))
        for name in ("NNX_LEVEL", "NNX_NUM_THREADS", "OMP_NUM_THREADS"):
            environment.pop(name, None)
        for name, value in variables.items():
            if value is None:
                environment.pop(name, None)
            else:
                environment[name] = value
        return subprocess.run(
            [sys.executable, "-P", *flags, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run
