"""Dropout in plain NumPy. A mask is drawn once, by `draw_mask`, and used for the result and its gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnx import _random

_quiet = np.errstate(all="ignore")


class DropoutOps:
    """Draw masks, and keep or drop elements by them."""

    def draw_mask(self, shape: tuple[int, ...], p: float, generator: Any = None) -> np.ndarray:
        """A bool array that is False with probability `p`, to within 2^-32.

        generator:  a `numpy.random.Generator`; None is the library's stream. It alone and the shape decide the mask. On
                    a CUDA device the library's stream gives the key of other random numbers than on the CPU.
        """
        return host_mask(shape, p, generator)

    @_quiet
    def dropout(self, x: np.ndarray, keep: np.ndarray, scale: float) -> np.ndarray:
        """``scale x`` where the bool array `keep` (which broadcasts to x) holds, else 0, also for
        NaN and infinity.
        """
        return np.where(keep, x * scale, 0)

    @_quiet
    def dropout_backward(self, gy: np.ndarray, keep: np.ndarray, scale: float) -> np.ndarray:
        return np.where(keep, gy * scale, 0)


def host_mask(shape: tuple[int, ...], p: float, generator: Any = None) -> np.ndarray:
    """The mask that NumPy's random numbers give."""
    rng = _random.generator(generator)
    if p == 1:
        return np.zeros(shape, bool)
    n = math.prod(shape)
    # 64 random bits serve two elements; whole words are what generators make fastest
    words = rng.integers(0, 2**64, (n + 1) // 2, np.uint64)
    return (words.view(np.uint32)[:n] >= np.uint32(threshold(p))).reshape(shape)


def threshold(p: float) -> int:
    """The least of the 2^32 random words that keeps an element."""
    return min(round(p * 2**32), 2**32 - 1)
