"""Elementwise arithmetic and matrix products of Tensors, each with its gradient below it.

Arrays and Python numbers mix with Tensors as constants: an array is cast to the Tensor's float dtype, a number takes
it. Two Tensors of different float types promote as in NumPy, and each gets its gradient in its own type.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nnx._device import as_array, is_device_array, same_device
from nnx.autograd._later import later_of, record_later
from nnx.autograd._tensor import (
    Tensor,
    _wrap,
    as_tensor,
    record,
    unbroadcast,
)
from nnx.autograd.engine import LARGE_SUM, cuts, fresh, left_to_parent, made_fresh, mode
from nnx.backends import backend_of
from nnx.backends.base.later import Later, read

_NUMBERS = (builtins.bool, int, float)


def _operands(a: Any, b: Any) -> tuple[Any, Any, Tensor | None, Tensor | None]:
    """The two arrays (or a Python number) to compute with, and the Tensors behind them (None: a constant)."""
    if isinstance(a, Tensor):
        if isinstance(b, Tensor):
            if type(a.data) is not np.ndarray or type(b.data) is not np.ndarray:
                same_device("arithmetic", input=a.data, other=b.data)
            return a.data, b.data, a, b
        return a.data, _constant(b, a.data, "other"), a, None
    if isinstance(b, Tensor):
        return _constant(a, b.data, "input"), b.data, None, b
    a, b = as_tensor(a), as_tensor(b)
    same_device("arithmetic", input=a.data, other=b.data)
    return a.data, b.data, a, b


def _constant(value: Any, beside: Any, name: str) -> Any:
    """An array or number that meets the array of a Tensor, in its float type."""
    if type(value) in _NUMBERS:
        return value
    array = as_array(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"arithmetic: expected numbers beside a Tensor, got {type(value).__name__}")
    if beside.dtype.kind == "f":
        array = array.astype(beside.dtype, copy=False)
    if type(beside) is not np.ndarray or is_device_array(array):
        if array.ndim == 0 and not is_device_array(array):
            return array[()]  # a number of the host goes along with any device
        same_device("arithmetic", **{"the Tensor": beside, name: array})
    return array


def _shape(value: Any) -> tuple[int, ...]:
    return getattr(value, "shape", ())


def add(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """``input + alpha * other``, with broadcasting."""
    if alpha != 1:
        other = _scaled(other, alpha)
    later, rest = later_of(input), other
    if later is None:
        later, rest = later_of(other), input
    if later is not None:
        total = _add_later(later, rest)
        if total is not None:
            return record_later(total, _add_grad, (input, other), total.shape, total.shape)
    a, b, ta, tb = _operands(input, other)
    shape = _shape(a)
    same = shape == _shape(b) and math.prod(shape) >= LARGE_SUM
    y = backend_of(a).add(a, b) if same else a + b
    return record(y, _add_grad, (ta, tb), shape, _shape(b))


def _add_later(later: Later, other: Any) -> Later | None:
    """The sum, for later: where `other` is a Tensor of the same kind that nobody writes to."""
    if not isinstance(other, Tensor) or not made_fresh(other):
        return None
    array = other.data
    return later.plus(array) if array.shape == later.shape and array.dtype == later.dtype else None


@fresh
def _add_grad(needs, gy, a_shape, b_shape):
    return (
        unbroadcast(gy, a_shape) if needs[0] else None,
        unbroadcast(gy, b_shape) if needs[1] else None,
    )


def _scaled(other: Any, alpha: float) -> Any:
    return mul(other, alpha) if isinstance(other, Tensor) else np.multiply(other, alpha)


def sub(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """``input - alpha * other``, with broadcasting."""
    if alpha != 1:
        other = _scaled(other, alpha)
    a, b, ta, tb = _operands(input, other)
    return record(a - b, _sub_grad, (ta, tb), _shape(a), _shape(b))


def _sub_grad(needs, gy, a_shape, b_shape):
    return (
        unbroadcast(gy, a_shape) if needs[0] else None,
        unbroadcast(-gy, b_shape) if needs[1] else None,
    )


def mul(input: Any, other: Any) -> Tensor:
    """``input * other``, with broadcasting."""
    a, b, ta, tb = _operands(input, other)
    return record(a * b, _mul_grad, (ta, tb), a, b)


def _mul_grad(needs, gy, a, b):
    return (
        unbroadcast(gy * b, _shape(a)) if needs[0] else None,
        unbroadcast(gy * a, _shape(b)) if needs[1] else None,
    )


def div(input: Any, other: Any) -> Tensor:
    """``input / other``, with broadcasting; x / 0 is inf or NaN, as in NumPy, without a warning."""
    a, b, ta, tb = _operands(input, other)
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.true_divide(a, b)
    return record(y, _div_grad, (ta, tb), a, b)


def _div_grad(needs, gy, a, b):
    ga = gy / b
    return (
        unbroadcast(ga, _shape(a)) if needs[0] else None,
        unbroadcast(-ga * a / b, _shape(b)) if needs[1] else None,
    )


def pow(input: Any, exponent: Any) -> Tensor:
    """``input ** exponent``; d/da = exponent * a ** (exponent - 1), d/de = y * log(a)."""
    a, e, ta, te = _operands(input, exponent)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        y = a**e
    return record(y, _pow_grad, (ta, te), a, e, y)


def _pow_grad(needs, gy, a, e, y):
    ga = ge = None
    if needs[0]:
        # the slope of a ** 0 is 0 everywhere, also at a = 0 where a ** -1 is inf
        if type(e) in _NUMBERS:
            slope = e * a ** (e - 1) if e != 0 else np.zeros_like(a)
        else:
            slope = np.where(e == 0, 0, e * a ** np.where(e == 0, 1, e - 1))
        ga = unbroadcast((gy * slope).astype(y.dtype, copy=False), _shape(a))
    if needs[1]:
        slope = np.where((np.equal(a, 0)) & (np.greater_equal(e, 0)), 0, y * np.log(a))
        ge = unbroadcast((gy * slope).astype(y.dtype, copy=False), _shape(e))
    return ga, ge


def matmul(input: Any, other: Any) -> Tensor:
    """The matrix product ``input @ other``: 1-d, 2-d, or stacks of matrices that broadcast."""
    a, b, ta, tb = _operands(input, other)
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        raise ValueError("matmul: expected two arrays with at least one dimension, got a number")
    inner = b.shape[-2] if b.ndim > 1 else b.shape[0]
    if a.shape[-1] != inner:
        raise ValueError(
            f"matmul: expected the last dimension of input to equal {inner}, for other of shape {b.shape}, "
            f"got input of shape {a.shape}"
        )
    be = backend_of(a)
    return record(be.matmul(a, b), _matmul_grad, (ta, tb), be, a, b)


def _matmul_grad(needs, gy, be, a, b):
    # give vectors their missing axis, so that one formula serves all cases: ga = gy b^T, gb = a^T gy
    a2 = a[None, :] if a.ndim == 1 else a
    b2 = b[:, None] if b.ndim == 1 else b
    g2 = gy
    if b.ndim == 1:
        g2 = g2[..., None]
    if a.ndim == 1:
        g2 = g2[..., None, :]
    ga = gb = None
    if needs[0]:
        ga = unbroadcast(be.matmul(g2, b2.swapaxes(-1, -2)), a2.shape).reshape(a.shape)
    if needs[1]:
        gb = unbroadcast(be.matmul(a2.swapaxes(-1, -2), g2), b2.shape).reshape(b.shape)
    return ga, gb


# -- one input -------------------------------------------------------------------------------------


def neg(input: Any) -> Tensor:
    """``-input``."""
    x = as_tensor(input)
    return record(-x.data, _neg_grad, (x,))


def _neg_grad(needs, gy):
    return (-gy,)


def abs(input: Any) -> Tensor:
    """``|input|``; the slope at 0 is 0."""
    x = as_tensor(input)
    return record(np.abs(x.data), _abs_grad, (x,), x.data)


def _abs_grad(needs, gy, x):
    return (gy * np.sign(x),)


def sign(input: Any) -> Tensor:
    """-1, 0 or 1; the gradient is 0."""
    x = as_tensor(input)
    return record(np.sign(x.data), _sign_grad, (x,))


def _sign_grad(needs, gy):
    return (np.zeros_like(gy),)


def exp(input: Any) -> Tensor:
    """``e ** input``; overflows to inf without a warning."""
    x = as_tensor(input)
    with np.errstate(over="ignore"):
        y = np.exp(x.data)
    return record(y, _exp_grad, (x,), y)


def _exp_grad(needs, gy, y):
    return (gy * y,)


def log(input: Any) -> Tensor:
    """The natural logarithm; log(0) is -inf, negative numbers give NaN, without a warning."""
    x = as_tensor(input)
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.log(x.data)
    return record(y, _log_grad, (x,), x.data)


def _log_grad(needs, gy, x):
    return (gy / x,)


def sqrt(input: Any) -> Tensor:
    """The square root; negative numbers give NaN without a warning."""
    x = as_tensor(input)
    with np.errstate(invalid="ignore"):
        y = np.sqrt(x.data)
    return record(y, _sqrt_grad, (x,), y)


def _sqrt_grad(needs, gy, y):
    return (gy * 0.5 / y,)


def square(input: Any) -> Tensor:
    """``input * input``."""
    x = as_tensor(input)
    return record(x.data * x.data, _square_grad, (x,), x.data)


def _square_grad(needs, gy, x):
    return (gy * 2 * x,)


def sin(input: Any) -> Tensor:
    """The sine of an angle in radians."""
    x = as_tensor(input)
    return record(np.sin(x.data), _sin_grad, (x,), x.data)


def _sin_grad(needs, gy, x):
    return (gy * np.cos(x),)


def cos(input: Any) -> Tensor:
    """The cosine of an angle in radians."""
    x = as_tensor(input)
    return record(np.cos(x.data), _cos_grad, (x,), x.data)


def _cos_grad(needs, gy, x):
    return (-gy * np.sin(x),)


def relu(input: Any) -> Tensor:
    """``max(0, x)``, NaN kept; the slope at 0 is 0."""
    x = as_tensor(input)
    later = later_of(x)
    if later is not None:
        positive = later.positive() if mode.enabled else None
        if positive is not None:
            return record_later(positive, _relu_grad, (x,), backend_of(later.x), positive, True)
        y = later.array(relu=True)
        return record(y, _relu_grad, (x,), backend_of(y), y, True)
    be = backend_of(x.data)
    y = be.relu(x.data)
    return record(y, _relu_grad, (x,), be, y, False)


def _relu_rest(needs, gy, be, y, whole):
    return (gy,)


@fresh
@left_to_parent("relu")
@cuts(1, _relu_rest)
def _relu_grad(needs, gy, be, y, whole):
    return (be.relu_backward(gy, read(y)),)


def sigmoid(input: Any) -> Tensor:
    """``1 / (1 + exp(-x))``; the slope is ``y (1 - y)``."""
    x = as_tensor(input)
    be = backend_of(x.data)
    y = be.sigmoid(x.data)
    return record(y, _sigmoid_grad, (x,), be, y)


def _sigmoid_grad(needs, gy, be, y):
    return (be.sigmoid_backward(gy, y),)


def tanh(input: Any) -> Tensor:
    """The hyperbolic tangent; the slope is ``1 - y ** 2``."""
    x = as_tensor(input)
    be = backend_of(x.data)
    y = be.tanh(x.data)
    return record(y, _tanh_grad, (x,), be, y)


def _tanh_grad(needs, gy, be, y):
    return (be.tanh_backward(gy, y),)


def clamp(input: Any, min: Any = None, max: Any = None) -> Tensor:
    """Limit to ``[min, max]``; the gradient passes where the value was inside, limits included.

    The limits are numbers or arrays; `maximum` and `minimum` give a gradient to both sides.
    """
    if min is None and max is None:
        raise ValueError("clamp: expected min or max, got neither")
    for name, limit in (("min", min), ("max", max)):
        if isinstance(limit, Tensor) and limit.requires_grad:
            raise TypeError(
                f"clamp: expected {name} to be a constant, got a Tensor that needs a gradient. "
                "Use nnx.maximum or nnx.minimum"
            )
    x = as_tensor(input)
    low = min.data if isinstance(min, Tensor) else min
    high = max.data if isinstance(max, Tensor) else max
    y = np.clip(x.data, low, high).astype(x.dtype, copy=False)
    return record(y, _clamp_grad, (x,), x.data, low, high)


def _clamp_grad(needs, gy, x, low, high):
    inside = x <= high if low is None else x >= low
    if low is not None and high is not None:
        inside = inside & (x <= high)
    return (unbroadcast(gy * inside, x.shape),)


# -- choosing --------------------------------------------------------------------------------------


def maximum(input: Any, other: Any) -> Tensor:
    """The larger of two, elementwise, NaN passed on; equal elements share the gradient."""
    return _extremum(np.maximum, np.greater, input, other)


def minimum(input: Any, other: Any) -> Tensor:
    """The smaller of two, elementwise, NaN passed on; equal elements share the gradient."""
    return _extremum(np.minimum, np.less, input, other)


def _extremum(choose: Any, wins: Any, input: Any, other: Any) -> Tensor:
    a, b, ta, tb = _operands(input, other)
    return record(choose(a, b), _extremum_grad, (ta, tb), wins, a, b)


def _extremum_grad(needs, gy, wins, a, b):
    share = np.equal(a, b) * gy.dtype.type(0.5)
    return (
        unbroadcast(gy * (wins(a, b) + share), _shape(a)) if needs[0] else None,
        unbroadcast(gy * (wins(b, a) + share), _shape(b)) if needs[1] else None,
    )


def where(condition: Any, input: Any, other: Any) -> Tensor:
    """`input` where `condition` holds, `other` elsewhere, with broadcasting."""
    c = condition.data if isinstance(condition, Tensor) else as_array(condition)
    if c.dtype != bool:
        raise TypeError(f"where: expected condition of dtype bool, got {c.dtype}")
    a, b, ta, tb = _operands(input, other)
    return record(np.where(c, a, b), _where_grad, (ta, tb), c, _shape(a), _shape(b))


def _where_grad(needs, gy, c, a_shape, b_shape):
    zero = gy.dtype.type(0)
    return (
        unbroadcast(np.where(c, gy, zero), a_shape) if needs[0] else None,
        unbroadcast(np.where(c, zero, gy), b_shape) if needs[1] else None,
    )


def compare(ufunc: Callable, a: Any, b: Any) -> Tensor:
    """A comparison as a Tensor of booleans; it has no gradient."""
    return _wrap(as_array(ufunc(*(v.data if isinstance(v, Tensor) else v for v in (a, b)))))
