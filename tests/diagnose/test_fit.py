"""Reading the curves of training and validation."""

from __future__ import annotations

import math

import pytest

from nnx import diagnose

CASES = {
    "overfitting": {"loss": [2.0, 0.5, 0.1], "val_loss": [2.0, 1.0, 1.6]},
    "still learning": {"loss": [2.0, 1.5, 1.2], "val_loss": [2.1, 1.6, 1.3]},
    "good": {"loss": [2.0, 0.5, 0.48], "val_loss": [2.0, 0.55, 0.56]},
    "diverged": {"loss": [2.0, math.inf, math.nan], "val_loss": [2.1, None, None]},
}


@pytest.mark.parametrize("verdict", CASES)
def test_verdicts(verdict):
    report = diagnose.fit_report(CASES[verdict])
    assert report.verdict == verdict and str(report).startswith(f"{verdict}: {report.advice}")


def test_a_gap_of_accuracies_is_overfitting():
    history = {"loss": [1.0, 0.3], "val_loss": [1.1, 1.05], "accuracy": [0.7, 0.99], "val_accuracy": [0.6, 0.7]}
    report = diagnose.fit_report(history)
    assert report.verdict == "overfitting" and report.accuracy_gap == pytest.approx(0.29)
    assert diagnose.fit_report(history, gap=0.3).verdict != "overfitting"


def test_underfitting_needs_to_know_what_is_wanted():
    history = {"loss": [1.0, 0.99], "val_loss": [1.0, 1.0], "accuracy": [0.5, 0.5], "val_accuracy": [0.5, 0.5]}
    assert diagnose.fit_report(history, wanted=0.9).verdict == "underfitting"
    assert diagnose.fit_report(history).verdict == "good"


def test_numbers():
    report = diagnose.fit_report({"loss": [2.0, 0.5, 0.4], "val_loss": [2.0, 1.0, 1.5]})
    assert (report.epochs, report.best_epoch, report.rise) == (3, 2, 0.5)
    assert report.loss_gap == pytest.approx(1.1) and report.accuracy_gap is None
    assert "best in epoch 2, since then up by 50.0 %" in str(report)


def test_one_epoch():
    assert diagnose.fit_report({"loss": [1.0], "val_loss": [1.0]}).verdict == "good"


def test_errors():
    with pytest.raises(KeyError, match="fit_report: expected history with 'loss' and 'val_loss', got 'loss'"):
        diagnose.fit_report({"loss": [1.0]})
    with pytest.raises(ValueError, match=r"expected lists of one length, at least 1, got \[1, 2\]"):
        diagnose.fit_report({"loss": [1.0], "val_loss": [1.0, 2.0]})


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    diagnose.fit_report({**CASES["good"], "seconds": [1, 2, 3]}).plot(tmp_path / "f.png")
    assert (tmp_path / "f.png").exists()
