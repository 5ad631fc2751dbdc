"""What this installation can do on a CUDA device. Nothing here loads CuPy before it is asked."""

from __future__ import annotations

from importlib.util import find_spec


def is_available() -> bool:
    """Whether models can be moved to a CUDA device: the backend, CuPy and a device are all there."""
    return find_spec("nnx.backends.cuda") is not None and device_count() > 0


def device_count() -> int:
    """The number of CUDA devices that CuPy sees; 0 without CuPy or a driver."""
    try:
        from cupy.cuda import runtime

        return int(runtime.getDeviceCount())
    except Exception:  # CuPy raises its own types for a missing driver, and importing a broken CuPy may raise any
        return 0


def describe() -> str:
    """One line on CuPy and its devices, as `nnx.show_config()` prints it."""
    if find_spec("cupy") is None:
        return "not installed (extras cuda12, cuda13)"
    try:
        from cupy import __version__ as version
    except Exception as error:
        return f"installed, but its import fails: {error}"
    count = device_count()
    devices = f"{count} device{'s' * (count != 1)}"
    unused = "" if find_spec("nnx.backends.cuda") else "; this version of nnx computes on the CPU only"
    return f"{version}, {devices}{unused}"
