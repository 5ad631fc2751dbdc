"""First weights: why not zero, how large, and from which distribution.

A network whose weights are all zero learns one unit many times. Random weights break the tie; their size decides
whether the signal survives the layers. A sum of N numbers of variance 1 has the standard deviation sqrt(N), so weights
of variance 1/N keep it at 1 (Xavier), and behind ReLU, which throws half of it away, 2/N (He).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx import nn, viz
from nnx.course import picture
from nnx.nn import init

ROWS = ("F113", "F114", "F116")


def train_two_layers(zero: bool, steps: int = 10, seed: int = 0) -> tuple[np.ndarray, list[float]]:
    """Train 6-5-3 from zero or from small random weights; returns the first layer's weight and the losses."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((64, 6))
    y = (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0)
    nnx.manual_seed(seed)
    # sigmoid: with tanh or ReLU the gradient at zero is zero, and nothing would move at all
    model = nn.Sequential(nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 3)).double()
    for p in model.parameters():
        if zero:
            init.zeros_(p)
        else:
            init.normal_(p, std=0.5)
    optimizer = nnx.optim.SGD(model.parameters(), lr=1.0)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nnx.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.item()))
    return model[0].weight.data, losses


def draws(fan_in: int = 500, fan_out: int = 400, seed: int = 0) -> dict[str, np.ndarray]:
    """A weight (fan_out, fan_in) from each initialiser of the lectures."""
    rng = np.random.default_rng(seed)
    shape = (fan_out, fan_in)
    return {
        "0.01 randn": init.normal_(np.empty(shape), std=0.01, generator=rng),
        "1.0 randn": init.normal_(np.empty(shape), generator=rng),
        "Xavier, 1/sqrt(fan_in)": init.normal_(np.empty(shape), std=fan_in**-0.5, generator=rng),
        "Glorot": init.xavier_normal_(np.empty(shape), generator=rng),
        "He": init.kaiming_normal_(np.empty(shape), nonlinearity="relu", generator=rng),
        "truncated at 2 sigma": init.trunc_normal_(np.empty(shape), generator=rng),
    }


def sum_of_normals(n: int, samples: int, seed: int = 0) -> float:
    """The standard deviation of w x summed over n inputs x = 1 and weights w from N(0, 1); sqrt(n) is expected."""
    rng = np.random.default_rng(seed)
    return float(np.std([rng.standard_normal(n).sum() for _ in range(samples)]))


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Show the tie of zero weights, the moments of each initialiser, and the sum of 200 normal numbers."""
    zero, zero_losses = train_two_layers(True, 10, seed)
    _, random_losses = train_two_layers(False, 10, seed)
    spread = float(np.abs(zero - zero[0]).max())
    print(f"from zero weights: the five units differ by {spread:.1e} after 10 steps, loss {zero_losses[-1]:.4f}")
    print(f"from random weights: loss {random_losses[-1]:.4f}")

    weights = draws(seed=seed)
    for name, w in weights.items():
        print(f"{name:23s} mean {w.mean():9.6f}  std {w.std():8.6f}  largest {np.abs(w).max():7.4f}")

    samples = 10_000 if small else 100_000
    std = sum_of_normals(200, samples, seed)
    print(f"sum of 200 normal numbers: std {std:.3f}, sqrt(200) = {200**0.5:.4f}; Xavier's variance 1/200 = {1 / 200}")

    if path := picture(out, "initialisation-weights"):
        viz.histograms(weights, path=path, columns=3)
    return {
        "zero_spread": spread,
        "zero_loss": zero_losses[-1],
        "random_loss": random_losses[-1],
        "std": {name: float(w.std()) for name, w in weights.items()},
        "sum_std": std,
    }
