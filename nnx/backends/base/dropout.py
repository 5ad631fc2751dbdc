"""Dropout in plain NumPy. The mask is drawn by the caller (`nnx.functional.dropout`), so that every
backend drops the same.
"""

from __future__ import annotations

import numpy as np

_quiet = np.errstate(all="ignore")


class DropoutOps:
    """Keep or drop elements by a mask."""

    @_quiet
    def dropout(self, x: np.ndarray, keep: np.ndarray, scale: float) -> np.ndarray:
        """``scale x`` where the bool array `keep` (which broadcasts to x) holds, else 0, also for
        NaN and infinity.
        """
        return np.where(keep, x * scale, 0)

    @_quiet
    def dropout_backward(self, gy: np.ndarray, keep: np.ndarray, scale: float) -> np.ndarray:
        return np.where(keep, gy * scale, 0)
