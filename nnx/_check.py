"""Argument checks with one wording: ``owner: expected argument ..., got ...``.

Every check raises before anything is touched, and names the owner (the layer or function the user called), the
argument, what was expected and what came.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def integer(owner: str, name: str, value: Any, minimum: int | None = None) -> int:
    """Return `value` as an int; TypeError if it is none, ValueError if it is below `minimum`."""
    bound = "an integer" if minimum is None else f"an integer >= {minimum}"
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{owner}: expected {name} to be {bound}, got {value!r} (bool)")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{owner}: expected {name} to be {bound}, got {value!r} ({type(value).__name__})") from None
    if minimum is not None and number < minimum:
        raise ValueError(f"{owner}: expected {name} to be {bound}, got {number}")
    return number


def real(
    owner: str,
    name: str,
    value: Any,
    low: float | None = None,
    high: float | None = None,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Return `value` as a float inside the given interval; NaN is outside of every interval."""
    interval = _interval(low, high, open_low, open_high)
    if isinstance(value, (bool, np.bool_, str, bytes)):
        raise TypeError(f"{owner}: expected {name} to be a number{interval}, got {value!r} ({type(value).__name__})")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"{owner}: expected {name} to be a number{interval}, got {value!r} ({type(value).__name__})"
        ) from None
    inside = number == number
    if low is not None:
        inside = inside and (number > low if open_low else number >= low)
    if high is not None:
        inside = inside and (number < high if open_high else number <= high)
    if not inside:
        raise ValueError(f"{owner}: expected {name} to be a number{interval}, got {value!r}")
    return number


def _interval(low: float | None, high: float | None, open_low: bool, open_high: bool) -> str:
    if low is None and high is None:
        return ""
    left = "(-inf" if low is None else f"{'(' if open_low else '['}{low:g}"
    right = "inf)" if high is None else f"{high:g}{')' if open_high else ']'}"
    return f" in {left}, {right}"


def choice(owner: str, name: str, value: Any, allowed: Sequence[Any]) -> Any:
    """Return `value` if it is one of `allowed`."""
    if not any(value is option or value == option for option in allowed):
        options = ", ".join(repr(option) for option in allowed)
        raise ValueError(f"{owner}: expected {name} to be one of {options}, got {value!r}")
    return value


def ntuple(owner: str, name: str, value: Any, n: int, minimum: int = 0) -> tuple[int, ...]:
    """Return `value` (an int or n ints) as a tuple of `n` ints, each at least `minimum`."""
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        values = tuple(value)
        if len(values) == 1:
            values = values * n
        if len(values) != n:
            raise ValueError(f"{owner}: expected {name} to be one integer or {n} integers, got {values!r}")
        return tuple(integer(owner, name, v, minimum) for v in values)
    return (integer(owner, name, value, minimum),) * n


def axis(owner: str, name: str, value: Any, ndim: int) -> int:
    """Return `value` as an axis in ``[0, ndim)``; IndexError if there is no such axis."""
    number = integer(owner, name, value)
    if not -ndim <= number < ndim:
        raise IndexError(f"{owner}: expected {name} to be in [{-ndim}, {ndim - 1}] for {ndim} dimensions, got {number}")
    return number % ndim


def float_dtype(owner: str, value: Any) -> np.dtype:
    """Return `value` as float32 or float64; None means float32."""
    if value is None:
        return np.dtype(np.float32)
    try:
        dtype = np.dtype(value)
    except TypeError:
        dtype = None
    if dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"{owner}: expected dtype to be float32 or float64, got {value!r}")
    return dtype
