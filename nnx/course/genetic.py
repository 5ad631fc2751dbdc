"""A genetic algorithm on the weights of a network: XOR without a gradient.

A population of weight vectors; the better ones have children that mix their parents' numbers and change some; the best
live on. It needs nothing but the loss, and many more evaluations of it than backpropagation does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
import nnx.functional as F
from nnx import nn, optim, viz
from nnx.course import picture
from nnx.optim import GeneticResult

ROWS = ("F075",)

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float64)
Y = np.array([[0], [1], [1], [0]], np.float64)


def network() -> nn.Module:
    """Two inputs, three hidden units, one output: 13 weights."""
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1), nn.Sigmoid()).double()


def evolve(seed: int) -> tuple[nn.Module, GeneticResult]:
    """Breed a network that computes XOR until its mean squared error is 0.01."""
    nnx.manual_seed(seed)
    model = network()
    return model, optim.genetic(model, lambda: F.mse_loss(model(X), Y), target=0.01)


def solved(model: nn.Module) -> bool:
    """Whether all four answers are on the right side of 1/2."""
    return bool(((model(X).data > 0.5) == (Y > 0.5)).all())


def by_gradient(seed: int, target: float = 0.01, limit: int = 5000) -> int:
    """How many steps of gradient descent with momentum the same network needs for the same error."""
    nnx.manual_seed(seed)
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    for step in range(limit):
        optimizer.zero_grad()
        loss = F.mse_loss(model(X), Y)
        if loss.item() <= target:
            return step
        loss.backward()
        optimizer.step()
    return limit


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Evolve XOR networks from several seeds and count the evaluations."""
    runs = [evolve(s) for s in range(seed, seed + (3 if small else 20))]
    right = sum(solved(model) for model, _ in runs)
    generations = [result.generations for _, result in runs]
    evaluations = float(np.mean([result.evaluations for _, result in runs]))
    print(f"XOR solved for {right} of {len(runs)} seeds")
    print(
        f"generations: {min(generations)} to {max(generations)}, {evaluations:.0f} evaluations of the loss on average"
    )
    steps = by_gradient(seed)
    print(f"gradient descent with momentum: {steps} steps, each about as dear as three evaluations")

    if path := picture(out, "genetic-losses"):
        histories = {f"seed {seed + i}": result.history for i, (_, result) in enumerate(runs[:5])}
        viz.lines(histories, "generation", "best loss", log="y", path=path)
    if path := picture(out, "genetic-regions"):
        model = runs[0][0]

        def classes(points: np.ndarray) -> np.ndarray:
            return (model.predict(points)[:, 0] > 0.5).astype(np.int64)

        viz.decision_regions(classes, X, Y[:, 0].astype(np.int64), path=path, limits=(-0.5, 1.5, -0.5, 1.5))
    return {
        "solved": right,
        "seeds": len(runs),
        "generations": generations,
        "evaluations": evaluations,
        "gradient_steps": steps,
    }
