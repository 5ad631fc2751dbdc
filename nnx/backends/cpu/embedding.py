"""Table look-ups by ext/embedding.pyx."""

from __future__ import annotations

import numpy as np

from nnx._ext import embedding as _embedding
from nnx._ext.memory import empty
from nnx.backends.base.embedding import EmbeddingOps
from nnx.backends.cpu._arrays import has_kernel, threads_for


class EmbeddingKernels(EmbeddingOps):
    """Overrides for tables of float32 and float64."""

    def take(self, weight: np.ndarray, index: np.ndarray) -> np.ndarray:
        if not has_kernel(weight) or weight.ndim != 2:
            return super().take(weight, index)
        y = empty((*index.shape, weight.shape[1]), weight.dtype)
        _embedding.take(np.ascontiguousarray(weight), _flat(index), y, threads_for(y.size))
        return y

    def embedding_backward(self, gy: np.ndarray, index: np.ndarray, num: int) -> np.ndarray:
        if not has_kernel(gy):
            return super().embedding_backward(gy, index, num)
        g = empty((num, gy.shape[-1]), gy.dtype)
        threads = threads_for(max(gy.size, g.size))
        _embedding.scatter_add(np.ascontiguousarray(gy), _flat(index), g, threads)
        return g


def _flat(index: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(index.reshape(-1), np.int64)
