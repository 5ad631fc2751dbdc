"""Universal approximation: one hidden layer comes as close to a curve as you like.

Builds a network by hand, two steep sigmoid units for every step of a staircase, and sees its error fall like 1 / units;
then trains small networks of tanh units on the sine until the error is below 0.01 everywhere.
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

ROWS = ("F054",)


def staircase(f: Callable[[np.ndarray], np.ndarray], units: int, low: float, high: float) -> nn.Sequential:
    """A network with one hidden layer that follows f in `units` steps, without any training.

    Unit i is a sigmoid so steep that it is a step at the border between two intervals; its weight to the output is the
    height of that step, ``f(middle of the next interval) - f(middle of this one)``.
    """
    width = (high - low) / units
    middles = low + width * (np.arange(units) + 0.5)
    borders = low + width * np.arange(1, units)
    steepness = 1000 / width
    hidden, output = nn.Linear(1, units - 1, dtype=np.float64), nn.Linear(units - 1, 1, dtype=np.float64)
    hidden.weight.data[...] = steepness
    hidden.bias.data[...] = -steepness * borders  # type: ignore[union-attr]
    heights = f(middles)
    output.weight.data[...] = np.diff(heights)
    output.bias.data[...] = heights[0]  # type: ignore[union-attr]
    return nn.Sequential(hidden, nn.Sigmoid(), output)


def train(f: Callable[[np.ndarray], np.ndarray], units: int, low: float, high: float, seed: int) -> nn.Sequential:
    """A network of `units` tanh units that was trained on 200 points of f by L-BFGS."""
    nnx.manual_seed(seed)
    model = nn.Sequential(nn.Linear(1, units), nn.Tanh(), nn.Linear(units, 1)).double()
    x = np.linspace(low, high, 200)[:, None]
    y = f(x)
    optimizer = nnx.optim.LBFGS(model.parameters(), max_iter=500, line_search_fn="strong_wolfe", tolerance_change=1e-12)

    def closure() -> nnx.Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    return model


def largest_error(model: nn.Module, f: Callable[[np.ndarray], np.ndarray], low: float, high: float) -> float:
    """The largest distance from f on a grid that is finer than the training points."""
    x = np.linspace(low, high, 2001)[:, None]
    return float(np.abs(model(x).data - f(x)).max())


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Print the largest error on a period of the sine by the number of hidden units, built and trained."""
    low, high = -np.pi, np.pi
    counts = [10, 100, 1000]
    built = [largest_error(staircase(np.sin, n, low, high), np.sin, low, high) for n in counts]
    for n, error in zip(counts, built, strict=True):
        print(f"staircase of {n:4} steps: largest error {error:.5f}")
    units = [1, 2, 5, 10] if small else [1, 2, 3, 5, 10, 20]
    models = {n: train(np.sin, n, low, high, seed) for n in units}
    trained = [largest_error(model, np.sin, low, high) for model in models.values()]
    for n, error in zip(units, trained, strict=True):
        print(f"{n:2} trained tanh units: largest error {error:.5f}")
    if path := picture(out, "universal_approximation-curves"):
        x = np.linspace(low, high, 400)
        shown: dict[str, Any] = {"sine": (x, np.sin(x))}
        stairs = staircase(np.sin, 10, low, high)
        for name, model in (("10 steps", stairs), *((f"{n} tanh", models[n]) for n in (1, 2, 5))):
            shown[name] = (x, model(x[:, None]).data[:, 0])
        viz.lines(shown, "x", "y", path=path)
    if path := picture(out, "universal_approximation-errors"):
        viz.lines(
            {"built": (counts, built), "trained": (units, trained)},
            "hidden units",
            "largest error",
            log="xy",
            path=path,
        )
    return {"steps": counts, "built": built, "units": units, "trained": trained}
