"""cuBLAS of the stand-in: a shared library (../cublas.cpp) with the same functions, found as the real one is.

A product goes the way of every operation: it is done, or recorded where the stream is capturing. What it reads and
writes must lie in arrays of the stand-in, whole.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

from standin.array import Memory, enqueue, find_memory, state

_SOURCE = Path(__file__).parent.parent / "cublas.cpp"
_FLAGS = "-std=c++17 -O2 -ffp-contract=off -fPIC -shared -fvisibility=hidden -Wall -Wextra -Werror".split()


class _Product(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in "ta tb m n k lda ldb ldc step_a step_b step_c count kind compute".split()),
        *((name, ctypes.c_void_p) for name in "a b c".split()),
        ("alpha", ctypes.c_double),
        ("beta", ctypes.c_double),
        ("stream", ctypes.c_void_p),
        ("has_workspace", ctypes.c_int64),
    ]


_products: list[_Product] = []  # what was asked for since `watch`, for tests


def watch() -> list[_Product]:
    """A list that products are added to from now on: m, n and k are cuBLAS', which counts along columns."""
    _products.clear()
    return _products


@functools.cache
def library() -> str:
    """The path of the library, which is built when it is first asked for."""
    import emulator

    command = emulator.compiler()
    if command is None:
        raise emulator.KernelError("no C++ compiler (set CXX)")
    key = hashlib.sha256("\0".join([_SOURCE.read_text(), *_FLAGS, emulator._version(command)]).encode()).hexdigest()
    path = emulator._folder() / f"cublas-{key[:32]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=emulator._folder()) as work:
            subprocess.run([command, *_FLAGS, "-o", f"{work}/out.so", str(_SOURCE)], check=True)
            os.replace(f"{work}/out.so", path)
    loaded = ctypes.CDLL(str(path))
    loaded.nnx_set_hook(_hook)
    loaded.nnx_run.argtypes = (ctypes.POINTER(_Product),)
    loaded.nnx_run.restype = None
    _loaded.append(loaded)
    return str(path)


_loaded: list[Any] = []


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Product))
def _hook(pointer: Any) -> int:
    product = _Product.from_buffer_copy(pointer.contents)
    try:
        memories = _checked(product)
    except AssertionError as error:
        print(f"the stand-in's cuBLAS: {error}", file=sys.stderr)
        return 14  # CUBLAS_STATUS_INTERNAL_ERROR
    _products.append(product)
    guards = [(m.raw, m.start, m.size) for m in memories]  # the bytes, not the arrays

    def work() -> None:
        _loaded[0].nnx_run(product)
        for raw, start, size in guards:
            whole = (raw[:start] == 0xFF).all() and (raw[start + size :] == 0xFF).all()
            assert whole, "a product wrote outside of an array"

    enqueue(work, memories)
    return 0


def _checked(p: _Product) -> list[Memory]:
    """The memories of the operands, each of which holds its operand whole."""
    stream = 0 if state.stream is None else state.stream.ptr
    assert (p.stream or 0) == stream, f"cuBLAS works on stream {p.stream}, current is {stream}"
    assert p.has_workspace, "cuBLAS has no workspace of its own for this stream"
    size = 8 if p.kind else 4
    memories = []
    for name, rows, columns in (("a", p.m, p.k), ("b", p.k, p.n), ("c", p.m, p.n)):
        if getattr(p, "t" + name, 0):
            rows, columns = columns, rows
        elements = (p.count - 1) * getattr(p, "step_" + name) + (columns - 1) * getattr(p, "ld" + name) + rows
        memory = find_memory(getattr(p, name), elements * size)
        assert memory is not None, f"operand {name} of a product is not inside of an array"
        assert memory.device_id == state.device, f"operand {name} of a product is on device {memory.device_id}"
        memories.append(memory)
    return memories


class _Module(types.ModuleType):
    """The module that CuPy's bindings are: a file that is linked with cuBLAS."""

    @property
    def __file__(self) -> str:
        return library()


def modules() -> dict[str, types.ModuleType]:
    """By name, what is imported to find cuBLAS."""
    names = ("cupy_backends", "cupy_backends.cuda", "cupy_backends.cuda.libs")
    packages: dict[str, types.ModuleType] = {name: types.ModuleType(name) for name in names}
    for package in packages.values():
        package.__path__ = []
    return {**packages, "cupy_backends.cuda.libs.cublas": _Module("cupy_backends.cuda.libs.cublas")}


def forget() -> None:
    """As at the start."""
    _products.clear()
