"""One row of the table of operation cases, and ways to draw its inputs.

A row says how to call an operation once. `tests/test_cases.py` does everything else with it: values
against the base backend, gradient check, float32, memory layouts, read-only and empty input, NaN
and infinity, threads, PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Draw = Callable[[np.random.Generator], tuple]


@dataclass(frozen=True, eq=False)
class Case:
    """One call of one operation.

    id:        unique, in the form "operation-variant", for example "conv2d-stride2-groups"
    function:  ``function(*inputs, **kwargs)`` returns a Tensor or a tuple of Tensors; it is a pure
               function of its arguments (where it draws random numbers, a lambda passes
               ``generator=np.random.default_rng(0)``)
    inputs:    draws the positional arguments: float64 arrays, integer or bool arrays, None, Python
               numbers. Small (the full Jacobian is checked), odd sizes, no ties and no kinks
    torch:     the same call for PyTorch tensors: ``torch(*inputs, **kwargs)``, with the module
               imported inside (see `torch_f`); or a string that says why PyTorch has no counterpart
    kwargs:    keyword arguments of both calls
    grad:      indexes of the inputs that have a gradient
    batch:     indexes of the inputs whose axis 0 is the batch; they are cut to length 0 for the
               empty-batch check (empty tuple: an empty batch makes no sense, or is an error that
               has its own test)
    nonfinite: indexes of the inputs into which NaN, inf and -inf are put (base and compiled agree)
    large:     draws inputs of several blocks, so that a second thread has something to do; None
               takes `inputs`
    rtol32:    bound on |float32 result - float64 result| relative to the largest value, for outputs
               and gradients
    rtol64:    bound against the base backend and PyTorch in float64, relative to the largest value
    reason:    why `rtol32` or `rtol64` is not the default
    """

    id: str
    function: Callable[..., Any]
    inputs: Draw
    torch: Callable[..., Any] | str
    kwargs: dict[str, Any] = field(default_factory=dict)
    grad: tuple[int, ...] = (0,)
    batch: tuple[int, ...] = (0,)
    nonfinite: tuple[int, ...] = (0,)
    large: Draw | None = None
    rtol32: float = 1e-5
    rtol64: float = 1e-10
    reason: str = ""

    def __post_init__(self) -> None:
        if (self.rtol32, self.rtol64) != (1e-5, 1e-10) and not self.reason:
            raise ValueError(f"Case {self.id}: expected a reason for the tolerance")
        if isinstance(self.torch, str) and not self.torch:
            raise ValueError(f"Case {self.id}: expected a reason why PyTorch has no counterpart")

    def __repr__(self) -> str:
        return f"Case({self.id})"


def normal(*shapes: tuple[int, ...]) -> Draw:
    """Standard normal arrays of these shapes."""
    return lambda rng: tuple(rng.standard_normal(shape) for shape in shapes)


def positive(*shapes: tuple[int, ...]) -> Draw:
    """Arrays in [0.5, 2)."""
    return lambda rng: tuple(rng.uniform(0.5, 2.0, shape) for shape in shapes)


def distinct(*shapes: tuple[int, ...]) -> Draw:
    """Arrays whose elements differ by 0.1 or more, and from 0 by 0.05: no maximum near a tie."""

    def draw(rng: np.random.Generator) -> tuple:
        result = []
        for shape in shapes:
            n = int(np.prod(shape))
            result.append((rng.permutation(n) - n // 2 + 0.5).reshape(shape) * 0.1)
        return tuple(result)

    return draw


def mixed(*draws: Draw) -> Draw:
    """The arguments of several draws, in order: ``mixed(normal((5, 3)), integers(3, (5,)))``."""
    return lambda rng: tuple(value for draw in draws for value in draw(rng))


def integers(high: int, *shapes: tuple[int, ...]) -> Draw:
    """int64 arrays in [0, high): class labels or indexes."""
    return lambda rng: tuple(rng.integers(0, high, shape) for shape in shapes)


def constant(*values: Any) -> Draw:
    """The same values every time (None, numbers, small arrays)."""
    return lambda rng: values


def torch_f(name: str) -> Callable[..., Any]:
    """The function of that name in torch.nn.functional or torch, looked up when it is called."""

    def call(*args: Any, **kwargs: Any) -> Any:
        import torch

        home = torch.nn.functional if hasattr(torch.nn.functional, name) else torch
        return getattr(home, name)(*args, **kwargs)

    return call
