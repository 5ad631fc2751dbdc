"""Hidden layers: what a single layer cannot do, and why the layers between need a bend.

XOR is four points that no line divides: a linear classifier gets three of them at best, a network with a hidden layer
all. The hidden layer must not be linear, though: a stack of linear layers is one linear layer, which is computed here.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import nnx
import nnx.functional as F
from nnx import nn, viz
from nnx.course import picture

ROWS = ("F007", "F008")

X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], np.float32)
XOR = np.array([0, 1, 1, 0])


def best_line(steps: int = 41) -> float:
    """The best accuracy on XOR of all lines ``a x + b y + c > 0`` with a, b, c on a grid over [-2, 2]."""
    grid = np.linspace(-2, 2, steps)
    w = np.array(list(product(grid, grid, grid)))
    decided = (w[:, :2, None] * X.T).sum(axis=1) + w[:, 2:] > 0
    return float((decided == XOR).mean(axis=1).max())


def train(
    hidden: tuple[int, ...], activation: type[nn.Module] | None, steps: int, seed: int
) -> tuple[nn.Module, float]:
    """Train layers of these sizes on XOR; `activation` None leaves the network linear. Returns it and its accuracy."""
    nnx.manual_seed(seed)
    sizes = (2, *hidden, 2)
    modules: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
        modules.append(nn.Linear(inputs, outputs))
        if activation is not None and i < len(hidden):
            modules.append(activation())
    model = nn.Sequential(*modules)
    optimizer = nnx.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(X), XOR).backward()
        optimizer.step()
    return model, float(np.mean(model.predict(X).argmax(axis=1) == XOR))


def collapse(layers: list[nn.Linear]) -> tuple[np.ndarray, np.ndarray]:
    """The weight and bias of the one linear layer that computes what these layers do one after the other."""
    weight, bias = layers[0].weight.data, layers[0].bias.data  # type: ignore[union-attr]
    for linear in layers[1:]:
        weight = F.linear(weight.T, linear.weight.data).data.T
        bias = F.linear(bias[None], linear.weight.data, linear.bias).data[0]
    return weight, bias


def collapse_error(depth: int, seed: int = 0) -> float:
    """The largest difference between `depth` linear layers of float64 and the one layer that they are."""
    nnx.manual_seed(seed)
    layers = [nn.Linear(8, 8, dtype=np.float64) for _ in range(depth)]
    x = np.random.default_rng(seed).standard_normal((50, 8))
    weight, bias = collapse(layers)
    return float(np.abs(nn.Sequential(*layers)(x).data - F.linear(x, weight, bias).data).max())


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Search all lines, train the networks, collapse linear stacks; print what comes out."""
    line = best_line(17 if small else 41)
    print(f"XOR, the best of all lines on a grid: {100 * line:.0f} %")
    steps = 200 if small else 500
    cases: dict[str, tuple[tuple[int, ...], type[nn.Module] | None]] = {
        "linear": ((), None),
        "three linear layers": ((8, 8), None),
        "one hidden layer, tanh": ((8,), nn.Tanh),
        "one hidden layer, ReLU": ((8,), nn.ReLU),
    }
    accuracy = {}
    for name, (hidden, activation) in cases.items():
        model, accuracy[name] = train(hidden, activation, steps, seed)
        print(f"  {name:24} {100 * accuracy[name]:.0f} %")
        if path := picture(out, f"hidden_layers-{name.replace(',', '').replace(' ', '-')}"):
            viz.decision_regions(model, X, XOR, path=path, title=f"{name}: {100 * accuracy[name]:.0f} %")
    errors = {depth: collapse_error(depth, seed) for depth in (2, 3, 5)}
    for depth, error in errors.items():
        print(f"{depth} linear layers and their product: largest difference {error:.1e}")
    return {"line": line, "accuracy": accuracy, "depths": list(errors), "collapse": list(errors.values())}
