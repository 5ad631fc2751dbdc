"""Activation functions: sigmoid, tanh, ReLU and its relatives, Maxout; saturation, and inputs that are all positive.

The slope of an activation decides what backpropagation can send through it. The topic tabulates values and slopes,
shows where they die, and why a neuron whose inputs are all positive can only zigzag.
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

ROWS = ("F091", "F100", "F101", "F102", "F103", "F104", "F105", "F107", "F108")

ACTIVATIONS: dict[str, Callable[[Any], nnx.Tensor]] = {
    "sigmoid": F.sigmoid,
    "tanh": F.tanh,
    "ReLU": F.relu,
    "leaky ReLU 0.01": F.leaky_relu,
    "leaky ReLU 0.1": lambda x: F.leaky_relu(x, 0.1),
    "ELU": F.elu,
}


def value_and_slope(function: Callable[[Any], nnx.Tensor], x: Any) -> tuple[np.ndarray, np.ndarray]:
    """The activation and its derivative at every x."""
    leaf = nnx.tensor(np.asarray(x, np.float64), requires_grad=True)
    y = function(leaf)
    y.sum().backward()
    return y.data, np.asarray(leaf.grad)


def maxout_as_relu(in_features: int, out_features: int, slope: float = 0.0) -> tuple[nn.Maxout, nn.Linear]:
    """A Maxout layer with two pieces that equals ``max(slope z, z)`` of a Linear layer, and this layer.

    The first piece of every output is `slope` times the second: 0 for ReLU, 0.01 for leaky ReLU.
    """
    linear = nn.Linear(in_features, out_features).double()
    layer = nn.Maxout(in_features, out_features, 2).double()
    assert linear.bias is not None and layer.bias is not None
    weight, bias = layer.weight.data.reshape(out_features, 2, in_features), layer.bias.data.reshape(out_features, 2)
    weight[:, 1], bias[:, 1] = linear.weight.data, linear.bias.data
    weight[:, 0], bias[:, 0] = slope * linear.weight.data, slope * linear.bias.data
    return layer, linear


def weight_gradients(x: np.ndarray, seed: int) -> np.ndarray:
    """The gradients (N, D) of one sigmoid neuron's weights, one row per example, for a squared error."""
    rng = np.random.default_rng(seed)
    w = nnx.Parameter(rng.standard_normal(x.shape[1]) / 10)
    rows = []
    for row, target in zip(x, rng.integers(0, 2, len(x)), strict=True):
        w.grad = None
        ((F.sigmoid((nnx.tensor(row) * w).sum()) - float(target)) ** 2).backward()
        rows.append(np.array(w.grad))
    return np.array(rows)


def zigzag(positive: bool, steps: int, lr: float = 0.3) -> np.ndarray:
    """The way (steps + 1, 2) of a linear neuron's weights from (0, 0) to (1, -1), one example per step.

    positive:  inputs from 0..1, else from -1/2..1/2
    """
    rng = np.random.default_rng(0)
    goal, w = np.array([1.0, -1.0]), np.zeros(2)
    way = [w]
    for _ in range(steps):
        x = rng.random(2) - (0.0 if positive else 0.5)
        w = w - lr * (x @ w - x @ goal) * x / (x @ x)  # the step is scaled, so that both kinds of input move alike
        way.append(w)
    return np.array(way)


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Tabulate values and slopes, compare Maxout with ReLU, and count signs of gradients."""
    nnx.manual_seed(seed)
    points = [-10.0, -3.0, 0.0, 3.0, 10.0]
    table: dict[str, dict[str, list[float]]] = {}
    print("slopes at " + ", ".join(f"{x:g}" for x in points) + ":")
    for name, function in ACTIVATIONS.items():
        values, slopes = value_and_slope(function, points)
        table[name] = {"values": values.tolist(), "slopes": slopes.tolist()}
        print(f"  {name:16s} " + "  ".join(f"{s:9.3g}" for s in slopes))

    x = np.linspace(-5, 5, 1001)
    identity = float(np.abs(F.tanh(x).data - (2 * F.sigmoid(2 * x).data - 1)).max())
    far = F.sigmoid(np.array([-1e4, 1e4])).data.tolist()
    print(f"tanh(x) - (2 sigmoid(2x) - 1): {identity:.1e} at most;  sigmoid(-10000), sigmoid(10000): {far}")

    inputs = np.random.default_rng(seed).standard_normal((20, 3))
    layer, linear = maxout_as_relu(3, 4)
    as_relu = float(np.abs(layer(inputs).data - F.relu(linear(inputs)).data).max())
    sizes = [sum(p.size for p in model.parameters()) for model in (linear, layer)]
    print(f"Maxout with one piece 0 against ReLU: {as_relu:.1e};  parameters: Linear {sizes[0]}, Maxout {sizes[1]}")

    rng = np.random.default_rng(seed)
    shares = {}
    for name, data in (("positive", rng.random((100, 5))), ("centred", rng.standard_normal((100, 5)))):
        signs = np.sign(weight_gradients(data, seed))
        shares[name] = float(np.mean(np.abs(signs.sum(axis=1)) == 5))
        print(f"{name} inputs: all five gradients share one sign for {shares[name]:.0%} of the examples")
    steps = 100 if small else 300
    ways = {"positive inputs": zigzag(True, steps), "centred inputs": zigzag(False, steps)}
    needed = {}
    for name, way in ways.items():
        needed[name] = int(np.argmax(np.abs(way - [1.0, -1.0]).max(axis=1) < 0.05))
        print(f"{name}: {needed[name]} steps to the goal")

    scores = F.softmax(np.array([[1.0, 2.0, -3.0]]), dim=1).data[0].tolist()
    print("softmax output of scores 1, 2, -3:", [round(p, 4) for p in scores], "sum", round(sum(scores), 12))

    if path := picture(out, "activations-values"):
        viz.lines({name: (x, f(x).data) for name, f in ACTIVATIONS.items()}, "x", path=path)
    if path := picture(out, "activations-slopes"):
        viz.lines({name: (x, value_and_slope(f, x)[1]) for name, f in ACTIVATIONS.items()}, "x", "slope", path=path)
    if path := picture(out, "activations-zigzag"):
        viz.paths(lambda w: (w[0] - 1) ** 2 + (w[1] + 1) ** 2, ways, path)
    return {
        "points": points,
        "table": table,
        "tanh_identity": identity,
        "far": far,
        "maxout_as_relu": as_relu,
        "parameters": sizes,
        "same_sign": shares,
        "zigzag_steps": needed,
        "softmax": scores,
    }
