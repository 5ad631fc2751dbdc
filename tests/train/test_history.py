"""History: lists in memory and in JSON."""

from __future__ import annotations

import json
import math

import pytest

from nnx.train import History


def test_lists_grow_together():
    history = History()
    assert history.epochs == 0 and history.last() == {}
    history.append({"loss": 1.0})
    history.append({"loss": 0.5, "accuracy": 0.9})
    history.append({"accuracy": 0.95})
    assert history == {"loss": [1.0, 0.5, None], "accuracy": [None, 0.9, 0.95]}
    assert history.accuracy is history["accuracy"]
    assert history.last() == {"loss": None, "accuracy": 0.95}
    with pytest.raises(AttributeError, match=r"History: expected one of loss, accuracy, got 'f1'"):
        history.f1  # noqa: B018


def test_json_round_trip(tmp_path):
    history = History({"loss": [0.1 + 0.2, 1e-300], "lr": [0.1, 0.01]})
    history.save(tmp_path / "h.json")
    assert History.load(tmp_path / "h.json") == history
    assert json.loads((tmp_path / "h.json").read_text()) == history


def test_nan_is_null_in_between(tmp_path):
    History({"loss": [float("nan"), float("inf"), 1.0]}).save(tmp_path / "h.json")
    assert json.loads((tmp_path / "h.json").read_text()) == {"loss": [None, None, 1.0]}
    loaded = History.load(tmp_path / "h.json").loss
    assert math.isnan(loaded[0]) and loaded[2] == 1.0


def test_other_files(tmp_path):
    (tmp_path / "h.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"History.load: expected '.*h.json' to hold names and lists, got list"):
        History.load(tmp_path / "h.json")
    (tmp_path / "h.json").write_text('{"loss": [1.0], "test_accuracy": 0.5}')
    assert History.load(tmp_path / "h.json") == {"loss": [1.0]}
