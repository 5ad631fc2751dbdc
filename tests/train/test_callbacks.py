"""Callbacks."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest

import nnx
from nnx import nn
from nnx.train import Callback, EarlyStopping, LRSchedule, ProgressBar, StopOnNaN, Trainer


class Script(Callback):
    """Write given numbers into the logs, as if they had been measured."""

    order = -100

    def __init__(self, *values):
        self.values = values

    def on_epoch_end(self, trainer):
        trainer.logs["score"] = self.values[trainer.epoch - 1]


class Weights(Callback):
    def __init__(self):
        self.seen = []

    def on_epoch_end(self, trainer):
        self.seen.append({k: a.copy() for k, a in trainer.model.state_dict().items()})


def test_the_order_of_events(toy):
    events = []

    class Log(Callback):
        def __getattribute__(self, name):
            if name.startswith("on_") or name == "before_update":
                events.append(name)
            return super().__getattribute__(name)

    toy.fit(toy.trainer(), epochs=1, batch_size=20, callbacks=[Log()])
    step = ["on_step_begin", "before_update", "on_step_end"]
    assert events == [
        "on_fit_begin", "on_epoch_begin", *step, *step, "on_epoch_end", "on_fit_end", "on_exit"
    ]  # fmt: skip


def test_counters(toy):
    seen = []

    class Look(Callback):
        def on_step_end(self, trainer):
            seen.append((trainer.epoch, trainer.batch, trainer.step, trainer.samples))
            assert trainer.batches == 5 and trainer.samples_total == 40 and trainer.epochs == 2
            assert set(trainer.logs) == {"loss", "accuracy", "lr"}

        def on_epoch_end(self, trainer):
            seen.append((trainer.epoch, trainer.batch, trainer.step, trainer.samples))
            assert set(trainer.logs) == set(trainer.history)

    toy.fit(toy.trainer(), epochs=2, callbacks=[Look()])
    assert seen[3:7] == [(0, 4, 4, 36), (0, 5, 5, 40), (1, 0, 5, 0), (1, 1, 6, 9)]


def test_stop(toy):
    class Stop(Callback):
        def on_step_end(self, trainer):
            if trainer.step == 7:
                trainer.stop("enough")

    trainer = toy.trainer()
    assert toy.fit(trainer, callbacks=[Stop()]).epochs == 2
    assert trainer.stopped == "enough"


# -- early stopping --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["min", "max"])
def test_early_stopping_goes_back_to_the_best_weights(toy, mode):
    scores = [3.0, 2.0, 1.0, 1.5, float("nan"), 2.0, 0.0]
    sign = 1 if mode == "min" else -1
    weights = Weights()
    stopping = EarlyStopping("score", patience=3, mode=mode)
    trainer = toy.trainer()
    script = Script(*(sign * s for s in scores))
    history = toy.fit(trainer, epochs=10, callbacks=[script, stopping, weights])
    assert history.epochs == 6
    assert trainer.stopped == "score has not improved for 3 epochs"
    assert (stopping.best, stopping.best_epoch) == (sign * 1.0, 3)
    for name, array in trainer.model.state_dict().items():
        np.testing.assert_array_equal(array, weights.seen[2][name])
    assert any((a != weights.seen[5][k]).any() for k, a in trainer.model.state_dict().items())


def test_early_stopping_restores_also_when_all_epochs_ran(toy):
    weights = Weights()
    trainer = toy.trainer()
    toy.fit(trainer, callbacks=[Script(2.0, 1.0, 3.0), EarlyStopping("score"), weights])
    for name, array in trainer.model.state_dict().items():
        np.testing.assert_array_equal(array, weights.seen[1][name])


def test_early_stopping_may_keep_the_last_weights(toy):
    weights = Weights()
    trainer = toy.trainer()
    stopping = EarlyStopping("score", patience=1, restore_best=False)
    toy.fit(trainer, callbacks=[Script(1.0, 2.0), stopping, weights])
    for name, array in trainer.model.state_dict().items():
        np.testing.assert_array_equal(array, weights.seen[1][name])


def test_min_delta_and_reuse(toy):
    stopping = EarlyStopping("score", patience=2, min_delta=0.5)
    for _ in range(2):  # the second fit starts from nothing
        trainer = toy.trainer()
        toy.fit(trainer, epochs=9, callbacks=[Script(2.0, 1.9, 1.4, 1.3, 1.2, 0.0), stopping])
        assert trainer.history.epochs == 5
        assert stopping.best == 1.4


def test_accuracies_are_to_grow():
    assert EarlyStopping("val_accuracy")._best.mode == "max"
    assert EarlyStopping("val_loss")._best.mode == "min"


def test_errors_of_early_stopping(toy):
    with pytest.raises(ValueError, match=r"EarlyStopping: expected patience to be an integer >= 1, got 0"):
        EarlyStopping(patience=0)
    with pytest.raises(ValueError, match=r"EarlyStopping: expected mode to be one of None, 'min', 'max'"):
        EarlyStopping(mode="up")
    with pytest.raises(
        ValueError,
        match=r"EarlyStopping: expected monitor to be one of loss, .* got 'val_loss'. Pass validation=",
    ):
        toy.fit(toy.trainer(), validation=None, callbacks=[EarlyStopping()])


# -- schedules -------------------------------------------------------------------------------------


def test_a_schedule_by_steps(toy):
    trainer = toy.trainer()
    schedule = nnx.optim.lr_scheduler.ExponentialLR(trainer.optimizer, 0.5)
    toy.fit(trainer, epochs=1, callbacks=[LRSchedule(schedule, every="step")])
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * 0.5**5)
    with pytest.raises(ValueError, match=r"LRSchedule: expected every to be one of None, 'epoch', 'step'"):
        LRSchedule(schedule, every="batch")


# -- NaN -------------------------------------------------------------------------------------------


class Poison(Callback):
    """Put a NaN into an array before step `step`."""

    order = -100

    def __init__(self, step, array):
        self.step, self.array = step, array

    def on_step_begin(self, trainer):
        if trainer.step + 1 == self.step:
            self.array.flat[0] = np.nan


class Explode(nn.Module):
    """Infinite from the given call on."""

    def __init__(self, call, what="output"):
        super().__init__()
        self.calls, self.call, self.what = 0, call, what

    def forward(self, x):
        self.calls += 1
        if self.calls < self.call:
            return x
        return x + float("inf") if self.what == "output" else (x - x.detach()).sqrt() + x


def run_until_nan(toy, trainer, **arguments):
    with pytest.raises(FloatingPointError) as caught:
        toy.fit(trainer, callbacks=[StopOnNaN()], **arguments)
    return str(caught.value)


def test_nan_names_layer_and_step_and_leaves_the_weights(toy):
    trainer = toy.trainer()
    layers = list(trainer.model.children())
    trainer.model = nn.Sequential(*layers[:4], Explode(8), *layers[4:])
    snapshots = []

    class Keep(Callback):
        def on_step_end(self, trainer):
            snapshots.append({k: a.copy() for k, a in trainer.model.state_dict().items()})

    with pytest.raises(FloatingPointError) as caught:
        toy.fit(trainer, validation=None, callbacks=[StopOnNaN(), Keep()])
    text = str(caught.value)
    assert "step 8 (epoch 2, batch 3 of 5)" in text
    assert "the first output that is not finite is that of layer '4' (Explode)" in text
    assert len(snapshots) == 7
    for name, array in trainer.model.state_dict().items():  # batch-norm statistics too
        np.testing.assert_array_equal(array, snapshots[-1][name])
    assert trainer.history.epochs == 1
    assert all(not m._forward_hooks for m in trainer.model.modules())


def test_nan_in_a_gradient_names_the_parameter(toy):
    trainer = toy.trainer()
    layers = list(trainer.model.children())
    trainer.model = nn.Sequential(*layers[:4], Explode(3, "gradient"), *layers[4:])
    before = toy.bits(toy.trainer())
    text = run_until_nan(toy, trainer)
    assert "the gradient of '1.bias' is not finite: step 3 (epoch 1, batch 3 of 5)" in text
    assert "the first of 4 in the backward pass" in text
    assert toy.bits(trainer) != before
    assert all(np.isfinite(a).all() for a in trainer.model.state_dict().values())


def test_nan_in_the_data(toy):
    toy.x[17, 0, 0, 0] = np.nan
    assert "the input batch itself is not finite" in run_until_nan(toy, toy.trainer())


def test_nan_in_the_weights(toy):
    trainer = toy.trainer()
    with pytest.raises(FloatingPointError, match=r"step 2 .*'weight' of layer '6' \(Linear\) is not finite"):
        toy.fit(trainer, callbacks=[Poison(2, trainer.model[6].weight.data), StopOnNaN()])


def test_nan_between_layers_and_in_the_loss(toy):
    class Net(nn.Module):
        def __init__(self, where):
            super().__init__()
            self.a, self.b, self.where = nn.Linear(16, 4), nn.Linear(4, 4), where

        def forward(self, x):
            x = self.a(x.reshape(len(x), 16))
            x = self.b(x + np.inf if self.where == "between" else x)
            return x + np.inf if self.where == "after" else x

    def trainer(where, loss=None):
        net = Net(where)
        return Trainer(net, loss or nn.CrossEntropyLoss(), nnx.optim.SGD(net.parameters(), lr=0.1))

    assert "the input of layer 'b' (Linear) is not finite" in run_until_nan(toy, trainer("between"))
    assert "that of the model itself (Net)" in run_until_nan(toy, trainer("after"))
    text = run_until_nan(toy, trainer("", lambda o, t: o.sum() * float("nan")))
    assert "loss is nan" in text and "it is the loss itself" in text


def test_a_finite_run_is_not_changed_by_the_watch(toy):
    plain = toy.trainer()
    toy.fit(plain)
    watched = toy.trainer()
    toy.fit(watched, callbacks=[StopOnNaN()])
    assert toy.bits(plain) == toy.bits(watched)


def test_a_sum_that_overflows_is_no_nan():
    from nnx.train.callbacks import _finite

    assert _finite(np.full(10, 3e38, np.float32))
    assert not _finite(np.array([1, np.inf], np.float32))
    assert not _finite(nnx.tensor([1.0, float("nan")]))
    assert _finite(None) and _finite(np.array([1, 2]))


# -- progress bar ----------------------------------------------------------------------------------


def test_the_bar_is_quiet_without_a_terminal(toy, capfd):
    toy.fit(toy.trainer(), verbose=None)
    toy.fit(toy.trainer(), verbose=False)
    assert capfd.readouterr() == ("", "")


def test_the_bar_shows_loss_metric_speed_and_time_left(toy, monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    toy.fit(toy.trainer(), epochs=2, verbose=True)
    text = terminal.getvalue()
    for part in ("epoch 1/2", "epoch 2/2", "40.0/40.0", "samples/s", "loss=", "accuracy=", "val_accuracy=", "<"):
        assert part in text, part


def test_a_bar_of_ones_own_is_the_only_one(toy, monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    toy.fit(toy.trainer(), epochs=1, verbose=True, callbacks=[ProgressBar()])
    assert terminal.getvalue() == ""
