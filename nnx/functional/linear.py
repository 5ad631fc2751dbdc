"""Fully connected layers."""

from __future__ import annotations

from typing import Any

from nnx._device import same_device
from nnx.autograd import Tensor, as_tensor, cast_input, record
from nnx.backends import backend_of

__all__ = ["bilinear", "linear"]


def linear(input: Any, weight: Any, bias: Any = None) -> Tensor:
    """``y = x w^T + b`` over the last dimension.

    input:   (..., in_features)
    weight:  (out_features, in_features)
    bias:    (out_features,) or None

    Returns (..., out_features).

    >>> linear([[1.0, 2.0]], [[3.0, 4.0]], [0.5]).data.tolist()
    [[11.5]]
    """
    w = _weight("linear", weight, "(out_features, in_features)", 2)
    return linear_as("linear", input, w, _bias("linear", bias, w))


def linear_as(owner: str, input: Any, weight: Tensor, bias: Tensor | None, relu: bool = False) -> Tensor:
    """`linear` for a layer, or with `relu` its positive part: messages carry its name, and its parameters agree."""
    x = cast_input(owner, input, weight.data.dtype)
    x_data, w_data, b_data = x.data, weight.data, None if bias is None else bias.data
    same_device(owner, weight=w_data, input=x_data, bias=b_data)
    if x_data.ndim == 0 or x_data.shape[-1] != w_data.shape[1]:
        raise ValueError(
            f"{owner}: expected input with {w_data.shape[1]} features in the last dimension, got shape {x_data.shape}"
        )
    be = backend_of(x_data)
    y = be.linear(x_data, w_data, b_data, relu)
    if relu:
        return record(y, _linear_relu_grad, (x, weight, bias), y, be, x_data, w_data)
    return record(y, _linear_grad, (x, weight, bias), be, x_data, w_data)


def _linear_relu_grad(needs, gy, y, be, x, w):
    return be.linear_backward(be.relu_backward(gy, y), x, w, needs)


def _linear_grad(needs, gy, be, x, w):
    return be.linear_backward(gy, x, w, needs)


def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Tensor:
    """``y_o = x1^T W_o x2 + b_o`` over the last dimensions of two inputs.

    input1, input2:  (..., in1_features) and (..., in2_features), equal in the other dimensions
    weight:          (out_features, in1_features, in2_features)
    bias:            (out_features,) or None

    Returns (..., out_features).
    """
    w = _weight("bilinear", weight, "(out_features, in1_features, in2_features)", 3)
    return bilinear_as("bilinear", input1, input2, w, _bias("bilinear", bias, w))


def bilinear_as(owner: str, input1: Any, input2: Any, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`bilinear` for a layer: messages carry its name, and its parameters agree."""
    out, in1, in2 = weight.shape
    x1 = cast_input(owner, input1, weight.data.dtype)
    x2 = cast_input(owner, input2, weight.data.dtype)
    same_device(owner, weight=weight.data, input1=x1.data, input2=x2.data)
    for name, x, features in (("input1", x1, in1), ("input2", x2, in2)):
        if x.ndim == 0 or x.shape[-1] != features:
            raise ValueError(
                f"{owner}: expected {name} with {features} features in the last dimension, got shape {x.shape}"
            )
    if x1.shape[:-1] != x2.shape[:-1]:
        raise ValueError(
            f"{owner}: expected inputs of equal shape but for the last dimension, got {x1.shape} and {x2.shape}"
        )
    # x1 W first, for all outputs in one product: (..., in1) @ (in1, out * in2)
    half = x1 @ weight.permute(1, 0, 2).reshape(in1, out * in2)
    y = (half.reshape(*x1.shape[:-1], out, in2) * x2.unsqueeze(-2)).sum(-1)
    return y if bias is None else y + bias


def _weight(owner: str, value: Any, shape: str, ndim: int) -> Tensor:
    weight = as_tensor(value)
    if weight.dtype.kind != "f":
        raise TypeError(f"{owner}: expected weight of dtype float32 or float64, got a Tensor of dtype {weight.dtype}")
    if weight.ndim != ndim:
        raise ValueError(f"{owner}: expected weight of shape {shape}, got shape {weight.shape}")
    return weight


def _bias(owner: str, value: Any, weight: Tensor) -> Tensor | None:
    if value is None:
        return None
    bias = as_tensor(value, weight.dtype)
    if bias.dtype != weight.dtype:
        raise TypeError(
            f"{owner}: expected bias of dtype {weight.dtype} like weight, got a Tensor of dtype {bias.dtype}"
        )
    if bias.shape != weight.shape[:1]:
        raise ValueError(
            f"{owner}: expected bias of shape {weight.shape[:1]} for weight of shape {weight.shape}, got {bias.shape}"
        )
    return bias
