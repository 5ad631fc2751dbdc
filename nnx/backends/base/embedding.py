"""Rows taken from a table, and their gradients added back, in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx._device import is_device_array


class EmbeddingOps:
    """Look-up of rows by number."""

    xp: Any

    def take(self, weight: np.ndarray, index: np.ndarray) -> np.ndarray:
        """``y[i] = weight[index[i]]``: weight (num, D), integer index (...), y (..., D).

        IndexError for an index outside of [0, num); on a CUDA device, which cannot raise, its row is NaN.
        """
        check_index("take", index, weight.shape[0])
        return weight[index]

    def embedding_backward(self, gy: np.ndarray, index: np.ndarray, num: int) -> np.ndarray:
        """The gradient of `take`: row k is the sum of ``gy[i]`` over all i with ``index[i] == k``.

        It is summed in the order of i. gy (*index, D), result (num, D). Indices as for `take`; on a CUDA device those
        out of range are left out.
        """
        check_index("embedding_backward", index, num)
        g = self.xp.zeros((num, gy.shape[-1]), gy.dtype)
        add = np.add.at if self.xp is np else self.xp.add.at
        add(g, index.reshape(-1), gy.reshape(index.size, gy.shape[-1]))
        return g

    def index_counts(self, index: np.ndarray, num: int) -> np.ndarray:
        """How often each number below `num` is in `index`: (num,)."""
        return np.bincount(index.reshape(-1), minlength=num)


def check_index(owner: str, index: np.ndarray, num: int, name: str = "index") -> None:
    """IndexError unless `index` lies in [0, num): NumPy would count negatives from the end.

    What is on a CUDA device is not looked at: that would wait for it.
    """
    if index.size and not is_device_array(index) and (index.min() < 0 or index.max() >= num):
        raise IndexError(f"{owner}: expected {name} in [0, {num}), got values in [{index.min()}, {index.max()}]")
