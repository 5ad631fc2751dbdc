"""Padding in plain NumPy: elements before the first and behind the last along each axis."""

from __future__ import annotations

from typing import Any

import numpy as np

Pairs = tuple[tuple[int, int], ...]

_quiet = np.errstate(all="ignore")


class PadOps:
    """Padding with a constant, a mirror image, the border element, or the other end."""

    xp: Any

    def pad(self, x: np.ndarray, padding: Pairs, mode: str = "constant", value: float = 0) -> np.ndarray:
        """Add `low` elements before and `high` behind along each axis; negative numbers remove.

        padding:  a pair (low, high) for each axis
        mode:     "constant" (`value`), "reflect" (``x[2] x[1] | x[0] x[1] x[2]``, the border is not
                  repeated), "replicate" (``x[0] x[0] | x[0] x[1] x[2]``), "circular"
                  (``x[1] x[2] | x[0] x[1] x[2]``)

        The result is a fresh array with x's order of axes in memory.
        """
        inside, source = _inside(x.shape, padding)
        shape = tuple(n + low + high for n, (low, high) in zip(x.shape, padding, strict=True))
        if mode == "constant":
            y = self.xp.full_like(x, value, shape=shape)
            y[inside] = x[source]
            return y
        y = self.xp.empty_like(x, shape=shape)
        y[inside] = x[source]
        # One axis after the other: corners are made of the borders that earlier axes have filled.
        for axis, part in enumerate(inside):
            for border, origin in _borders(mode, part, shape[axis]):
                y[_along(axis, border)] = y[_along(axis, origin)]
        return y

    @_quiet
    def pad_backward(self, gy: np.ndarray, padding: Pairs, mode: str = "constant") -> np.ndarray:
        """Add the gradient of each copied element to that of the element it was copied from."""
        shape = tuple(n - low - high for n, (low, high) in zip(gy.shape, padding, strict=True))
        inside, source = _inside(shape, padding)
        if mode != "constant":
            gy = gy.copy(order="K")
            for axis in reversed(range(gy.ndim)):
                for border, origin in _borders(mode, inside[axis], gy.shape[axis]):
                    g = gy[_along(axis, border)]
                    if mode == "replicate":  # one element was copied to the whole border
                        g = g.sum(axis=axis, keepdims=True)
                    gy[_along(axis, origin)] += g
        gx = self.xp.zeros_like(gy, shape=shape)
        gx[source] = gy[inside]
        return gx


def _inside(shape: tuple[int, ...], padding: Pairs) -> tuple[tuple, tuple]:
    """Where the input lies in the output, and which part of it does (padding may be negative)."""
    inside = tuple(
        slice(max(low, 0), max(low, 0) + n + min(low, 0) + min(high, 0))
        for n, (low, high) in zip(shape, padding, strict=True)
    )
    source = tuple(slice(max(-low, 0), n - max(-high, 0)) for n, (low, high) in zip(shape, padding, strict=True))
    return inside, source


def _borders(mode: str, inside: slice, size: int) -> list[tuple[slice, slice]]:
    """Pairs (border, origin) along an axis of `size` elements with the input's at `inside`."""
    low, end = inside.start, inside.stop
    high = size - end
    pairs = []
    if low > 0:
        origin = {
            "reflect": slice(2 * low, low, -1),
            "replicate": slice(low, low + 1),
            "circular": slice(end - low, end),
        }[mode]
        pairs.append((slice(0, low), origin))
    if high > 0:
        stop = end - 2 - high
        origin = {
            "reflect": slice(end - 2, stop if stop >= 0 else None, -1),
            "replicate": slice(end - 1, end),
            "circular": slice(low, low + high),
        }[mode]
        pairs.append((slice(end, size), origin))
    return pairs


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return (slice(None),) * axis + (part,)
