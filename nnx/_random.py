"""The library's random stream. NumPy's global state is never read or written."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx import _check

_generator: Any = None


def manual_seed(seed: int) -> Any:
    """Start the library's random stream anew from `seed` and return its generator (a `numpy.random.Generator`).

    Initialisation, dropout and shuffling draw from it unless they are given a generator of their own.

    >>> a = manual_seed(0).random()
    >>> a == manual_seed(0).random()
    True
    """
    global _generator
    _generator = np.random.default_rng(_check.integer("manual_seed", "seed", seed, 0))
    return _generator


def generator(own: Any = None) -> Any:
    """`own` if it is given, else the library's generator (seeded by the system until `manual_seed` is called)."""
    if own is not None:
        if not isinstance(own, np.random.Generator):
            raise TypeError(f"generator: expected a numpy.random.Generator, got {type(own).__name__}")
        return own
    global _generator
    if _generator is None:
        _generator = np.random.default_rng()
    return _generator


def get_state() -> dict:
    """The stream's position, as plain data (JSON can hold it)."""
    return generator().bit_generator.state


def set_state(state: dict) -> None:
    """Go on where `get_state` was called."""
    global _generator
    fresh = np.random.default_rng(0)
    fresh.bit_generator.state = state
    _generator = fresh
