"""Least squares: a line, and a polynomial."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx import _check
from nnx.classic._estimator import Regressor, samples, targets


class LinearRegression(Regressor):
    """``y = x w + b`` with the least ``sum((y - x w - b)^2) + alpha sum(w^2)``; the penalty leaves b alone.

    fit_intercept:  whether there is a b
    alpha:          strength of the penalty; 0 is plain least squares

    Attributes: `coef_` (features,) or (outputs, features), `intercept_`, `rank_` of the data.

    >>> line = LinearRegression().fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
    >>> line.coef_.round(6).tolist(), round(float(line.intercept_), 6)
    ([2.0], 1.0)
    """

    coef_: np.ndarray
    intercept_: Any
    rank_: int

    def __init__(self, fit_intercept: bool = True, alpha: float = 0.0) -> None:
        self.fit_intercept = fit_intercept
        self.alpha = alpha

    def fit(self, x: Any, y: Any) -> LinearRegression:
        """Learn from x (N, features) and y (N,) or (N, outputs)."""
        owner = "LinearRegression"
        a = samples(owner, x).astype(np.float64)
        b = targets(owner, y, len(a))
        alpha = _check.real(owner, "alpha", self.alpha, 0)
        x_mean = a.mean(axis=0) if self.fit_intercept else np.zeros(a.shape[1])
        y_mean = b.mean(axis=0) if self.fit_intercept else np.zeros(b.shape[1:])
        rows, wanted = a - x_mean, b - y_mean
        if alpha:  # more samples: each asks for one weight to be 0
            rows = np.vstack([rows, np.sqrt(alpha) * np.eye(a.shape[1])])
            wanted = np.concatenate([wanted, np.zeros((a.shape[1], *b.shape[1:]))])
        w, _, rank, _ = np.linalg.lstsq(rows, wanted, rcond=None)
        self.coef_ = w.T
        self.intercept_ = y_mean - (x_mean[:, None] * w.reshape(len(w), -1)).sum(axis=0).reshape(b.shape[1:])
        self.rank_ = int(rank)
        self.n_features_in_ = a.shape[1]
        return self

    def predict(self, x: Any) -> np.ndarray:
        """(N,) or (N, outputs)."""
        w = self._fitted("coef_")
        a = samples("LinearRegression", x, w.shape[-1]).astype(np.float64)
        flat = w.reshape(-1, w.shape[-1])
        return np.einsum("nd,od->no", a, flat).reshape(len(a), *w.shape[:-1]) + self.intercept_


class PolynomialRegression(Regressor):
    """``y = c_0 + c_1 x + ... + c_degree x^degree`` by least squares, for one input.

    The inputs seen in `fit` are mapped to [-1, 1] and the polynomial is written in Chebyshev's basis: powers of x
    themselves are nearly dependent from degree 10 on.

    degree:  0 or more
    alpha:   strength of a penalty ``alpha sum(c^2)`` on the coefficients (of Chebyshev's basis, but the constant)

    Attributes: `coef_` (degree + 1,) of the powers of x, lowest first; `model_`, the `LinearRegression`.

    >>> x = [[0.0], [1.0], [2.0], [3.0]]
    >>> PolynomialRegression(2).fit(x, [1.0, 0.0, 1.0, 4.0]).coef_.round(6).tolist()
    [1.0, -2.0, 1.0]
    """

    model_: LinearRegression

    def __init__(self, degree: int = 2, alpha: float = 0.0) -> None:
        self.degree = degree
        self.alpha = alpha

    def fit(self, x: Any, y: Any) -> PolynomialRegression:
        """Learn from x (N, 1) or (N,) and y (N,)."""
        owner = "PolynomialRegression"
        degree = _check.integer(owner, "degree", self.degree, 0)
        a = self._input(x)
        b = targets(owner, y, len(a))
        if b.ndim != 1:
            raise ValueError(f"{owner}: expected y of shape ({len(a)},), got shape {b.shape}")
        alpha = _check.real(owner, "alpha", self.alpha, 0)
        low, high = float(a.min()), float(a.max())
        self._domain = (low, high if high > low else low + 1)
        self._degree = degree
        self.n_features_in_ = 1
        if degree:
            self.model_ = LinearRegression(alpha=alpha).fit(self._basis(a), b)
        else:
            self.model_ = LinearRegression(alpha=alpha).fit(np.zeros((len(a), 1)), b)
        series = np.append(self.model_.intercept_, self.model_.coef_[:degree])
        power = np.polynomial.Chebyshev(series, self._domain).convert(kind=np.polynomial.Polynomial)
        self.coef_ = np.zeros(degree + 1)
        self.coef_[: len(power.coef)] = power.coef
        return self

    def predict(self, x: Any) -> np.ndarray:
        """(N,)."""
        model = self._fitted("model_")
        a = self._input(x)
        return model.predict(self._basis(a) if self._degree else np.zeros((len(a), 1)))

    def _input(self, x: Any) -> np.ndarray:
        a = np.asarray(x)
        a = samples("PolynomialRegression", a[:, None] if a.ndim == 1 else a, 1)
        return a[:, 0].astype(np.float64)

    def _basis(self, x: np.ndarray) -> np.ndarray:
        low, high = self._domain
        return np.polynomial.chebyshev.chebvander(2 * (x - low) / (high - low) - 1, self._degree)[:, 1:]
