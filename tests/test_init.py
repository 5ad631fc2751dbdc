"""The front door: names, laziness, settings."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import nnx


def in_fresh_python(program: str) -> str:
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_import_loads_next_to_nothing():
    out = in_fresh_python(
        "import sys, numpy; before = set(sys.modules)\nimport nnx; print(*sorted(set(sys.modules) - before))"
    )
    assert set(out.split()) <= {"nnx", "__future__"}


def test_heavy_packages_wait_until_they_are_needed():
    out = in_fresh_python(
        "import sys, nnx\n"
        "for name in nnx.__all__: getattr(nnx, name)\n"
        "m = nnx.nn.Sequential(nnx.nn.Linear(2, 2), nnx.nn.ReLU())\n"
        "print(*[p for p in ('safetensors', 'tqdm', 'PIL', 'matplotlib', 'pooch', 'cupy', 'torch')"
        " if p in sys.modules])"
    )
    assert out == ""


def test_every_name_is_there_and_typed():
    """`__all__` is what mypy is told in the TYPE_CHECKING block."""
    import ast
    from pathlib import Path

    tree = ast.parse(Path(nnx.__file__).read_text())
    [block] = [n for n in tree.body if isinstance(n, ast.If)]
    declared = {alias.name for node in block.body for alias in node.names}
    assert declared == {*nnx._ROOMS, *nnx._HOME_OF}
    for name in declared:
        assert getattr(nnx, name) is not None
        assert name in dir(nnx)
    assert set(nnx.__all__) == declared - {"abs", "max", "min", "pow", "sum"}


def test_unknown_names():
    with pytest.raises(AttributeError, match=r"module 'nnx' has no attribute 'cude'"):
        nnx.cude  # noqa: B018
    assert not hasattr(nnx, "__wrapped__")


def test_functions_are_the_real_ones():
    assert nnx.manual_seed is nnx._random.manual_seed
    assert float(nnx.cat([nnx.tensor([1.0]), nnx.tensor([2.0])]).sum()) == 3
    assert nnx.where(np.array([True, False]), 1.0, 2.0).tolist() == [1, 2]
    assert nnx.nn.functional is nnx.functional


def test_version_is_the_package_s():
    import tomllib
    from pathlib import Path

    path = Path(nnx.__file__).parents[1] / "pyproject.toml"
    if not path.exists():
        pytest.skip("not in a source tree")
    assert tomllib.loads(path.read_text())["project"]["version"] == nnx.__version__


def test_conv_precision():
    assert nnx.get_conv_precision() == "default"
    with nnx.set_conv_precision("high"):
        assert nnx.get_conv_precision() == "high"
        with nnx.set_conv_precision("default"):
            assert nnx.get_conv_precision() == "default"
        assert nnx.get_conv_precision() == "high"
    assert nnx.get_conv_precision() == "default"
    nnx.set_conv_precision("high")
    assert nnx.get_conv_precision() == "high"
    nnx.set_conv_precision("default")
    with pytest.raises(ValueError, match=r"set_conv_precision: expected precision to be one of 'default', 'high'"):
        nnx.set_conv_precision("low")
    assert nnx.get_conv_precision() == "default"


def test_threads():
    nnx.set_num_threads(3)
    assert nnx.get_num_threads() == 3


def test_show_config(capsys):
    nnx.show_config()
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert set(lines) == {
        "nnx", "Python", "NumPy", "SciPy", "level", "threads", "OpenMP", "BLAS", "convolution", "CuPy"
    }  # fmt: skip
    assert lines["nnx"] == nnx.__version__
    assert nnx._ext.simd.level() in lines["level"]


def test_cuda_without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not installed
    monkeypatch.setitem(sys.modules, "cupy.cuda", None)
    assert nnx.cuda.is_available() is False
    assert nnx.cuda.device_count() == 0
    assert "CuPy" in nnx.config.config()


def test_an_unknown_device_is_refused():
    with pytest.raises(ValueError, match=r'Linear.to: expected device to be "cpu", "cuda" or "cuda:0", got \'cuda:x\''):
        nnx.nn.Linear(2, 2).to("cuda:x")
    with pytest.raises(ValueError, match=r'Tensor.to: expected device to be "cpu", "cuda" or "cuda:0", got \'cuda:\''):
        nnx.tensor([1.0]).to("cuda:")
    with pytest.raises(ValueError, match=r'Linear: expected device to be "cpu", "cuda" or "cuda:0", got \'tpu\''):
        nnx.nn.Linear(2, 2, device="tpu")
