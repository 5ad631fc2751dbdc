"""Activation layers. None of them but PReLU and Maxout has parameters; see `nnx.functional`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnx import _check
from nnx._device import parse as parse_device
from nnx.autograd import Parameter, Tensor, cast_input
from nnx.functional import activation as F
from nnx.functional.linear import linear_as
from nnx.nn import init
from nnx.nn.module import Module

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Maxout",
    "Mish",
    "PReLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmin",
    "Softplus",
    "Softsign",
    "Tanh",
]


class _InPlace(Module):
    """A layer with PyTorch's argument `inplace`, which is kept and shown but changes nothing."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = bool(inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""

    def _repr(self, text: str) -> str:
        return f"{text}, inplace=True" if self.inplace else text


# -- piecewise linear ------------------------------------------------------------------------------


class ReLU(_InPlace):
    """``max(0, x)``; the slope at 0 is 0.

    >>> ReLU()([-1.0, 2.0]).data.tolist()
    [0.0, 2.0]
    """

    def forward(self, input: Any) -> Tensor:
        return F.relu(input)


class LeakyReLU(_InPlace):
    """``x`` where x > 0, else ``negative_slope x``."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.negative_slope = _check.real("LeakyReLU", "negative_slope", negative_slope)

    def forward(self, input: Any) -> Tensor:
        return F.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        return self._repr(f"negative_slope={self.negative_slope:g}")


class PReLU(Module):
    """``x`` where x > 0, else ``weight x``, with a weight that is learned: He et al. (2015).

    num_parameters:  1, or the number of channels (dimension 1 of the input)
    init:            the weight to start with

    "Delving deep into rectifiers: surpassing human-level performance on ImageNet classification".
    """

    weight: Parameter

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        device = parse_device("PReLU", device)
        dtype = _check.float_dtype("PReLU", dtype)
        self.num_parameters = _check.integer("PReLU", "num_parameters", num_parameters, 1)
        self.init = _check.real("PReLU", "init", init)
        self.weight = Parameter(np.empty(self.num_parameters, dtype))
        self.reset_parameters()
        self._place(device)

    def reset_parameters(self) -> None:
        """Set the weight to `init`."""
        self.weight.data[...] = self.init

    def forward(self, input: Any) -> Tensor:
        return F.prelu_as("PReLU", cast_input("PReLU", input, self.weight.dtype), self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class Hardtanh(_InPlace):
    """``min(max(x, min_val), max_val)``."""

    def __init__(
        self,
        min_val: float = -1.0,
        max_val: float = 1.0,
        inplace: bool = False,
        min_value: Any = None,
        max_value: Any = None,
    ) -> None:
        for name, value in (("min_value", min_value), ("max_value", max_value)):
            if value is not None:
                raise TypeError(
                    f"Hardtanh: expected no argument {name}, which is deprecated, got {value!r}. Use {name[:7]}"
                )
        super().__init__(inplace)
        self.min_val, self.max_val = F.limits("Hardtanh", min_val, max_val)

    def forward(self, input: Any) -> Tensor:
        return F.hardtanh_as("Hardtanh", input, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        return self._repr(f"min_val={self.min_val:g}, max_val={self.max_val:g}")


class ReLU6(_InPlace):
    """``min(max(x, 0), 6)``."""

    def forward(self, input: Any) -> Tensor:
        return F.relu6(input)


class Hardsigmoid(_InPlace):
    """``min(max(x + 3, 0), 6) / 6``."""

    def forward(self, input: Any) -> Tensor:
        return F.hardsigmoid(input)


class Hardswish(_InPlace):
    """``x hardsigmoid(x)``."""

    def forward(self, input: Any) -> Tensor:
        return F.hardswish(input)


# -- built on exp ----------------------------------------------------------------------------------


class ELU(_InPlace):
    """``x`` where x > 0, else ``alpha (exp(x) - 1)``."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = _check.real("ELU", "alpha", alpha)

    def forward(self, input: Any) -> Tensor:
        return F.elu(input, self.alpha)

    def extra_repr(self) -> str:
        return self._repr(f"alpha={self.alpha:g}")


class SELU(_InPlace):
    """``scale elu(x, alpha)`` with the constants that keep mean 0 and variance 1."""

    def forward(self, input: Any) -> Tensor:
        return F.selu(input)


class CELU(_InPlace):
    """``x`` where x > 0, else ``alpha (exp(x / alpha) - 1)``."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = _check.real("CELU", "alpha", alpha, 0, open_low=True)

    def forward(self, input: Any) -> Tensor:
        return F.celu(input, self.alpha)

    def extra_repr(self) -> str:
        return self._repr(f"alpha={self.alpha:g}")


class GELU(Module):
    """``x P(X <= x)`` for a standard normal X; `approximate` is "none" or "tanh"."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = _check.choice("GELU", "approximate", approximate, ("none", "tanh"))

    def forward(self, input: Any) -> Tensor:
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SiLU(_InPlace):
    """``x sigmoid(x)``, also called swish."""

    def forward(self, input: Any) -> Tensor:
        return F.silu(input)


class Mish(_InPlace):
    """``x tanh(softplus(x))``."""

    def forward(self, input: Any) -> Tensor:
        return F.mish(input)


class Sigmoid(Module):
    """``1 / (1 + exp(-x))``."""

    def forward(self, input: Any) -> Tensor:
        return F.sigmoid(input)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, input: Any) -> Tensor:
        return F.tanh(input)


class Softplus(Module):
    """``log(1 + exp(beta x)) / beta``; x itself where ``beta x > threshold``."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = F.nonzero("Softplus", "beta", beta)
        self.threshold = _check.real("Softplus", "threshold", threshold)

    def forward(self, input: Any) -> Tensor:
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta:g}, threshold={self.threshold:g}"


class LogSigmoid(Module):
    """``log(1 / (1 + exp(-x)))``."""

    def forward(self, input: Any) -> Tensor:
        return F.logsigmoid(input)


class Softsign(Module):
    """``x / (1 + |x|)``."""

    def forward(self, input: Any) -> Tensor:
        return F.softsign(input)


# -- over a dimension ------------------------------------------------------------------------------


class _OverDim(Module):
    """A layer with the argument `dim`; None, from which PyTorch guesses, is refused."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        F.check_dim_given(type(self).__name__, dim)
        self.dim = _check.integer(type(self).__name__, "dim", dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(_OverDim):
    """``exp(x) / sum(exp(x))`` over `dim`.

    >>> Softmax(dim=1)([[0.0, 0.0]]).data.tolist()
    [[0.5, 0.5]]
    """

    def forward(self, input: Any) -> Tensor:
        return F.softmax_as("Softmax", input, self.dim)


class LogSoftmax(_OverDim):
    """``x - log(sum(exp(x)))`` over `dim`."""

    def forward(self, input: Any) -> Tensor:
        return F.log_softmax_as("LogSoftmax", input, self.dim)


class Softmin(_OverDim):
    """The softmax of ``-x`` over `dim`."""

    def forward(self, input: Any) -> Tensor:
        return F.softmin_as("Softmin", input, self.dim)


class GLU(Module):
    """``a sigmoid(b)`` for the two halves a, b of the input along `dim`."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = _check.integer("GLU", "dim", dim)

    def forward(self, input: Any) -> Tensor:
        return F.glu_as("GLU", input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Maxout(Module):
    """The largest of several linear functions for each output: Goodfellow et al. (2013).

    in_features, out_features:  sizes of the last dimension of input and output
    num_pieces:                 linear functions per output
    bias:                       whether the functions have a constant term

    ``y[o] = max over k of (W[o, k] x + b[o, k])``: ReLU and LeakyReLU are the special cases where
    one of two functions is 0 or a multiple of the other.

    Input (..., in_features), output (..., out_features). `weight` is (out_features * num_pieces,
    in_features), the pieces of an output next to each other; it and `bias` start as in Linear.

    >>> Maxout(3, 2)(np.zeros((5, 3))).shape
    (5, 2)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_pieces: int = 2,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        device = parse_device("Maxout", device)
        dtype = _check.float_dtype("Maxout", dtype)
        self.in_features = _check.integer("Maxout", "in_features", in_features, 1)
        self.out_features = _check.integer("Maxout", "out_features", out_features, 1)
        self.num_pieces = _check.integer("Maxout", "num_pieces", num_pieces, 1)
        rows = self.out_features * self.num_pieces
        self.weight = Parameter(np.empty((rows, self.in_features), dtype))
        self.bias = Parameter(np.empty(rows, dtype)) if bias else None
        self.reset_parameters()
        self._place(device)

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features)
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Any) -> Tensor:
        pieces = linear_as("Maxout", input, self.weight, self.bias)
        return F.maxout_as("Maxout", pieces, self.num_pieces, -1)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"num_pieces={self.num_pieces}, bias={self.bias is not None}"
        )
