"""Vanishing and exploding gradients: products along the layers.

The gradient of an early layer is a product with one factor per later layer. A sigmoid's slope is at most 1/4, so every
sigmoid layer with weights of gain 1 divides the gradient by four; weights that are too large multiply it instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nnx import diagnose, nn, viz
from nnx.course import picture
from nnx.nn import init

ROWS = ("F087",)


def deep_net(activation: type[nn.Module], gain: float = 1.0, layers: int = 8, units: int = 60, seed: int = 0) -> Any:
    """Equal layers with orthogonal weights of that gain: a linear layer alone keeps every length up to the gain."""
    rng = np.random.default_rng(seed)
    parts: list[nn.Module] = []
    for _ in range(layers):
        linear = nn.Linear(units, units)
        init.orthogonal_(linear.weight, gain, generator=rng)
        init.zeros_(linear.bias)
        parts += [linear, activation()]
    return nn.Sequential(*parts)


def measure(activation: type[nn.Module], gain: float = 1.0, layers: int = 8, seed: int = 0) -> diagnose.GradientReport:
    """The gradient's norm in every layer, for normal inputs and random targets."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((100, 60)).astype(np.float32), rng.integers(0, 60, 100)
    return diagnose.gradient_norms(deep_net(activation, gain, layers, seed=seed), nn.CrossEntropyLoss(), x, y)


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Measure sigmoid, tanh and ReLU layers, and weights of several gains."""
    layers = 6 if small else 12
    nets = {
        "sigmoid, gain 1": measure(nn.Sigmoid, 1.0, layers, seed),
        "sigmoid, gain 4": measure(nn.Sigmoid, 4.0, layers, seed),
        "tanh, gain 1": measure(nn.Tanh, 1.0, layers, seed),
        "ReLU, gain sqrt(2)": measure(nn.ReLU, 2**0.5, layers, seed),
        "no activation, gain 3": measure(nn.Identity, 3.0, layers, seed),
    }
    for name, report in nets.items():
        print(f"{name:22s} {report.factor:8.4f} per layer on the way back: {report.verdict}")
    print(nets["sigmoid, gain 1"])
    if path := picture(out, "vanishing_gradients-norms"):
        series = {name: report.norms("Linear") for name, report in nets.items()}
        viz.lines(series, xlabel="layer", ylabel="norm of the gradient", log="y", path=path)
    return {name: {"factor": report.factor, "verdict": report.verdict} for name, report in nets.items()}
