"""The README's code and the scripts in examples/ run, and reach what they promise.

Those for CIFAR-10 run on a small folder of made-up pictures, in both forms of the data set.
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import numpy as np
import pytest

from nnx import viz

ROOT = Path(__file__).parents[1]


def load(name):
    spec = importlib.util.spec_from_file_location(f"examples_{name}", ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NAMES = [p.stem for p in (ROOT / "examples").glob("*.py")]
WITH_A_FOLDER = {"cifar10_knn", "cifar10_linear"}


@pytest.mark.parametrize("name", sorted(set(NAMES) - WITH_A_FOLDER))
def test_example(name):
    assert load(name).main() >= 0.96


def test_readme_example(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    exec(compile(code.group(1), "README.md", "exec"), {"__name__": "readme"})
    accuracy = float(capsys.readouterr().out.split()[-1])
    assert accuracy >= 0.95
    assert os.path.exists("digits.safetensors")


# -- CIFAR-10 --------------------------------------------------------------------------------------


def pictures(n, rng):
    """Pictures of ten classes, each with a stripe at its own height."""
    y = np.arange(n) % 10
    x = rng.integers(0, 60, (n, 3, 32, 32))
    for picture, label in zip(x, y, strict=True):
        picture[:, 3 * label : 3 * label + 3] += 150
    return x.astype(np.uint8), y


@pytest.fixture
def binary_folder(tmp_path, rng):
    for name, n in [*((f"data_batch_{i}.bin", 40) for i in range(1, 6)), ("test_batch.bin", 30)]:
        x, y = pictures(n, rng)
        (tmp_path / name).write_bytes(np.hstack([y[:, None].astype(np.uint8), x.reshape(n, -1)]).tobytes())
    return tmp_path


@pytest.fixture
def class_folders(tmp_path, rng):
    image = pytest.importorskip("PIL.Image")
    for part, n in (("train", 60), ("test", 20)):
        for i, (x, y) in enumerate(zip(*pictures(n, rng), strict=True)):
            folder = tmp_path / part / f"class_{y}"
            folder.mkdir(parents=True, exist_ok=True)
            image.fromarray(x.transpose(1, 2, 0)).save(folder / f"{i}.png")
    return tmp_path


def test_nearest_neighbours(binary_folder, capsys):
    results = load("cifar10_knn").main([str(binary_folder), "--train", "150", "--test", "25", "--k", "1", "3"])
    assert results == {1: {1: 1.0, 3: 1.0}, 2: {1: 1.0, 3: 1.0}}
    printed = capsys.readouterr().out
    assert "L1: 25 images against 150 in" in printed and "k =   3: accuracy 1.0000" in printed


def test_nearest_neighbours_beside_sklearn(class_folders, capsys):
    pytest.importorskip("sklearn")
    load("cifar10_knn").main([str(class_folders), "--k", "1", "--sklearn", "5"])
    assert "the same answer for 5 of 5" in capsys.readouterr().out


def test_linear_models(binary_folder, tmp_path, capsys):
    arguments = [str(binary_folder), "--held", "40", "--epochs", "30"]
    if viz.available():
        arguments += ["--out", str(tmp_path / "pictures")]
    results = load("cifar10_linear").main(arguments)
    assert set(results) == {"svm", "softmax", "two-layer"}
    assert min(results.values()) > 0.9
    if viz.available():
        assert (tmp_path / "pictures" / "svm.png").exists()
    assert capsys.readouterr().out.count("validation") == 3


def test_search_in_log_space(binary_folder, capsys):
    load("cifar10_linear").main(
        [str(binary_folder), "--held", "40", "--models", "softmax", "--search", "4", "--epochs", "2"]
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if "/4:" in line]
    rates = [float(line.split("learning rate ")[1].split(",")[0]) for line in lines]
    assert len(set(rates)) == 4 and all(1e-4 <= rate <= 1e-2 for rate in rates)
