"""Dead units counted, curves and their gap, the size of the updates."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import diagnose, nn, optim
from nnx.course.monitoring import layer_with_dead_units, ratio_by_hand, train
from nnx.train import Callback, Trainer


@pytest.mark.parametrize(("dead", "units"), [(0, 10), (3, 12), (7, 7)])
def test_F106_dead_units_are_counted_exactly(dead, units, rng):
    x = rng.standard_normal((500, 8)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    report = diagnose.dead_units(layer_with_dead_units(dead, units), x)
    assert report["1"].bad == list(range(dead)) and report.fraction == dead / units


def test_F106_a_large_learning_rate_kills_units():
    _, model = train(100, 300, 3, lr=3.0)
    x = nnx.data.digits().x_train.reshape(-1, 64) - np.float32(0.3)
    assert diagnose.dead_units(model, x).fraction > 0.5
    _, model = train(100, 300, 3, lr=0.1)
    assert diagnose.dead_units(model, x).fraction < 0.1


def test_F126_the_history_has_both_curves():
    history, _ = train(30, 200, 4)
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert len(history[name]) == 4 and all(np.isfinite(history[name]))
    assert history.loss[-1] < history.loss[0] and type(history["loss"]) is list


def test_F126_the_gap_tells_overfitting_from_underfitting():
    few, _ = train(100, 50, 40)
    assert few.accuracy[-1] == 1.0 and few.accuracy[-1] - few.val_accuracy[-1] > 0.1
    assert diagnose.fit_report(few, wanted=0.95).verdict == "overfitting"
    narrow, _ = train(2, 1000, 20)
    report = diagnose.fit_report(narrow, wanted=0.95)
    assert report.verdict == "underfitting" and narrow.accuracy[-1] < 0.9 and report.accuracy_gap < 0.1
    right, _ = train(100, 1000, 20, lr=0.02, decay=1e-2)
    assert diagnose.fit_report(right, wanted=0.95).verdict == "good" and right.accuracy[-1] > 0.95


def test_F127_the_lectures_four_lines_equal_the_callback(rng):
    x, y = rng.standard_normal((40, 6)), rng.integers(0, 3, 40)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    by_hand = []

    class ByHand(Callback):
        def before_update(self, trainer):
            by_hand.append({n: ratio_by_hand(p.data, p.grad, 0.05) for n, p in trainer.model.named_parameters()})

    watch = diagnose.UpdateRatio()
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.05))
    trainer.fit(x, y, 3, 10, callbacks=[ByHand(), watch], verbose=False)
    ratios = watch.report().ratios
    assert len(by_hand) == 12 and ratios.keys() == by_hand[0].keys()
    for name, values in ratios.items():
        # W - lr dW - W loses digits of the update: it is about 1e-3 of the weight
        np.testing.assert_allclose(values, [step[name] for step in by_hand], rtol=1e-11)


def test_F127_the_lectures_numbers():
    assert diagnose.update_ratio(np.full(10, 0.02), np.full(10, 0.02 + 0.0002)) == pytest.approx(0.01)
    assert ratio_by_hand(np.full(10, 0.02), np.full(10, 0.2), 1e-3) == pytest.approx(0.01)
