"""Fully connected layers, and layers that only reshape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnx import _check
from nnx._device import parse as parse_device
from nnx.autograd import Parameter, Tensor, as_tensor
from nnx.functional.linear import bilinear_as, linear_as
from nnx.nn import init
from nnx.nn.module import Module

__all__ = ["Bilinear", "Flatten", "Identity", "Linear", "Unflatten"]


class Linear(Module):
    """A fully connected layer, ``y = x W^T + b`` over the last dimension.

    in_features, out_features:  sizes of the last dimension of input and output
    bias:                       whether there is a b

    Input (..., in_features), output (..., out_features). `weight` is (out_features, in_features);
    it and `bias` start uniform on ``[-1 / sqrt(in_features), 1 / sqrt(in_features)]``.

    >>> Linear(3, 2)(np.zeros((5, 3))).shape
    (5, 2)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        device = parse_device("Linear", device)
        dtype = _check.float_dtype("Linear", dtype)
        self.in_features = _check.integer("Linear", "in_features", in_features, 0)
        self.out_features = _check.integer("Linear", "out_features", out_features, 0)
        self.weight = Parameter(np.empty((self.out_features, self.in_features), dtype))
        self.bias = Parameter(np.empty(self.out_features, dtype)) if bias else None
        self.reset_parameters()
        self._place(device)

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(max(self.in_features, 1))
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Any) -> Tensor:
        return self._forward(input)

    def _forward(self, input: Any, relu: bool = False) -> Tensor:
        return linear_as("Linear", input, *self._weight_and_bias(), relu)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Bilinear(Module):
    """A bilinear layer, ``y_o = x1^T W_o x2 + b_o``.

    Inputs (..., in1_features) and (..., in2_features), output (..., out_features). `weight` is
    (out_features, in1_features, in2_features); it and `bias` start uniform on
    ``[-1 / sqrt(in1), 1 / sqrt(in1)]``.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        device = parse_device("Bilinear", device)
        dtype = _check.float_dtype("Bilinear", dtype)
        self.in1_features = _check.integer("Bilinear", "in1_features", in1_features, 1)
        self.in2_features = _check.integer("Bilinear", "in2_features", in2_features, 0)
        self.out_features = _check.integer("Bilinear", "out_features", out_features, 0)
        shape = (self.out_features, self.in1_features, self.in2_features)
        self.weight = Parameter(np.empty(shape, dtype))
        self.bias = Parameter(np.empty(self.out_features, dtype)) if bias else None
        self.reset_parameters()
        self._place(device)

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        bound = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Any, input2: Any) -> Tensor:
        return bilinear_as("Bilinear", input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )


class Identity(Module):
    """Returns its input; every argument is ignored, so that it can stand in for any layer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Tensor:
        return as_tensor(input)


class Flatten(Module):
    """Merges the dimensions from `start_dim` to `end_dim`: (N, C, H, W) becomes (N, C * H * W).

    >>> Flatten()(np.zeros((2, 3, 4, 4))).shape
    (2, 48)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = _check.integer("Flatten", "start_dim", start_dim)
        self.end_dim = _check.integer("Flatten", "end_dim", end_dim)

    def forward(self, input: Any) -> Tensor:
        return as_tensor(input).flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Splits dimension `dim` into several: with ``(1, (3, 4, 4))``, (N, 48) becomes (N, 3, 4, 4).

    unflattened_size:  the new dimensions; one of them may be -1
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        if isinstance(dim, str):
            raise ValueError(
                f"Unflatten: expected dim to be an integer (named dimensions are not offered), got {dim!r}"
            )
        self.dim = _check.integer("Unflatten", "dim", dim)
        if not isinstance(unflattened_size, (tuple, list)) or not unflattened_size:
            raise TypeError(f"Unflatten: expected unflattened_size to be a tuple of integers, got {unflattened_size!r}")
        self.unflattened_size = tuple(_check.integer("Unflatten", "unflattened_size", n, -1) for n in unflattened_size)

    def forward(self, input: Any) -> Tensor:
        x = as_tensor(input)
        axis = _check.axis("Unflatten", "dim", self.dim, x.ndim)
        sizes = self.unflattened_size
        known = math.prod(n for n in sizes if n != -1)
        open_sizes = sizes.count(-1)
        fits = (
            x.shape[axis] == known if open_sizes == 0 else open_sizes == 1 and known > 0 and x.shape[axis] % known == 0
        )
        if not fits:
            raise ValueError(f"Unflatten: expected dimension {axis} to split into {sizes}, got shape {x.shape}")
        return x.reshape(x.shape[:axis] + sizes + x.shape[axis + 1 :])

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
