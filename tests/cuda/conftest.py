"""The stand-in for CuPy, as a fixture."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # `standin` and `emulator`


def _forget() -> None:
    """Let nnx find the device again, as in a new process."""
    from nnx import backends

    for kind in [k for k in backends._BY_TYPE if k.__module__.split(".")[0] in ("standin", "cupy")]:
        del backends._BY_TYPE[kind]
    for name in ("nnx.cuda", "nnx._device"):
        forget = getattr(sys.modules.get(name), "_forget", None)
        if forget is not None:
            forget()
    for name in [n for n in sys.modules if n == "nnx.backends.cuda" or n.startswith("nnx.backends.cuda.")]:
        del sys.modules[name]
    if hasattr(backends, "cuda"):
        del backends.cuda


@pytest.fixture
def cuda():
    """The stand-in in the place of CuPy; see `standin`."""
    import emulator
    import standin

    if emulator.compiler() is None:
        pytest.skip("needs a C++ compiler on Linux: no kernel was run")
    kept = {n: m for n, m in sys.modules.items() if n.split(".")[0] in ("cupy", "cupyx", "cupy_backends")}
    for name in kept:
        del sys.modules[name]
    _forget()
    yield standin.install()
    standin.uninstall()
    _forget()
    sys.modules.update(kept)
