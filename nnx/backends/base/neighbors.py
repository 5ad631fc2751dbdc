"""The nearest rows of a matrix, in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

_NUMBERS = 1 << 20  # differences at a time: memory does not grow with the matrices


class NeighborsOps:
    """Nearest neighbours."""

    xp: Any

    def nearest(self, x: np.ndarray, points: np.ndarray, k: int, p: int) -> tuple[np.ndarray, np.ndarray]:
        """The distances to the k nearest rows of `points` for each row of x, nearest first, and their numbers.

        ``p = 1``: ``sum(|x - y|)``; ``p = 2``: ``sqrt(sum((x - y)^2))``. Rows at the same distance come in the order of
        their numbers; a distance that is not a number counts as infinite. Integers are subtracted without wrapping, and
        their distances are float64.
        x (Q, K), points (N, K), 1 <= k <= N; results (Q, k), the numbers int64.
        """
        kind = np.result_type(x, points)
        wide = np.promote_types(kind, np.float32) if kind.kind == "f" else np.dtype(np.float64)
        x, points = x.astype(wide, copy=False), points.astype(wide, copy=False)
        distances = self.xp.empty((len(x), k), wide)
        index = self.xp.empty((len(x), k), np.int64)
        step = max(_NUMBERS // max(points.shape[1], 1), 1)
        with np.errstate(invalid="ignore", over="ignore"):
            for i, row in enumerate(x):
                d = np.concatenate([_sums(row - points[n : n + step], p) for n in range(0, len(points), step)])
                d[np.isnan(d)] = np.inf
                index[i] = np.argsort(d, kind="stable")[:k]
                distances[i] = d[index[i]]
        return (distances if p == 1 else np.sqrt(distances)), index


def _sums(e: np.ndarray, p: int) -> np.ndarray:
    return np.abs(e).sum(axis=1) if p == 1 else (e * e).sum(axis=1)
