"""Convolution layers in one, two and three dimensions; Unfold and Fold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnx import _check
from nnx._device import parse as parse_device
from nnx.autograd import Parameter, Tensor
from nnx.functional import _window
from nnx.functional.conv import (
    check_channels,
    conv_nd,
    conv_transpose_nd,
    fold,
    transposed_sizes,
    unfold,
)
from nnx.functional.pad import pad_as
from nnx.nn import init
from nnx.nn.module import Module

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Fold",
    "Unfold",
]


class _Conv(Module):
    """Convolution over `_n` spatial dimensions."""

    _n: int
    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        owner, n = type(self).__name__, self._n
        device = parse_device(owner, device)
        dtype = _check.float_dtype(owner, dtype)
        self.in_channels = _check.integer(owner, "in_channels", in_channels, 1)
        self.out_channels = _check.integer(owner, "out_channels", out_channels, 1)
        self.kernel_size = _window.sizes(owner, "kernel_size", kernel_size, n)
        self.stride = _window.sizes(owner, "stride", stride, n)
        self.dilation = _window.sizes(owner, "dilation", dilation, n)
        self.groups = _check.integer(owner, "groups", groups, 1)
        pairs = _window.paddings(owner, padding, self.kernel_size, self.stride, self.dilation)
        if isinstance(padding, str):
            self.padding: Any = padding
        else:
            even = all(low == high for low, high in pairs)
            self.padding = tuple(low for low, _ in pairs) if even else pairs
        modes = ("zeros", "reflect", "replicate", "circular")
        self.padding_mode = _check.choice(owner, "padding_mode", padding_mode, modes)
        for name in ("in_channels", "out_channels"):
            if getattr(self, name) % self.groups:
                raise ValueError(
                    f"{owner}: expected groups to divide {name}, got {name}={getattr(self, name)} "
                    f"and groups={self.groups}"
                )
        shape = self._weight_shape()
        _window.check_size(owner, shape)
        self.weight = Parameter(np.empty(shape, dtype))
        self.bias = Parameter(np.empty(self.out_channels, dtype)) if bias else None
        self.reset_parameters()
        self._place(device)

    def _weight_shape(self) -> tuple[int, ...]:
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def reset_parameters(self) -> None:
        """Draw weight and bias anew, uniform on ``[-1 / sqrt(fan_in), 1 / sqrt(fan_in)]``."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(math.prod(self.weight.shape[1:]))
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Any) -> Tensor:
        return self._forward(input)

    def _forward(
        self, input: Any, relu: bool = False, weight: Any = None, bias: Any = None, pool: Any = None
    ) -> Tensor:
        """With a weight and a bias, those take the place of the layer's own; with a max pooling layer, and `relu`, the
        result is what that one makes of it (nnx/nn/_fusion.py)."""
        owner, padding = type(self).__name__, self.padding
        if self.padding_mode != "zeros":
            input = self._padded(owner, input)
            padding = 0
        if weight is None:
            weight, bias = self._weight_and_bias()
        return conv_nd(
            owner,
            self._n,
            input,
            weight,
            bias,
            self.stride,
            padding,
            self.dilation,
            self.groups,
            relu,
            None if pool is None else pool._arguments(),
        )

    def _padded(self, owner: str, input: Any) -> Tensor:
        x = _window.operand(owner, "input", input, self.weight.dtype)
        _window.check_images(owner, x.shape, self._n)
        check_channels(owner, x.shape, self._n, self.in_channels, self.groups)
        pairs = _window.paddings(owner, self.padding, self.kernel_size, self.stride, self.dilation)
        if not any(map(any, pairs)):
            return x
        return pad_as(owner, x, ((0, 0),) * (x.ndim - self._n) + pairs, self.padding_mode)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * self._n:
            text += f", padding={self.padding!r}"
        if self.dilation != (1,) * self._n:
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class Conv1d(_Conv):
    """Convolution over sequences: (N, in_channels, L) to (N, out_channels, Lo); see `Conv2d`."""

    _n = 1


class Conv2d(_Conv):
    """Convolution over images: `out_channels` filters slide over the input, see `F.conv2d`.

    kernel_size, stride, dilation:  size of the filters, their step, and the distance of their
                                    elements: an int or two
    padding:       elements added around the input: an int, two, two pairs (low, high), "valid"
                   (none), or "same" (output as large as the input, stride 1)
    groups:        cut the channels into so many parts that do not see each other
    bias:          whether every filter has a number to add
    padding_mode:  what is added: "zeros", "reflect", "replicate" or "circular"

    Input (N, in_channels, H, W) or (in_channels, H, W), output (N, out_channels, Ho, Wo) with
    ``Ho = floor((H + low + high - dilation (kernel_size - 1) - 1) / stride) + 1``. `weight` is
    (out_channels, in_channels / groups, kh, kw); it and `bias` start uniform on
    ``[-1 / sqrt(fan_in), 1 / sqrt(fan_in)]``, with ``fan_in = in_channels / groups * kh * kw``.

    >>> Conv2d(3, 10, 5, padding=2)(np.zeros((1, 3, 32, 32))).shape
    (1, 10, 32, 32)
    """

    _n = 2


class Conv3d(_Conv):
    """Convolution over volumes: (N, in_channels, D, H, W) to (N, out_channels, Do, Ho, Wo).

    See `Conv2d`.
    """

    _n = 3


# -- transposed convolution ------------------------------------------------------------------------


class _ConvTranspose(_Conv):
    """Transposed convolution over `_n` spatial dimensions."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        owner = type(self).__name__
        _check.choice(owner, "padding_mode", padding_mode, ("zeros",))
        if isinstance(padding, str):
            raise ValueError(
                f"{owner}: expected padding to be integers or pairs (low, high), got {padding!r}. "
                "Strings are for convolutions only"
            )
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        self.output_padding = _window.sizes(owner, "output_padding", output_padding, self._n, 0)

    def _weight_shape(self) -> tuple[int, ...]:
        return (self.in_channels, self.out_channels // self.groups, *self.kernel_size)

    def forward(self, input: Any, output_size: Any = None) -> Tensor:
        owner = type(self).__name__
        extra = self.output_padding
        if output_size is not None:
            input = _window.operand(owner, "input", input, self.weight.dtype)
            _window.check_images(owner, input.shape, self._n)
            extra = self._extra(owner, input, output_size)
        return conv_transpose_nd(
            owner,
            self._n,
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            extra,
            self.groups,
            self.dilation,
        )

    def _extra(self, owner: str, x: Tensor, output_size: Any) -> tuple[int, ...]:
        """The output_padding that leads to `output_size`, whose last n entries are spatial."""
        n, given = self._n, output_size
        if isinstance(output_size, (tuple, list)) and len(output_size) in (n + 1, n + 2):
            output_size = output_size[-n:]
        size = _window.sizes(owner, "output_size", output_size, n)
        pairs = _window.paddings(owner, self.padding, self.kernel_size, self.stride, self.dilation)
        least = transposed_sizes(x.shape[-n:], self.kernel_size, self.stride, pairs, self.dilation, (0,) * n)
        extra = tuple(a - b for a, b in zip(size, least, strict=True))
        if any(not 0 <= e < s for e, s in zip(extra, self.stride, strict=True)):
            most = tuple(m + s - 1 for m, s in zip(least, self.stride, strict=True))
            raise ValueError(
                f"{owner}: expected output_size between {least} and {most} for input of shape {x.shape}, got {given!r}"
            )
        return extra

    def extra_repr(self) -> str:
        text = super().extra_repr()
        if self.output_padding != (0,) * self._n:
            text += f", output_padding={self.output_padding}"
        return text


class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution over sequences (N, in_channels, L); see `ConvTranspose2d`."""

    _n = 1


class ConvTranspose2d(_ConvTranspose):
    """The adjoint of `Conv2d`, which enlarges where a strided convolution shrinks.

    padding:         how much is cut off the output: an int, two, or two pairs (low, high)
    output_padding:  how much is added at the output's high side; below stride or dilation
    other arguments: as in `Conv2d`; the only padding_mode is "zeros"

    Input (N, in_channels, H, W) or (in_channels, H, W), output (N, out_channels, Ho, Wo) with
    ``Ho = (H - 1) stride - low - high + dilation (kernel_size - 1) + output_padding + 1``. Calling
    it with `output_size` as second argument chooses the output_padding. `weight` is
    (in_channels, out_channels / groups, kh, kw).

    >>> ConvTranspose2d(8, 4, 2, stride=2)(np.zeros((1, 8, 7, 7))).shape
    (1, 4, 14, 14)
    """

    _n = 2


class ConvTranspose3d(_ConvTranspose):
    """Transposed convolution over volumes (N, in_channels, D, H, W); see `ConvTranspose2d`."""

    _n = 3


# -- columns ---------------------------------------------------------------------------------------


class Unfold(Module):
    """Writes what lies under a sliding window as columns: (N, C, H, W) to (N, C kh kw, L)."""

    def __init__(self, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> None:
        super().__init__()
        self.kernel_size = _window.sizes("Unfold", "kernel_size", kernel_size, 2)
        self.dilation = _window.sizes("Unfold", "dilation", dilation, 2)
        self.stride = _window.sizes("Unfold", "stride", stride, 2)
        _window.paddings("Unfold", padding, self.kernel_size, self.stride, self.dilation)
        self.padding = padding

    def forward(self, input: Any) -> Tensor:
        return unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding!r}, stride={self.stride}"
        )


class Fold(Module):
    """Adds columns back to where `Unfold` would have read them: (N, C kh kw, L) to (N, C, H, W)."""

    def __init__(
        self,
        output_size: Any,
        kernel_size: Any,
        dilation: Any = 1,
        padding: Any = 0,
        stride: Any = 1,
    ) -> None:
        super().__init__()
        self.output_size = _window.sizes("Fold", "output_size", output_size, 2)
        self.kernel_size = _window.sizes("Fold", "kernel_size", kernel_size, 2)
        self.dilation = _window.sizes("Fold", "dilation", dilation, 2)
        self.stride = _window.sizes("Fold", "stride", stride, 2)
        _window.paddings("Fold", padding, self.kernel_size, self.stride, self.dilation)
        self.padding = padding

    def forward(self, input: Any) -> Tensor:
        return fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, kernel_size={self.kernel_size}, "
            f"dilation={self.dilation}, padding={self.padding!r}, stride={self.stride}"
        )
