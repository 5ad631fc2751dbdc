"""How the kernels in the .cu files are compiled and launched."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_REAL = {"float32": "float", "float64": "double"}
_MOST_BLOCKS = 4096

Size = int | tuple[int, ...]


def source(family: str) -> str:
    """The text that is compiled for a family: what all share, and its own file."""
    return (_HERE / "common.cuh").read_text() + "\n" + (_HERE / f"{family}.cu").read_text()


def options(real: str) -> tuple[str, ...]:
    """The compiler's options for REAL = "float" or "double"."""
    return ("-std=c++17", f"-DREAL={real}")


def blocks_for(n: int, threads: int = 256) -> int:
    """Blocks for a grid-stride loop over n elements."""
    return max(1, min(-(-n // threads), _MOST_BLOCKS))


class Kernels:
    """The kernels of a family's .cu file, compiled when the first of them is launched; CuPy keeps the result on disk.

    family:  "pool" for pool.cu
    """

    def __init__(self, family: str) -> None:
        self._family = family
        self._functions: dict[tuple[str, Any, int], Any] = {}
        self._lock = threading.Lock()

    def launch(self, name: str, dtype: Any, blocks: Size, threads: Size, *args: Any) -> None:
        """Run one kernel on the current stream.

        dtype:            float32 or float64: which REAL
        blocks, threads:  the grid and the block, up to three numbers each
        args:             arrays, ints (long long there) and floats (double there)
        """
        import cupy

        key = (name, dtype, cupy.cuda.runtime.getDevice())
        function = self._functions.get(key)
        if function is None:
            with self._lock:
                function = self._functions[key] = self._compiled(cupy, name, dtype.name)
        grid = (blocks,) if isinstance(blocks, int) else blocks
        block = (threads,) if isinstance(threads, int) else threads
        function(grid, block, args)

    def _compiled(self, cupy: Any, name: str, dtype: str) -> Any:
        module = cupy.RawModule(code=source(self._family), options=options(_REAL[dtype]))
        return module.get_function(name)
