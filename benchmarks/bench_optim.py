"""Optimizer steps and gradient clipping: the kernels against the vectorised base backend, float32."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._case import Case, Side, speed_test
from nnx.backends.base import Backend
from nnx.backends.cpu import CPUBackend

BASE, CPU = Backend(), CPUBackend()

MILLION = [(1000, 1000)]
LENET = [(6, 1, 5, 5), (6,), (16, 6, 5, 5), (16,), (120, 400), (120,), (84, 120), (84,), (10, 84), (10,)]
# CIFAR's ResNet-20: 65 arrays, most of them a handful of numbers
RESNET20 = [
    (16, 3, 3, 3), (16,), (16,),
    *[(16, 16, 3, 3), (16,), (16,)] * 6,
    (32, 16, 3, 3), (32,), (32,), *[(32, 32, 3, 3), (32,), (32,)] * 5,
    (64, 32, 3, 3), (64,), (64,), *[(64, 64, 3, 3), (64,), (64,)] * 5,
    (10, 64), (10,),
]  # fmt: skip
SMALL = [(32, 16), (16,), (16, 10), (10,)]


def step(name: str, accumulators: int, *scalars: Any, shapes: list[tuple[int, ...]]) -> Callable:
    """One step of an optimizer over arrays of these shapes."""

    def make(rng: np.random.Generator) -> tuple[Side, Side]:
        params, grads, *state = (
            [rng.random(shape, dtype=np.float32) for shape in shapes] for _ in range(2 + accumulators)
        )

        def side(backend: Backend) -> Side:
            own = [[a.copy() for a in column] for column in (params, grads, *state)]

            def run() -> list[np.ndarray]:
                getattr(backend, name)(*own, *scalars)
                return own[0]

            return run

        return side(CPU), side(BASE)

    return make


def clip(shapes: list[tuple[int, ...]]) -> Callable:
    """The norm of all gradients and a scaling, as in clip_grad_norm_."""

    def make(rng: np.random.Generator) -> tuple[Side, Side]:
        grads = [rng.random(shape, dtype=np.float32) for shape in shapes]

        def side(backend: Backend) -> Side:
            own = [g.copy() for g in grads]

            def run() -> float:
                norm = backend.total_norm(own, 2.0)
                backend.scale(own, math.nextafter(1.0, 0.0))
                return norm

            return run

        return side(CPU), side(BASE)

    return make


SGD = ("sgd_step", 1, False, 0.1, 0.9, 0.0, 1e-4, False, False)
ADAM = ("adam_step", 2, None, 10, 1e-3, 0.9, 0.999, 1e-8, 0.01, True, True, False)

CASES = [
    Case("optim sgd momentum 1M", step(*SGD, shapes=MILLION)),
    Case("optim adagrad 1M", step("adagrad_step", 1, 1, 0.1, 0.0, 1e-10, 0.0, False, shapes=MILLION)),
    Case("optim adadelta 1M", step("adadelta_step", 2, 1.0, 0.9, 1e-6, 0.0, False, shapes=MILLION)),
    Case(
        "optim rmsprop 1M",
        step("rmsprop_step", 1, None, None, 1e-2, 0.99, 1e-8, 0.0, 0.0, False, shapes=MILLION),
    ),
    Case("optim adamw 1M", step(*ADAM, shapes=MILLION)),
    Case("optim sgd momentum lenet", step(*SGD, shapes=LENET)),
    Case("optim adamw lenet", step(*ADAM, shapes=LENET)),
    Case("optim sgd momentum resnet20", step(*SGD, shapes=RESNET20)),
    Case("optim adamw resnet20", step(*ADAM, shapes=RESNET20)),
    Case("optim adamw 698 elements", step(*ADAM, shapes=SMALL), judged=False),
    Case("optim clip norm 1M", clip(MILLION)),
    Case("optim clip norm resnet20", clip(RESNET20)),
]
test_speed = speed_test(CASES)
