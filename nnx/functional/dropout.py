"""Dropout: Srivastava et al. (2014), "Dropout: a simple way to prevent neural networks from
overfitting".

What is kept is scaled up during training ("inverted" dropout), so that evaluation changes nothing;
`plain_dropout` scales down in evaluation instead. Masks depend on the generator and the shape of
the input alone, neither on its memory layout nor on the number of threads. A generator of one's own
gives the same masks on a CUDA device as on the CPU, drawn on the CPU; the library's stream gives
others there, drawn by the device.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnx import _check
from nnx._device import device_of, move
from nnx.autograd import Tensor, record
from nnx.backends import backend_of
from nnx.functional._floats import floats

__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "plain_dropout"]

# The value that a SELU unit tends to for large negative input: -scale alpha.
_SELU_FLOOR = -1.7580993408473766


def dropout(
    input: Any,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Any = None,
) -> Tensor:
    """Set each element to 0 with probability `p`, and divide the others by ``1 - p``.

    training:   otherwise the input is returned as it is
    inplace:    accepted for PyTorch's sake; the input is never changed
    generator:  a `numpy.random.Generator`; None draws from the library's stream (`nnx.manual_seed`)

    A dropped element is 0 also if it was NaN or infinite.
    """
    return dropout_as("dropout", input, p, training, generator)


def dropout_as(owner: str, input: Any, p: float, training: bool, generator: Any = None) -> Tensor:
    """`dropout` for a layer, whose name the messages carry."""
    p, x = _arguments(owner, input, p)
    if not training or p == 0:
        return x
    return _masked(x, backend_of(x.data).draw_mask(x.shape, p, generator), p)


def plain_dropout(
    input: Any,
    p: float = 0.5,
    training: bool = True,
    *,
    generator: Any = None,
) -> Tensor:
    """Set each element to 0 with probability `p` in training, and multiply by ``1 - p`` otherwise.

    The first form of dropout: what the next layer gets in evaluation is the mean of what it gets in
    training. It is `dropout` times ``1 - p`` in both modes, so the two learn the same function, but
    here evaluation has work to do. Srivastava et al. (2014), section 3.

    training:   whether to drop, or to scale
    generator:  a `numpy.random.Generator`; None draws from the library's stream (`nnx.manual_seed`)

    >>> plain_dropout([1.0, 2.0], p=0.25, training=False).tolist()
    [0.75, 1.5]
    """
    return plain_dropout_as("plain_dropout", input, p, training, generator)


def plain_dropout_as(owner: str, input: Any, p: float, training: bool, generator: Any = None) -> Tensor:
    """`plain_dropout` for a layer, whose name the messages carry."""
    p, x = _arguments(owner, input, p)
    if not training:
        return x * (1 - p)
    return x if p == 0 else masked(x, backend_of(x.data).draw_mask(x.shape, p, generator), 1.0)


def masked(x: Tensor, keep: Any, scale: float) -> Tensor:
    """``scale x`` where the bool array `keep` (it may broadcast) is True, else 0, also for NaN."""
    be = backend_of(x.data)
    keep = move(keep, device_of(x.data))
    return record(be.dropout(x.data, keep, scale), _dropout_grad, (x,), be, keep, scale)


def dropout1d(
    input: Any,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Any = None,
) -> Tensor:
    """Drop whole channels of (N, C, L) or (C, L): Tompson et al. (2014), "Efficient object
    localization".
    """
    return dropout_nd_as("dropout1d", 1, input, p, training, generator)


def dropout2d(
    input: Any,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Any = None,
) -> Tensor:
    """Drop whole channels of (N, C, H, W) or (C, H, W)."""
    return dropout_nd_as("dropout2d", 2, input, p, training, generator)


def dropout3d(
    input: Any,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Any = None,
) -> Tensor:
    """Drop whole channels of (N, C, D, H, W) or (C, D, H, W)."""
    return dropout_nd_as("dropout3d", 3, input, p, training, generator)


def dropout_nd_as(owner: str, spatial: int, input: Any, p: float, training: bool, generator: Any = None) -> Tensor:
    """Channel dropout for inputs with this many spatial dimensions, with or without a batch dimension."""
    p, x = _arguments(owner, input, p)
    if x.ndim not in (spatial + 1, spatial + 2):
        form = ", ".join(("L", "H, W", "D, H, W")[spatial - 1 : spatial])
        raise ValueError(f"{owner}: expected input of shape (N, C, {form}) or (C, {form}), got shape {x.shape}")
    if not training or p == 0:
        return x
    shape = x.shape[:-spatial] + (1,) * spatial
    return _masked(x, backend_of(x.data).draw_mask(shape, p, generator), p)


def alpha_dropout(
    input: Any,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    generator: Any = None,
) -> Tensor:
    """Dropout that keeps the mean and variance of SELU units: Klambauer et al. (2017),
    "Self-normalizing neural networks".

    An element becomes ``a v + b`` with probability `p`, else ``a x + b``, where v is SELU's lower
    limit and a, b restore mean 0 and variance 1.
    """
    return alpha_dropout_as("alpha_dropout", input, p, training, generator)


def alpha_dropout_as(owner: str, input: Any, p: float, training: bool, generator: Any = None) -> Tensor:
    """`alpha_dropout` for a layer, whose name the messages carry."""
    p, x = _arguments(owner, input, p)
    if not training or p == 0:
        return x
    be = backend_of(x.data)
    keep = be.draw_mask(x.shape, p, generator)
    if p == 1:
        return record(be.dropout(x.data, keep, 0.0), _dropout_grad, (x,), be, keep, 0.0)
    a = 1 / math.sqrt((1 - p) * (1 + p * _SELU_FLOOR**2))
    b = -a * p * _SELU_FLOOR
    y = be.dropout(x.data, keep, a)
    y += np.where(keep, b, a * _SELU_FLOOR + b).astype(y.dtype)
    return record(y, _dropout_grad, (x,), be, keep, a)


def _arguments(owner: str, input: Any, p: float) -> tuple[float, Tensor]:
    p = _check.real(owner, "p", p, 0, 1)
    return p, floats(owner, input)


def _masked(x: Tensor, keep: Any, p: float) -> Tensor:
    return masked(x, keep, 1 / (1 - p) if p < 1 else 0.0)


def _dropout_grad(needs, gy, be, keep, scale):
    return (be.dropout_backward(gy, keep, scale),)
