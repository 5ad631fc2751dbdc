"""Dropout with the compiled kernel."""

from __future__ import annotations

import numpy as np

from nnx._ext import activation as _activation
from nnx._ext.memory import empty_like
from nnx.backends.base.dropout import DropoutOps
from nnx.backends.cpu._arrays import dense, has_kernel, threads_for


class DropoutKernels(DropoutOps):
    """Overrides for a mask with one element per element; channel masks go to the base class."""

    def dropout(self, x: np.ndarray, keep: np.ndarray, scale: float) -> np.ndarray:
        if keep.shape != x.shape or not has_kernel(x):
            return super().dropout(x, keep, scale)
        return _dropout(x, keep, scale)

    def dropout_backward(self, gy: np.ndarray, keep: np.ndarray, scale: float) -> np.ndarray:
        if keep.shape != gy.shape or not has_kernel(gy):
            return super().dropout_backward(gy, keep, scale)
        return _dropout(gy, keep, scale)


def _dropout(x: np.ndarray, keep: np.ndarray, scale: float) -> np.ndarray:
    x = dense(x)
    y = empty_like(x)
    if not (x.flags.c_contiguous and keep.flags.c_contiguous):
        mask = empty_like(x, bool)  # in the memory order of x
        mask[...] = keep
        keep = mask
    _activation.dropout(x, keep, y, scale, threads_for(x.size))
    return y
