"""Every topic of the course runs in small form, is on a page, and teaches known rows."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nnx.course
from course.rows import ROWS
from nnx import viz

ROOT = Path(__file__).parents[2]
TOPICS = nnx.course.names()


@pytest.mark.parametrize("topic", TOPICS)
def test_topic_runs(topic, tmp_path, capsys):
    result = nnx.course.run(topic, out=tmp_path, small=True)
    assert isinstance(result, dict) and result
    json.dumps(result)  # plain numbers, lists, strings
    assert capsys.readouterr().out.strip(), f"{topic} prints nothing"
    pictures = list(tmp_path.iterdir())
    assert all(path.name.startswith(f"{topic}-") and path.suffix == ".png" for path in pictures), pictures
    if viz.available():
        assert pictures and all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


@pytest.mark.parametrize("topic", TOPICS)
def test_topic_is_described(topic):
    module = nnx.course.load(topic)
    assert module.ROWS and set(module.ROWS) <= set(ROWS)
    assert isinstance(module.ROWS, tuple)
    assert 3 <= len(nnx.course.title(topic)) <= 120
    assert list(inspect.signature(module.run).parameters) == ["out", "small", "seed"]
    page = ROOT / "docs" / "course" / f"{topic}.md"
    assert page.exists(), f"{topic} has no page"
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert f"python -m nnx course {topic}" in text, f"{page.name} does not say how to run it"
    assert (ROOT / "tests" / "course" / f"test_{topic}.py").exists(), f"{topic} has no tests"


def test_a_topic_runs_alike_twice(capsys):
    first = nnx.course.run("decision_regions", small=True, seed=3)
    np.random.default_rng().random()  # other streams do not matter
    assert nnx.course.run("decision_regions", small=True, seed=3) == first


def test_unknown_topic():
    with pytest.raises(ValueError, match=r"course: expected one of the topics .*history.*, got 'histroy'"):
        nnx.course.run("histroy")
    with pytest.raises(ValueError, match=r"course: expected one of the topics .*, got '_scenes'"):
        nnx.course.load("_scenes")


def test_no_pictures_without_matplotlib(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(viz, "available", lambda: False)
    folder = tmp_path / "pictures"
    result = nnx.course.run("history", out=folder, small=True)
    assert result and not folder.exists()
    assert nnx.course.picture(folder, "a") is None and nnx.course.picture(folder, "b") is None
    assert capsys.readouterr().err.count('pip install "nnx-core[plot]"') == 1


def test_picture_names_a_file_only_where_one_is_wanted(tmp_path):
    assert nnx.course.picture(None, "a") is None
    if viz.available():
        assert nnx.course.picture(tmp_path, "a") == tmp_path / "a.png"


def test_names_load_no_topic():
    code = "import nnx.course as c, sys; c.names(); print(*[m for m in sys.modules if m.startswith('nnx.course.')])"
    environment = {**os.environ, "PYTHONPATH": str(Path(nnx.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout.split() == [], done.stderr
