"""The perceptron: a unit that learns, the rule that is bound to succeed, and the Mark I.

Trains on points that a line separates, with a wider and wider gap, and compares the number of updates with the bound
(R / gamma)^2. Shows where the rule with "<" stops too early and what the two conventions for a tie decide. Then a
machine of 400 cells, 512 association units and 8 responses learns eight digits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx import viz
from nnx.classic import MarkOne, Perceptron, ThresholdUnit, perceptron_learning
from nnx.course import picture

ROWS = ("F003", "F004", "F006")


def separable(n: int, margin: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) of the square [-1, 1]^2 with a column of ones, and their sides of a line (-1, 1).

    No point is nearer to the line than `margin`; the line goes through the middle, so a w of length 1 has this margin.
    """
    rng = np.random.default_rng(seed)
    normal = np.array([0.8, 0.6])
    points = rng.uniform(-1, 1, (40 * n, 2))
    distance = (points * normal).sum(axis=1)
    kept = np.flatnonzero(np.abs(distance) >= margin)[:n]
    if len(kept) < n:
        raise ValueError(f"separable: expected a margin that leaves {n} points, got {margin}")
    return np.hstack([points[kept], np.ones((n, 1))]), np.where(distance[kept] > 0, 1, -1)


def bound(x: np.ndarray, margin: float) -> float:
    """``(R / margin)^2`` with R the length of the longest x: no run from w = 0 makes more updates."""
    return float((x * x).sum(axis=1).max() / margin**2)


def strict_rule_fails() -> tuple[list[float], list[float]]:
    """The w at which each rule ends from w = (0, 1) with the single sample x = (1, 0), y = 1."""
    start, x, y = [0.0, 1.0], [[1.0, 0.0]], [1]
    strict = perceptron_learning(x, y, start, update="<")
    proper = perceptron_learning(x, y, start, update="<=")
    return strict.weights.tolist(), proper.weights.tolist()


def retina(images: np.ndarray, side: int = 20) -> np.ndarray:
    """Images (N, 1, 8, 8) in [0, 1] as (N, side, side) of zeros and ones: enlarged, dark or light."""
    index = np.arange(side) * images.shape[-1] // side
    return (images[:, 0][:, index][:, :, index] > 0.5).astype(np.uint8)


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train perceptrons; print updates and bounds, the ties, and what the Mark I reaches."""
    ties = {
        source: int(ThresholdUnit([1, 1], threshold=2, at_zero=tie)([1, 1])) for source, tie in (("S1", 1), ("S3", 0))
    }
    print(f"sum = threshold: S1's unit gives {ties['S1']}, S3's gives {ties['S3']}")
    strict, proper = strict_rule_fails()
    print(f"from w = (0, 1): updating for y w x < 0 ends at {strict}, for <= 0 at {proper}")

    n = 50 if small else 200
    margins, updates, bounds = [0.4, 0.2, 0.1, 0.05, 0.025], [], []
    for margin in margins:
        x, y = separable(n, margin, seed)
        learned = perceptron_learning(x, y, max_passes=100_000)
        updates.append(learned.updates)
        bounds.append(bound(x, margin))
        print(
            f"margin {margin:<5}: {learned.updates:4} updates in {learned.passes:3} passes "
            f"(at most {bounds[-1]:.0f}), converged: {learned.converged}"
        )

    digits = nnx.data.digits()
    few = [digits.y_train < 8, digits.y_test < 8]
    x_train, y_train = retina(digits.x_train[few[0]]), digits.y_train[few[0]]
    x_test, y_test = retina(digits.x_test[few[1]]), digits.y_test[few[1]]
    machine = MarkOne(max_iter=5 if small else 30, random_state=seed).fit(x_train, y_train)
    accuracy = machine.score(x_test, y_test)
    plain = Perceptron(5 if small else 30).fit(x_train, y_train).score(x_test, y_test)
    print(f"Mark I, digits 0 to 7 on 20 x 20 cells: {accuracy:.3f} right ({plain:.3f} without association units)")

    if path := picture(out, "perceptron-line"):
        x, y = separable(n, 0.1, seed)
        model = Perceptron().fit(x[:, :2], y)
        viz.decision_regions(model.predict, x[:, :2], y, path=path, title="the perceptron's line")
    if path := picture(out, "perceptron-updates"):
        series = {"updates": (margins, updates), "bound": (margins, bounds)}
        viz.lines(series, "margin", "updates", log="xy", path=path)
    if path := picture(out, "perceptron-retina"):
        titles = [f"{machine.predict(x_test[i : i + 1])[0]}" for i in range(16)]
        viz.images(x_test[:16].astype(np.float32), titles=titles, path=path, title="what the Mark I sees and says")
    return {
        "ties": ties,
        "strict": strict,
        "proper": proper,
        "margins": margins,
        "updates": updates,
        "bounds": bounds,
        "mark_one": accuracy,
        "without_association": plain,
    }
