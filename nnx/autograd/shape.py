"""Reshaping, indexing, joining and splitting of Tensors, each with its gradient below it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnx import _check
from nnx._device import as_array, device_of, is_device_array, move, same_device
from nnx.autograd._tensor import Tensor, _strip, as_tensor, record, unbroadcast
from nnx.autograd.engine import fresh
from nnx.backends import backend_of


def _flat(args: tuple) -> tuple:
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], (tuple, list)) else args


def astype(input: Any, dtype: Any) -> Tensor:
    """The same values in another type; between float types the gradient is cast back."""
    x = input if isinstance(input, Tensor) else as_tensor(input)
    target = _dtype(dtype)
    if target == x.dtype:
        return x
    y = x.data.astype(target)
    return record(y, _pass_grad, (x,)) if target.kind == "f" else record(y, _pass_grad, (None,))


def _dtype(value: Any) -> np.dtype:
    try:
        if value is not None:  # NumPy takes None for float64
            return np.dtype(value)
    except TypeError:
        pass
    raise TypeError(f"astype: expected a dtype, got {value!r}")


def _pass_grad(needs, gy):
    return (gy,)


def to_device(input: Any, device: str) -> Tensor:
    """The same values on a device that `_device.parse` gave; the gradient goes back to where they came from."""
    x = as_tensor(input)
    here = device_of(x.data)
    return x if here == device else record(move(x.data, device), _to_device_grad, (x,), here)


def _to_device_grad(needs, gy, device):
    return (move(gy, device),)


def clone(input: Any) -> Tensor:
    """A copy, which gradients flow through."""
    x = as_tensor(input)
    return record(x.data.copy(order="K"), _pass_grad, (x,))


def contiguous(input: Any) -> Tensor:
    """The same values in C order in memory; no copy if they are already."""
    x = as_tensor(input)
    if x.data.flags.c_contiguous:
        return x
    return record(backend_of(x.data).contiguous(x.data), _pass_grad, (x,))


def reshape(input: Any, *shape: Any) -> Tensor:
    """The same elements in logical (C) order under another shape; one size may be -1."""
    return _reshaped(as_tensor(input), tuple([_check.integer("reshape", "shape", n, -1) for n in _flat(shape)]))


def _reshaped(x: Tensor, target: tuple[int, ...]) -> Tensor:
    data = x.data
    if data.ndim > 2 and not data.flags.c_contiguous and len(target) < data.ndim:
        data = backend_of(data).contiguous(data)  # channels-last images are flattened: a fast copy
    try:
        y = data.reshape(target)
    except ValueError:
        raise ValueError(f"reshape: expected a shape for {x.size} elements (input {x.shape}), got {target}") from None
    return record(y, _reshape_grad, (x,), x.shape)


def _reshape_grad(needs, gy, shape):
    return (gy.reshape(shape),)


def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Merge the dimensions from `start_dim` to `end_dim` into one."""
    x = as_tensor(input)
    shape = x.shape
    if not shape:
        return reshape(x, 1)
    start = _check.axis("flatten", "start_dim", start_dim, len(shape))
    end = _check.axis("flatten", "end_dim", end_dim, len(shape))
    if start > end:
        raise ValueError(f"flatten: expected start_dim <= end_dim, got {start_dim} and {end_dim}")
    return _reshaped(x, shape[:start] + (math.prod(shape[start : end + 1]),) + shape[end + 1 :])


def permute(input: Any, *dims: Any) -> Tensor:
    """The dimensions in another order (a view)."""
    x = as_tensor(input)
    order = tuple(_check.axis("permute", "dims", d, x.ndim) for d in _flat(dims))
    if sorted(order) != list(range(x.ndim)):
        raise ValueError(f"permute: expected each of {x.ndim} dimensions once, got {_flat(dims)}")
    return record(x.data.transpose(order), _permute_grad, (x,), order)


def _permute_grad(needs, gy, order):
    return (gy.transpose(sorted(range(gy.ndim), key=order.__getitem__)),)


def transpose(input: Any, dim0: int, dim1: int) -> Tensor:
    """Two dimensions swapped (a view)."""
    x = as_tensor(input)
    a = _check.axis("transpose", "dim0", dim0, x.ndim)
    b = _check.axis("transpose", "dim1", dim1, x.ndim)
    return record(x.data.swapaxes(a, b), _transpose_grad, (x,), a, b)


def _transpose_grad(needs, gy, a, b):
    return (gy.swapaxes(a, b),)


def squeeze(input: Any, dim: int | None = None) -> Tensor:
    """Without the dimensions of size 1, or without `dim` if its size is 1."""
    x = as_tensor(input)
    if dim is None:
        target = tuple(n for n in x.shape if n != 1)
    else:
        axis = _check.axis("squeeze", "dim", dim, x.ndim)
        target = x.shape if x.shape[axis] != 1 else x.shape[:axis] + x.shape[axis + 1 :]
    return record(x.data.reshape(target), _reshape_grad, (x,), x.shape)


def unsqueeze(input: Any, dim: int) -> Tensor:
    """With a new dimension of size 1 at `dim`."""
    x = as_tensor(input)
    axis = _check.axis("unsqueeze", "dim", dim, x.ndim + 1)
    return record(np.expand_dims(x.data, axis), _reshape_grad, (x,), x.shape)


def expand(input: Any, *sizes: Any) -> Tensor:
    """Dimensions of size 1 repeated to `sizes` (a view; -1 keeps a size)."""
    x = as_tensor(input)
    sizes = _flat(sizes)
    if len(sizes) < x.ndim:
        raise ValueError(f"expand: expected at least {x.ndim} sizes for shape {x.shape}, got {sizes}")
    old = (None,) * (len(sizes) - x.ndim) + x.shape
    target = tuple(
        (o if s == -1 and o is not None else _check.integer("expand", "sizes", s, 0))
        for s, o in zip(sizes, old, strict=True)
    )
    try:
        y = np.broadcast_to(x.data, target)
    except ValueError:
        raise ValueError(f"expand: expected sizes that {x.shape} broadcasts to, got {sizes}") from None
    return record(y, _expand_grad, (x,), x.shape)


def _expand_grad(needs, gy, shape):
    return (unbroadcast(gy, shape),)


# -- indexing --------------------------------------------------------------------------------------


def getitem(input: Tensor, index: Any) -> Tensor:
    """``input[index]`` with NumPy's rules; indices may be Tensors."""
    index = _strip(index)
    if type(input.data) is not np.ndarray:
        index = _beside(input.data, index)
    y = input.data[index]
    return record(as_array(y), _getitem_grad, (input,), input.shape, index)


def _getitem_grad(needs, gy, shape, index):
    parts = index if isinstance(index, tuple) else (index,)
    repeats = any(isinstance(p, list) or (getattr(p, "ndim", 0) and p.dtype.kind != "b") for p in parts)
    if repeats and is_device_array(gy):  # NumPy's way, but with sums whose order is fixed
        be, size = backend_of(gy), math.prod(shape)
        position = be.xp.arange(size).reshape(shape)[index]
        return (be.embedding_backward(gy.reshape(-1, 1), position.ravel(), size).reshape(shape),)
    g = np.zeros_like(gy, shape=shape)
    if repeats:
        np.add.at(g, index, gy)  # an element taken twice gets both gradients
    else:
        g[index] = gy
    return (g,)


def _beside(x: Any, index: Any) -> Any:
    """An index with its arrays where x is."""
    if isinstance(index, tuple):
        return tuple(_beside(x, part) for part in index)
    if isinstance(index, list):
        index = np.asarray(index)
    if isinstance(index, np.ndarray) and index.ndim and is_device_array(x):
        return move(index, device_of(x))
    if is_device_array(index):
        same_device("getitem", input=x, index=index)
    return index


def gather(input: Any, dim: int, index: Any) -> Tensor:
    """``out[i][j] = input[index[i][j]][j]`` for dim 0, and so on, as torch.gather."""
    x = as_tensor(input)
    axis = _check.axis("gather", "dim", dim, x.ndim)
    i = index.data if isinstance(index, Tensor) else as_array(index)
    if i.dtype.kind not in "iu" or i.ndim != x.ndim:
        raise TypeError(f"gather: expected an integer index with {x.ndim} dimensions, got {i.dtype} of shape {i.shape}")
    if any(i.shape[d] > x.shape[d] for d in range(x.ndim) if d != axis):
        raise ValueError(f"gather: expected an index that fits into {x.shape}, got shape {i.shape}")
    if i.size and (i.min() < 0 or i.max() >= x.shape[axis]):
        raise IndexError(f"gather: expected indices in [0, {x.shape[axis]}), got [{i.min()}, {i.max()}]")
    same_device("gather", input=x.data, index=i)
    arange = backend_of(x.data).xp.arange
    where = [arange(n).reshape((-1,) + (1,) * (i.ndim - 1 - d)) for d, n in enumerate(i.shape)]
    where[axis] = i
    return record(x.data[tuple(where)], _getitem_grad, (x,), x.shape, tuple(where))


# -- joining and splitting -------------------------------------------------------------------------


def _parts(tensors: Sequence[Any]) -> tuple[Tensor, ...]:
    """Arrays among Tensors are constants: they take the Tensors' float type."""
    types = [t.dtype for t in tensors if isinstance(t, Tensor) and t.dtype.kind == "f"]
    return tuple([as_tensor(t, np.result_type(*types) if types else None) for t in tensors])


def cat(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Join along an existing dimension; all other sizes must agree."""
    parts = _parts(tensors)
    if not parts:
        raise ValueError("cat: expected at least one tensor, got none")
    first = parts[0]
    axis = _check.axis("cat", "dim", dim, first.ndim)
    for i, part in enumerate(parts):
        same = part.ndim == first.ndim and all(part.shape[d] == first.shape[d] for d in range(first.ndim) if d != axis)
        if not same:
            raise ValueError(
                f"cat: expected tensors that agree outside dimension {axis}, got {first.shape} and "
                f"{part.shape} (number {i})"
            )
    arrays = [p.data for p in parts]
    y = np.concatenate(arrays, axis)
    if _all_channels_last(arrays) and not y.strides[1] == y.itemsize:
        y = _concatenate_channels_last(arrays, axis)
    return record(y, _cat_grad, parts, axis, tuple(p.shape[axis] for p in parts))


@fresh
def _cat_grad(needs, gy, axis, sizes):
    grads, start = [], 0
    for need, n in zip(needs, sizes, strict=True):
        where = (slice(None),) * axis + (slice(start, start + n),)
        grads.append(gy[where] if need else None)
        start += n
    return tuple(grads)


def _all_channels_last(arrays: list) -> bool:
    return all(a.ndim >= 3 and a.strides[1] == a.itemsize and a.shape[1] > 1 for a in arrays)


def _concatenate_channels_last(arrays: list, axis: int) -> np.ndarray:
    """Join images in the memory order they have, so that the next convolution need not convert."""
    last = [np.moveaxis(a, 1, -1) for a in arrays]
    ndim = arrays[0].ndim
    moved = ndim - 1 if axis == 1 else axis - (axis > 1)
    return np.moveaxis(np.concatenate(last, moved), -1, 1)


def stack(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Join along a new dimension; all shapes must agree."""
    parts = _parts(tensors)
    if not parts:
        raise ValueError("stack: expected at least one tensor, got none")
    for i, part in enumerate(parts):
        if part.shape != parts[0].shape:
            raise ValueError(
                f"stack: expected tensors of one shape, got {parts[0].shape} and {part.shape} (number {i})"
            )
    axis = _check.axis("stack", "dim", dim, parts[0].ndim + 1)
    return record(np.stack([p.data for p in parts], axis), _stack_grad, parts, axis)


def _stack_grad(needs, gy, axis):
    parts = np.moveaxis(gy, axis, 0)
    return tuple(parts[i, ...] if need else None for i, need in enumerate(needs))


def split(input: Any, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Cut along `dim` into pieces of one size (the last may be smaller), or of the given sizes."""
    x = as_tensor(input)
    axis = _check.axis("split", "dim", dim, x.ndim)
    n = x.shape[axis]
    if isinstance(split_size_or_sections, (tuple, list)):
        sizes = [_check.integer("split", "split_size_or_sections", s, 0) for s in split_size_or_sections]
        if sum(sizes) != n:
            raise ValueError(f"split: expected sections that sum to {n}, got {sizes}")
    else:
        size = _check.integer("split", "split_size_or_sections", split_size_or_sections, 1)
        sizes = [min(size, n - i) for i in range(0, n, size)] or [0]
    pieces, start = [], 0
    for size in sizes:
        pieces.append(getitem(x, (slice(None),) * axis + (slice(start, start + size),)))
        start += size
    return tuple(pieces)


def chunk(input: Any, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Cut along `dim` into at most `chunks` pieces of equal size (the last may be smaller)."""
    x = as_tensor(input)
    axis = _check.axis("chunk", "dim", dim, x.ndim)
    count = _check.integer("chunk", "chunks", chunks, 1)
    return split(x, max(-(-x.shape[axis] // count), 1), axis)


def unbind(input: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along `dim`."""
    x = as_tensor(input)
    axis = _check.axis("unbind", "dim", dim, x.ndim)
    return tuple(getitem(x, (slice(None),) * axis + (i,)) for i in range(x.shape[axis]))
