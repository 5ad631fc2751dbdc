"""Running one case: outputs and gradients of a call, with the input under watch."""

from __future__ import annotations

from typing import Any

import numpy as np

import nnx
from cases._case import Case
from nnx.testing import assert_close


def cast(values: tuple, dtype: Any) -> tuple:
    """The float arrays of `values` in `dtype`, everything else as it is."""
    return tuple(v.astype(dtype) if is_float(v) else v for v in values)


def is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def call(case: Case, values: tuple, grad: tuple[int, ...]) -> tuple[list, list]:
    """The leaves (a Tensor for each index in `grad`) and the results, as a list."""
    args = list(values)
    leaves = []
    for i in grad:
        args[i] = nnx.Tensor(values[i], requires_grad=True)
        leaves.append(args[i])
    result = case.function(*args, **case.kwargs)
    return leaves, list(result) if isinstance(result, (tuple, list)) else [result]


def cotangent(i: int, shape: tuple, dtype: Any) -> np.ndarray:
    """The gradient that comes into output number `i`: random, but the same every time."""
    return np.random.default_rng(i).standard_normal(shape).astype(dtype)


def run(
    case: Case, values: tuple, grad: tuple[int, ...] | None = None, arrange: Any = None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Outputs and gradients, after a check that every array given was left as it was.

    arrange: brings the outputs' gradients into another memory layout
    """
    grad = case.grad if grad is None else grad
    before = [v.tobytes() if isinstance(v, np.ndarray) else None for v in values]
    leaves, outputs = call(case, values, grad)
    for i, y in enumerate(outputs):
        assert isinstance(y, nnx.Tensor), f"expected a Tensor, got {type(y)}"
        if y.requires_grad:
            gy = cotangent(i, y.shape, y.dtype)
            gy = gy if arrange is None else arrange(gy)
            bits = gy.tobytes()
            y.backward(gy, retain_graph=True)
            assert gy.tobytes() == bits, "the output's gradient was written to"
    for v, bits in zip(values, before, strict=True):
        assert bits is None or v.tobytes() == bits, "an input was written to"
    zeros = [np.zeros(t.shape, t.dtype) for t in leaves]
    grads = [z if t.grad is None else t.grad for t, z in zip(leaves, zeros, strict=True)]
    return [y.data for y in outputs], grads


def compare(actual: tuple, expected: tuple, rtol: float, atol: float | None = None) -> None:
    """Outputs and gradients of two runs, each relative to its largest value."""
    for kind, a, e in zip(("output", "gradient"), actual, expected, strict=True):
        assert len(a) == len(e)
        for i, (x, y) in enumerate(zip(a, e, strict=True)):
            assert_close(x, y, rtol, rtol * 1e-2 if atol is None else atol, name=f"{kind} {i}")


def bits(result: tuple) -> list[bytes]:
    return [array.tobytes() for part in result for array in part]
