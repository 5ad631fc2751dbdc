"""Polynomial regression: degree 1 misses the curve, degree 14 learns the noise.

Fits polynomials of several degrees to fifteen noisy points of a cubic and measures the error there and on fresh points.
Occam's razor chooses among models that explain the data the simplest; a penalty on the coefficients does it by degrees.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nnx import viz
from nnx.classic import PolynomialRegression
from nnx.course import picture

ROWS = ("F053",)

DEGREES = (1, 2, 3, 5, 9, 14)


def curve(x: np.ndarray) -> np.ndarray:
    """The cubic behind the data."""
    return 2 * x**3 - x**2 - x + 0.5


def sample(n: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """n points of the curve, evenly spread over [-1, 1] with a little play, and with noise."""
    rng = np.random.default_rng(seed)
    x = np.linspace(-1, 1, n) + rng.uniform(-0.5, 0.5, n) / n
    return x, curve(x) + noise * rng.standard_normal(n)


def errors(degree: int, seed: int, alpha: float = 0.0, n: int = 15, noise: float = 0.2) -> tuple[float, float]:
    """The root mean squared error on the n training points, and on 200 fresh ones between them."""
    x, y = sample(n, noise, seed)
    model = PolynomialRegression(degree, alpha).fit(x, y)
    fresh = np.random.default_rng(seed + 10_000).uniform(x.min(), x.max(), 200)
    wanted = curve(fresh) + noise * np.random.default_rng(seed + 20_000).standard_normal(200)
    train = float(np.sqrt(np.mean((model.predict(x) - y) ** 2)))
    test = float(np.sqrt(np.mean((model.predict(fresh) - wanted) ** 2)))
    return train, test


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Print the errors of every degree, as medians over many data sets, and what a penalty does to degree 14."""
    sets = range(seed, seed + (10 if small else 100))
    table = {}
    for degree in DEGREES:
        train, test = np.median([errors(degree, s) for s in sets], axis=0)
        table[degree] = [float(train), float(test)]
        print(f"degree {degree:2}: training error {train:.3f}, error on fresh points {test:.3f}")
    penalties = {}
    for alpha in (0.0, 1e-4, 1e-2, 1.0):
        train, test = np.median([errors(14, s, alpha) for s in sets], axis=0)
        penalties[alpha] = [float(train), float(test)]
        print(f"degree 14, penalty {alpha:g}: training error {train:.3f}, error on fresh points {test:.3f}")
    best = min(table, key=lambda degree: table[degree][1])
    print(f"best on fresh points: degree {best}")

    x, y = sample(15, 0.2, seed)
    fits = {degree: PolynomialRegression(degree).fit(x, y) for degree in (1, 3, 14)}
    if path := picture(out, "polynomial_regression-fits"):
        grid = np.linspace(x.min(), x.max(), 300)
        lines: dict[str, Any] = {
            f"degree {degree}": (grid, model.predict(grid).clip(-3, 3)) for degree, model in fits.items()
        }
        viz.lines({**lines, "data": (x, y)}, "x", "y", path=path)
    if path := picture(out, "polynomial_regression-errors"):
        shown = {
            name: (list(table), [v[i] for v in table.values()]) for i, name in enumerate(("training", "fresh points"))
        }
        viz.lines(shown, "degree", "root mean squared error", log="y", path=path)
    return {
        "degrees": list(table),
        "errors": list(table.values()),
        "penalties": [[alpha, *v] for alpha, v in penalties.items()],
        "best": best,
    }
