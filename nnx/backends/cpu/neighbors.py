"""Nearest neighbours by ext/neighbors.pyx."""

from __future__ import annotations

import numpy as np

from nnx._ext import neighbors as _neighbors
from nnx._ext.threads import threads_for
from nnx.backends.base.neighbors import NeighborsOps

_SAMPLE = 256  # rows whose mean is near the middle of all


class NeighborsKernels(NeighborsOps):
    """Overrides for bytes, float32 and float64; other integers are converted to float64."""

    def nearest(self, x: np.ndarray, points: np.ndarray, k: int, p: int) -> tuple[np.ndarray, np.ndarray]:
        kind = np.result_type(x, points)
        if kind.kind not in "buif" or kind.itemsize > 8 or kind == np.float16:
            return super().nearest(x, points, k, p)
        given: type = np.float64
        if kind.itemsize == 1 and kind.kind in "bu":
            given = np.uint8
        elif kind == np.float32:
            given = np.float32
        x, points = np.ascontiguousarray(x, given), np.ascontiguousarray(points, given)
        distances = np.empty((len(x), k), np.float32 if given is np.float32 else np.float64)
        index = np.empty((len(x), k), np.int64)
        center = _middle(points) if p == 2 and given is not np.uint8 else None
        threads = threads_for(len(x) * points.size)
        _neighbors.nearest(x, points, distances, index, p, center, threads)
        return (distances if p == 1 else np.sqrt(distances)), index


def _middle(points: np.ndarray) -> np.ndarray:
    """A point near the middle of the points. Where it lies changes the speed, not the result."""
    sample = points[:: max(len(points) // _SAMPLE, 1)]
    with np.errstate(all="ignore"):
        return sample.mean(axis=0, dtype=np.float64).astype(points.dtype)
