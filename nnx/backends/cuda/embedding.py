"""Table look-ups by embedding.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.backends.base.embedding import EmbeddingOps
from nnx.backends.cuda._arrays import contiguous, has_kernel
from nnx.backends.cuda._kernels import Kernels, blocks_for

_COLUMNS = 256  # of a block of add_rows
_MOST_ROWS = 32
_BLOCKS = 1024  # enough for any device
_MOST_TILES = 65535
_k = Kernels("embedding")


class EmbeddingCUDA(EmbeddingOps):
    """Overrides for tables of float32 and float64."""

    def take(self, weight: Any, index: Any) -> Any:
        if not has_kernel(weight) or weight.ndim != 2:
            return super().take(weight, index)
        num, width = weight.shape
        y = self.xp.empty((*index.shape, width), weight.dtype)
        if y.size:
            group = group_for(width)
            blocks = blocks_for(index.size * group)
            _k.launch(
                "take_rows", y.dtype, blocks, 256, contiguous(weight), _flat(index), y, index.size, num, width, group
            )  # fmt: skip
        return y

    def embedding_backward(self, gy: Any, index: Any, num: int) -> Any:
        width = gy.shape[-1]
        if not has_kernel(gy) or width > _COLUMNS * _MOST_TILES:
            return super().embedding_backward(gy, index, num)
        g = self.xp.empty((num, width), gy.dtype)
        if g.size:
            rows = min(max(num // _BLOCKS, 1), _MOST_ROWS)
            grid = (-(-num // rows), -(-width // _COLUMNS))
            _k.launch("add_rows", g.dtype, grid, 256, contiguous(gy), _flat(index), g, index.size, num, width, rows)
        return g

    def index_counts(self, index: Any, num: int) -> Any:
        """As sums of ones: NumPy's way reads the largest number from the device."""
        ones = self.xp.ones((index.size, 1), np.float64)
        return self.embedding_backward(ones, index, num).reshape(num)


def group_for(width: int) -> int:
    """How many threads share a row: a power of two up to 256, with up to four numbers for each where that is enough."""
    group = 1
    while group < 256 and 4 * group < width:
        group *= 2
    return group


def _flat(index: Any) -> Any:
    return contiguous(index.reshape(-1).astype(np.int64, copy=False))
