"""Logic gates built of one kind of threshold unit: NAND, with weights -2, -2 and bias +3.

NAND is universal: every other gate here is a circuit of it, so threshold units can compute whatever logic can. All
gates take arrays of zeros and ones, which broadcast, and return int64.

>>> xor([0, 0, 1, 1], [0, 1, 0, 1]).tolist()
[0, 1, 1, 0]
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.classic.threshold import ThresholdUnit

__all__ = ["NAND", "and_", "full_adder", "half_adder", "nand", "nor", "not_", "or_", "xnor", "xor"]

NAND = ThresholdUnit([-2, -2], bias=3)


def nand(a: Any, b: Any) -> np.ndarray:
    """1 unless both are 1: the unit itself."""
    a, b = np.broadcast_arrays(_bits(a), _bits(b))
    return NAND(np.stack([a, b], axis=-1))


def not_(a: Any) -> np.ndarray:
    """One NAND with both inputs joined."""
    return nand(a, a)


def and_(a: Any, b: Any) -> np.ndarray:
    """Two NANDs."""
    return not_(nand(a, b))


def or_(a: Any, b: Any) -> np.ndarray:
    """Three NANDs."""
    return nand(not_(a), not_(b))


def nor(a: Any, b: Any) -> np.ndarray:
    """Four NANDs."""
    return not_(or_(a, b))


def xor(a: Any, b: Any) -> np.ndarray:
    """Four NANDs, the first of which is used twice."""
    neither_or_one = nand(a, b)
    return nand(nand(a, neither_or_one), nand(b, neither_or_one))


def xnor(a: Any, b: Any) -> np.ndarray:
    """Five NANDs."""
    return not_(xor(a, b))


def half_adder(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    """The sum bit and the carry of a + b."""
    return xor(a, b), and_(a, b)


def full_adder(a: Any, b: Any, carry: Any) -> tuple[np.ndarray, np.ndarray]:
    """The sum bit and the carry of a + b + carry."""
    partial, first = half_adder(a, b)
    total, second = half_adder(partial, carry)
    return total, or_(first, second)


def _bits(a: Any) -> np.ndarray:
    array = np.asarray(a)
    if array.dtype.kind not in "buif" or not ((array == 0) | (array == 1)).all():
        raise ValueError(f"gates: expected zeros and ones, got {a!r}")
    return array.astype(np.int64)
