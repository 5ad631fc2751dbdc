"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from nnx import _check
from nnx._device import parse as parse_device
from nnx.autograd import Parameter, Tensor, as_tensor, cast_input
from nnx.functional import norm as F
from nnx.nn import init
from nnx.nn.module import Module

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BatchRenorm1d",
    "BatchRenorm2d",
    "BatchRenorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LocalResponseNorm",
]


@lru_cache
def _channel_axis(shape: str) -> int:
    """Where the C is in "(N, C, H, W)"."""
    return shape.strip("()").split(", ").index("C")


class _ChannelNorm(Module):
    """What the layers share that keep a mean and a variance of each channel."""

    _shapes: dict[int, str]  # number of dimensions of the input -> the shape, for messages

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Any
    running_var: Any
    num_batches_tracked: Any

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        device: Any,
        dtype: Any,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        device = parse_device(owner, device)
        dtype = _check.float_dtype(owner, dtype)
        self.num_features = n = _check.integer(owner, "num_features", num_features, 0)
        self.eps = _check.real(owner, "eps", eps, 0, open_low=True)
        self.momentum = None if momentum is None else _check.real(owner, "momentum", momentum)
        self.affine = bool(affine)
        self.track_running_stats = bool(track_running_stats)
        self.register_parameter("weight", Parameter(np.ones(n, dtype)) if affine else None)
        self.register_parameter("bias", Parameter(np.zeros(n, dtype)) if affine else None)
        tracked = self.track_running_stats
        self.register_buffer("running_mean", np.zeros(n, dtype) if tracked else None)
        self.register_buffer("running_var", np.ones(n, dtype) if tracked else None)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if tracked else None)
        self._place(device)

    def reset_running_stats(self) -> None:
        """Start again with mean 0 and variance 1."""
        if self.running_mean is not None:
            self.running_mean[...] = 0
            self.running_var[...] = 1
            self.num_batches_tracked[...] = 0

    def reset_parameters(self) -> None:
        """Start again with mean 0, variance 1, weight 1 and bias 0."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def _buffer(self, name: str) -> Any:
        """What `getattr(self, name)` is, of a running average: the usual lookup tries all else first."""
        array = self._buffers.get(name)
        return getattr(self, name) if array is None else array

    def _checked(self, input: Any) -> Tensor:
        """The input as a Tensor of this layer's type; its rank and channels are right."""
        owner = type(self).__name__
        weight = self._weight_and_bias()[0]
        reference = weight if weight is not None else self.running_mean
        x = as_tensor(input) if reference is None else cast_input(owner, input, reference.dtype)
        shape = x.shape
        layout = self._shapes.get(len(shape))
        if layout is None:
            raise ValueError(
                f"{owner}: expected input of shape {' or '.join(self._shapes.values())}, got shape {shape}"
            )
        axis = _channel_axis(layout)
        if shape[axis] != self.num_features:
            raise ValueError(
                f"{owner}: expected input with {self.num_features} channels (dimension {axis} of {layout}), "
                f"got shape {shape}"
            )
        return x

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


# -- batch norm ------------------------------------------------------------------------------------


class _BatchNorm(_ChannelNorm):
    """Normalise each channel over the batch, then scale and shift it (`nnx.functional.batch_norm`).

    num_features:         number of channels C
    momentum:             share of the batch in the running mean and variance; None averages all
                          batches equally
    affine:               whether there are a weight (1 at first) and a bias (0 at first)
    track_running_stats:  whether evaluation uses running averages; otherwise it uses the batch too

    In training the batch's own mean and biased variance are used, and `running_mean` and
    `running_var` (of the unbiased variance) are moved. ValueError if there is one value per channel
    in training.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)

    def forward(self, input: Any) -> Tensor:
        return self._forward(input)

    def _forward(self, input: Any, relu: bool = False) -> Tensor:
        x = self._checked(input)
        training = self.training
        mean = var = None
        if self.track_running_stats or not training:
            mean, var = self._buffer("running_mean"), self._buffer("running_var")
        use_batch = training or (mean is None and var is None)
        return self._track(x, mean, var, use_batch, training and mean is not None, relu)

    def _track(self, x: Tensor, mean: Any, var: Any, use_batch: bool, tracks: bool, relu: bool = False) -> Tensor:
        """Normalise; where the running averages move, count the batch afterwards."""
        momentum = self.momentum
        if momentum is None:
            momentum = 1.0 / (int(self.num_batches_tracked) + 1) if tracks else 0.0
        if relu:
            parameters = self._weight_and_bias()
            y = F.batch_norm_as(type(self).__name__, x, mean, var, *parameters, use_batch, momentum, self.eps, relu)
        else:
            y = self._normalize(x, mean, var, use_batch, momentum)
        if tracks:
            batches = self._buffer("num_batches_tracked")
            batches += 1  # in place
        return y

    def _normalize(self, x: Tensor, mean: Any, var: Any, use_batch: bool, momentum: float) -> Tensor:
        parameters = self._weight_and_bias()
        return F.batch_norm_as(type(self).__name__, x, mean, var, *parameters, use_batch, momentum, self.eps)


class BatchNorm1d(_BatchNorm):
    __doc__ = f"""{_BatchNorm.__doc__}
    Input and output: (N, C) or (N, C, L).

    >>> BatchNorm1d(3)(np.arange(12.0).reshape(4, 3)).data.std(axis=0).round(3).tolist()
    [1.0, 1.0, 1.0]
    """
    _shapes = {2: "(N, C)", 3: "(N, C, L)"}


class BatchNorm2d(_BatchNorm):
    __doc__ = f"""{_BatchNorm.__doc__}
    Input and output: (N, C, H, W).
    """
    _shapes = {4: "(N, C, H, W)"}


class BatchNorm3d(_BatchNorm):
    __doc__ = f"""{_BatchNorm.__doc__}
    Input and output: (N, C, D, H, W).
    """
    _shapes = {5: "(N, C, D, H, W)"}


class _BatchRenorm(_BatchNorm):
    """Batch norm whose training output agrees with evaluation (`nnx.functional.batch_renorm`).

    rmax, dmax:  limits of the correction, which may be changed while training goes on: 1 and 0 make
                 it batch norm. The paper starts so and moves to 3 and 5 once the running averages
                 have settled.

    The other arguments, parameters and buffers are those of batch norm, and weights load from one
    to the other.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        rmax: float = 3.0,
        dmax: float = 5.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, True, device, dtype)
        self.rmax, self.dmax = F.check_limits(type(self).__name__, rmax, dmax)

    def _normalize(self, x: Tensor, mean: Any, var: Any, use_batch: bool, momentum: float) -> Tensor:
        owner = type(self).__name__
        rmax, dmax = F.check_limits(owner, self.rmax, self.dmax)
        return F.batch_renorm_as(owner, x, mean, var, self.weight, self.bias, use_batch, momentum, self.eps, rmax, dmax)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"rmax={self.rmax}, dmax={self.dmax}"
        )


class BatchRenorm1d(_BatchRenorm):
    __doc__ = f"""{_BatchRenorm.__doc__}
    Input and output: (N, C) or (N, C, L).
    """
    _shapes = BatchNorm1d._shapes


class BatchRenorm2d(_BatchRenorm):
    __doc__ = f"""{_BatchRenorm.__doc__}
    Input and output: (N, C, H, W).
    """
    _shapes = BatchNorm2d._shapes


class BatchRenorm3d(_BatchRenorm):
    __doc__ = f"""{_BatchRenorm.__doc__}
    Input and output: (N, C, D, H, W).
    """
    _shapes = BatchNorm3d._shapes


# -- per sample ------------------------------------------------------------------------------------


class LayerNorm(Module):
    """Normalise each sample over its last dimensions, then scale and shift it.

    normalized_shape:    the last dimensions of the input (an int: the last one)
    elementwise_affine:  whether there is a weight of that shape (1 at first), and, with `bias`, a
                         bias (0 at first)

    Input and output: (..., *normalized_shape).

    >>> LayerNorm(4)(np.arange(8.0).reshape(2, 4)).data.mean(axis=1).round(3).tolist()
    [0.0, 0.0]
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        device = parse_device("LayerNorm", device)
        dtype = _check.float_dtype("LayerNorm", dtype)
        self.normalized_shape = shape = F.check_shape("LayerNorm", normalized_shape)
        self.eps = _check.real("LayerNorm", "eps", eps, 0)
        self.elementwise_affine = affine = bool(elementwise_affine)
        self.register_parameter("weight", Parameter(np.ones(shape, dtype)) if affine else None)
        with_bias = affine and bias
        self.register_parameter("bias", Parameter(np.zeros(shape, dtype)) if with_bias else None)
        self._place(device)

    def reset_parameters(self) -> None:
        """Start again with weight 1 and bias 0."""
        _reset(self)

    def forward(self, input: Any) -> Tensor:
        x = _like_parameters("LayerNorm", input, self.weight)
        return F.layer_norm_as("LayerNorm", x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """Normalise each sample over groups of channels, then scale and shift the channels.

    num_groups:    number of groups; it divides `num_channels`
    num_channels:  number of channels C
    affine:        whether there are a weight (1 at first) and a bias (0 at first), each (C,)

    Input and output: (N, C, spatial...).
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        device = parse_device("GroupNorm", device)
        dtype = _check.float_dtype("GroupNorm", dtype)
        self.num_groups = _check.integer("GroupNorm", "num_groups", num_groups, 1)
        self.num_channels = n = _check.integer("GroupNorm", "num_channels", num_channels, 1)
        if n % self.num_groups:
            raise ValueError(
                f"GroupNorm: expected num_channels to be divisible by num_groups={self.num_groups}, got {n}"
            )
        self.eps = _check.real("GroupNorm", "eps", eps, 0)
        self.affine = bool(affine)
        self.register_parameter("weight", Parameter(np.ones(n, dtype)) if affine else None)
        self.register_parameter("bias", Parameter(np.zeros(n, dtype)) if affine else None)
        self._place(device)

    def reset_parameters(self) -> None:
        """Start again with weight 1 and bias 0."""
        _reset(self)

    def forward(self, input: Any) -> Tensor:
        x = _like_parameters("GroupNorm", input, self.weight)
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ValueError(
                f"GroupNorm: expected input with {self.num_channels} channels (dimension 1 of (N, "
                "C, ...)), "
                f"got shape {x.shape}"
            )
        return F.group_norm_as("GroupNorm", x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


def _like_parameters(owner: str, input: Any, weight: Parameter | None) -> Tensor:
    return as_tensor(input) if weight is None else cast_input(owner, input, weight.dtype)


def _reset(layer: Any) -> None:
    if layer.weight is not None:
        init.ones_(layer.weight)
    if layer.bias is not None:
        init.zeros_(layer.bias)


class _InstanceNorm(_ChannelNorm):
    """Normalise each channel of each sample over its positions (`nnx.functional.instance_norm`).

    num_features:         number of channels C
    momentum:             share of a batch in the running mean and variance (None: 0)
    affine:               whether there are a weight (1 at first) and a bias (0 at first)
    track_running_stats:  keep running averages and use them in evaluation; otherwise each sample's
                          own are used always
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)

    def forward(self, input: Any) -> Tensor:
        x = self._checked(input)
        batched = x.ndim == max(self._shapes)
        y = F.instance_norm_as(
            type(self).__name__,
            x if batched else x.unsqueeze(0),
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            self.momentum or 0.0,
            self.eps,
        )
        return y if batched else y.squeeze(0)


class InstanceNorm1d(_InstanceNorm):
    __doc__ = f"""{_InstanceNorm.__doc__}
    Input and output: (N, C, L) or (C, L).
    """
    _shapes = {2: "(C, L)", 3: "(N, C, L)"}


class InstanceNorm2d(_InstanceNorm):
    __doc__ = f"""{_InstanceNorm.__doc__}
    Input and output: (N, C, H, W) or (C, H, W).
    """
    _shapes = {3: "(C, H, W)", 4: "(N, C, H, W)"}


class InstanceNorm3d(_InstanceNorm):
    __doc__ = f"""{_InstanceNorm.__doc__}
    Input and output: (N, C, D, H, W) or (C, D, H, W).
    """
    _shapes = {4: "(C, D, H, W)", 5: "(N, C, D, H, W)"}


# -- across channels -------------------------------------------------------------------------------


class LocalResponseNorm(Module):
    """Divide each value by a power of the sum of squares over neighbouring channels.

    size:            number of channels in a window
    alpha, beta, k:  ``y = x / (k + alpha / size * sum x^2) ** beta``

    Input and output: (N, C, spatial...). Krizhevsky, Sutskever and Hinton 2012.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = _check.integer("LocalResponseNorm", "size", size, 1)
        self.alpha = _check.real("LocalResponseNorm", "alpha", alpha)
        self.beta = _check.real("LocalResponseNorm", "beta", beta)
        self.k = _check.real("LocalResponseNorm", "k", k)

    def forward(self, input: Any) -> Tensor:
        return F.local_response_norm_as("LocalResponseNorm", input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
