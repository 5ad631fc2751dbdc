"""Numeric gradients, and how they check analytic ones.

Differences of the loss are slow and inexact but hard to get wrong: backpropagation is fast and exact but easy to get
wrong. So the first checks the second. The topic shows how large a step is right, and checks every kind of layer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import nnx
import nnx.functional as F
from nnx import nn, viz
from nnx.course import picture
from nnx.testing import eval_numerical_gradient, relative_error

ROWS = ("F061", "F062")

# the table of the lecture: losses at W and with one weight moved by h = 0.0001, and the slopes printed beside them
PRINTED_LOSSES = (1.25347, 1.25322, 1.25353, 1.25347)
PRINTED_SLOPES = (-2.50, 0.60, 0.00)


def printed_table() -> list[float]:
    """Recompute the slopes of the lecture's table from its printed losses."""
    losses = iter(PRINTED_LOSSES)
    return eval_numerical_gradient(lambda w: next(losses), np.array([0.34, -1.11, 0.78]), h=1e-4).tolist()


def layers() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """One layer of each kind with the shape of its input."""
    return {
        "Linear": (nn.Linear(4, 3), (5, 4)),
        "Maxout": (nn.Maxout(4, 3), (5, 4)),
        "Conv1d": (nn.Conv1d(2, 3, 3), (2, 2, 7)),
        "Conv2d, stride 2, padding 1": (nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 2, 6, 6)),
        "Conv2d, two groups": (nn.Conv2d(4, 4, 3, groups=2), (1, 4, 5, 5)),
        "ConvTranspose2d": (nn.ConvTranspose2d(2, 3, 3, stride=2), (2, 2, 3, 3)),
        "MaxPool2d": (nn.MaxPool2d(2), (2, 2, 4, 4)),
        "AvgPool2d": (nn.AvgPool2d(2), (2, 2, 4, 4)),
        "BatchNorm1d": (nn.BatchNorm1d(4), (6, 4)),
        "BatchNorm2d": (nn.BatchNorm2d(3), (4, 3, 2, 2)),
        "LayerNorm": (nn.LayerNorm(5), (3, 5)),
        "GroupNorm": (nn.GroupNorm(2, 4), (2, 4, 3)),
        "RNN": (nn.RNN(3, 4), (5, 2, 3)),
        "LSTM": (nn.LSTM(3, 4), (5, 2, 3)),
        "GRU": (nn.GRU(3, 4), (5, 2, 3)),
        **{
            type(layer).__name__: (layer, (4, 6))
            for layer in (
                nn.ReLU(), nn.LeakyReLU(), nn.PReLU(), nn.ELU(), nn.SELU(), nn.GELU(), nn.SiLU(), nn.Mish(),
                nn.Softplus(), nn.Sigmoid(), nn.Tanh(), nn.Softsign(), nn.GLU(), nn.Softmax(1), nn.LogSoftmax(1),
            )
        },
    }  # fmt: skip


def losses() -> dict[str, tuple[Callable[[Any], nnx.Tensor], tuple[int, ...]]]:
    """One loss of each kind, as a function of the scores, with their shape."""
    labels = np.array([2, 0, 1, 2])
    return {
        "cross_entropy": (lambda s: F.cross_entropy(s, labels), (4, 3)),
        "multiclass_hinge_loss": (lambda s: F.multiclass_hinge_loss(s, labels), (4, 3)),
        "squared hinge": (lambda s: F.multiclass_hinge_loss(s, labels, p=2), (4, 3)),
        "mse_loss": (lambda s: F.mse_loss(s, np.ones((4, 3))), (4, 3)),
        "binary_cross_entropy": (lambda s: F.binary_cross_entropy(F.sigmoid(s), np.ones((4, 3)) / 4), (4, 3)),
    }


def check(function: Callable[[Any], nnx.Tensor], x: np.ndarray, parameters: list[Any], gy: np.ndarray) -> float:
    """Compare backward with centred differences of ``sum(gy function(x))``: the largest relative error.

    x:           the input, of float64
    parameters:  what `function` uses besides, of float64
    """

    def value() -> float:
        with nnx.no_grad():
            return float((function(x).data * gy).sum())

    leaf = nnx.tensor(x, requires_grad=True)
    for p in parameters:
        p.grad = None
    function(leaf).backward(gy)
    numeric = eval_numerical_gradient(lambda v: (function(nnx.tensor(v)).data * gy).sum(), x, 1e-5, centered=True)
    errors = [relative_error(leaf.grad, numeric)]
    for p in parameters:
        kept = p.data

        def moved(v: np.ndarray, p: Any = p) -> float:
            p.data = v
            return value()

        numeric = eval_numerical_gradient(moved, kept, 1e-5, True)
        p.data = kept
        errors.append(relative_error(p.grad, numeric))
    return max(errors)


def check_all(seed: int = 0) -> dict[str, float]:
    """The largest relative error of every layer and loss in float64."""
    rng = np.random.default_rng(seed)
    nnx.manual_seed(seed)
    errors = {}
    for name, (layer, shape) in layers().items():
        layer.double()
        x = spread_out(rng, shape)
        function = first_output(layer)
        gy = rng.standard_normal(function(x).shape)
        errors[name] = check(function, x, list(layer.parameters()), gy)
    for name, (loss, shape) in losses().items():
        errors[name] = check(loss, spread_out(rng, shape), [], np.ones(()))
    return errors


def first_output(layer: nn.Module) -> Callable[[Any], nnx.Tensor]:
    """The layer as a function with one result: recurrent layers return their last state besides."""

    def function(x: Any) -> nnx.Tensor:
        y = layer(x)
        return y[0] if isinstance(y, tuple) else y

    return function


def spread_out(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random numbers in -2..2 with gaps between them and around 0: no step of a difference crosses a kink."""
    n = int(np.prod(shape))
    return ((rng.permutation(n) + 0.5) * 4 / n - 2 + 0.2 / n).reshape(shape)


def step_errors(exponents: list[int]) -> dict[str, list[float]]:
    """Relative errors of forward and centred differences of a softmax loss for the steps ``10^e``."""
    digits = nnx.data.digits("float64")
    x, y = digits.x_train[:20].reshape(20, -1)[:, 20:36], digits.y_train[:20]
    w = nnx.Parameter(np.random.default_rng(0).standard_normal((16, 10)))

    def loss(weights: Any) -> nnx.Tensor:
        return F.cross_entropy(nnx.tensor(x) @ weights, y)

    loss(w).backward()
    return {
        name: [relative_error(w.grad, eval_numerical_gradient(loss, w.data, 10.0**e, centred)) for e in exponents]
        for name, centred in (("forward", False), ("centred", True))
    }


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Recompute the lecture's table, try steps from 1e-13 to 1e-1, and check the gradients of all layers."""
    slopes = printed_table()
    print("slopes of the lecture's table:", "  ".join(f"{s:.2f}" for s in slopes))

    exponents = list(range(-12, 0, 3 if small else 1))
    by_step = step_errors(exponents)
    print("relative error of a numeric gradient, by step h:")
    for e, forward, centred in zip(exponents, by_step["forward"], by_step["centred"], strict=True):
        print(f"  h = 1e{e:<4} forward {forward:.1e}   centred {centred:.1e}")

    errors = check_all(seed)
    worst = max(errors, key=lambda name: errors[name])
    for name, error in errors.items():
        print(f"  {name:28s} {error:.1e}")
    print(f"worst: {worst}, {errors[worst]:.1e}; all below 1e-7: {errors[worst] < 1e-7}")

    if path := picture(out, "gradient_checking-steps"):
        steps = [10.0**e for e in exponents]
        series = {name: (steps, values) for name, values in by_step.items()}
        viz.lines(series, "step h", "relative error", log="xy", path=path, title="error of numeric gradients")
    return {"slopes": slopes, "exponents": exponents, "steps": by_step, "errors": errors, "worst": errors[worst]}
