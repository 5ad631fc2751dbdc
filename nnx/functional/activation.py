"""Activation functions. The formulas and gradients of the arrays are in
`nnx/backends/base/activation.py`.

`inplace` is accepted where PyTorch has it; the result is a new Tensor in any case, so that no input
is ever changed.
"""

from __future__ import annotations

import math
from typing import Any

from nnx import _check
from nnx._device import same_device
from nnx.autograd import Tensor, as_tensor, record
from nnx.autograd import arithmetic as _arithmetic
from nnx.autograd.arithmetic import sigmoid, tanh
from nnx.autograd.shape import astype
from nnx.backends import backend_of
from nnx.functional._floats import floats

__all__ = [
    "celu",
    "elu",
    "gelu",
    "glu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "log_softmax",
    "logsigmoid",
    "maxout",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softmin",
    "softplus",
    "softsign",
    "tanh",
]

# Klambauer et al. (2017), "Self-normalizing neural networks": with these two numbers a standard
# normal input keeps mean 0 and variance 1.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


# -- piecewise linear ------------------------------------------------------------------------------


def relu(input: Any, inplace: bool = False) -> Tensor:
    """``max(0, x)``; NaN stays NaN, the slope at 0 is 0.

    >>> relu([-1.0, 2.0]).data.tolist()
    [0.0, 2.0]
    """
    return _arithmetic.relu(input)


def leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """``x`` where x > 0, else ``negative_slope x``."""
    slope = _check.real("leaky_relu", "negative_slope", negative_slope)
    x = floats("leaky_relu", input)
    be = backend_of(x.data)
    return record(be.leaky_relu(x.data, slope), _leaky_relu_grad, (x,), be, x.data, slope)


def _leaky_relu_grad(needs, gy, be, x, slope):
    return (be.leaky_relu_backward(gy, x, slope),)


def prelu(input: Any, weight: Any) -> Tensor:
    """``x`` where x > 0, else ``weight x`` with a weight that is learned: He et al. (2015),
    "Delving deep into rectifiers".

    weight:  one number for all channels, or one per channel (dimension 1 of the input)
    """
    return prelu_as("prelu", input, weight)


def prelu_as(owner: str, input: Any, weight: Any) -> Tensor:
    """`prelu` for a layer, whose name the messages carry."""
    x = floats(owner, input)
    w = weight if isinstance(weight, Tensor) else as_tensor(weight, x.dtype)
    if w.dtype != x.dtype:
        raise TypeError(f"{owner}: expected input of dtype {w.dtype} like weight, got {x.dtype}")
    same_device(owner, weight=w.data, input=x.data)
    channels = x.shape[1] if x.ndim > 1 else 1
    if w.ndim > 1 or w.size not in (1, channels):
        raise ValueError(
            f"{owner}: expected weight with 1 element or one for each of the {channels} channels "
            f"of an input of shape {x.shape}, got shape {w.shape}"
        )
    per_channel = w.data.reshape((-1,) + (1,) * max(x.ndim - 2, 0))
    be = backend_of(x.data)
    return record(be.prelu(x.data, per_channel), _prelu_grad, (x, w), be, x.data, per_channel, w.shape)


def _prelu_grad(needs, gy, be, x, weight, shape):
    gx, gw = be.prelu_backward(gy, x, weight, needs)
    if gw is not None:
        axes = None if weight.size == 1 else tuple(i for i in range(x.ndim) if i != 1)
        gw = gw.sum(axis=axes).reshape(shape)
    return gx, gw


def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """``min(max(x, min_val), max_val)``; the slope is 1 strictly inside the limits, else 0."""
    return hardtanh_as("hardtanh", input, min_val, max_val)


def hardtanh_as(owner: str, input: Any, min_val: float, max_val: float) -> Tensor:
    """`hardtanh` for a layer, whose name the messages carry."""
    low, high = limits(owner, min_val, max_val)
    x = floats(owner, input)
    be = backend_of(x.data)
    return record(be.hardtanh(x.data, low, high), _hardtanh_grad, (x,), be, x.data, low, high)


def limits(owner: str, min_val: Any, max_val: Any) -> tuple[float, float]:
    """The limits of `hardtanh` as floats, the lower below the upper."""
    low = _check.real(owner, "min_val", min_val)
    high = _check.real(owner, "max_val", max_val)
    if low >= high:
        raise ValueError(f"{owner}: expected min_val < max_val, got {low:g} and {high:g}")
    return low, high


def _hardtanh_grad(needs, gy, be, x, low, high):
    return (be.hardtanh_backward(gy, x, low, high),)


def relu6(input: Any, inplace: bool = False) -> Tensor:
    """``min(max(x, 0), 6)``."""
    return hardtanh_as("relu6", input, 0.0, 6.0)


def hardsigmoid(input: Any, inplace: bool = False) -> Tensor:
    """``min(max(x + 3, 0), 6) / 6``."""
    x = floats("hardsigmoid", input)
    be = backend_of(x.data)
    return record(be.hardsigmoid(x.data), _hardsigmoid_grad, (x,), be, x.data)


def _hardsigmoid_grad(needs, gy, be, x):
    return (be.hardsigmoid_backward(gy, x),)


def hardswish(input: Any, inplace: bool = False) -> Tensor:
    """``x hardsigmoid(x)``: Howard et al. (2019), "Searching for MobileNetV3"."""
    x = floats("hardswish", input)
    be = backend_of(x.data)
    return record(be.hardswish(x.data), _hardswish_grad, (x,), be, x.data)


def _hardswish_grad(needs, gy, be, x):
    return (be.hardswish_backward(gy, x),)


# -- built on exp ----------------------------------------------------------------------------------


def elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """``x`` where x > 0, else ``alpha (exp(x) - 1)``: Clevert et al. (2015), "Fast and accurate
    deep network learning".
    """
    return _elu("elu", input, _check.real("elu", "alpha", alpha), 1.0, 1.0)


def selu(input: Any, inplace: bool = False) -> Tensor:
    """``scale elu(x, alpha)`` with the scale and alpha of Klambauer et al. (2017),
    "Self-normalizing neural networks".
    """
    return _elu("selu", input, SELU_ALPHA, SELU_SCALE, 1.0)


def celu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """``x`` where x > 0, else ``alpha (exp(x / alpha) - 1)`` for alpha > 0: smooth for every alpha
    (Barron, 2017).
    """
    alpha = _check.real("celu", "alpha", alpha, 0, open_low=True)
    return _elu("celu", input, alpha, 1.0, 1 / alpha)


def _elu(owner: str, input: Any, alpha: float, scale: float, rate: float) -> Tensor:
    x = floats(owner, input)
    be = backend_of(x.data)
    y = be.elu(x.data, alpha, scale, rate)
    return record(y, _elu_grad, (x,), be, x.data, alpha, scale, rate)


def _elu_grad(needs, gy, be, x, alpha, scale, rate):
    return (be.elu_backward(gy, x, alpha, scale, rate),)


def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """``log(1 + exp(beta x)) / beta``; x itself where ``beta x > threshold``."""
    beta = nonzero("softplus", "beta", beta)
    return _softplus("softplus", input, beta, _check.real("softplus", "threshold", threshold))


def nonzero(owner: str, name: str, value: Any) -> float:
    """`value` as a float other than 0."""
    number = _check.real(owner, name, value)
    if number == 0:
        raise ValueError(f"{owner}: expected {name} other than 0, got {value!r}")
    return number


def logsigmoid(input: Any) -> Tensor:
    """``log(1 / (1 + exp(-x)))``, which is ``-softplus(-x)``."""
    return _softplus("logsigmoid", input, -1.0, math.inf)


def _softplus(owner: str, input: Any, beta: float, threshold: float) -> Tensor:
    x = floats(owner, input)
    be = backend_of(x.data)
    y = be.softplus(x.data, beta, threshold)
    return record(y, _softplus_grad, (x,), be, x.data, beta, threshold)


def _softplus_grad(needs, gy, be, x, beta, threshold):
    return (be.softplus_backward(gy, x, beta, threshold),)


def gelu(input: Any, approximate: str = "none") -> Tensor:
    """``x P(X <= x)`` for a standard normal X: Hendrycks & Gimpel (2016), "Gaussian error linear
    units".

    approximate:  "none", or "tanh" for ``0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))``
    """
    _check.choice("gelu", "approximate", approximate, ("none", "tanh"))
    x = floats("gelu", input)
    be = backend_of(x.data)
    return record(be.gelu(x.data, approximate), _gelu_grad, (x,), be, x.data, approximate)


def _gelu_grad(needs, gy, be, x, approximate):
    return (be.gelu_backward(gy, x, approximate),)


def silu(input: Any, inplace: bool = False) -> Tensor:
    """``x sigmoid(x)``, also called swish; its limit at -inf is 0."""
    x = floats("silu", input)
    be = backend_of(x.data)
    return record(be.silu(x.data), _silu_grad, (x,), be, x.data)


def _silu_grad(needs, gy, be, x):
    return (be.silu_backward(gy, x),)


def mish(input: Any, inplace: bool = False) -> Tensor:
    """``x tanh(softplus(x))``: Misra (2019), "Mish: a self regularized non-monotonic activation
    function".
    """
    x = floats("mish", input)
    be = backend_of(x.data)
    return record(be.mish(x.data), _mish_grad, (x,), be, x.data)


def _mish_grad(needs, gy, be, x):
    return (be.mish_backward(gy, x),)


def softsign(input: Any) -> Tensor:
    """``x / (1 + |x|)``."""
    x = floats("softsign", input)
    be = backend_of(x.data)
    return record(be.softsign(x.data), _softsign_grad, (x,), be, x.data)


def _softsign_grad(needs, gy, be, x):
    return (be.softsign_backward(gy, x),)


# -- over a dimension ------------------------------------------------------------------------------


def softmax(input: Any, dim: int | None = None, *, dtype: Any = None) -> Tensor:
    """``exp(x) / sum(exp(x))`` over `dim`, which must be given; no overflow for any finite x.

    dtype:  the float type to convert the input to first

    >>> softmax([[0.0, 0.0]], dim=1).data.tolist()
    [[0.5, 0.5]]
    """
    return softmax_as("softmax", input, dim, dtype)


def softmax_as(owner: str, input: Any, dim: Any, dtype: Any = None) -> Tensor:
    """`softmax` for a layer, whose name the messages carry."""
    x, axis = _over(owner, input, dim, dtype)
    be = backend_of(x.data)
    y = be.softmax(x.data, axis)
    return record(y, _softmax_grad, (x,), be, y, axis)


def _softmax_grad(needs, gy, be, y, axis):
    return (be.softmax_backward(gy, y, axis),)


def softmin(input: Any, dim: int | None = None, *, dtype: Any = None) -> Tensor:
    """The softmax of ``-x`` over `dim`."""
    return softmin_as("softmin", input, dim, dtype)


def softmin_as(owner: str, input: Any, dim: Any, dtype: Any = None) -> Tensor:
    """`softmin` for a layer, whose name the messages carry."""
    return softmax_as(owner, -as_tensor(input), dim, dtype)


def log_softmax(input: Any, dim: int | None = None, *, dtype: Any = None) -> Tensor:
    """``x - log(sum(exp(x)))`` over `dim`: the logarithm of the softmax, without its underflow."""
    return log_softmax_as("log_softmax", input, dim, dtype)


def log_softmax_as(owner: str, input: Any, dim: Any, dtype: Any = None) -> Tensor:
    """`log_softmax` for a layer, whose name the messages carry."""
    x, axis = _over(owner, input, dim, dtype)
    be = backend_of(x.data)
    y = be.log_softmax(x.data, axis)
    return record(y, _log_softmax_grad, (x,), be, y, axis)


def _log_softmax_grad(needs, gy, be, y, axis):
    return (be.log_softmax_backward(gy, y, axis),)


def _over(owner: str, input: Any, dim: Any, dtype: Any) -> tuple[Tensor, int]:
    check_dim_given(owner, dim)
    if dtype is not None:
        input = astype(as_tensor(input), _check.float_dtype(owner, dtype))
    x = floats(owner, input)
    if x.ndim == 0:
        raise ValueError(f"{owner}: expected input with at least one dimension, got a single number")
    return x, _check.axis(owner, "dim", dim, x.ndim)


def check_dim_given(owner: str, dim: Any) -> None:
    """Refuse None, from which PyTorch guesses a dimension (and warns)."""
    if dim is None:
        raise ValueError(f"{owner}: expected dim to be a dimension, got None. For scores of shape (N, C) pass dim=1")


def glu(input: Any, dim: int = -1) -> Tensor:
    """``a sigmoid(b)`` for the two halves a, b of the input along `dim`: Dauphin et al. (2016),
    "Gated convolutions".
    """
    return glu_as("glu", input, dim)


def glu_as(owner: str, input: Any, dim: int) -> Tensor:
    """`glu` for a layer, whose name the messages carry."""
    x = floats(owner, input)
    axis = _check.axis(owner, "dim", dim, x.ndim)
    if x.shape[axis] % 2:
        raise ValueError(f"{owner}: expected input with an even size in dimension {axis}, got shape {x.shape}")
    half = x.shape[axis] // 2
    before = (slice(None),) * axis
    return x[(*before, slice(0, half))] * sigmoid(x[(*before, slice(half, None))])


def maxout(input: Any, num_pieces: int, dim: int = -1) -> Tensor:
    """The largest of every `num_pieces` neighbours along `dim`: Goodfellow et al. (2013), "Maxout
    networks".

    The gradient goes to the largest alone (the first of equals).

    Shapes: size k num_pieces in `dim` becomes k.

    >>> maxout([1.0, 3.0, -2.0, -4.0], 2).data.tolist()
    [3.0, -2.0]
    """
    return maxout_as("maxout", input, num_pieces, dim)


def maxout_as(owner: str, input: Any, num_pieces: int, dim: int) -> Tensor:
    """`maxout` for a layer, whose name the messages carry."""
    pieces = _check.integer(owner, "num_pieces", num_pieces, 1)
    x = floats(owner, input)
    axis = _check.axis(owner, "dim", dim, x.ndim)
    if x.shape[axis] % pieces:
        raise ValueError(
            f"{owner}: expected input whose size in dimension {axis} is a multiple of {pieces}, got shape {x.shape}"
        )
    be = backend_of(x.data)
    y, index = be.maxout(x.data, pieces, axis)
    return record(y, _maxout_grad, (x,), be, index, pieces, axis)


def _maxout_grad(needs, gy, be, index, pieces, axis):
    return (be.maxout_backward(gy, index, pieces, axis),)
