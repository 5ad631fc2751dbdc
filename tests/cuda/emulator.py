"""Kernels in CUDA compiled as C++ and run on the CPU, over the memory of the stand-in.

`build(code, options)` compiles a module's text behind shim.h and keeps the library by the hash of both in a folder of
the user's; `Library.prepare(name, grid, block, args)` checks a launch as CUDA and the kernel's signature want it and
gives back a function that runs it. A launch runs twice, blocks and threads in ascending and in descending order; the
bits must agree, so that a missing barrier, a race, and a block that waits for another one's result are found. After
it no byte of the guards around the arrays may have changed.

What it does not find: a race between threads whose order does not change a bit, what a warp or the memory model of
the device does, and what a write far beyond an array's guard hits. Kernels with more work than `TWICE_UP_TO` threads
run once, unless NNX_EMULATE_TWICE=1; 0 lets all run once. The compiler's checks of undefined behaviour are on: an index
outside of a shared or local array, a misaligned float4, an int that overflows.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from standin.array import Memory, addressed, ndarray

TWICE_UP_TO = 1 << 20  # threads of a launch
MOST_SHARED = 48 * 1024  # bytes of static shared memory of a block
MOST_ARGUMENTS = 4096  # bytes of a kernel's arguments
_MOST_GRID = (2**31 - 1, 65535, 65535)
_MOST_BLOCK = (1024, 1024, 64)
_MOST_THREADS = 1024

_SHIM = Path(__file__).parent / "shim.h"
# sign-compare: `int < threadIdx.x` is how CUDA is written; unknown-pragmas: unroll
_FLAGS = """-std=c++17 -O1 -fPIC -fvisibility=hidden -ffp-contract=off -U_FORTIFY_SOURCE
    -fsanitize=bounds,null,alignment,shift,signed-integer-overflow,integer-divide-by-zero
    -Wall -Wextra -Werror -Wno-sign-compare -Wno-unknown-pragmas -Wno-unused-function""".split()
_KERNEL = re.compile(
    r"""(?:\bKERNEL|extern\s*"C"\s*__global__\s+void)\s+(STANDARD\s+|__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\("""
)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_lock = threading.Lock()  # a library has one set of threads


class KernelError(AssertionError):
    """A launch or a kernel does what CUDA forbids, or what gives other results on another day."""


def compiler() -> str | None:
    """The C++ compiler, or None: shim.h wants Linux, too."""
    return shutil.which(os.environ.get("CXX") or "g++") if sys.platform == "linux" else None


@functools.cache
def _version(command: str) -> str:
    return subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"nnx-emulator-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    return folder


@functools.lru_cache(maxsize=256)
def build(code: str, options: tuple[str, ...] = ()) -> Library:
    """The library of a module's kernels; a KernelError has the compiler's messages."""
    bounds = {name: _threads_of(bound) for bound, name in _KERNEL.findall(_expanded(code, options))}
    entries = "".join(f"NNX_ENTRY({name})\n" for name in bounds)
    unknown = [o for o in options if not o.startswith(("-D", "-U", "-std=c++", "--use_fast_math", "-lineinfo"))]
    if unknown:
        raise KernelError(f"options that the emulator does not know: {unknown}")
    text = f'{_SHIM.read_text()}{code}\n#line 1 "entries"\n{entries}'
    return Library(compile_library(text, [o for o in options if o.startswith(("-D", "-U"))]), bounds)


def _expanded(code: str, options: tuple[str, ...]) -> str:
    """The text behind the preprocessor, where kernels that macros make have their names."""
    command = [compiler() or "g++", "-E", "-P", "-x", "c++", *(o for o in options if o.startswith(("-D", "-U"))), "-"]
    done = subprocess.run(command, input=code, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else _COMMENT.sub(" ", code)


def compile_library(text: str, options: list[str] | None = None) -> Path:
    """The shared library of a C++ text, compiled when no process has done so before."""
    command = compiler()
    if command is None:
        raise KernelError("no C++ compiler on Linux (set CXX)")
    flags = [*_FLAGS, *(options or [])]
    key = hashlib.sha256("\0".join([text, *flags, command, _version(command)]).encode()).hexdigest()[:32]
    path = _folder() / f"{key}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=_folder()) as work:
            (source := Path(work) / "kernels.cpp").write_text(text)
            # two steps: linking with the flags would want the sanitizer's library, whose calls shim.h answers
            run([command, *flags, "-c", "-o", f"{work}/out.o", str(source)])
            run([command, "-shared", "-o", f"{work}/out.so", f"{work}/out.o"])
            os.replace(f"{work}/out.so", path)  # whole or not at all, for processes beside this one
    return path


def run(command: list[str]) -> None:
    """Run the compiler; a KernelError has its messages."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise KernelError(f"the kernels do not compile as C++:\n{done.stderr[:4000]}")


def _threads_of(bound: str) -> int:
    """The most threads of a block that `__launch_bounds__` allows."""
    number = re.search(r"\d+", bound)
    return int(number[0]) if number else 256 if bound.strip() == "STANDARD" else _MOST_THREADS


class Library:
    """The kernels of a module, by name in `kernels`."""

    def __init__(self, path: Path, bounds: dict[str, int]) -> None:
        self._library = ctypes.CDLL(str(path))
        self._bounds = bounds
        self._shared = _shared_sizes(path)
        self.kernels = {name: self._signature(name) for name in bounds}

    def _signature(self, name: str) -> list[tuple[str, str, int]]:
        """Of each argument: P pointer, C pointer to const or V value; the letter of the type; the bytes to pass."""
        function = getattr(self._library, f"nnx_signature_{name}")
        function.restype = ctypes.c_char_p
        text = function().decode()
        sizes = getattr(self._library, f"nnx_sizes_{name}")
        sizes.restype = ctypes.POINTER(ctypes.c_int)
        n = len(text) // 2
        return list(zip(text[:n], text[n:], sizes()[:n], strict=True))

    def prepare(self, name: str, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> Callable:
        """A function that runs the kernel with these arguments, once they are checked."""
        if name not in self.kernels:
            raise KernelError(f"{name}: no such kernel; there are {sorted(self.kernels)}")
        size = self._size(name, grid, block)
        signature = self.kernels[name]
        if len(args) != len(signature):
            raise KernelError(f"{name}: expected {len(signature)} arguments, got {len(args)}")
        if sum(s[2] for s in signature) > MOST_ARGUMENTS:
            raise KernelError(f"{name}: arguments of more than {MOST_ARGUMENTS} bytes")
        values = [_value(name, i, *s, a) for i, (s, a) in enumerate(zip(signature, args, strict=True))]
        arrays = [a for a in args if isinstance(a, ndarray)]
        written = {
            id(a._memory): a._memory
            for (kind, *_), a in zip(signature, args, strict=True)
            if kind == "P" and isinstance(a, ndarray)
        }
        in_structs = memories_in_structs(args)
        written.update((id(m), m) for m in in_structs)
        twice = os.environ.get("NNX_EMULATE_TWICE")
        count = int(np.prod(size, dtype=np.int64))
        again = count <= TWICE_UP_TO if twice is None else twice == "1"
        memories = list({id(m): m for m in [a._memory for a in arrays] + in_structs}.values())
        # the hosts, not the arrays: a graph that replays this does not keep its arrays alive
        contents = [m.content() for m in written.values()]
        guards = [(m.raw, m.start, m.size) for m in memories]

        def launch() -> None:
            with _lock:
                before = [c.copy() for c in contents] if again else []
                self._call(name, size, values, False)
                if again:
                    ascending = [c.copy() for c in contents]
                    for c, old in zip(contents, before, strict=True):
                        c[...] = old
                    self._call(name, size, values, True)
                    for c, other in zip(contents, ascending, strict=True):
                        if not np.array_equal(c, other):
                            raise KernelError(
                                f"{name}: other bits when blocks and threads run in descending order: a missing "
                                "barrier, a race, or a block that needs another one's result"
                            )
            for raw, start, length in guards:
                if (raw[:start] != 0xFF).any() or (raw[start + length :] != 0xFF).any():
                    raw[:start] = raw[start + length :] = 0xFF
                    raise KernelError(f"{name}: wrote outside of an array of {length} bytes")

        return launch

    def _call(self, name: str, size: list[int], values: list[Any], descending: bool) -> None:
        function = getattr(self._library, f"nnx_launch_{name}")
        function.restype = ctypes.c_char_p
        pointers = (ctypes.c_void_p * max(1, len(values)))(*(ctypes.addressof(v) for v in values))
        message = function((ctypes.c_uint * 6)(*size), ctypes.c_int(descending), pointers)
        if message is not None:
            raise KernelError(f"{name}: {message.decode()}")

    def _size(self, name: str, grid: tuple[int, ...], block: tuple[int, ...]) -> list[int]:
        for what, numbers, most in (("grid", grid, _MOST_GRID), ("block", block, _MOST_BLOCK)):
            good = 1 <= len(numbers) <= 3 and all(
                isinstance(n, (int, np.integer)) and 1 <= n <= m for n, m in zip(numbers, most, strict=False)
            )
            if not good:
                raise KernelError(f"{name}: expected a {what} of one to three numbers in [1, {most}], got {numbers}")
        threads = int(np.prod(block))
        if threads > min(_MOST_THREADS, self._bounds[name]):
            raise KernelError(f"{name}: expected at most {self._bounds[name]} threads in a block, got {block}")
        if self._shared.get(name, 0) > MOST_SHARED:
            raise KernelError(f"{name}: {self._shared[name]} bytes of shared memory, at most {MOST_SHARED} fit")
        return [*(int(n) for n in (*grid, 1, 1)[:3]), *(int(n) for n in (*block, 1, 1)[:3])]


def memories_in_structs(args: tuple[Any, ...]) -> list[Memory]:
    """What the addresses in structs passed by value point to; a kernel may write there."""
    found: list[Memory] = []
    for a in args:
        if isinstance(a, np.ndarray):
            data = a.tobytes()
            found += addressed(np.frombuffer(data[: len(data) // 8 * 8], np.int64))
    return found


_TYPES = {
    "f": ctypes.c_float, "d": ctypes.c_double, "q": ctypes.c_longlong, "Q": ctypes.c_ulonglong, "i": ctypes.c_int,
    "I": ctypes.c_uint, "h": ctypes.c_short, "H": ctypes.c_ushort, "b": ctypes.c_byte, "B": ctypes.c_ubyte,
    "?": ctypes.c_bool,
}  # fmt: skip


def _value(name: str, number: int, kind: str, code: str, size: int, argument: Any) -> Any:
    """The argument as ctypes holds it; CuPy passes the bytes of what it gets, whatever the kernel expects."""
    owner = f"{name}: argument {number}"
    if code == "s" and kind == "V":
        if not isinstance(argument, np.ndarray) or argument.ndim or argument.nbytes != size:
            raise KernelError(f"{owner}: expected a NumPy array of 0 dimensions with the {size} bytes of a struct")
        return (ctypes.c_char * size).from_buffer_copy(argument.tobytes())
    if kind == "V":
        if isinstance(argument, (bool, np.ndarray, ndarray)) or not isinstance(argument, (int, float, np.generic)):
            raise KernelError(f"{owner}: expected a number, got {type(argument).__name__}")
        got = np.dtype(type(argument)).char if isinstance(argument, np.generic) else "qd"[type(argument) is float]
        if (np.dtype(got).kind, np.dtype(got).itemsize) != (np.dtype(code).kind, np.dtype(code).itemsize):
            raise KernelError(f"{owner}: expected {np.dtype(code)}, got {np.dtype(got)}")
        if got == "q" and not -(2**63) <= int(argument) < 2**63:
            raise KernelError(f"{owner}: {argument} does not fit into 64 bits")
        return _TYPES[code](argument.item() if isinstance(argument, np.generic) else argument)
    if argument is None:
        return ctypes.c_void_p(None)
    if not isinstance(argument, ndarray):
        raise KernelError(f"{owner}: expected a device array, got {type(argument).__name__}")
    want, got = np.dtype(code), argument.dtype
    if want != got and not (want == np.uint8 and got == np.bool_):
        raise KernelError(f"{owner}: expected a pointer to {want}, got an array of {got}")
    return ctypes.c_void_p(argument.data.ptr)


def _shared_sizes(path: Path) -> dict[str, int]:
    """Bytes of shared memory by kernel: the static variables of its function, as `nm` lists them."""
    tool = shutil.which("nm")
    if tool is None:
        return {}
    sizes: dict[str, int] = {}
    listing = subprocess.run([tool, "-S", str(path)], capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        match = re.match(r"\S+ ([0-9a-f]+) \w _ZZ(\d+)(\w+)", line)
        if match:
            name = match[3][: int(match[2])]
            sizes[name] = sizes.get(name, 0) + int(match[1], 16)
    return sizes
