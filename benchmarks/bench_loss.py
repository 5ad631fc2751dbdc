"""Losses and their gradients: the kernels against the vectorised base backend, float32."""

from __future__ import annotations

import numpy as np

from benchmarks._case import Case, Side, speed_test
from nnx.backends.base import Backend
from nnx.backends.cpu import CPUBackend

BASE, CPU = Backend(), CPUBackend()


def cross_entropy(rows: int, classes: int, smoothing: float = 0.0) -> Case:
    """The loss of every row and the gradient of their mean."""

    def make(rng: np.random.Generator) -> tuple[Side, Side]:
        x = (rng.standard_normal((rows, classes)) * 3).astype(np.float32)
        labels = rng.integers(0, classes, rows)
        gy = np.full(1, 1 / rows, np.float32)

        def step(be: Backend) -> tuple:
            loss, top, total = be.softmax_cross_entropy(x, labels, smoothing)
            return loss, be.softmax_cross_entropy_backward(gy, x, labels, smoothing, top, total)

        return lambda: step(CPU), lambda: step(BASE)

    extra = f" smoothing {smoothing}" if smoothing else ""
    return Case(f"cross-entropy {rows}x{classes}{extra}", make, 1e-5, rows * classes >= 4096)


def elementwise(name: str, n: int, *arguments: float | None) -> Case:
    """The loss of every element and the gradient of their mean."""

    def make(rng: np.random.Generator) -> tuple[Side, Side]:
        x = rng.standard_normal(n).astype(np.float32)
        t = rng.random(n).astype(np.float32)
        gy = np.asarray(1 / n, np.float32)
        needs = ((True, False),) if name == "bce_with_logits" else ()

        def step(be: Backend) -> tuple:
            gx = getattr(be, f"{name}_backward")(gy, x, t, *arguments, *needs)
            return getattr(be, name)(x, t, *arguments), gx[0] if needs else gx

        return lambda: step(CPU), lambda: step(BASE)

    return Case(f"{name} {n}", make, 1e-5, n >= 4096)


CASES = [
    cross_entropy(128, 10),
    cross_entropy(1024, 10),
    cross_entropy(128, 1000),
    cross_entropy(128, 1000, 0.1),
    cross_entropy(16, 50_000),
    elementwise("squared_error", 1_000_000),
    elementwise("squared_error", 1000),
    elementwise("absolute_error", 1_000_000),
    elementwise("huber", 1_000_000, 1.0),
    elementwise("bce_with_logits", 1_000_000, None),
    elementwise("bce_with_logits", 1000, None),
]

test_speed = speed_test(CASES)
