"""Normalisation over a batch, a row, a group of channels, neighbouring channels, or by a norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnx import _check
from nnx._device import is_writeable, same_device
from nnx._ext.arrays import are_per_channel
from nnx.autograd import Tensor, as_tensor, is_grad_enabled, record
from nnx.autograd._later import record_later
from nnx.autograd.engine import LARGE_SUM, Left, behind, fresh, left_to_parent, made_fresh
from nnx.backends import backend_of
from nnx.backends.base.later import read

__all__ = [
    "batch_norm",
    "batch_renorm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "local_response_norm",
    "normalize",
]


# -- batch norm ------------------------------------------------------------------------------------


def batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel: ``y = (x - mean) / sqrt(var + eps) * weight + bias``.

    input:         (N, C) or (N, C, spatial...)
    running_mean, running_var:
                   arrays (C,). With `training` they may be None, and are moved in place towards the
                   batch's mean and unbiased variance by the share `momentum`; without, they are the
                   mean and variance that are used.
    weight, bias:  (C,) or None
    training:      use the mean and the (biased) variance of the batch

    ValueError if there is only one value per channel in training. Ioffe and Szegedy 2015,
    arXiv:1502.03167.

    >>> y = batch_norm(np.array([[1.0], [3.0]]), None, None, training=True)
    >>> y.data.round(3).tolist()
    [[-1.0], [1.0]]
    """
    momentum = _check.real("batch_norm", "momentum", momentum)
    eps = _check.real("batch_norm", "eps", eps, 0, open_low=True)
    return batch_norm_as("batch_norm", input, running_mean, running_var, weight, bias, training, momentum, eps)


def batch_norm_as(
    owner: str,
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any,
    bias: Any,
    training: bool,
    momentum: float,
    eps: float,
    relu: bool = False,
) -> Tensor:
    """`batch_norm` for a layer, or its positive part: messages carry its name, and it has checked the numbers."""
    x, w, b, mean, var = as_tensor(input), weight, bias, running_mean, running_var
    if not _are_plain(x, w, b, mean, var, training):
        x = _input(owner, x, 2)
        w = _parameter(owner, "weight", weight, x, x.shape[1:2])
        b = _parameter(owner, "bias", bias, x, x.shape[1:2])
        mean = _running(owner, "running_mean", running_mean, x, training)
        var = _running(owner, "running_var", running_var, x, training)
    w_data = None if w is None else w.data
    b_data = None if b is None else b.data
    be = backend_of(x.data)
    y: Any = None
    if not training:
        _both(owner, mean, var)
        # backward needs them as they are now, and a training step may move them before it
        copy = is_grad_enabled()
        mean, var = mean.astype(x.dtype, copy=copy), var.astype(x.dtype, copy=copy)
        y = be.batch_norm_infer(x.data, mean, var, w_data, b_data, eps, relu)
        saved = be, x.data, mean, var, w_data, eps
        if relu:
            return record(y, _batch_norm_infer_relu_grad, (x, w, b), y, True, *saved)
        return record(y, _batch_norm_infer_grad, (x, w, b), *saved)
    count = _values_per_channel(owner, x)
    if is_grad_enabled():
        # backward may need them as they are now
        w_data, b_data = None if w_data is None else w_data.copy(), None if b_data is None else b_data.copy()
        if not relu and x.size >= LARGE_SUM and made_fresh(x):
            y = be.batch_norm_later(x.data, w_data, b_data, eps, getattr(x, "_moments", None))
    keep = record if y is None else record_later
    if y is None:
        y, batch_mean, batch_var, rstd = be.batch_norm(x.data, w_data, b_data, eps, relu)
    else:
        batch_mean, batch_var, rstd = y.mean, y.var, y.rstd
    if x.size:
        be.batch_norm_track(mean, var, batch_mean, batch_var, momentum, count / (count - 1))
    if relu:
        return record(y, _batch_norm_relu_grad, (x, w, b), y, True, be, x.data, w_data, b_data, batch_mean, rstd)
    return keep(y, _batch_norm_grad, (x, w, b), be, x.data, w_data, b_data, batch_mean, rstd)


@fresh
def _batch_norm_relu_grad(needs, gy, y, whole, be, x, weight, bias, mean, rstd):
    return _batch_norm_gradients(needs, gy, be, x, weight, mean, rstd, y, bias if whole else None)


def _batch_norm_behind_relu(needs, gy, relu, *saved):
    _, y, whole = relu
    return _batch_norm_relu_grad(needs, gy, y, whole, *saved)


def _batch_norm_infer_relu_grad(needs, gy, y, whole, be, *saved):
    return _batch_norm_infer_grad(needs, be.relu_backward(gy, y), be, *saved)


@fresh
@behind("relu", _batch_norm_behind_relu)
def _batch_norm_grad(needs, gy, be, x, weight, bias, mean, rstd):
    return _batch_norm_gradients(needs, gy, be, x, weight, mean, rstd)


def _batch_norm_gradients(needs, gy, be, x, weight, mean, rstd, y=None, bias=None):
    """The gradients, or with that of x left to the operation in front."""
    later = None
    if needs[0] and x.size >= LARGE_SUM:
        later = be.batch_norm_backward_later(gy, x, weight, mean, rstd, y, bias)
    if later is None:
        return be.batch_norm_backward(gy, x, weight, mean, rstd, needs, read(y), bias)
    gradient, gw, gb = later
    return Left(_later_grad, gy, (gradient,)), gw if needs[1] else None, gb if needs[2] else None


@left_to_parent("batch_norm")
def _later_grad(needs, gy, later):
    return (later.array(),)


def _batch_norm_infer_grad(needs, gy, be, x, mean, var, weight, eps):
    return be.batch_norm_infer_backward(gy, x, mean, var, weight, eps, needs)


def batch_renorm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    rmax: float = 3.0,
    dmax: float = 5.0,
) -> Tensor:
    """Batch norm whose training output agrees with inference: ``y = (z r + d) * weight + bias``.

    z is the batch-normalised input. With ``sigma = sqrt(var + eps)`` of batch and running variance,
    ``r = clip(sigma_batch / sigma_running, 1 / rmax, rmax)`` and
    ``d = clip((mean_batch - running_mean) / sigma_running, -dmax, dmax)`` are constants: no
    gradient flows through them.
    ``rmax = 1, dmax = 0`` is batch norm.

    Everything else as in `batch_norm`; the running arrays are needed in training too. Small
    batches, and batches whose samples depend on each other, gain. Ioffe 2017, arXiv:1702.03275.
    """
    momentum = _check.real("batch_renorm", "momentum", momentum)
    eps = _check.real("batch_renorm", "eps", eps, 0, open_low=True)
    limits = check_limits("batch_renorm", rmax, dmax)
    return batch_renorm_as(
        "batch_renorm",
        input,
        running_mean,
        running_var,
        weight,
        bias,
        training,
        momentum,
        eps,
        *limits,
    )


def check_limits(owner: str, rmax: Any, dmax: Any) -> tuple[float, float]:
    """rmax >= 1 and dmax >= 0, as floats."""
    return _check.real(owner, "rmax", rmax, 1), _check.real(owner, "dmax", dmax, 0)


def batch_renorm_as(
    owner: str,
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any,
    bias: Any,
    training: bool,
    momentum: float,
    eps: float,
    rmax: float,
    dmax: float,
) -> Tensor:
    """`batch_renorm` for a layer: messages carry its name, and it has checked the numbers."""
    if not training:
        return batch_norm_as(owner, input, running_mean, running_var, weight, bias, False, momentum, eps)
    x = _input(owner, input, 2)
    channels = x.shape[1]
    w = _parameter(owner, "weight", weight, x, (channels,))
    b = _parameter(owner, "bias", bias, x, (channels,))
    mean = _running(owner, "running_mean", running_mean, x, True)
    var = _running(owner, "running_var", running_var, x, True)
    _both(owner, mean, var)
    count = _values_per_channel(owner, x)
    be = backend_of(x.data)
    batch_mean, batch_var = be.batch_moments(x.data)
    with np.errstate(invalid="ignore"):
        rstd = 1 / np.sqrt(batch_var + eps)
        sigma = np.sqrt(var + eps).astype(x.dtype, copy=False)
        r = np.clip(1 / (rstd * sigma), 1 / rmax, rmax)
        d = np.clip((batch_mean - mean.astype(x.dtype, copy=False)) / sigma, -dmax, dmax)
    scale = r if w is None else r * w.data
    shift = d if w is None else d * w.data
    if b is not None:
        shift = shift + b.data
    y = be.batch_norm_infer(x.data, batch_mean, batch_var, scale, shift, eps)
    if x.size:
        be.batch_norm_track(mean, var, batch_mean, batch_var, momentum, count / (count - 1))
    return record(y, _batch_renorm_grad, (x, w, b), be, x.data, scale, batch_mean, rstd, r, d)


def _batch_renorm_grad(needs, gy, be, x, scale, mean, rstd, r, d):
    needs_x, needs_w, needs_b = needs
    gx, gz, gb = be.batch_norm_backward(gy, x, scale, mean, rstd, (needs_x, needs_w, needs_w or needs_b))
    # the weight multiplies z r + d, and gz is the gradient of a weight on z alone
    gw = gz * r + gb * d if needs_w else None
    return gx, gw, gb if needs_b else None


# -- layer, group and instance norm ----------------------------------------------------------------


def layer_norm(
    input: Any,
    normalized_shape: int | Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each sample over its last dimensions:
    ``y = (x - mean) / sqrt(var + eps) * weight + bias``.

    input:             (..., *normalized_shape)
    normalized_shape:  the dimensions that are normalised together
    weight, bias:      of shape `normalized_shape`, or None

    Ba, Kiros and Hinton 2016, arXiv:1607.06450.

    >>> layer_norm(np.array([[1.0, 3.0]]), 2).data.round(3).tolist()
    [[-1.0, 1.0]]
    """
    shape = check_shape("layer_norm", normalized_shape)
    eps = _check.real("layer_norm", "eps", eps, 0)
    return layer_norm_as("layer_norm", input, shape, weight, bias, eps)


def check_shape(owner: str, normalized_shape: Any) -> tuple[int, ...]:
    """An int or a sequence of ints as a tuple, not empty."""
    values = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
    if not values:
        raise ValueError(f"{owner}: expected normalized_shape with at least one dimension, got ()")
    return tuple(_check.integer(owner, "normalized_shape", n, 0) for n in values)


def layer_norm_as(owner: str, input: Any, shape: tuple[int, ...], weight: Any, bias: Any, eps: float) -> Tensor:
    """`layer_norm` for a layer: messages carry its name, and it has checked `shape` and `eps`."""
    x = _input(owner, input, 0)
    if x.shape[max(x.ndim - len(shape), 0) :] != shape:
        raise ValueError(f"{owner}: expected input of shape (..., {', '.join(map(str, shape))}), got shape {x.shape}")
    w = _parameter(owner, "weight", weight, x, shape)
    b = _parameter(owner, "bias", bias, x, shape)
    return _row_norm(x, w, b, _product(x.shape[: x.ndim - len(shape)]), _product(shape), 1, 1, eps)[0]


def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    """Normalise each sample over groups of neighbouring channels and all positions.

    input:         (N, C, spatial...), where `num_groups` divides C
    weight, bias:  (C,) or None

    Wu and He 2018, arXiv:1803.08494.
    """
    groups = _check.integer("group_norm", "num_groups", num_groups, 1)
    eps = _check.real("group_norm", "eps", eps, 0)
    return group_norm_as("group_norm", input, groups, weight, bias, eps)


def group_norm_as(owner: str, input: Any, groups: int, weight: Any, bias: Any, eps: float) -> Tensor:
    """`group_norm` for a layer: messages carry its name, and it has checked the numbers."""
    x = _input(owner, input, 2)
    samples, channels = x.shape[:2]
    if channels % groups:
        raise ValueError(
            f"{owner}: expected a number of channels (dimension 1) that num_groups={groups} "
            "divides, "
            f"got shape {x.shape}"
        )
    w = _parameter(owner, "weight", weight, x, (channels,))
    b = _parameter(owner, "bias", bias, x, (channels,))
    area = _product(x.shape[2:])
    return _row_norm(x, w, b, samples * groups, channels // groups * area, groups, area, eps)[0]


def instance_norm(
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel of each sample over its positions.

    input:            (N, C, spatial...)
    use_input_stats:  use each sample's mean and variance, and move the running arrays, if there are
                      any, towards their averages over the samples; otherwise use the running
                      arrays, as `batch_norm` does

    ValueError if there is only one position. Ulyanov, Vedaldi and Lempitsky 2016, arXiv:1607.08022.
    """
    momentum = _check.real("instance_norm", "momentum", momentum)
    eps = _check.real("instance_norm", "eps", eps, 0, open_low=True)
    return instance_norm_as(
        "instance_norm",
        input,
        running_mean,
        running_var,
        weight,
        bias,
        use_input_stats,
        momentum,
        eps,
    )


def instance_norm_as(
    owner: str,
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any,
    bias: Any,
    use_input_stats: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """`instance_norm` for a layer: messages carry its name, and it has checked the numbers."""
    if not use_input_stats:
        return batch_norm_as(owner, input, running_mean, running_var, weight, bias, False, momentum, eps)
    x = _input(owner, input, 3)
    samples, channels = x.shape[:2]
    area = _product(x.shape[2:])
    w = _parameter(owner, "weight", weight, x, (channels,))
    b = _parameter(owner, "bias", bias, x, (channels,))
    mean = _running(owner, "running_mean", running_mean, x, True)
    var = _running(owner, "running_var", running_var, x, True)
    if area == 1 and x.size:
        raise ValueError(f"{owner}: expected more than one position per channel in training, got shape {x.shape}")
    y, means, variances = _row_norm(x, w, b, samples * channels, area, channels, area, eps)
    if x.size:
        means, variances = (a.reshape(samples, channels).mean(axis=0) for a in (means, variances))
        backend_of(x.data).batch_norm_track(mean, var, means, variances, momentum, area / (area - 1))
    return y


def _row_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    rows: int,
    width: int,
    period: int,
    repeat: int,
    eps: float,
) -> tuple[Tensor, Any, Any]:
    """Normalise x as (rows, width).

    The parameters, each element repeated `repeat` times, are the weights of `period` rows.
    Returns the result and each row's mean and variance.
    """
    flat = x.data.reshape(rows, width)
    w = None if weight is None else np.repeat(weight.data.ravel(), repeat).reshape(period, width)
    b = None if bias is None else np.repeat(bias.data.ravel(), repeat).reshape(period, width)
    be = backend_of(flat)
    y, mean, var, rstd = be.row_norm(flat, w, b, eps)
    shape = next((p.shape for p in (weight, bias) if p is not None), ())
    saved = (be, flat, w, mean, rstd, period, repeat, x.shape, shape)
    return record(y.reshape(x.shape), _row_norm_grad, (x, weight, bias), *saved), mean, var


def _row_norm_grad(needs, gy, be, x, weight, mean, rstd, period, repeat, x_shape, shape):
    gx, gw, gb = be.row_norm_backward(gy.reshape(x.shape), x, weight, mean, rstd, period, needs)
    if gx is not None:
        gx = gx.reshape(x_shape)
    return gx, _unrepeat(gw, repeat, shape), _unrepeat(gb, repeat, shape)


def _unrepeat(g: Any, repeat: int, shape: tuple[int, ...]) -> Any:
    """Sum over the copies that np.repeat made of each element of a parameter."""
    if g is None:
        return None
    if repeat != 1:
        g = g.reshape(_product(shape), repeat).sum(axis=1)
    return g.reshape(shape)


# -- local response norm, division by a norm -------------------------------------------------------


def local_response_norm(input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Divide each value by a power of its neighbourhood across channels:

    ``y_c = x_c / (k + alpha / size * sum of x_j^2) ** beta``, j from ``c - size // 2`` to
    ``c + (size - 1) // 2``.

    input:  (N, C, spatial...)

    Krizhevsky, Sutskever and Hinton 2012 (whose alpha is ours divided by `size`).
    """
    size = _check.integer("local_response_norm", "size", size, 1)
    alpha = _check.real("local_response_norm", "alpha", alpha)
    beta = _check.real("local_response_norm", "beta", beta)
    k = _check.real("local_response_norm", "k", k)
    return local_response_norm_as("local_response_norm", input, size, alpha, beta, k)


def local_response_norm_as(owner: str, input: Any, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """`local_response_norm` for a layer, which has checked the numbers: messages carry its name."""
    x = _input(owner, input, 3)
    be = backend_of(x.data)
    y, scale = be.local_response_norm(x.data, size, alpha, beta, k)
    return record(y, _local_response_norm_grad, (x,), be, x.data, scale, size, alpha, beta)


def _local_response_norm_grad(needs, gy, be, x, scale, size, alpha, beta):
    return (be.local_response_norm_backward(gy, x, scale, size, alpha, beta),)


def normalize(
    input: Any, p: float = 2.0, dim: int | tuple[int, ...] = 1, eps: float = 1e-12, out: Any = None
) -> Tensor:
    """Divide by the p-norm along `dim`, or by `eps` where the norm is smaller.

    >>> normalize(np.array([[3.0, 4.0]])).data.tolist()
    [[0.6, 0.8]]
    """
    if out is not None:
        raise ValueError("normalize: expected out to be None (writing into an array is not offered), got one")
    x = _input("normalize", input, 0)
    eps = _check.real("normalize", "eps", eps, 0)
    return x / x.norm(p, dim, keepdim=True).clamp(min=eps)


# -- checks ----------------------------------------------------------------------------------------


def _input(owner: str, input: Any, ndim: int) -> Tensor:
    x = as_tensor(input)
    if x.dtype.kind != "f":
        raise TypeError(f"{owner}: expected input of dtype float32 or float64, got a Tensor of dtype {x.dtype}")
    if x.ndim < ndim:
        raise ValueError(f"{owner}: expected input with at least {ndim} dimensions, got shape {x.shape}")
    return x


def _are_plain(x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, moves: bool) -> bool:
    """Whether all is well, as nearly always: then the functions that say what is wrong, or mend it, are not called."""
    if (weight is None or isinstance(weight, Tensor)) and (bias is None or isinstance(bias, Tensor)):
        w, b = None if weight is None else weight.data, None if bias is None else bias.data
        return are_per_channel(x.data, moves, w, b, mean, var)
    return False


def _parameter(owner: str, name: str, value: Any, x: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    if value is None:
        return None
    parameter = as_tensor(value, x.dtype)
    if parameter.dtype != x.dtype:
        raise TypeError(f"{owner}: expected {name} of dtype {x.dtype} like input, got {parameter.dtype}")
    same_device(owner, **{name: parameter.data, "input": x.data})
    if parameter.shape != shape:
        raise ValueError(
            f"{owner}: expected {name} of shape {shape} for input of shape {x.shape}, got {parameter.shape}"
        )
    return parameter


def _running(owner: str, name: str, value: Any, x: Tensor, moves: bool) -> Any:
    """The array of a running mean or variance, which is written to if it `moves`."""
    if value is None:
        return None
    array = value.data if isinstance(value, Tensor) else value
    if not hasattr(array, "dtype"):
        raise TypeError(f"{owner}: expected {name} to be an array or None, got {type(value).__name__}")
    if array.shape != x.shape[1:2]:
        raise ValueError(
            f"{owner}: expected {name} of shape {x.shape[1:2]} for input of shape {x.shape}, got {array.shape}"
        )
    if array.dtype.kind != "f":
        raise TypeError(f"{owner}: expected {name} of a float dtype, got {array.dtype}")
    same_device(owner, **{name: array, "input": x.data})
    if moves and not is_writeable(array):
        raise ValueError(f"{owner}: expected {name} to be writeable in training, got a read-only array")
    return array


def _both(owner: str, mean: Any, var: Any) -> None:
    if mean is None or var is None:
        name = "running_mean" if mean is None else "running_var"
        raise ValueError(f"{owner}: expected {name} to be an array, got None")


def _values_per_channel(owner: str, x: Tensor) -> int:
    count = x.data.size // max(x.shape[1], 1)
    if count == 1:
        raise ValueError(f"{owner}: expected more than one value per channel in training, got input of shape {x.shape}")
    return count


def _product(shape: tuple[int, ...]) -> int:
    n = 1
    for length in shape:
        n *= length
    return n
