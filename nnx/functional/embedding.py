"""Rows of a table looked up by number, and numbers as rows with a single 1."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx import _check
from nnx._device import as_array, is_device_array
from nnx.autograd import Tensor, as_tensor, record
from nnx.backends import backend_of
from nnx.backends.base.embedding import check_index
from nnx.functional._floats import beside

__all__ = ["embedding", "one_hot"]


def embedding(
    input: Any,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of `weight` by number: ``y[i] = weight[input[i]]``.

    input:        integers of any shape, in [0, num_embeddings)
    weight:       (num_embeddings, embedding_dim)
    padding_idx:  a row that gets no gradient; negative numbers count from the end
    scale_grad_by_freq:
                  divide a row's gradient by the number of times it was taken

    Returns ``(*input.shape, embedding_dim)``; on a CUDA device, which cannot raise, a number out of range
    gives a row of NaN and no gradient. `max_norm` (which would change `weight`) and `sparse`
    gradients are not offered: ValueError.

    >>> embedding([2, 0], np.eye(3)).data.tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    w = as_tensor(weight)
    if w.ndim != 2:
        raise ValueError(f"embedding: expected weight of shape (num_embeddings, embedding_dim), got shape {w.shape}")
    padding_idx = check_options("embedding", padding_idx, max_norm, sparse, w.shape[0])
    return embedding_as("embedding", input, w, padding_idx, scale_grad_by_freq)


def check_options(owner: str, padding_idx: Any, max_norm: Any, sparse: Any, num: int) -> int | None:
    """Refuse what is not offered; return `padding_idx` in [0, num)."""
    if max_norm is not None:
        raise ValueError(
            f"{owner}: expected max_norm to be None (limiting the norm of the rows is not offered), got {max_norm!r}"
        )
    if sparse:
        raise ValueError(f"{owner}: expected sparse to be False (sparse gradients are not offered), got {sparse!r}")
    if padding_idx is None:
        return None
    row = _check.integer(owner, "padding_idx", padding_idx)
    if not -num <= row < num:
        raise ValueError(f"{owner}: expected padding_idx in [{-num}, {num}), got {row}")
    return row % num


def embedding_as(owner: str, input: Any, weight: Tensor, padding_idx: int | None, scale_grad_by_freq: bool) -> Tensor:
    """`embedding` for a layer: messages carry its name, and it has checked all but `input`."""
    index = _integers(owner, input, weight.data)
    check_index(owner, index, weight.shape[0], "input")
    be = backend_of(weight.data)
    y = be.take(weight.data, index)
    num = weight.shape[0]
    return record(y, _embedding_grad, (weight,), be, index, num, padding_idx, scale_grad_by_freq)


def _embedding_grad(needs, gy, be, index, num, padding_idx, scale_grad_by_freq):
    gw = be.embedding_backward(gy, index, num)
    if scale_grad_by_freq:
        gw /= np.maximum(be.index_counts(index, num), 1).astype(gw.dtype)[:, None]
    if padding_idx is not None:
        gw[padding_idx] = 0
    return (gw,)


def one_hot(tensor: Any, num_classes: int = -1) -> Tensor:
    """Class numbers as rows that hold a single 1, in int64.

    tensor:       integers of any shape, >= 0
    num_classes:  the length of a row; -1 takes one more than the largest number (and waits for a CUDA
                  device, where a number out of range gives a row of zeros)

    >>> one_hot([0, 2]).data.tolist()
    [[1, 0, 0], [0, 0, 1]]
    """
    index = _integers("one_hot", tensor)
    num = _check.integer("one_hot", "num_classes", num_classes, -1)
    if num == -1:
        if index.size == 0:
            raise ValueError("one_hot: expected num_classes for an empty input, got -1 (there is no largest number)")
        num = int(index.max()) + 1
    check_index("one_hot", index, num, "input")
    if is_device_array(index):
        return Tensor((index[..., None] == backend_of(index).xp.arange(num)).astype(np.int64))
    y = np.zeros((*index.shape, num), np.int64)
    np.put_along_axis(y, index[..., None], 1, axis=-1)
    return Tensor(y)


def _integers(owner: str, input: Any, weight: Any = None) -> Any:
    """An index array, on the device of `weight`; an empty list has no type of its own and passes."""
    if weight is None:
        index = input.data if isinstance(input, Tensor) else as_array(input)
    else:
        index = beside(owner, "input", input, weight, "weight")
    if index.dtype.kind not in "iu" and not (index.size == 0 and isinstance(input, list)):
        raise TypeError(f"{owner}: expected input of an integer dtype, got {index.dtype}")
    return index.astype(np.int64, copy=False)
