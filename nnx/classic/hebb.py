"""Hebb's rule: connections grow between units that are active together."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.classic._estimator import Estimator, product, samples, targets


class Hebb(Estimator):
    """A linear associator: it learns pairs of patterns in one pass, without looking at its own errors.

    ``W = learning_rate * sum over samples of x y'``, with W of shape (inputs, outputs). Patterns are usually made of -1
    and 1; those stored without error are orthogonal to each other.

    learning_rate:  the factor of every step

    Attributes: `coef_` (inputs, outputs). D. Hebb, The Organization of Behavior (1949).

    >>> memory = Hebb().fit([[1, 1, -1, -1], [1, -1, 1, -1]], [[1, -1], [-1, -1]])
    >>> memory.predict([[1, 1, -1, -1]]).tolist()
    [[1, -1]]
    """

    coef_: np.ndarray

    def __init__(self, learning_rate: float = 1.0) -> None:
        self.learning_rate = learning_rate

    def fit(self, x: Any, y: Any) -> Hebb:
        """Store the pairs of patterns x (N, inputs) and y (N, outputs)."""
        vars(self).pop("coef_", None)
        return self.partial_fit(x, y)

    def partial_fit(self, x: Any, y: Any) -> Hebb:
        """Store further pairs."""
        a = samples("Hebb", x)
        b = targets("Hebb", y, len(a))
        if b.ndim != 2:
            raise ValueError(f"Hebb: expected y of shape ({len(a)}, outputs), got shape {b.shape}")
        known = vars(self).get("coef_")
        if known is not None and known.shape != (a.shape[1], b.shape[1]):
            raise ValueError(f"Hebb: expected patterns of {known.shape} numbers, got {(a.shape[1], b.shape[1])}")
        change = self.learning_rate * product(a.T, b)
        self.coef_ = change if known is None else known + change
        return self

    def decision_function(self, x: Any) -> np.ndarray:
        """``x W``: (N, outputs)."""
        w = self._fitted("coef_")
        return product(samples("Hebb", x, len(w)), w)

    def predict(self, x: Any) -> np.ndarray:
        """The recalled patterns of -1 and 1; a sum of 0 gives 1."""
        return np.where(self.decision_function(x) >= 0, 1, -1)

    def score(self, x: Any, y: Any) -> float:
        """The part of all elements that are recalled."""
        return float(np.mean(self.predict(x) == targets("Hebb", y, len(np.asarray(x)))))
