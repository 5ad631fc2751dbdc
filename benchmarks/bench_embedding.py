"""Table look-ups against the vectorised base backend."""

from __future__ import annotations

import numpy as np

from benchmarks._case import Case, speed_test
from nnx.backends import Backend, backend_of

BASE = Backend()


def look_up(num, width, count):
    def make(rng):
        weight = rng.standard_normal((num, width)).astype(np.float32)
        index = rng.integers(0, num, count)
        be = backend_of(weight)
        return lambda: be.take(weight, index), lambda: BASE.take(weight, index)

    return Case(f"embedding {count} of {num}x{width}", make)


def gradient(num, width, count):
    def make(rng):
        gy = rng.standard_normal((count, width)).astype(np.float32)
        index = rng.integers(0, num, count)
        be = backend_of(gy)
        return lambda: be.embedding_backward(gy, index, num), lambda: BASE.embedding_backward(gy, index, num)

    return Case(f"embedding backward {count} of {num}x{width}", make)


CASES = [
    look_up(10_000, 128, 6_400),
    look_up(100, 16, 5_000),
    gradient(10_000, 128, 6_400),
    gradient(100, 16, 5_000),
]
test_speed = speed_test(CASES)
