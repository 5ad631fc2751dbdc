"""Rosenblatt's perceptron and the rule that trains it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nnx import _check
from nnx.classic._estimator import Classifier, numbered, product, samples, targets
from nnx.classic.threshold import step


class Learned(NamedTuple):
    """What `perceptron_learning` returns."""

    weights: np.ndarray
    updates: int
    passes: int
    converged: bool


def perceptron_learning(x: Any, y: Any, w0: Any = None, update: str = "<=", max_passes: int = 1000) -> Learned:
    """Walk through the samples in a cycle: ``w += x y`` wherever ``y w x <= 0``, until a pass changes nothing.

    If some w separates the classes, it stops after at most ``(R / gamma)^2`` updates (from w0 = 0), where R is the
    length of the longest x and gamma the margin of the best w of length 1 (Novikoff, 1962).

    x:           (N, d); append a column of ones for a bias
    y:           (N,) of -1 and 1
    w0:          (d,) to start from; None is zero
    update:      "<=" updates also on the boundary; "<", as S1 prints it, may stop at a w that separates nothing
    max_passes:  the end, if no w separates the classes

    >>> perceptron_learning([[2.0, 1.0], [-1.0, 1.0]], [1, -1])
    Learned(weights=array([2., 1.]), updates=1, passes=2, converged=True)
    """
    owner = "perceptron_learning"
    a = samples(owner, x).astype(np.float64)
    b = targets(owner, y, len(a))
    if b.ndim != 1 or not (np.abs(b) == 1).all():
        raise ValueError(f"{owner}: expected y of shape ({len(a)},) with -1 and 1 only, got shape {b.shape}")
    _check.choice(owner, "update", update, ("<=", "<"))
    w = np.zeros(a.shape[1]) if w0 is None else np.array(w0, np.float64)
    if w.shape != (a.shape[1],):
        raise ValueError(f"{owner}: expected w0 of shape ({a.shape[1]},), got shape {w.shape}")
    return _cycle(a * b[:, None], w, update == "<=", _check.integer(owner, "max_passes", max_passes, 1))


_AHEAD = 64  # samples that are tried at once with the same weights


def _cycle(signed: np.ndarray, w: np.ndarray, on_boundary: bool, max_passes: int) -> Learned:
    """The rule for samples that were multiplied by their sign; a block of them at once up to the next mistake."""
    updates = 0
    for done in range(1, max_passes + 1):
        before, at = updates, 0
        while at < len(signed):
            margins = (signed[at : at + _AHEAD] * w).sum(axis=1)
            wrong = np.flatnonzero(margins <= 0 if on_boundary else margins < 0)
            if wrong.size == 0:
                at += _AHEAD
                continue
            at += int(wrong[0])
            w = w + signed[at]
            updates += 1
            at += 1
        if updates == before:
            return Learned(w, updates, done, True)
    return Learned(w, updates, max_passes, False)


class Perceptron(Classifier):
    """Threshold units trained by the perceptron rule: one for two classes, else one for each class against the rest.

    max_iter:       passes over the samples at most
    update:         "<=" (default) updates on the boundary too, "<" only beyond it: see `perceptron_learning`
    at_zero:        what a sum of exactly 0 means: 1 the second class (S1), 0 the first (S3)
    fit_intercept:  whether there is a bias
    shuffle:        a new order of the samples for every fit, by `random_state`; otherwise as they come

    Attributes: `classes_`, `coef_` (1 or classes, features), `intercept_`, `n_iter_` (passes), `n_updates_`,
    `converged_`. F. Rosenblatt, The perceptron: a probabilistic model for information storage (1958).

    >>> gate = Perceptron().fit([[0, 0], [0, 1], [1, 0], [1, 1]], [1, 1, 1, 0])
    >>> gate.predict([[0, 1], [1, 1]]).tolist(), gate.converged_
    ([1, 0], True)
    """

    coef_: np.ndarray
    intercept_: np.ndarray
    n_iter_: int
    n_updates_: int
    converged_: bool

    def __init__(
        self,
        max_iter: int = 1000,
        update: str = "<=",
        at_zero: int = 1,
        fit_intercept: bool = True,
        shuffle: bool = False,
        random_state: int = 0,
    ) -> None:
        self.max_iter = max_iter
        self.update = update
        self.at_zero = at_zero
        self.fit_intercept = fit_intercept
        self.shuffle = shuffle
        self.random_state = random_state

    def fit(self, x: Any, y: Any) -> Perceptron:
        """Learn from x (N, features) and labels y (N,)."""
        owner = "Perceptron"
        a = samples(owner, x).astype(np.float64)
        classes, number = numbered(owner, y, len(a), at_least=2)
        passes = _check.integer(owner, "max_iter", self.max_iter, 1)
        on_boundary = _check.choice(owner, "update", self.update, ("<=", "<")) == "<="
        _check.choice(owner, "at_zero", self.at_zero, (0, 1))
        if self.shuffle:
            order = np.random.default_rng(self.random_state).permutation(len(a))
            a, number = a[order], number[order]
        if self.fit_intercept:
            a = np.hstack([a, np.ones((len(a), 1))])
        positive = [1] if len(classes) == 2 else list(range(len(classes)))
        learned = [
            _cycle(a * np.where(number == c, 1.0, -1.0)[:, None], np.zeros(a.shape[1]), on_boundary, passes)
            for c in positive
        ]
        w = np.stack([one.weights for one in learned])
        self.classes_ = classes
        self.coef_ = w[:, :-1] if self.fit_intercept else w
        self.intercept_ = w[:, -1] if self.fit_intercept else np.zeros(len(w))
        self.n_features_in_ = self.coef_.shape[1]
        self.n_iter_ = max(one.passes for one in learned)
        self.n_updates_ = sum(one.updates for one in learned)
        self.converged_ = all(one.converged for one in learned)
        return self

    def decision_function(self, x: Any) -> np.ndarray:
        """``w x + b``: (N,) for two classes, otherwise (N, classes)."""
        w = self._fitted("coef_")
        sums = product(samples("Perceptron", x, w.shape[1]), w.T) + self.intercept_
        return sums[:, 0] if len(w) == 1 else sums

    def predict(self, x: Any) -> np.ndarray:
        """The label of each sample; of several units the one with the largest sum decides."""
        sums = self.decision_function(x)
        return self.classes_[step(sums, self.at_zero) if sums.ndim == 1 else sums.argmax(axis=1)]
