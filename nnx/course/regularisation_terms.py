"""Regularisation terms: a price on the weights, so that of two models that fit the simpler one wins.

Computes the lecture's three complexities of two polynomials, which disagree; the L1, L2 and elastic-net penalties in
the conventions of the documents; and trains a classifier under each, to see L1 empty weights and L2 spread them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
import nnx.functional as F
from nnx import viz
from nnx.classic import SoftmaxClassifier
from nnx.course import picture

ROWS = ("F045", "F046", "F047", "F048")

# h(x) = 1.3 - 1.2 x, and h(x) = 2.2 x^2
LINE, PARABOLA = (1.3, -1.2, 0.0, 0.0), (0.0, 0.0, 2.2, 0.0)


def complexity(weights: Any, order: int) -> float:
    """How complex a model is by its weights: l0 counts those that are not 0, l1 sums them up, l2 their squares.

    >>> [complexity([1.5, 0.0, -2.0], order) for order in (0, 1, 2)]
    [2.0, 3.5, 6.25]
    """
    w = np.asarray(weights, np.float64)
    if order == 0:
        return float(np.count_nonzero(w))
    return float((np.abs(w) ** order).sum())


def conventions(weights: np.ndarray, strength: float, n: int) -> dict[str, tuple[float, float]]:
    """The L1 and the L2 penalty in every convention."""
    return {
        name: (F.l1_penalty(weights, strength, name, n).item(), F.l2_penalty(weights, strength, name, n).item())
        for name in ("sum", "half", "mean", "half-mean")
    }


def gradients(weights: np.ndarray) -> dict[str, np.ndarray]:
    """The gradient of each penalty at these weights, with strength 1 (and beta 1)."""
    found = {}
    for name, penalty in (("l1", F.l1_penalty), ("l2", F.l2_penalty), ("elastic net", F.elastic_net_penalty)):
        leaf = nnx.tensor(weights, requires_grad=True)
        penalty(leaf).backward()
        found[name] = leaf.grad
    return found


def train(penalty: str, reg: float, epochs: int, seed: int) -> SoftmaxClassifier:
    """A softmax classifier of the digits under a penalty."""
    data = nnx.data.digits()
    model = SoftmaxClassifier(
        0.1, reg, penalty, batch_size=50, epochs=epochs, learning_rate_decay=0.95, random_state=seed
    )
    return model.fit(data.x_train - data.x_train.mean(axis=0), data.y_train)


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Print complexities, conventions and gradients, and what each penalty does to trained weights."""
    table = {
        name: [complexity(w, order) for order in (0, 1, 2)] for name, w in (("line", LINE), ("parabola", PARABOLA))
    }
    for name, (l0, l1, l2) in table.items():
        print(f"{name:9}: l0 {l0:.0f}, l1 {l1:.1f}, l2 {l2:.2f}")

    weights = np.array([1.0, -2.0, 0.0, 0.5])
    by_convention = conventions(weights, 0.1, 10)
    for name, (l1, l2) in by_convention.items():
        print(f"weights {weights.tolist()}, lambda 0.1, n 10, convention {name:9}: L1 {l1:.4f}, L2 {l2:.4f}")
    slopes = {name: g.tolist() for name, g in gradients(weights).items()}
    for name, g in slopes.items():
        print(f"  gradient of {name}: {g}")

    data = nnx.data.digits()
    test = data.x_test - data.x_train.mean(axis=0)
    lively = data.x_train.std(axis=0).reshape(-1) > 0.05  # a pixel that is always dark says nothing about its weight
    results, learned = {}, {}
    for name, penalty, reg in (
        ("none", "l2", 0.0),
        ("L2", "l2", 3e-3),
        ("L1", "l1", 1e-3),
        ("elastic net", "elastic net", 1e-3),
    ):
        model = train(penalty, reg, 6 if small else 60, seed)
        learned[name] = model.coef_
        w = model.coef_[:, lively]
        near_zero = float(np.mean(np.abs(w) < 0.01))
        results[name] = {
            "accuracy": model.score(test, data.y_test),
            "near zero": near_zero,
            "largest": float(np.abs(w).max()),
        }
        print(
            f"digits, penalty {name:11}: test accuracy {results[name]['accuracy']:.4f}, "
            f"{100 * near_zero:.0f} % of the weights below 0.01, the largest {results[name]['largest']:.2f}"
        )
    if path := picture(out, "regularisation_terms-weights"):
        viz.histograms({name: w[:, lively].reshape(-1) for name, w in learned.items()}, path=path, columns=2)
    if path := picture(out, "regularisation_terms-templates"):
        stacked = np.concatenate([w.reshape(10, 8, 8) for w in learned.values()])
        viz.images(stacked, columns=10, scale="each", path=path, title="templates: " + ", ".join(learned))
    return {
        "complexity": table,
        "conventions": {k: list(v) for k, v in by_convention.items()},
        "gradients": slopes,
        "trained": results,
    }
