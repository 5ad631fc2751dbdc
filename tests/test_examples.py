"""The README's code and the scripts in examples/ run, and reach what they promise."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def load(name):
    spec = importlib.util.spec_from_file_location(f"examples_{name}", ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NAMES = [p.stem for p in (ROOT / "examples").glob("*.py")]
ELSEWHERE = {"cifar10_knn", "cifar10_linear"}  # which need a folder: tests/test_examples_cifar10.py


@pytest.mark.parametrize("name", sorted(set(NAMES) - ELSEWHERE))
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
