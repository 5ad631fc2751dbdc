"""Argument checks of operations that slide a window over an input: convolution, pooling, unfold."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import numpy as np

from nnx import _check
from nnx.autograd import Tensor, as_tensor

Sizes = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]

# The product of two such numbers fits into 64 bits, so that no kernel can overflow.
LARGEST = 2**31 - 1

_AXES = {1: "L", 2: "H, W", 3: "D, H, W"}

_INTEGER = frozenset({int})
_PLAIN = frozenset({int, str, bool, type(None)})


def remembered(first: int) -> Callable:
    """Keep the last answers to plain questions: integers, strings, tuples of integers.

    A layer asks the same in every step, and the checks take longer than a small layer's arithmetic. Anything else, such
    as 1.0 or True in a tuple, which compare equal to 1, is checked anew.

    first:  the first argument that comes from a user; those before it are plain (names, shapes of arrays)
    """

    def remember(function: Callable) -> Callable:
        kept = lru_cache(1024, typed=True)(function)

        @wraps(function)
        def ask(*arguments: Any) -> Any:
            for a in arguments[first:]:
                kind = type(a)
                if not (_INTEGER.issuperset(map(type, a)) if kind is tuple else kind in _PLAIN):
                    return function(*arguments)
            return kept(*arguments)

        return ask

    return remember


def sizes(owner: str, name: str, value: Any, n: int, minimum: int = 1) -> Sizes:
    """An int or n ints, each in [minimum, 2^31), as a tuple of n ints."""
    numbers = _check.ntuple(owner, name, value, n, minimum)
    if max(numbers) > LARGEST:
        raise ValueError(f"{owner}: expected {name} to be at most {LARGEST}, got {max(numbers)}")
    return numbers


def paddings(owner: str, value: Any, kernel: Sizes, stride: Sizes, dilation: Sizes) -> Pairs:
    """The padding of a convolution as a pair (low, high) for each spatial dimension.

    value:  an int, n ints, n pairs, "valid" (none) or "same" (output as large as the input; where
            the padding is odd, the high side gets one more)
    """
    n = len(kernel)
    if isinstance(value, str):
        _check.choice(owner, "padding", value, ("same", "valid"))
        if value == "valid":
            return ((0, 0),) * n
        if any(s != 1 for s in stride):
            raise ValueError(f"{owner}: expected stride 1 with padding='same', got stride {stride}")
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    if isinstance(value, (tuple, list)) and any(isinstance(v, (tuple, list)) for v in value):
        if len(value) != n:
            raise ValueError(
                f"{owner}: expected padding to be an integer, {n} integers or {n} pairs (low, high), got {value!r}"
            )
        pairs = [sizes(owner, "padding", v, 2, 0) for v in value]
        return tuple((low, high) for low, high in pairs)
    return tuple((p, p) for p in sizes(owner, "padding", value, n, 0))


def operand(owner: str, name: str, value: Any, dtype: Any = None) -> Tensor:
    """A Tensor of floats; arrays are cast to `dtype`, a Tensor of another float type is refused."""
    if not isinstance(value, Tensor):
        return as_tensor(value, dtype)
    own = value.dtype
    if own is not dtype and (own.kind != "f" or (dtype is not None and own != dtype)):
        wanted = "float32 or float64" if dtype is None else f"{np.dtype(dtype)}"
        raise TypeError(
            f"{owner}: expected {name} of dtype {wanted}, got a Tensor of dtype {value.dtype}. "
            "Convert one with .float() or .double()"
        )
    return value


def layout(n: int, ndim: int) -> str:
    """The names of the dimensions: "(N, C, H, W)", without the N if there are only those of one sample."""
    return f"({'N, ' if ndim == n + 2 else ''}C, {_AXES[n]})"


def check_images(owner: str, shape: Sizes, n: int) -> bool:
    """Refuse what is not (N, C, spatial...) or, for which True is returned, (C, spatial...)."""
    if len(shape) not in (n + 1, n + 2):
        raise ValueError(
            f"{owner}: expected input with {n + 2} dimensions (N, C, {_AXES[n]}), "
            f"or {n + 1} (C, {_AXES[n]}) for one sample, got shape {shape}"
        )
    if 0 in shape[-n:]:
        raise ValueError(
            f"{owner}: expected input with at least one element along each of ({_AXES[n]}), got shape {shape}"
        )
    return len(shape) == n + 1


def check_size(owner: str, shape: Sizes) -> None:
    """Refuse a result that no machine can address (of 8-byte numbers)."""
    if math.prod(shape) > (2**63 - 1) // 8:
        raise ValueError(f"{owner}: expected a result of less than 2^63 bytes, got shape {shape}")
