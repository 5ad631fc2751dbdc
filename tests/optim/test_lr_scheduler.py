"""Schedules: values that can be checked by hand, order of calls, errors, saving."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import nnx
from nnx.optim import SGD, Adagrad, Adam
from nnx.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    InverseTimeLR,
    LambdaLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)

SCHEDULES = [
    lambda o: StepLR(o, 3, 0.5),
    lambda o: MultiStepLR(o, [2, 5, 5, 9], 0.3),
    lambda o: ExponentialLR(o, 0.9),
    lambda o: InverseTimeLR(o, 0.2),
    lambda o: CosineAnnealingLR(o, 7, 0.001),
    lambda o: OneCycleLR(o, 0.5, total_steps=30),
    lambda o: OneCycleLR(o, [0.5, 0.1], total_steps=30, three_phase=True, anneal_strategy="linear"),
    lambda o: LambdaLR(o, lambda t: 1 / (t + 1)),
    lambda o: ReduceLROnPlateau(o, patience=2, cooldown=1),
]
NAMES = ["step", "multistep", "exponential", "1/t", "cosine", "one-cycle", "three-phase", "lambda"]
NAMES.append("plateau")


def optimizer(kind=SGD, **options):
    p, q = nnx.Parameter(np.zeros(2)), nnx.Parameter(np.zeros(3))
    return kind([{"params": [p]}, {"params": [q], "lr": 0.01}], lr=0.1, **options)


def advance(o, scheduler, metric=1.0):
    o.step()
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(metric)
    else:
        scheduler.step()


def rates(scheduler, steps):
    found = [scheduler.get_last_lr()]
    for _ in range(steps):
        advance(scheduler.optimizer, scheduler)
        found.append(scheduler.get_last_lr())
        assert found[-1] == [g["lr"] for g in scheduler.optimizer.param_groups]
    return np.array(found)


def test_values_in_closed_form():
    t = np.arange(21)[:, None]
    base = np.array([0.1, 0.01])
    for make, expected in [
        (lambda o: StepLR(o, 4, 0.5), base * 0.5 ** (t // 4)),
        (lambda o: MultiStepLR(o, [3, 10], 0.5), base * 0.5 ** ((t >= 3) * 1 + (t >= 10))),
        (lambda o: ExponentialLR(o, math.exp(-0.1)), base * np.exp(-0.1 * t)),
        (lambda o: InverseTimeLR(o, 0.1), base / (1 + 0.1 * t)),
        (
            lambda o: CosineAnnealingLR(o, 8, 0.001),
            0.001 + (base - 0.001) * (1 + np.cos(np.pi * t / 8)) / 2,
        ),
        (lambda o: LambdaLR(o, [lambda t: 0.5**t, lambda t: 1.0]), base * [1, 1] * 0.5 ** (t * [1, 0])),
    ]:
        np.testing.assert_allclose(rates(make(optimizer()), 20), expected, rtol=1e-12, atol=1e-15)


def test_one_cycle():
    o = optimizer(momentum=0.9)
    scheduler = OneCycleLR(o, 1.0, epochs=5, steps_per_epoch=4, pct_start=0.25)
    found, momenta = [], []
    for _ in range(20):
        found.append(o.param_groups[0]["lr"])
        momenta.append(o.param_groups[0]["momentum"])
        advance(o, scheduler)
    assert found[0] == pytest.approx(1 / 25) and momenta[0] == pytest.approx(0.95)
    assert found[4] == pytest.approx(1.0) and momenta[4] == pytest.approx(0.85)
    assert found[19] == pytest.approx(1 / 25 / 1e4) and momenta[19] == pytest.approx(0.95)
    assert np.argmax(found) == 4 and (np.diff(found)[4:] < 0).all()
    with pytest.raises(ValueError, match="OneCycleLR: expected at most total_steps = 20 steps, got"):
        scheduler.step()
    assert scheduler.last_epoch == 20  # the step that was refused is not counted


def test_one_cycle_turns_adams_first_beta():
    o = optimizer(Adam, betas=(0.8, 0.99))
    scheduler = OneCycleLR(o, 1.0, total_steps=10)
    assert o.param_groups[1]["betas"] == (0.95, 0.99)
    for _ in range(2):
        advance(o, scheduler)
    assert o.param_groups[1]["betas"] == (pytest.approx(0.85), 0.99)


def test_plateau():
    o = optimizer()
    scheduler = ReduceLROnPlateau(o, factor=0.5, patience=1, cooldown=2, min_lr=[0.04, 0.0], threshold=0.1)
    found = []
    for metric in [1.0, 0.95, 0.95, 0.5, 0.49, 0.49, 0.49, 0.49, float("nan"), 0.49, 0.49]:
        scheduler.step(metric)
        found.append(o.param_groups[0]["lr"])
    # two bad ones reduce; a cooldown of two steps; two more bad ones reduce to the minimum
    assert found == [0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.04, 0.04, 0.04, 0.04, 0.04]
    assert o.param_groups[1]["lr"] == 0.01 * 0.5**3
    scheduler = ReduceLROnPlateau(optimizer(), mode="max", threshold_mode="abs", patience=0)
    scheduler.step(nnx.tensor(1.0))
    scheduler.step(1.00005)
    assert scheduler.get_last_lr()[0] == pytest.approx(0.01)


def test_two_schedules_and_a_hand_act_together():
    o = optimizer()
    first, second = ExponentialLR(o, 0.5), StepLR(o, 2, 0.1)
    for _ in range(4):
        o.step()
        first.step()
        second.step()
    assert o.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**4 * 0.01)
    o.param_groups[0]["lr"] = 1.0
    o.step()
    first.step()
    assert o.param_groups[0]["lr"] == 0.5


def test_a_step_of_the_schedule_before_one_of_the_optimizer_is_warned_of():
    o = optimizer()
    scheduler = StepLR(o, 2)
    with pytest.warns(UserWarning, match=r"StepLR.step: expected a step of the optimizer before"):
        scheduler.step()
    scheduler.step()  # once is enough
    o = optimizer()
    o.step()
    with pytest.warns(UserWarning, match="ExponentialLR.step: expected a step of the optimizer"):
        ExponentialLR(o, 0.9).step()


@pytest.mark.parametrize("make", SCHEDULES, ids=NAMES)
def test_going_on_from_state_dicts(make):
    def metric(t):
        return 1 / (1 + t // 3)

    o = optimizer(momentum=0.9)
    scheduler = make(o)
    for t in range(11):
        advance(o, scheduler, metric(t))
    saved = json.loads(json.dumps(scheduler.state_dict()))
    other = optimizer(momentum=0.5)
    resumed = make(other)
    resumed.load_state_dict(saved)
    other.load_state_dict(o.state_dict())
    for t in range(11, 25):
        advance(o, scheduler, metric(t))
        advance(other, resumed, metric(t))
        assert resumed.get_last_lr() == scheduler.get_last_lr()
        assert other.param_groups[0]["momentum"] == o.param_groups[0]["momentum"]
    assert resumed.state_dict() == scheduler.state_dict()


@pytest.mark.parametrize("make", SCHEDULES, ids=NAMES)
def test_a_state_dict_is_a_snapshot_and_must_fit(make):
    o = optimizer(momentum=0.9)
    scheduler = make(o)
    state = scheduler.state_dict()
    before = json.dumps(state)
    for _ in range(4):
        advance(o, scheduler)
    assert json.dumps(state) == before
    now = scheduler.state_dict()
    name = type(scheduler).__name__
    for wrong in ({**state, "x": 1}, {"last_epoch": 1}, None):
        with pytest.raises(ValueError, match=f"{name}.load_state_dict: expected a dict with "):
            scheduler.load_state_dict(wrong)
    with pytest.raises(ValueError, match="expected learning rates of 2 parameter groups, got 1"):
        scheduler.load_state_dict({**state, "_last_lr": [0.1]})
    assert scheduler.state_dict() == now


def test_starting_in_the_middle():
    o = optimizer()
    with pytest.raises(KeyError, match="ExponentialLR: expected 'initial_lr' in parameter group 0"):
        ExponentialLR(o, 0.5, last_epoch=3)
    scheduler = ExponentialLR(o, 0.5)
    for _ in range(3):
        advance(o, scheduler)
    again = ExponentialLR(o, 0.5, last_epoch=2)
    assert again.get_last_lr() == scheduler.get_last_lr() and again.last_epoch == 3
    assert again.base_lrs == [0.1, 0.01]
    closed = InverseTimeLR(o, 1.0, last_epoch=3)
    assert closed.get_last_lr() == [0.1 / 5, 0.01 / 5]


def test_a_group_that_is_added_later_is_refused():
    for make in (SCHEDULES[0], SCHEDULES[-1]):
        o = optimizer()
        scheduler = make(o)
        o.add_param_group({"params": [nnx.Parameter(np.ones(1))]})
        with pytest.raises(ValueError, match="expected the 2 parameter groups that the optimizer"):
            advance(o, scheduler)
        assert scheduler.last_epoch == 0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda o: StepLR(None, 3), TypeError, "StepLR: expected an Optimizer, got NoneType"),
        (lambda o: OneCycleLR(3, 1.0), TypeError, "OneCycleLR: expected an Optimizer, got int"),
        (lambda o: StepLR(o, 0), ValueError, "StepLR: expected step_size to be an integer >= 1"),
        (lambda o: StepLR(o, 2.5), TypeError, "StepLR: expected step_size to be an integer >= 1"),
        (lambda o: StepLR(o, 2, -1), ValueError, "StepLR: expected gamma to be a number"),
        (lambda o: StepLR(o, 2, last_epoch=-2), ValueError, "StepLR: expected last_epoch to be"),
        (lambda o: MultiStepLR(o, 3), TypeError, "MultiStepLR: expected milestones to be integers"),
        (lambda o: MultiStepLR(o, [-3]), ValueError, "MultiStepLR: expected milestones to be"),
        (lambda o: ExponentialLR(o, "a"), TypeError, "ExponentialLR: expected gamma to be a num"),
        (lambda o: InverseTimeLR(o, -1), ValueError, "InverseTimeLR: expected decay to be a numb"),
        (lambda o: CosineAnnealingLR(o, 0), ValueError, "CosineAnnealingLR: expected T_max to be"),
        (lambda o: LambdaLR(o, 0.5), TypeError, "LambdaLR: expected lr_lambda to be callable"),
        (lambda o: LambdaLR(o, [abs] * 3), ValueError, "LambdaLR: expected lr_lambda to be one"),
        (lambda o: OneCycleLR(o, 1.0), ValueError, "OneCycleLR: expected total_steps, or epochs"),
        (lambda o: OneCycleLR(o, 1.0, 0), ValueError, "OneCycleLR: expected total_steps to be an"),
        (lambda o: OneCycleLR(o, 1.0, epochs=2), ValueError, "got total_steps None, epochs 2 and"),
        (lambda o: OneCycleLR(o, [1.0], 9), ValueError, "expected max_lr to be one number or 2"),
        (lambda o: OneCycleLR(o, 1, 9, pct_start=2), ValueError, "expected pct_start to be a numb"),
        (lambda o: OneCycleLR(o, 1, 9, anneal_strategy="x"), ValueError, "of 'cos', 'linear', got"),
        (lambda o: OneCycleLR(o, 1, 9, div_factor=0), ValueError, "expected div_factor to be a num"),
        (
            lambda o: OneCycleLR(optimizer(Adagrad), 1, 9),
            ValueError,
            "OneCycleLR: expected an optimizer with momentum or betas .*, got Adagrad",
        ),
        (lambda o: ReduceLROnPlateau(o, "up"), ValueError, "expected mode to be one of 'min', 'max'"),
        (lambda o: ReduceLROnPlateau(o, factor=1), ValueError, r"expected factor .* \[0, 1\), got"),
        (lambda o: ReduceLROnPlateau(o, patience=-1), ValueError, "expected patience to be an int"),
        (lambda o: ReduceLROnPlateau(o, min_lr=[1]), ValueError, "expected min_lr to be one number"),
        (lambda o: StepLR(o, 2).step(3), ValueError, "StepLR.step: expected no epoch, got 3"),
        (
            lambda o: ReduceLROnPlateau(o).step(1.0, 3),
            ValueError,
            "ReduceLROnPlateau.step: expected no epoch, got 3",
        ),
        (lambda o: LRScheduler(o), NotImplementedError, "LRScheduler: expected a subclass that def"),
    ],
)
def test_errors_leave_the_optimizer_as_it_was(make, error, message):
    o = optimizer()
    before = o.state_dict()["param_groups"]
    with pytest.raises(error, match=message):
        make(o)
    groups = o.state_dict()["param_groups"]
    if ".step" not in message:
        assert groups == before


def test_one_cycle_without_momentum():
    o = optimizer(Adagrad)
    OneCycleLR(o, 1.0, total_steps=10, cycle_momentum=False)
    assert "max_momentum" not in o.param_groups[0]


def test_edges():
    assert rates(CosineAnnealingLR(optimizer(), 1), 4)[:, 0].round(12).tolist() == [0.1, 0, 0.1, 0, 0.1]
    assert OneCycleLR(optimizer(), 1.0, total_steps=1).get_last_lr()[0] > 0
    assert OneCycleLR(optimizer(), 1.0, total_steps=5, pct_start=0).get_last_lr()[0] > 0.2
    assert OneCycleLR(optimizer(), 1.0, total_steps=5, pct_start=1).get_last_lr()[0] == pytest.approx(0.04)
