"""Pooling and its gradients against vectorised NumPy (one pass per element of the window), float32.

Each side gets images in the memory order it works in: channels-last for nnx, NCHW for NumPy. "nchw" in a name means
that nnx gets NCHW as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._case import Case, Side, speed_test
from benchmarks.bench_conv import channels_last
from nnx.backends.base import Backend
from nnx.backends.base.pool import pooled_sizes
from nnx.backends.cpu import CPUBackend

BASE, CPU = Backend(), CPUBackend()


def max_pool(x: tuple[int, ...], kernel: int, stride: int, padding: int = 0, nchw: bool = False) -> list[Case]:
    """Maximum and index, and the routing of the gradient."""
    n = len(x) - 2
    geometry = ((kernel,) * n, (stride,) * n, (padding,) * n, (1,) * n)

    def forward(rng: np.random.Generator) -> tuple[Side, Side]:
        images = rng.standard_normal(x, np.float32)
        mine = images if nchw else channels_last(images)
        return lambda: CPU.max_pool(mine, *geometry, False), lambda: BASE.max_pool(images, *geometry, False)

    def backward(rng: np.random.Generator) -> tuple[Side, Side]:
        images = rng.standard_normal(x, np.float32)
        gy = rng.standard_normal((*x[:2], *pooled_sizes(x[2:], *geometry, False)), np.float32)

        def side(backend: Backend, order: Callable) -> Side:
            mine, index = order(gy), backend.max_pool(order(images), *geometry, False)[1]
            return lambda: backend.max_pool_backward(mine, index, x, *geometry)

        return side(CPU, channels_last), side(BASE, np.ascontiguousarray)

    name, judged = _name("max", x, kernel, stride, padding, nchw), _judged(x)
    cases = [Case(name, forward, 0.0, judged)]
    return cases if nchw else [*cases, Case(f"{name}, gradient", backward, 1e-5, judged)]


def avg_pool(x: tuple[int, ...], kernel: int, stride: int, padding: int = 0) -> list[Case]:
    n = len(x) - 2
    arguments = ((kernel,) * n, (stride,) * n, (padding,) * n, False, True, None)
    out = pooled_sizes(x[2:], *arguments[:3], (1,) * n, False)
    return _mean(_name("avg", x, kernel, stride, padding), "avg_pool", x, out, arguments, arguments)


def adaptive(x: tuple[int, ...], size: int) -> list[Case]:
    out = (size,) * (len(x) - 2)
    return _mean(f"adaptive avg {_shape(x)} to {size}", "adaptive_avg_pool", x, out, (out,), ())


def _mean(
    name: str, method: str, x: tuple[int, ...], out: tuple[int, ...], arguments: tuple, back: tuple
) -> list[Case]:
    def both(operation: str, shape: tuple[int, ...], *rest: Any) -> Callable:
        def make(rng: np.random.Generator) -> tuple[Side, Side]:
            a = rng.standard_normal(shape, np.float32)
            mine = channels_last(a)
            return lambda: getattr(CPU, operation)(mine, *rest), lambda: getattr(BASE, operation)(a, *rest)

        return make

    return [
        Case(name, both(method, x, *arguments), 1e-5, _judged(x)),
        Case(f"{name}, gradient", both(f"{method}_backward", (*x[:2], *out), x, *back), 1e-5, _judged(x)),
    ]


def _shape(x: tuple[int, ...]) -> str:
    return "x".join(map(str, x))


def _name(kind: str, x: tuple[int, ...], kernel: int, stride: int, padding: int, nchw: bool = False) -> str:
    rest = f" p{padding}" if padding else ""
    return f"{kind} pool {_shape(x)} k{kernel} s{stride}{rest}{' nchw' if nchw else ''}"


def _judged(x: tuple[int, ...]) -> bool:
    return int(np.prod(x)) >= 4096


CASES = [
    *max_pool((128, 6, 28, 28), 2, 2),  # LeNet
    *max_pool((64, 32, 32, 32), 2, 2),
    *max_pool((64, 32, 32, 32), 2, 2, nchw=True),
    *max_pool((8, 64, 112, 112), 3, 2, 1),  # ResNet
    *max_pool((8, 192, 28, 28), 3, 1, 1),  # Inception
    *max_pool((7, 17, 23, 19), 3, 2, 1),  # odd
    *max_pool((64, 1, 28, 28), 2, 2),
    *max_pool((16, 32, 1000), 2, 2),
    *max_pool((4, 16, 16, 24, 24), 2, 2),
    *max_pool((1, 8, 8, 8), 2, 2),
    *avg_pool((64, 32, 32, 32), 2, 2),
    *avg_pool((8, 192, 28, 28), 3, 1, 1),
    *avg_pool((7, 17, 23, 19), 3, 2, 1),
    *avg_pool((1, 8, 8, 8), 2, 2),
    *adaptive((32, 512, 7, 7), 1),
    *adaptive((8, 64, 30, 31), 7),
]

test_speed = speed_test(CASES)
