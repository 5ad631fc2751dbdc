"""A module that behaves like CuPy 14.2 as far as nnx uses it, on a machine without a GPU.

`install()` puts it into `sys.modules` as ``cupy``, `uninstall()` takes it out; tests use the fixture ``cuda``.
It is stricter than convenient, where CuPy is:

* The array is a wrapper. `numpy.asarray` of it is a TypeError, an operation with a NumPy array (also of 0 dimensions)
  too; Python's and NumPy's numbers are fine. Every result is an array, of 0 dimensions if need be.
* NumPy's functions and ufuncs dispatch to it, with the arguments that CuPy's functions have, no others.
* Results are in C order in memory, as of CuPy's kernels, but for functions that keep the layout (`zeros_like`,
  `astype`, ...). New memory is NaN or a large number, and lies between guards, which the emulator checks.
* An operation takes arrays of the current device. `standin.Machine.devices = 2` makes two;
  `Machine.error = ("cudaErrorInsufficientDriver", "...")` breaks the driver.
* While a stream captures, nothing is computed: results are garbage until the graph is launched. Reading a value,
  waiting, and copying an array from the host (CuPy would copy from a buffer that is used again later) are errors.
  A graph that uses memory which was freed since, and is not of a pool of its own, is an error at its launch.

Where CuPy's values differ from NumPy's they are NumPy's here: an index beyond the end raises instead of wrapping
around; with repeated indices in an assignment the last one wins, in CuPy any; sums run in NumPy's order; `__dlpack__`
names the CPU; streams do their work at once, so that a missing wait between streams does not show.
"""

from __future__ import annotations

import sys
import types

from standin import cublas
from standin.array import CUDARuntimeError, Flags, ndarray
from standin.device import Machine, RawKernel, RawModule, cuda, default_pinned_pool, default_pool, reset, runtime
from standin.functions import constants, scatter_add, table, ufunc

_MODULES: dict[str, types.ModuleType] = {}


def _build() -> None:
    cupy = types.ModuleType("cupy")
    cupy.__path__ = []  # a package: `import cupy.cuda` looks into sys.modules
    cupy.__version__ = "14.2.0"
    cuda.__path__ = []
    for name in ("lib", "lib.stride_tricks", "linalg"):
        _MODULES[f"cupy.{name}"] = types.ModuleType(f"cupy.{name}")
    cupyx = types.ModuleType("cupyx")
    cupyx.scatter_add = scatter_add
    _MODULES.update(cublas.modules())
    _MODULES.update({"cupy": cupy, "cupyx": cupyx, "cupy.cuda": cuda, "cupy.cuda.runtime": runtime})
    _MODULES.update({f"cupy.cuda.{n}": getattr(cuda, n) for n in ("stream", "graph", "memory")})
    for name, module in _MODULES.items():
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(_MODULES[parent], own, module)
    for name, thing in table.items():
        parent, _, own = f"cupy.{name}".rpartition(".")
        setattr(_MODULES[parent], own, thing)
    for name, thing in constants.items():
        setattr(cupy, name, thing)
    cupy.ndarray, cupy.ufunc = ndarray, ufunc
    cupy.RawModule, cupy.RawKernel = RawModule, RawKernel
    cupy.get_default_memory_pool = lambda: default_pool
    cupy.get_default_pinned_memory_pool = lambda: default_pinned_pool
    cupy.is_available = cuda.is_available


_build()


def install() -> types.ModuleType:
    """Put the stand-in where `import cupy` finds it, and give it back."""
    reset()
    cublas.forget()
    sys.modules.update(_MODULES)
    return _MODULES["cupy"]


def uninstall() -> None:
    """Take it out again."""
    reset()
    cublas.forget()
    for name in _MODULES:
        sys.modules.pop(name, None)


__all__ = ["CUDARuntimeError", "Flags", "Machine", "install", "ndarray", "uninstall"]
