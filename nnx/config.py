"""What nnx runs on here: versions, instruction set, threads, BLAS, GPU."""

from __future__ import annotations

import os
import platform


def config() -> dict[str, str]:
    """The facts that `show_config` prints, as a dict of strings."""
    import numpy
    import scipy

    import nnx
    from nnx import cuda
    from nnx._ext import simd, threads
    from nnx.backends.precision import get_conv_precision

    forced = os.environ.get("NNX_LEVEL", "")
    origin = "NNX_LEVEL" if forced else "chosen at import"
    count = threads.get_num_threads()
    return {
        "nnx": nnx.__version__,
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "NumPy": numpy.__version__,
        "SciPy": scipy.__version__,
        "level": f"{simd.level()} ({origin}; usable here: {', '.join(simd.supported_levels())})",
        "threads": f"{count} (of {os.cpu_count()} CPUs)",
        "OpenMP": "yes" if threads.has_openmp() else "no: kernels run serially",
        "BLAS": _blas(scipy),
        "convolution": f"{get_conv_precision()} precision",
        "CuPy": cuda.describe(),
    }


def _blas(scipy) -> str:
    """The BLAS that SciPy was built with, which is the one that the kernels call."""
    try:
        blas = scipy.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{blas['name']} {blas['version']} (SciPy's)"
    except (KeyError, TypeError):
        return "SciPy's, unknown"


def show_config() -> None:
    """Print what nnx runs on: versions, instruction-set level, threads, OpenMP, BLAS and CuPy."""
    facts = config()
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
