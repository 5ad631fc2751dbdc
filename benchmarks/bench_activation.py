"""Activations, softmax and dropout, forward and backward: the kernels against the vectorised base backend."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks._case import Case, Side, speed_test
from nnx.backends.base import Backend
from nnx.backends.cpu import CPUBackend

BASE, CPU = Backend(), CPUBackend()
MILLION = (128, 64, 11, 12)  # 1,081,344 elements
SMALL = (32, 100)


def elementwise(name: str, shape=MILLION, dtype=np.float32, arguments: tuple = (), saved: str = "x") -> list[Case]:
    """Two cases: the function, and its gradient from the saved input ("x") or result ("y")."""

    def forward(rng: np.random.Generator) -> tuple[Side, Side]:
        x = rng.standard_normal(shape).astype(dtype)
        return tuple((lambda be=be: getattr(be, name)(x, *arguments)) for be in (CPU, BASE))

    def backward(rng: np.random.Generator) -> tuple[Side, Side]:
        gy, x = rng.standard_normal((2, *shape)).astype(dtype)
        z = getattr(BASE, name)(x, *arguments) if saved == "y" else x
        return tuple((lambda be=be: getattr(be, f"{name}_backward")(gy, z, *arguments)) for be in (CPU, BASE))

    n = int(np.prod(shape))
    label = f"{name}{f' {arguments[0]}' if arguments and isinstance(arguments[0], str) else ''}"
    text = f"{np.dtype(dtype).name} {n}"
    return [
        Case(f"{label} {text}", forward, 1e-5, n >= 4096),
        Case(f"{label} backward {text}", backward, 1e-5, n >= 4096),
    ]


def over_axis(name: str, shape: tuple[int, ...], axis: int, dtype=np.float32) -> list[Case]:
    """Softmax or its logarithm, and the gradient."""

    def forward(rng: np.random.Generator) -> tuple[Side, Side]:
        x = rng.standard_normal(shape).astype(dtype)
        return tuple((lambda be=be: getattr(be, name)(x, axis)) for be in (CPU, BASE))

    def backward(rng: np.random.Generator) -> tuple[Side, Side]:
        gy, x = rng.standard_normal((2, *shape)).astype(dtype)
        y = getattr(BASE, name)(x, axis)
        return tuple((lambda be=be: getattr(be, f"{name}_backward")(gy, y, axis)) for be in (CPU, BASE))

    judged = int(np.prod(shape)) >= 4096
    size = "x".join(str(n) for n in shape)
    return [
        Case(f"{name} {size} over axis {axis}", forward, 1e-5, judged),
        Case(f"{name} backward {size} over axis {axis}", backward, 1e-5, judged),
    ]


def dropout(shape: tuple[int, ...]) -> Case:
    """Without the random numbers, which both sides would draw the same way."""

    def make(rng: np.random.Generator) -> tuple[Side, Side]:
        x = rng.standard_normal(shape).astype(np.float32)
        keep = rng.random(shape) >= 0.5
        sides: list[Callable] = [lambda be=be: be.dropout(x, keep, 2.0) for be in (CPU, BASE)]
        return sides[0], sides[1]

    n = int(np.prod(shape))
    return Case(f"dropout {n}", make, 0.0, n >= 4096)


CASES = [
    *elementwise("relu", saved="y"),
    *elementwise("relu", SMALL, saved="y"),
    *elementwise("leaky_relu", arguments=(0.01,)),
    *elementwise("elu", arguments=(1.0, 1.0, 1.0)),
    *elementwise("sigmoid", saved="y"),
    *elementwise("sigmoid", SMALL, saved="y"),
    *elementwise("sigmoid", dtype=np.float64, saved="y"),
    *elementwise("tanh", saved="y"),
    *elementwise("tanh", dtype=np.float64, saved="y"),
    *elementwise("softplus", arguments=(1.0, 20.0)),
    *elementwise("silu"),
    *elementwise("mish"),
    *elementwise("gelu", arguments=("none",)),
    *elementwise("gelu", arguments=("tanh",)),
    *elementwise("gelu", dtype=np.float64, arguments=("none",)),
    *over_axis("softmax", (128, 10), 1),
    *over_axis("softmax", (4096, 10), 1),
    *over_axis("softmax", (128, 1000), 1),
    *over_axis("softmax", (8, 21, 64, 64), 1),
    *over_axis("log_softmax", (4096, 10), 1),
    *over_axis("log_softmax", (128, 1000), 1),
    dropout((1024, 1024)),
    dropout(SMALL),
]

test_speed = speed_test(CASES)
