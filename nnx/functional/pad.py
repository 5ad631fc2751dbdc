"""Padding as a differentiable operation."""

from __future__ import annotations

from typing import Any

from nnx import _check
from nnx.autograd import Tensor, as_tensor, record
from nnx.backends import backend_of
from nnx.functional import _window
from nnx.functional._window import Pairs

__all__ = ["pad"]


def pad(input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor:
    """Add elements before and behind the input along its last dimensions.

    pad:    (low, high) of the last dimension, then of the one before it, and so on; negative
            numbers remove elements
    mode:   "constant" (`value`, by default 0), "reflect" (mirror image without the border element
            itself), "replicate" (the border element), "circular" (the other end)
    value:  for "constant" only

    Raises ValueError where more is to be reflected or wrapped around than there is.

    >>> pad([1.0, 2.0, 3.0], (2, 1), "reflect").tolist()
    [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]
    """
    x = as_tensor(input)
    _check.choice("pad", "mode", mode, ("constant", "reflect", "replicate", "circular"))
    numbers = tuple(_check.integer("pad", "pad", p) for p in pad)
    if len(numbers) % 2 or len(numbers) > 2 * x.ndim:
        raise ValueError(
            f"pad: expected pad to be at most {x.ndim} pairs (low, high) for input of shape {x.shape}, got {pad!r}"
        )
    if value is not None and mode != "constant":
        raise ValueError(f"pad: expected value only with mode='constant', got mode={mode!r}")
    pairs = ((0, 0),) * (x.ndim - len(numbers) // 2) + tuple(
        (numbers[i], numbers[i + 1]) for i in range(len(numbers) - 2, -1, -2)
    )
    return pad_as("pad", x, pairs, mode, 0.0 if value is None else _check.real("pad", "value", value))


def pad_as(owner: str, x: Tensor, pairs: Pairs, mode: str, value: float = 0.0) -> Tensor:
    """`pad` with a pair for each dimension, for layers; `owner` is for messages."""
    for axis, (n, (low, high)) in enumerate(zip(x.shape, pairs, strict=True)):
        _check_axis(owner, x, axis, n, low, high, mode)
    shape = tuple(n + low + high for n, (low, high) in zip(x.shape, pairs, strict=True))
    _window.check_size(owner, shape)
    be = backend_of(x.data)
    return record(be.pad(x.data, pairs, mode, value), _pad_grad, (x,), be, pairs, mode)


def _pad_grad(needs, gy, be, pairs, mode):
    return (be.pad_backward(gy, pairs, mode),)


def _check_axis(owner: str, x: Tensor, axis: int, n: int, low: int, high: int, mode: str) -> None:
    left = n + min(low, 0) + min(high, 0)  # what negative padding leaves
    if left < 0:
        raise ValueError(
            f"{owner}: expected at most {n} elements to be removed in dimension {axis} of shape "
            f"{x.shape}, got {(low, high)}"
        )
    most = {"reflect": left - 1, "circular": left}.get(mode)
    if mode == "replicate" and left == 0:
        most = 0
    if most is not None and max(low, high) > max(most, 0):
        raise ValueError(
            f"{owner}: expected padding of at most {max(most, 0)} with mode={mode!r} in dimension "
            f"{axis} of shape {x.shape}, got {(low, high)}"
        )
