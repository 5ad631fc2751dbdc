"""Units that fire or do not: McCulloch and Pitts's of 1943, and the weighted one."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx import _check


def step(z: Any, at_zero: int = 1) -> np.ndarray:
    """``1`` where z > 0, ``0`` where z < 0, and `at_zero` where z = 0, as int64.

    Course documents disagree on the tie: S1 fires (1), S3 does not (0).

    >>> step([-0.5, 0.0, 2.0]).tolist(), step([-0.5, 0.0, 2.0], at_zero=0).tolist()
    ([0, 1, 1], [0, 0, 1])
    """
    _check.choice("step", "at_zero", at_zero, (0, 1))
    z = np.asarray(z)
    return (z >= 0 if at_zero else z > 0).astype(np.int64)


class ThresholdUnit:
    """A unit that fires when the weighted sum of its inputs reaches a threshold.

    ``y = step(w x - threshold)``, or in the other form ``y = step(w x + bias)`` with bias = -threshold.

    weights:          (d,)
    threshold, bias:  one of the two; neither means 0
    at_zero:          what a sum equal to the threshold gives: 1 (default) or 0

    >>> nand = ThresholdUnit([-2, -2], bias=3)
    >>> nand([[0, 0], [0, 1], [1, 0], [1, 1]]).tolist()
    [1, 1, 1, 0]
    """

    def __init__(
        self, weights: Any, threshold: float | None = None, bias: float | None = None, at_zero: int = 1
    ) -> None:
        self.weights = np.array(weights, np.float64)
        if self.weights.ndim != 1:
            raise ValueError(f"ThresholdUnit: expected weights of shape (d,), got shape {self.weights.shape}")
        if threshold is not None and bias is not None:
            raise ValueError(
                f"ThresholdUnit: expected a threshold or a bias, which is its negative, got both ({threshold}, {bias})"
            )
        if bias is None:
            threshold = 0.0 if threshold is None else _check.real("ThresholdUnit", "threshold", threshold)
            self.bias = 0.0 - threshold
        else:
            self.bias = _check.real("ThresholdUnit", "bias", bias)
        self.at_zero = _check.choice("ThresholdUnit", "at_zero", at_zero, (0, 1))

    @property
    def threshold(self) -> float:
        return 0.0 - self.bias

    def sums(self, x: Any) -> np.ndarray:
        """``w x + bias`` for inputs (..., d)."""
        x = np.asarray(x, np.float64)
        if x.ndim == 0 or x.shape[-1] != len(self.weights):
            raise ValueError(f"ThresholdUnit: expected x of shape (..., {len(self.weights)}), got shape {x.shape}")
        return (x * self.weights).sum(axis=-1) + self.bias

    def __call__(self, x: Any) -> np.ndarray:
        """0 or 1 for each of the inputs (..., d)."""
        return step(self.sums(x), self.at_zero)

    def __repr__(self) -> str:
        return f"ThresholdUnit({self.weights.tolist()}, bias={self.bias:g}, at_zero={self.at_zero})"


class McCullochPittsUnit:
    """A unit of binary inputs without weights: it fires if enough excitatory inputs are on and no inhibitory one.

    threshold:   how many excitatory inputs must be on
    inhibitory:  the numbers of the inputs that forbid the unit to fire; all others excite it

    W. McCulloch and W. Pitts, A logical calculus of the ideas immanent in nervous activity (1943).

    >>> both = McCullochPittsUnit(2)
    >>> both([[0, 0], [0, 1], [1, 0], [1, 1]]).tolist()
    [0, 0, 0, 1]
    """

    def __init__(self, threshold: int, inhibitory: Any = ()) -> None:
        owner = "McCullochPittsUnit"
        self.threshold = _check.integer(owner, "threshold", threshold, 0)
        self.inhibitory = tuple(_check.integer(owner, "inhibitory", i, 0) for i in inhibitory)

    def __call__(self, x: Any) -> np.ndarray:
        """0 or 1 for each of the binary inputs (..., d)."""
        a = np.asarray(x)
        if a.ndim == 0 or max(self.inhibitory, default=-1) >= a.shape[-1]:
            raise ValueError(
                f"McCullochPittsUnit: expected x of shape (..., d) with inputs {self.inhibitory}, got shape {a.shape}"
            )
        if a.dtype.kind not in "buif" or not ((a == 0) | (a == 1)).all():
            raise ValueError("McCullochPittsUnit: expected x of zeros and ones, got other values")
        forbidden = np.zeros(a.shape[-1], bool)
        forbidden[list(self.inhibitory)] = True
        count = np.where(forbidden, 0, a).sum(axis=-1)
        return ((count >= self.threshold) & ~(a.astype(bool) & forbidden).any(axis=-1)).astype(np.int64)

    def __repr__(self) -> str:
        return f"McCullochPittsUnit({self.threshold}, inhibitory={self.inhibitory})"
