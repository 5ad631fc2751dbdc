"""What a benchmark is: two sides that compute the same thing, checked before anything is timed.

A file ``bench_<family>.py`` lists its cases and makes its test of them:

    CASES = [Case("relu 1M", relu_1m)]
    test_speed = speed_test(CASES)

where ``relu_1m(rng)`` returns the pair of functions (nnx side, NumPy side). The NumPy side is the vectorised base
backend or plain NumPy, never a Python loop set up to lose.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

Side = Callable[[], Any]
PAUSE = 0.2  # seconds for which NumPy's idle BLAS worker spins after a threaded call


@dataclass(frozen=True)
class Case:
    """One comparison.

    make:       ``make(rng)`` returns (nnx side, NumPy side); both return arrays, tuples of arrays, or None
    tolerance:  largest difference, relative to the largest result
    judged:     False for arrays under 4,096 elements, where the call costs more than the work
    """

    name: str
    make: Callable[[np.random.Generator], tuple[Side, Side]]
    tolerance: float = 1e-4
    judged: bool = True


def prepare(case: Case) -> tuple[Side, Side]:
    """Both sides, after they were seen to agree."""
    ours, theirs = case.make(np.random.default_rng(0))
    assert_same(ours(), theirs(), case)
    return ours, theirs


def assert_same(a: Any, b: Any, case: Case) -> None:
    if isinstance(a, (tuple, list)):
        assert len(a) == len(b)
        for p, q in zip(a, b, strict=True):
            assert_same(p, q, case)
    elif a is not None:
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape, (case.name, a.shape, b.shape)
        scale = max(float(np.abs(b).max(initial=0)), 1e-30) if b.dtype.kind == "f" else 1.0
        np.testing.assert_allclose(a, b, rtol=0, atol=case.tolerance * scale, err_msg=case.name)


def speed_test(cases: list[Case]) -> Callable:
    """A pytest-benchmark test over all cases and both sides."""

    @pytest.mark.parametrize("side", ["nnx", "numpy"])
    @pytest.mark.parametrize("case", cases, ids=lambda case: case.name.replace(" ", "-"))
    def test_speed(benchmark: Any, case: Case, side: str) -> None:
        ours, theirs = prepare(case)
        benchmark.group = case.name
        if benchmark.enabled:
            time.sleep(PAUSE)  # the check above called NumPy
        benchmark.pedantic(ours if side == "nnx" else theirs, rounds=15, warmup_rounds=2)

    return test_speed
