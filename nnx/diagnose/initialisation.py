"""How the scale of the initial weights decides what deep layers put out: ten layers of 500 units."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnx import _check, _random, nn
from nnx.diagnose.activations import ActivationReport, activation_statistics

_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "sigmoid": nn.Sigmoid}

TABLES: dict[str, tuple[str, str | float]] = {
    "tanh, 0.01": ("tanh", 0.01),
    "tanh, 1.0": ("tanh", 1.0),
    "tanh, Xavier": ("tanh", "xavier"),
    "ReLU, Xavier": ("relu", "xavier"),
    "ReLU, He": ("relu", "he"),
}


def plain_stack(
    activation: str = "tanh",
    scale: str | float = "xavier",
    layers: int = 10,
    units: int = 500,
    rng: np.random.Generator | None = None,
    dtype: Any = np.float32,
) -> nn.Sequential:
    """Equal layers ``x = activation(x W)`` without biases, W drawn from a normal distribution.

    activation:  "tanh", "relu" or "sigmoid"
    scale:       the standard deviation of W, or "xavier" for 1 / sqrt(units), or "he" for sqrt(2 / units)
    rng:         None uses the library's stream

    Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010; He et al.,
    "Delving deep into rectifiers", 2015.
    """
    owner = "plain_stack"
    _check.choice(owner, "activation", activation, tuple(_ACTIVATIONS))
    count = _check.integer(owner, "layers", layers, 1)
    width = _check.integer(owner, "units", units, 1)
    if isinstance(scale, str):
        _check.choice(owner, "scale", scale, ("xavier", "he"))
        std = math.sqrt((2 if scale == "he" else 1) / width)
    else:
        std = _check.real(owner, "scale", scale, 0)
    rng = _random.generator(rng)
    parts: dict[str, nn.Module] = {}
    for i in range(1, count + 1):
        linear = nn.Linear(width, width, bias=False, dtype=dtype)
        linear.weight.data[...] = rng.standard_normal((width, width)) * std
        parts |= {f"linear {i}": linear, f"layer {i}": _ACTIVATIONS[activation]()}
    return nn.Sequential(parts)


def initialisation_experiment(
    activation: str = "tanh",
    scale: str | float = "xavier",
    layers: int = 10,
    units: int = 500,
    examples: int = 1000,
    seed: int = 0,
) -> ActivationReport:
    """Send normal noise through a deep stack of random layers and measure each layer's output.

    activation, scale, layers, units:  see `plain_stack`
    examples:                          number of inputs, each with `units` features of mean 0 and variance 1

    With tanh and small weights the standard deviation falls by ``scale sqrt(units)`` in every layer; large weights
    saturate every unit; 1 / sqrt(units) keeps tanh alive, but loses half the variance in each ReLU layer, which
    sqrt(2 / units) gives back.

    >>> stds = initialisation_experiment("tanh", 0.01, layers=4, units=100, examples=50).stds
    >>> [round(b / a, 1) for a, b in zip(stds, stds[1:])]
    [0.1, 0.1, 0.1]
    """
    count = _check.integer("initialisation_experiment", "examples", examples, 1)
    rng = np.random.default_rng(_check.integer("initialisation_experiment", "seed", seed, 0))
    model = plain_stack(activation, scale, layers, units, rng)
    x = rng.standard_normal((count, units), dtype=np.float32)
    return activation_statistics(model, x, kinds=_ACTIVATIONS[activation])


def initialisation_tables(
    layers: int = 10, units: int = 500, examples: int = 1000, seed: int = 0
) -> dict[str, ActivationReport]:
    """The five tables of the lectures: tanh with 0.01, 1.0 and Xavier's scale, ReLU with Xavier's and He's.

    Course document S2, initialising the weights; the columns printed there are `means` and `stds`.
    """
    return {
        title: initialisation_experiment(activation, scale, layers, units, examples, seed)
        for title, (activation, scale) in TABLES.items()
    }
