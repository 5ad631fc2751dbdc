"""The kernels compiled for real, where NVIDIA's compilers are: by nvcc, and by NVRTC as CuPy does it. Nothing runs.

nvcc makes PTX for the oldest architecture and assembles it for all; NVRTC compiles for the oldest and the newest from
the start. NVRTC has no headers, so that a text that needs one fails there alone.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nnx

_HERE = Path(nnx.__file__).parent / "backends" / "cuda"
FAMILIES = sorted(path.stem for path in _HERE.glob("*.cu"))
ARCHITECTURES = ("75", "80", "86", "89", "90")
REALS = ("float", "double")
_UNUSED_FUNCTION = "177"  # not every family uses all of common.cuh


def _kernels():
    """nnx.backends.cuda._kernels, without its package, which imports CuPy."""
    spec = importlib.util.spec_from_file_location("_kernels_alone", _HERE / "_kernels.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_kernels():
    assert FAMILIES


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("family", FAMILIES)
def test_nvcc(family, real, tmp_path):
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("needs nvcc: the kernels were not compiled by it")
    kernels = _kernels()
    (source := tmp_path / f"{family}.cu").write_text(kernels.source(family))
    code = ",".join(f"sm_{a}" for a in ARCHITECTURES)
    command = [nvcc, *kernels.options(real), "-fatbin", "-o", str(tmp_path / "out.fatbin")]
    command += ["-gencode", f"arch=compute_{ARCHITECTURES[0]},code=[{code}]", "--threads", "2"]
    command += ["-diag-suppress", _UNUSED_FUNCTION, "-Werror", "all-warnings"]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:4000]


def _nvrtc() -> ctypes.CDLL | None:
    """The library: of the system, or from the wheel that CuPy's extras install."""
    found = [ctypes.util.find_library("nvrtc")]
    found += [p for folder in sys.path for p in sorted(Path(folder).glob("nvidia/*/lib/libnvrtc.so*"))]
    for path in filter(None, found):
        try:
            return ctypes.CDLL(str(path))
        except OSError:
            continue
    return None


def _compile(nvrtc: ctypes.CDLL, text: str, options: tuple[str, ...]) -> tuple[int, str]:
    """NVRTC's result and log."""
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None) == 0
    try:
        given = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        status = nvrtc.nvrtcCompileProgram(program, len(options), given)
        size = ctypes.c_size_t()
        assert nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)) == 0
        log = ctypes.create_string_buffer(size.value)
        assert nvrtc.nvrtcGetProgramLog(program, log) == 0
        return status, log.value.decode()
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("family", FAMILIES)
def test_nvrtc(family, real):
    nvrtc = _nvrtc()
    if nvrtc is None:
        pytest.skip("needs the NVRTC library: the kernels were not compiled by it")
    kernels = _kernels()
    for architecture in (ARCHITECTURES[0], ARCHITECTURES[-1]):
        options = (*kernels.options(real), f"-arch=sm_{architecture}", f"-diag-suppress={_UNUSED_FUNCTION}")
        status, log = _compile(nvrtc, kernels.source(family), options)
        assert status == 0 and not log.strip("\n\0"), log[:4000]
