"""Gates: one operation each, which keeps in forward what its backward needs.

``forward(x, ...)`` returns z and ``backward(dz)`` returns a list with one gradient per input, the gate's own derivative
times `dz`. Values are numbers or NumPy arrays; a gate may return a gradient in the shape of z where an input was
broadcast, the graph sums it back to the input's shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nnx import _check
from nnx.autograd import Tensor, enable_grad


class Gate:
    """Base class of the gates here. Any object with the same two methods is a gate for the graph as well."""

    def forward(self, *inputs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__}: expected a forward method, got none")

    def backward(self, dz: Any) -> list[Any]:
        raise NotImplementedError(f"{type(self).__name__}: expected a backward method, got none")

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


# -- two inputs ------------------------------------------------------------------------------------


class AddGate(Gate):
    """``z = x + y``: the gradient distributor, both inputs get dz as it is."""

    def forward(self, x: Any, y: Any) -> Any:
        return x + y

    def backward(self, dz: Any) -> list[Any]:
        return [dz, dz]


class MultiplyGate(Gate):
    """``z = x y``: the gradient switcher, each input gets dz times the other input.

    >>> gate = MultiplyGate()
    >>> gate.forward(3, -4), gate.backward(2)
    (-12, [-8, 6])
    """

    def forward(self, x: Any, y: Any) -> Any:
        self.x, self.y = x, y
        return x * y

    def backward(self, dz: Any) -> list[Any]:
        return [self.y * dz, self.x * dz]


class MaxGate(Gate):
    """``z = max(x, y)``: the gradient router, the larger input gets dz and the other 0 (x, if they are equal)."""

    def forward(self, x: Any, y: Any) -> Any:
        self.first = np.greater_equal(x, y)
        return np.where(self.first, x, y)[()]

    def backward(self, dz: Any) -> list[Any]:
        return [np.where(self.first, dz, 0)[()], np.where(self.first, 0, dz)[()]]


class MatMulGate(Gate):
    """``z = x @ y`` of two matrices: ``dx = dz y^T``, ``dy = x^T dz``, the chain rule for vectors."""

    def forward(self, x: Any, y: Any) -> Any:
        if np.ndim(x) != 2 or np.ndim(y) != 2:
            raise ValueError(f"MatMulGate: expected two matrices, got shapes {np.shape(x)} and {np.shape(y)}")
        self.x, self.y = x, y
        return x @ y

    def backward(self, dz: Any) -> list[Any]:
        return [dz @ self.y.T, self.x.T @ dz]


# -- one input -------------------------------------------------------------------------------------


class AddConstantGate(Gate):
    """``z = x + c``; slope 1."""

    def __init__(self, c: float) -> None:
        self.c = _check.real("AddConstantGate", "c", c)

    def forward(self, x: Any) -> Any:
        return x + self.c

    def backward(self, dz: Any) -> list[Any]:
        return [dz]

    def __repr__(self) -> str:
        return f"AddConstantGate({self.c:g})"


class MultiplyConstantGate(Gate):
    """``z = a x``; slope a."""

    def __init__(self, a: float) -> None:
        self.a = _check.real("MultiplyConstantGate", "a", a)

    def forward(self, x: Any) -> Any:
        return self.a * x

    def backward(self, dz: Any) -> list[Any]:
        return [self.a * dz]

    def __repr__(self) -> str:
        return f"MultiplyConstantGate({self.a:g})"


class ExpGate(Gate):
    """``z = exp(x)``; slope z."""

    def forward(self, x: Any) -> Any:
        self.z = np.exp(x)
        return self.z

    def backward(self, dz: Any) -> list[Any]:
        return [self.z * dz]


class ReciprocalGate(Gate):
    """``z = 1 / x``; slope ``-1 / x^2``."""

    def forward(self, x: Any) -> Any:
        self.z = 1.0 / x
        return self.z

    def backward(self, dz: Any) -> list[Any]:
        return [-self.z * self.z * dz]


class SigmoidGate(Gate):
    """``z = 1 / (1 + exp(-x))``; slope ``z (1 - z)``. No overflow for any x.

    The four gates times -1, exp, +1 and 1/x in one.
    """

    def forward(self, x: Any) -> Any:
        e = np.exp(-np.abs(x))  # at most 1, whatever the sign of x
        self.z = np.where(np.greater_equal(x, 0), 1.0, e)[()] / (1.0 + e)
        return self.z

    def backward(self, dz: Any) -> list[Any]:
        return [self.z * (1.0 - self.z) * dz]


class TanhGate(Gate):
    """``z = tanh(x)``; slope ``1 - z^2``."""

    def forward(self, x: Any) -> Any:
        self.z = np.tanh(x)
        return self.z

    def backward(self, dz: Any) -> list[Any]:
        return [(1.0 - self.z * self.z) * dz]


class ReLUGate(Gate):
    """``z = max(0, x)``; slope 1 for x > 0, else 0."""

    def forward(self, x: Any) -> Any:
        self.positive = np.greater(x, 0)
        return np.maximum(x, 0)

    def backward(self, dz: Any) -> list[Any]:
        return [np.where(self.positive, dz, 0)[()]]


# -- any operation of the library ------------------------------------------------------------------


class OperationGate(Gate):
    """A gate made of any differentiable function of nnx, which computes in float64.

    function:  takes as many Tensors as the gate has inputs, returns one Tensor

    >>> import nnx
    >>> gate = OperationGate(nnx.tanh)
    >>> float(gate.forward(0.0)), [float(g) for g in gate.backward(3.0)]
    (0.0, [3.0])
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        if not callable(function):
            raise TypeError(f"OperationGate: expected function to be callable, got {type(function).__name__}")
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        self.inputs = [Tensor(np.array(x, np.float64), requires_grad=True) for x in inputs]
        with enable_grad():
            self.output = self.function(*self.inputs)
        if not isinstance(self.output, Tensor):
            raise TypeError(f"OperationGate: expected function to return a Tensor, got {type(self.output).__name__}")
        return self.output.data[()]

    def backward(self, dz: Any) -> list[Any]:
        for x in self.inputs:
            x.grad = None
        if self.output.requires_grad:
            self.output.backward(np.broadcast_to(np.asarray(dz, np.float64), self.output.shape), retain_graph=True)
        return [np.zeros(x.shape)[()] if x.grad is None else np.asarray(x.grad)[()] for x in self.inputs]

    def __repr__(self) -> str:
        return f"OperationGate({getattr(self.function, '__name__', repr(self.function))})"
