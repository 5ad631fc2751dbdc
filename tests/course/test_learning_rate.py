"""Learning rates that are flat, good, and explode, with the layer and the step of the first NaN."""

from __future__ import annotations

import math

import pytest

from nnx.course.learning_rate import diagnosis


@pytest.mark.parametrize("seed", range(2))
def test_F122_three_wrong_rates_and_a_good_one(seed):
    report = diagnosis(seed=seed)
    assert report.verdicts == {1e-6: "flat", 1e-3: "good", 1e-1: "exploding", 1e6: "exploding"}
    assert report.best == 1e-3
    flat, _, late, at_once = report.runs
    assert "too small" in flat.note and abs(flat.after - math.log(10)) < 1e-3
    assert "too large" in late.note and "too large" in at_once.note
    # falls first, explodes then: what the lecture shows for 3e-3
    assert min(late.losses) < 2 < 3 * math.log(10) < late.losses[late.exploded_at - 1]


def test_F122_the_first_nan_has_a_layer_and_a_step():
    run = diagnosis(rates=(1e6,)).runs[0]
    assert run.nonfinite is not None and 2 <= run.nonfinite.step == len(run.losses) <= 10
    assert run.nonfinite.layer in ("layer 'first' (Linear)", "layer 'second' (Linear)", "layer 'relu' (ReLU)")
    assert f"not finite in step {run.nonfinite.step}" in run.note


def test_F122_the_diagnosis_depends_on_the_rate_alone():
    assert diagnosis(rates=(1e-3,)).verdicts == {1e-3: "good"}
