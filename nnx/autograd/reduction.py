"""Sums, means, extrema and norms of Tensors, each with its gradient below it.

`dim` is None (everything), an axis or a tuple of axes; an empty maximum is an error, an empty sum is 0.
"""

from __future__ import annotations

import builtins
from typing import Any, NamedTuple

import numpy as np

from nnx import _check
from nnx._device import as_array
from nnx.autograd._tensor import Tensor, _wrap, as_tensor, record, tensor


class Extremum(NamedTuple):
    """What ``max(dim)`` and ``min(dim)`` return."""

    values: Tensor
    indices: Tensor


def _axes(owner: str, dim: Any, ndim: int) -> tuple[int, ...] | None:
    if dim is None:
        return None
    if isinstance(dim, (tuple, list)):
        axes = tuple(_check.axis(owner, "dim", d, ndim) for d in dim)
        if len(set(axes)) != len(axes):
            raise ValueError(f"{owner}: expected every dim once, got {dim}")
        return axes
    return (_check.axis(owner, "dim", dim, ndim),)


def _kept(shape: tuple[int, ...], axes: tuple[int, ...] | None) -> tuple[int, ...]:
    """`shape` with the reduced axes kept as 1."""
    if axes is None:
        return (1,) * len(shape)
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def _length(shape: tuple[int, ...], axes: tuple[int, ...] | None) -> int:
    count = 1
    for i, n in enumerate(shape):
        if axes is None or i in axes:
            count *= n
    return count


def sum(input: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The sum over `dim`."""
    x = as_tensor(input)
    axes = _axes("sum", dim, x.ndim)
    y = x.data.sum(axis=axes, keepdims=keepdim)
    return record(as_array(y), _sum_grad, (x,), x.shape, axes)


def _sum_grad(needs, gy, shape, axes):
    return (np.broadcast_to(gy.reshape(_kept(shape, axes)), shape),)


def mean(input: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The mean over `dim`; of nothing it is NaN."""
    x = as_tensor(input)
    axes = _axes("mean", dim, x.ndim)
    count = _length(x.shape, axes)
    total = as_array(x.data.sum(axis=axes, keepdims=keepdim))
    with np.errstate(invalid="ignore"):
        y = total / total.dtype.type(count)
    return record(as_array(y), _mean_grad, (x,), x.shape, axes, count)


def _mean_grad(needs, gy, shape, axes, count):
    return (np.broadcast_to((gy / gy.dtype.type(builtins.max(count, 1))).reshape(_kept(shape, axes)), shape),)


def var(input: Any, dim: Any = None, *, correction: float = 1, keepdim: bool = False) -> Tensor:
    """The variance, sum((x - mean)^2) / (n - correction)."""
    x = as_tensor(input)
    axes = _axes("var", dim, x.ndim)
    centred = x - mean(x, dim if axes is None else axes, keepdim=True)
    freedom = builtins.max(_length(x.shape, axes) - correction, 0)
    return sum(centred * centred, axes, keepdim) / freedom


def std(input: Any, dim: Any = None, *, correction: float = 1, keepdim: bool = False) -> Tensor:
    """The standard deviation, the root of `var`."""
    return var(input, dim, correction=correction, keepdim=keepdim).sqrt()


def _nonempty(owner: str, x: Tensor, axes: tuple[int, ...] | None) -> None:
    if _length(x.shape, axes) == 0:
        raise ValueError(f"{owner}: expected at least one element to choose from, got shape {x.shape}")


def amax(input: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The largest element over `dim`, NaN passed on; equal largest elements share the gradient."""
    return _extreme("amax", np.max, input, dim, keepdim)


def amin(input: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The smallest element over `dim`, NaN passed on; equal smallest elements share the gradient."""
    return _extreme("amin", np.min, input, dim, keepdim)


def _extreme(owner: str, choose: Any, input: Any, dim: Any, keepdim: bool) -> Tensor:
    x = as_tensor(input)
    axes = _axes(owner, dim, x.ndim)
    _nonempty(owner, x, axes)
    y = as_array(choose(x.data, axis=axes, keepdims=keepdim))
    return record(y, _extreme_grad, (x,), x.data, y, axes)


def _extreme_grad(needs, gy, x, y, axes):
    kept = _kept(x.shape, axes)
    top = y.reshape(kept)
    hit = (x == top) | (np.isnan(x) & np.isnan(top))
    return (gy.reshape(kept) * hit / hit.sum(axis=axes, keepdims=True).astype(x.dtype),)


def max(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest element, or with an int `dim` the pair ``(values, indices)`` along it.

    Of equal elements, `max(dim)` takes the first, and the gradient goes to that one alone.
    """
    if dim is None:
        return amax(input)
    return _extreme_pair("max", np.argmax, input, dim, keepdim)


def min(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest element, or with an int `dim` the pair ``(values, indices)`` along it."""
    if dim is None:
        return amin(input)
    return _extreme_pair("min", np.argmin, input, dim, keepdim)


def _extreme_pair(owner: str, choose: Any, input: Any, dim: Any, keepdim: bool) -> Extremum:
    x = as_tensor(input)
    axis = _check.axis(owner, "dim", dim, x.ndim)
    _nonempty(owner, x, (axis,))
    index = choose(x.data, axis=axis, keepdims=True)
    y = np.take_along_axis(x.data, index, axis)
    if not keepdim:
        y = y.squeeze(axis)
    values = record(y, _take_grad, (x,), x.shape, index, axis)
    return Extremum(values, _wrap(index if keepdim else index.squeeze(axis)))


def _take_grad(needs, gy, shape, index, axis):
    g = np.zeros_like(gy, shape=shape)
    np.put_along_axis(g, index, gy.reshape(index.shape), axis)
    return (g,)


def argmax(input: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The position of the largest element (the first of equals); without `dim`, in the flattened array."""
    return _position("argmax", np.argmax, input, dim, keepdim)


def argmin(input: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The position of the smallest element (the first of equals)."""
    return _position("argmin", np.argmin, input, dim, keepdim)


def _position(owner: str, choose: Any, input: Any, dim: Any, keepdim: bool) -> Tensor:
    x = input if isinstance(input, Tensor) else tensor(input)
    axis = None if dim is None else _check.axis(owner, "dim", dim, x.ndim)
    _nonempty(owner, x, None if axis is None else (axis,))
    return _wrap(as_array(choose(x.data, axis=axis, keepdims=keepdim)))


def logsumexp(input: Any, dim: Any, keepdim: bool = False) -> Tensor:
    """log(sum(exp(x))) over `dim`, without overflow."""
    x = as_tensor(input)
    axes = _axes("logsumexp", dim, x.ndim)
    _nonempty("logsumexp", x, axes)
    top = np.max(x.data, axis=axes, keepdims=True)
    top = np.where(np.isfinite(top), top, 0).astype(x.dtype, copy=False)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        y = np.log(np.exp(x.data - top).sum(axis=axes, keepdims=True)) + top
    result = y if keepdim else as_array(y.squeeze(axes))
    return record(result, _logsumexp_grad, (x,), x.data, y, axes)


def _logsumexp_grad(needs, gy, x, y, axes):
    return (gy.reshape(_kept(x.shape, axes)) * np.exp(x - y),)


def norm(input: Any, p: float = 2.0, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The p-norm, (sum |x|^p)^(1/p), for p > 0; inf gives the largest absolute value."""
    x = as_tensor(input)
    p = _check.real("norm", "p", p, 0, open_low=True)
    if p == float("inf"):
        return amax(abs(x), dim, keepdim)
    if p == 1:
        return sum(abs(x), dim, keepdim)
    axes = _axes("norm", dim, x.ndim)
    with np.errstate(over="ignore"):
        if p == 2:
            y = np.sqrt((x.data * x.data).sum(axis=axes, keepdims=keepdim))
        else:
            y = (np.abs(x.data) ** p).sum(axis=axes, keepdims=keepdim) ** (1 / p)
    y = as_array(y)
    return record(y, _norm_grad, (x,), x.data, y, p, axes)


def _norm_grad(needs, gy, x, y, p, axes):
    # d/dx = sign(x) (|x| / y)^(p - 1); the slope at the origin is taken as 0, as PyTorch does
    kept = _kept(x.shape, axes)
    y = y.reshape(kept)
    ratio = x / np.where(y == 0, 1, y)
    if p != 2:
        size = np.abs(ratio)
        ratio = np.where(size == 0, 0, np.sign(x) * size ** (p - 1))
    return ((gy.reshape(kept) * ratio).astype(x.dtype, copy=False),)
