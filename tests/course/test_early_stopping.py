"""Early stopping on a curve that is known."""

from __future__ import annotations

import pytest

from nnx.course import early_stopping


@pytest.mark.parametrize("patience", [1, 2, 3, 5])
def test_F134_stops_after_patience_epochs_and_restores_the_best(patience):
    curve = [9.0, 7.0, 5.0, 4.0, 4.5, 4.6, 4.7, 4.8, 4.9, 5.0]
    found = early_stopping.follow(curve, patience)
    assert found["epochs"] == 4 + patience
    assert (found["best_epoch"], found["best"], found["weight"]) == (4, 4.0, 4.0)
    assert found["val_loss"] == curve[: 4 + patience]
    assert found["stopped"] == f"val_loss has not improved for {patience} epochs"


def test_F134_a_bump_shorter_than_patience_is_passed():
    found = early_stopping.follow([5.0, 6.0, 6.0, 4.0, 3.0], patience=3)
    assert (found["epochs"], found["best_epoch"], found["stopped"]) == (5, 5, None)


def test_F134_a_falling_curve_runs_to_its_end():
    found = early_stopping.follow([5.0, 4.0, 3.0], patience=1)
    assert (found["epochs"], found["weight"], found["stopped"]) == (3, 3.0, None)


def test_F134_validation_turns_while_training_goes_on():
    result = early_stopping.run()
    free, stopped = result["not stopped"], result["stopped"]
    assert min(free["val_loss"]) < 0.9 * free["val_loss"][-1]
    assert stopped["epochs"] == stopped["best_epoch"] + 5 < free["epochs"]
    assert stopped["test_loss"] < free["test_loss"]
