"""Losses: how wrong a classifier is, as one number.

Recomputes the lecture's hinge losses and every variant of its quiz, the softmax losses (with the natural logarithm),
compares both losses on the same scores, and shows why cross-entropy learns where the quadratic cost stands still.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
import nnx.functional as F
from nnx import viz
from nnx.course import picture
from nnx.course.linear_classifiers import LABELS, SCORES

ROWS = ("F042", "F043", "F049", "F050", "F051", "F052")

# the same right class 0 with scores that are far apart, close, and farther apart
SAME = np.array([[10.0, -2.0, 3.0], [10.0, 9.0, 9.0], [10.0, -100.0, -100.0]])


def hinge(scores: np.ndarray, labels: Any, p: int = 1) -> np.ndarray:
    """``sum over j != y of max(0, s_j - s_y + 1)^p`` for each row."""
    return F.multiclass_hinge_loss(scores, labels, p=p, reduction="none").data


def hinge_of_one(scores: np.ndarray, y: int) -> float:
    """The same for one sample, by hand: all margins at once, and the right class's own taken out."""
    margins = np.maximum(0, scores - scores[y] + 1)
    margins[y] = 0
    return float(margins.sum())


def quiz(scores: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """The variants that the lecture asks about."""
    plain = hinge(scores, labels)
    return {
        "wrong classes only": plain,
        "right class included": plain + 1,  # its margin is s_y - s_y + 1
        "mean instead of sum": plain / (scores.shape[1] - 1),
        "squared": hinge(scores, labels, p=2),
    }


def softmax_steps(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``exp(s)`` and ``exp(s) / sum exp(s)``: fine for small scores; `nnx.functional.softmax` is for all."""
    unnormalised = np.exp(scores)
    return unnormalised, unnormalised / unnormalised.sum(axis=-1, keepdims=True)


def cross_entropy(scores: np.ndarray, labels: Any) -> np.ndarray:
    """``-log(softmax(s)[y])`` for each row."""
    return F.cross_entropy(scores, labels, reduction="none").data


def quadratic_cost(outputs: Any, targets: Any, half: bool = True) -> nnx.Tensor:
    """``1 / (2 n) sum over the n samples of |y - a|^2``; `half` False leaves the 2 out.

    outputs, targets:  (n, d)

    >>> quadratic_cost([[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 2.0]]).item()
    1.25
    """
    n = len(np.asarray(targets))
    return F.mse_loss(outputs, targets, reduction="sum") / ((2 if half else 1) * n)


def output_gradients(z: np.ndarray, target: float) -> tuple[np.ndarray, np.ndarray]:
    """The derivative by z of the quadratic cost ``(a - y)^2 / 2`` and of the cross-entropy, for ``a = sigmoid(z)``."""
    targets = np.full_like(z, target)
    gradients = []
    for loss in (
        lambda s: F.mse_loss(F.sigmoid(s), targets, reduction="sum") / 2,
        lambda s: F.binary_cross_entropy_with_logits(s, targets, reduction="sum"),
    ):
        leaf = nnx.tensor(z, requires_grad=True)
        loss(leaf).backward()
        gradients.append(leaf.grad)
    return gradients[0], gradients[1]


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Print all of the lecture's losses, recomputed."""
    variants = quiz(SCORES, LABELS)
    for name, values in variants.items():
        print(f"hinge, {name:21}: {', '.join(f'{v:.2f}' for v in values)}; mean {values.mean():.4f}")
    unnormalised, p = softmax_steps(SCORES[0])
    print("softmax of the cat: exp", *(f"{v:.1f}" for v in unnormalised), " p", *(f"{v:.2f}" for v in p))
    softmax = cross_entropy(SCORES, LABELS)
    print(f"  -ln(0.13) = {softmax[0]:.2f}; the printed 0.89 is -log10: {softmax[0] / np.log(10):.2f}")
    print(f"  all three: {', '.join(f'{v:.4f}' for v in softmax)}; mean {softmax.mean():.4f}")
    start = {
        c: (float(hinge(np.zeros((1, c)), [0])[0]), float(cross_entropy(np.zeros((1, c)), [0])[0])) for c in (3, 10)
    }
    for c, (h, s) in start.items():
        print(f"all scores 0, {c} classes: hinge {h:.0f} = C - 1, softmax {s:.4f} = ln C")
    same = hinge(SAME, np.zeros(3, int)), cross_entropy(SAME, np.zeros(3, int))
    for scores, h, s in zip(SAME.tolist(), *same, strict=True):
        print(f"scores {scores}: hinge {h:g}, softmax {s:.6f}")

    z = np.linspace(-6, 6, 13)
    quadratic, entropy = output_gradients(z, 0.0)
    print(f"target 0, z = 6: slope of the quadratic cost {quadratic[-1]:.5f}, of the cross-entropy {entropy[-1]:.5f}")
    if path := picture(out, "losses-slopes"):
        viz.lines(
            {"quadratic": (z, quadratic), "cross-entropy": (z, entropy)}, "z", "slope", path=path, title="target 0"
        )
    if path := picture(out, "losses-margin"):
        gap = np.linspace(-3, 3, 61)
        pairs, zeros = np.stack([gap, np.zeros_like(gap)], axis=1), np.zeros(len(gap), int)
        shown = {
            "hinge": hinge(pairs, zeros),
            "squared hinge": hinge(pairs, zeros, 2),
            "softmax": cross_entropy(pairs, zeros),
        }
        viz.lines(
            {k: (gap, v) for k, v in shown.items()}, "score of the right class minus the other", "loss", path=path
        )
    return {
        "hinge": {name: values.tolist() for name, values in variants.items()},
        "exp": unnormalised.tolist(),
        "p": p.tolist(),
        "softmax": softmax.tolist(),
        "same_hinge": same[0].tolist(),
        "same_softmax": same[1].tolist(),
        "slopes": [float(quadratic[-1]), float(entropy[-1])],
    }
