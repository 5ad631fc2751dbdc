"""Checks before training: the loss at the start, the regularisation, and twenty examples by heart.

A classifier that knows nothing gives each of C classes the same chance, so its loss is ln C; a penalty on the weights
must raise it; and any sound network learns twenty examples by heart. Each check takes seconds and finds mistakes that
otherwise show after hours.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from nnx import diagnose, nn, optim, viz
from nnx.autograd import Tensor, record
from nnx.course import picture
from nnx.course._pixels import pixels, two_layers
from nnx.train.classifier import init_two_layer_model, two_layer_net

ROWS = ("F120", "F121")


class BrokenReLU(nn.Module):
    """ReLU whose gradient has the wrong sign: forward it is right, so nothing but training shows the mistake."""

    def forward(self, x: Tensor) -> Tensor:
        y = np.maximum(x.data, 0)
        return record(y, lambda needs, gy, y: (-gy * (y > 0),), (x,), y)


class LostReLU(nn.Module):
    """ReLU through which no gradient passes at all."""

    def forward(self, x: Tensor) -> Tensor:
        return x.detach().relu()


def penalty_check(reg: float = 1e3, l2_half: bool = True, seed: int = 0) -> diagnose.RegularisationReport:
    """The loss of the lectures' network 3072-50-10 at the start, without and with the penalty."""
    x, y = pixels(100, seed)
    model = init_two_layer_model(3072, 50, 10, rng=np.random.default_rng(seed))
    return diagnose.regularisation(
        lambda strength: two_layer_net(x, y, model, strength, l2_half)[0], [model["W1"], model["W2"]], (0.0, reg)
    )


def overfit(middle: nn.Module | None = None, epochs: int = 200, seed: int = 0) -> diagnose.OverfitReport:
    """Twenty examples by heart: plain gradient descent with the rate 1e-3, as in the lectures.

    middle:  what stands between the two layers instead of ReLU
    """
    x, y = pixels(20, seed)
    model = two_layers(seed)
    if middle is not None:
        model[1] = middle
    return diagnose.overfit(
        model, nn.CrossEntropyLoss(), x, y, epochs=epochs, optimizer=lambda p: optim.SGD(p, lr=1e-3)
    )


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Run the three checks on a sound network, and on networks with a planted mistake."""
    x, y = pixels(100 if small else 1000, seed)
    start = diagnose.initial_loss(two_layers(seed), nn.CrossEntropyLoss(), x, y, tolerance=1e-3)
    wrong = diagnose.initial_loss(two_layers(seed, std=0.1), nn.CrossEntropyLoss(), x, y, tolerance=1e-3)
    print(f"weights of 0.0001: {start}")
    print(f"weights of 0.1:    {wrong}")
    penalty = penalty_check(seed=seed)
    print(f"with the penalty:\n{penalty}")
    epochs = 120 if small else 200
    runs = {
        "sound": overfit(epochs=epochs, seed=seed),
        "no gradient": overfit(LostReLU(), epochs=epochs, seed=seed),
        "wrong sign": overfit(BrokenReLU(), epochs=epochs, seed=seed),
    }
    for name, report in runs.items():
        print(f"{name}: {report}")
    if path := picture(out, "sanity_checks-overfit"):
        curves = {name: [v if math.isfinite(v) else math.nan for v in r.losses] for name, r in runs.items()}
        viz.lines(curves, xlabel="epoch", ylabel="loss", log="y", path=path)
    return {
        "initial": start.loss,
        "expected": start.expected,
        "with penalty": penalty.losses[-1],
        "convention": penalty.convention,
        "overfit": {name: {"passed": r.passed, "loss": r.losses[-1]} for name, r in runs.items()},
    }
