"""What show_config says."""

from __future__ import annotations

import numpy as np

import nnx
from nnx._ext import simd, threads
from nnx.config import config


def test_config_names_what_is_in_use():
    found = config()
    assert found["nnx"] == nnx.__version__
    assert found["NumPy"] == np.__version__
    assert found["level"].startswith(simd.level() + " ")
    assert ", ".join(simd.supported_levels()) in found["level"]
    assert found["threads"].startswith(f"{threads.get_num_threads()} ")
    assert found["OpenMP"].startswith("yes" if threads.has_openmp() else "no")
    assert found["BLAS"] and found["CuPy"]


def test_forced_level_is_named_as_such(run_python):
    printed = run_python("import nnx; nnx.show_config()", NNX_LEVEL="base").stdout
    assert "base (NNX_LEVEL; " in printed


def test_show_config_prints_one_line_per_fact(capsys):
    nnx.show_config()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == list(config())


def test_config_does_not_bind_blas(run_python):
    code = "import nnx, sys; nnx.show_config(); print(*sorted(sys.modules))"
    loaded = run_python(code).stdout.splitlines()[-1].split()
    assert "nnx.config" in loaded
    assert "scipy.linalg" not in loaded
