"""Schedules against PyTorch's over many steps."""

from __future__ import annotations

import numpy as np
import pytest

import nnx

torch = pytest.importorskip("torch")

STEPS = 120
ROWS = [
    ("StepLR", {"step_size": 7, "gamma": 0.8}),
    ("StepLR", {"step_size": 1}),
    ("MultiStepLR", {"milestones": [3, 30, 30, 70], "gamma": 0.7}),
    ("ExponentialLR", {"gamma": 0.97}),
    ("CosineAnnealingLR", {"T_max": 50}),
    ("CosineAnnealingLR", {"T_max": 13, "eta_min": 0.003}),
    ("CosineAnnealingLR", {"T_max": 1}),
    ("LambdaLR", {"lr_lambda": lambda t: 0.95**t}),
    ("LambdaLR", {"lr_lambda": [lambda t: 1 / (1 + t), lambda t: min(1, t / 10)]}),
    ("OneCycleLR", {"max_lr": 0.3, "total_steps": STEPS}),
    ("OneCycleLR", {"max_lr": [0.3, 0.1], "epochs": 12, "steps_per_epoch": 10, "pct_start": 0.21}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": STEPS, "three_phase": True}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": STEPS + 1, "anneal_strategy": "linear"}),
    (
        "OneCycleLR",
        {
            "max_lr": 1.0,
            "total_steps": STEPS,
            "base_momentum": 0.5,
            "max_momentum": [0.9, 0.8],
            "div_factor": 7.0,
            "final_div_factor": 3.0,
        },
    ),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": STEPS, "cycle_momentum": False}),
    ("ReduceLROnPlateau", {"patience": 3}),
    ("ReduceLROnPlateau", {"mode": "max", "factor": 0.5, "patience": 2, "cooldown": 4}),
    ("ReduceLROnPlateau", {"patience": 1, "threshold": 0.2, "min_lr": [0.001, 0.004]}),
    ("ReduceLROnPlateau", {"patience": 1, "threshold": 0.3, "threshold_mode": "abs", "eps": 1e-3}),
]


def pair(name, options, kind="SGD"):
    ours = [nnx.Parameter(np.zeros(1)), nnx.Parameter(np.zeros(1))]
    theirs = [torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))]
    made = []
    for library, params in ((nnx.optim, ours), (torch.optim, theirs)):
        groups = [{"params": params[:1]}, {"params": params[1:], "lr": 0.02}]
        optimizer = getattr(library, kind)(groups, lr=0.1)
        made += [optimizer, getattr(library.lr_scheduler, name)(optimizer, **options)]
    return made


def values(optimizer):
    return [[g["lr"], g["momentum"] if "momentum" in g else g["betas"][0]] for g in optimizer.param_groups]


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize(("name", "options"), ROWS, ids=[f"{n}-{list(o)}" for n, o in ROWS])
def test_values_equal_pytorch(name, options, kind, rng):
    optimizer, scheduler, reference, expected = pair(name, options, kind)
    metrics = np.exp(-np.arange(STEPS) / 20) + 0.05 * rng.standard_normal(STEPS)
    np.testing.assert_allclose(values(optimizer), values(reference), rtol=1e-13)
    for metric in metrics:
        optimizer.step()
        reference.step()
        arguments = (metric,) if name == "ReduceLROnPlateau" else ()
        scheduler.step(*arguments)
        expected.step(*arguments)
        # a chain of products in double, in the same order
        np.testing.assert_allclose(values(optimizer), values(reference), rtol=1e-12, atol=1e-18)
        assert scheduler.get_last_lr() == pytest.approx(expected.get_last_lr(), rel=1e-12, abs=1e-18)
        assert scheduler.last_epoch == expected.last_epoch


def test_the_comparison_sees_a_slightly_wrong_setting():
    _, ours, _, _ = pair("CosineAnnealingLR", {"T_max": 50})
    _, _, _, theirs = pair("CosineAnnealingLR", {"T_max": 51})
    for scheduler in (ours, theirs):
        scheduler.optimizer.step()
        scheduler.step()
    assert abs(ours.get_last_lr()[0] - theirs.get_last_lr()[0]) > 1e-6


@pytest.mark.parametrize(("name", "options"), ROWS[:8], ids=[f"{n}-{list(o)}" for n, o in ROWS[:8]])
def test_starting_in_the_middle_equals_pytorch(name, options):
    optimizer, _, reference, _ = pair(name, options)
    ours = getattr(nnx.optim.lr_scheduler, name)(optimizer, **options, last_epoch=4)
    theirs = getattr(torch.optim.lr_scheduler, name)(reference, **options, last_epoch=4)
    for _ in range(30):
        np.testing.assert_allclose(values(optimizer), values(reference), rtol=1e-12, atol=1e-18)
        optimizer.step()
        reference.step()
        ours.step()
        theirs.step()


def test_arguments_are_those_of_pytorch():
    import inspect

    for name in sorted({name for name, _ in ROWS}):
        ours = inspect.signature(getattr(nnx.optim.lr_scheduler, name)).parameters
        theirs = inspect.signature(getattr(torch.optim.lr_scheduler, name)).parameters
        assert [(k, p.default) for k, p in ours.items()] == [(k, p.default) for k, p in theirs.items()]
