"""Who computes: a complete base class in NumPy, and classes that override what pays.

`backend_of` picks by the type of the array. There is no current backend to set or forget.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from nnx.backends.base import Backend

_BY_TYPE: dict[type, Backend] = {}


def backend_of(array: Any) -> Backend:
    """The backend for this array's type."""
    backend = _BY_TYPE.get(type(array))
    return backend if backend is not None else _register(type(array))


def _register(kind: type) -> Backend:
    """Find the backend of an array type when it is first seen."""
    cupy = sys.modules.get("cupy")
    home: type[Backend]
    if issubclass(kind, (np.ndarray, np.generic)):
        from nnx.backends.cpu import CPUBackend as home
    elif cupy is not None and issubclass(kind, cupy.ndarray):
        from nnx.backends.cuda import CUDABackend as home
    else:
        raise TypeError(f"backend_of: expected a NumPy or CuPy array, got {kind.__module__}.{kind.__name__}")
    backend = next((b for b in _BY_TYPE.values() if type(b) is home), None) or home()
    _BY_TYPE[kind] = backend
    return backend


__all__ = ["Backend", "backend_of"]
