"""Nearest neighbours: nothing is learned, everything is remembered."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx import _check
from nnx._ext.memory import empty
from nnx.backends import backend_of
from nnx.classic._estimator import Classifier, numbered, samples


def nearest(x: Any, points: Any, k: int = 1, p: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """The distances to the k nearest points for each row of x, nearest first, and the numbers of these points.

    ``p = 1``: ``sum(|x - y|)``; ``p = 2``: ``sqrt(sum((x - y)^2))``. Points at the same distance come in the order of
    their numbers. Integers never wrap: bytes are subtracted in wider integers, their distances are exact.

    x:       (Q, features), or images (Q, C, H, W)
    points:  (N, features), likewise
    k:       1 to N

    Results (Q, k): float32 for float32, otherwise float64; int64.

    >>> nearest(np.array([[250]], np.uint8), np.array([[3], [240]], np.uint8), k=2, p=1)[0].tolist()
    [[10.0, 247.0]]
    """
    owner = "nearest"
    known, queries = samples(owner, points, name="points"), samples(owner, x)
    if queries.shape[1] != known.shape[1]:
        raise ValueError(f"{owner}: expected x with {known.shape[1]} features like points, got shape {np.shape(x)}")
    _check.choice(owner, "p", p, (1, 2))
    return _nearest(queries, known, _neighbours(owner, "k", k, len(known)), p)


def _nearest(x: np.ndarray, points: np.ndarray, k: int, p: int) -> tuple[np.ndarray, np.ndarray]:
    return backend_of(x).nearest(x, points, k, p)


def _own(x: np.ndarray) -> np.ndarray:
    """A copy that later changes of the caller's array do not reach; it begins on a cache line, which is read faster."""
    own = empty(x.shape, x.dtype)
    own[...] = x
    return own


def _neighbours(owner: str, name: str, k: Any, n: int) -> int:
    k = _check.integer(owner, name, k, 1)
    if k > n:
        raise ValueError(f"{owner}: expected {name} to be at most {n}, the number of points, got {k}")
    return k


class KNeighborsClassifier(Classifier):
    """A sample has the label that most of its k nearest training samples have.

    n_neighbors:  k; 1 is the nearest-neighbour classifier
    p:            1 for sums of absolute differences (L1), 2 for the Euclidean distance (L2)

    Equal distances: the sample that comes first in training. Equal votes: the label that comes first in `classes_`.
    Images, bytes among them, are taken as they are; memory for the search is bounded.

    Attributes: `classes_`, `n_features_in_`, `n_samples_fit_`. T. Cover and P. Hart, Nearest neighbor pattern
    classification (1967).

    >>> knn = KNeighborsClassifier(n_neighbors=1, p=1).fit([[0, 0], [9, 9]], ["low", "high"])
    >>> knn.predict([[1, 2], [8, 8]]).tolist()
    ['low', 'high']
    """

    def __init__(self, n_neighbors: int = 5, p: int = 2) -> None:
        self.n_neighbors = n_neighbors
        self.p = p

    def fit(self, x: Any, y: Any) -> KNeighborsClassifier:
        """Remember samples x (N, features) or (N, C, H, W) and labels y (N,)."""
        owner = "KNeighborsClassifier"
        known = samples(owner, x)
        classes, number = numbered(owner, y, len(known))
        _neighbours(owner, "n_neighbors", self.n_neighbors, len(known))
        _check.choice(owner, "p", self.p, (1, 2))
        self.classes_ = classes
        self.n_features_in_ = known.shape[1]
        self.n_samples_fit_ = len(known)
        self._x, self._y = _own(known), number
        return self

    def kneighbors(self, x: Any, n_neighbors: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The distances (Q, k) to the k nearest training samples, nearest first, and their numbers."""
        owner = "KNeighborsClassifier"
        known = self._fitted("_x")
        k = _neighbours(owner, "n_neighbors", self.n_neighbors if n_neighbors is None else n_neighbors, len(known))
        p = _check.choice(owner, "p", self.p, (1, 2))
        return _nearest(samples(owner, x, known.shape[1]), known, k, p)

    def predict_proba(self, x: Any) -> np.ndarray:
        """The share of the votes that each class has: (Q, classes)."""
        index = self.kneighbors(x)[1]
        return self._votes(index) / index.shape[1]

    def predict(self, x: Any) -> np.ndarray:
        """The label of each sample."""
        return self.vote(self.kneighbors(x)[1])

    def vote(self, index: Any) -> np.ndarray:
        """The labels that neighbours (Q, k) elect, which `kneighbors` has found: one search serves several k.

        >>> knn = KNeighborsClassifier(3).fit([[0], [1], [3]], [7, 5, 5])
        >>> index = knn.kneighbors([[0]])[1]
        >>> knn.vote(index[:, :1]).tolist(), knn.vote(index).tolist()
        ([7], [5])
        """
        self._fitted("_y")
        return self.classes_[self._votes(np.asarray(index)).argmax(axis=1)]

    def _votes(self, index: np.ndarray) -> np.ndarray:
        cells = self._y[index] + len(self.classes_) * np.arange(len(index))[:, None]
        counts = np.bincount(cells.reshape(-1), minlength=len(index) * len(self.classes_))
        return counts.reshape(len(index), len(self.classes_))
