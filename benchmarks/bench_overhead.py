"""What a call costs beside its arithmetic: operations on tiny arrays, nnx against the NumPy call they stand for.

`python -m benchmarks.bench_overhead` prints microseconds per operation: the kernel call alone, the operation without
the tape, with it, and its share of a backward pass. Rows are too small to be judged by the ratio.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np

import nnx
from benchmarks._case import Case, speed_test
from nnx import nn
from nnx.backends import backend_of

X = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((8, 8)).astype(np.float32)
BE = backend_of(X)
F = nnx.functional

# name: (the operation on a Tensor, the backend call below it)
OPERATIONS: dict[str, tuple[Callable, Callable]] = {
    "relu": (F.relu, lambda: BE.relu(X)),
    "tanh": (F.tanh, lambda: BE.tanh(X)),
    "x + x": (lambda t: t + t, lambda: X + X),
    "x * 2": (lambda t: t * 2.0, lambda: X * np.float32(2)),
    "matmul": (lambda t: t @ W, lambda: BE.matmul(X, W)),
    "linear": (lambda t: F.linear(t, W), lambda: BE.linear(X, W, None)),
    "reshape": (lambda t: t.reshape(8, 4), lambda: X.reshape(8, 4)),
    "sum": (lambda t: t.sum(), lambda: X.sum()),
}


def relu_tiny(rng):
    x = rng.standard_normal((4, 8)).astype(np.float32)
    return (lambda: F.relu(x).data), (lambda: np.maximum(x, 0))


def mlp_tiny(rng):
    """A 4-64-64-2 network, one sample."""
    model = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)).eval()
    x = rng.standard_normal((1, 4)).astype(np.float32)
    weights = [(p.weight.data.T.copy(), p.bias.data) for p in model if isinstance(p, nn.Linear)]

    def plain():
        h = x
        for i, (w, b) in enumerate(weights):
            h = h @ w + b
            if i < 2:
                h = np.maximum(h, 0)
        return h

    def ours():
        with nnx.no_grad():
            return model(x).data

    return ours, plain


CASES = [
    Case("relu 4x8", relu_tiny, judged=False),
    Case("mlp 4-64-64-2, one sample", mlp_tiny, judged=False),
]

test_speed = speed_test(CASES)


def microseconds(call: Callable[[], object], number: int = 2000) -> float:
    """The median over blocks of calls."""
    taken = []
    for _ in range(9):
        start = time.perf_counter()
        for _ in range(number):
            call()
        taken.append((time.perf_counter() - start) / number)
    return 1e6 * statistics.median(taken)


def chain(operation: Callable, length: int) -> Callable[[], None]:
    """A backward pass through `length` operations in a row."""
    start = nnx.tensor(X, requires_grad=True)

    def run() -> None:
        y = start
        for _ in range(length):
            y = operation(y)
        y.backward(np.ones_like(y.data))
        start.grad = None

    return run


def main() -> None:
    print("| operation | kernel | without tape | with tape | tape | forward and backward, each |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    plain, wanted = nnx.tensor(X), nnx.tensor(X, requires_grad=True)
    for name, (operation, kernel) in OPERATIONS.items():
        below = microseconds(kernel)
        without, with_tape = (microseconds(partial(operation, t)) for t in (plain, wanted))
        both = "-"
        if operation(plain).shape == plain.shape:
            long, short = (microseconds(chain(operation, n), 200) for n in (20, 10))
            both = f"{(long - short) / 10:.2f}"
        print(
            f"| {name} | {below:.2f} | {without:.2f} | {with_tape:.2f} | {with_tape - below:.2f} | {both} |", flush=True
        )


if __name__ == "__main__":
    main()
