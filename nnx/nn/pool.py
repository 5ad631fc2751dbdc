"""Pooling layers in one, two and three dimensions."""

from __future__ import annotations

from typing import Any

from nnx.autograd import Tensor
from nnx.functional import _window
from nnx.functional.pool import (
    adaptive_avg_pool_nd,
    avg_pool_nd,
    check_divisor,
    check_output_size,
    max_pool_nd,
    pool_arguments,
)
from nnx.nn.module import Module

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "SumPool1d",
    "SumPool2d",
    "SumPool3d",
]


class _MaxPool(Module):
    """Max pooling over `_n` spatial dimensions."""

    _n: int

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        pool_arguments(owner, self._n, kernel_size, stride, padding)
        _window.sizes(owner, "dilation", dilation, self._n)
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = bool(return_indices)
        self.ceil_mode = bool(ceil_mode)

    def forward(self, input: Any) -> Any:
        owner, kernel_size, stride, padding, dilation, ceil_mode = self._arguments()
        return max_pool_nd(
            owner, self._n, input, kernel_size, stride, padding, dilation, ceil_mode, self.return_indices
        )

    def _arguments(self) -> tuple:
        """Owner, kernel_size, stride, padding, dilation and ceil_mode."""
        return type(self).__name__, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The maximum of each window of sequences (N, C, L); see `MaxPool2d`."""

    _n = 1


class MaxPool2d(_MaxPool):
    """The maximum of each window; its gradient goes to the element that was the maximum.

    kernel_size, dilation:  size of the window, and the distance of its elements: an int or two
    stride:                 distance of the windows; None means `kernel_size`
    padding:                elements of -inf on both sides, at most half the window
    return_indices:         return (output, indices) with the position h W + w of each maximum
    ceil_mode:              round the number of windows up: the last may hang over the end

    Input (N, C, H, W) or (C, H, W), output (N, C, Ho, Wo) with
    ``Ho = floor((H + 2 padding - dilation (kernel_size - 1) - 1) / stride) + 1``.

    >>> import numpy as np
    >>> MaxPool2d(3, stride=2)(np.zeros((1, 96, 55, 55))).shape
    (1, 96, 27, 27)
    """

    _n = 2


class MaxPool3d(_MaxPool):
    """The maximum of each window of volumes (N, C, D, H, W); see `MaxPool2d`."""

    _n = 3


class _AvgPool(Module):
    """Average pooling over `_n` spatial dimensions."""

    _n: int

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        pool_arguments(owner, self._n, kernel_size, stride, padding)
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = bool(ceil_mode)
        self.count_include_pad = bool(count_include_pad)
        self.divisor_override = check_divisor(owner, divisor_override)

    def forward(self, input: Any) -> Tensor:
        return avg_pool_nd(
            type(self).__name__,
            self._n,
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """The mean of each window of sequences (N, C, L); see `AvgPool2d`."""

    _n = 1

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)


class AvgPool2d(_AvgPool):
    """The mean of each window.

    kernel_size, stride, padding, ceil_mode:  as in `MaxPool2d`; padded elements are 0
    count_include_pad:                        whether the mean counts padded elements
    divisor_override:                         divide the sums by this number instead

    Input (N, C, H, W) or (C, H, W), output (N, C, Ho, Wo) with
    ``Ho = floor((H + 2 padding - kernel_size) / stride) + 1``.
    """

    _n = 2


class AvgPool3d(_AvgPool):
    """The mean of each window of volumes (N, C, D, H, W); see `AvgPool2d`."""

    _n = 3


class _SumPool(_AvgPool):
    """Sum pooling: average pooling without the division."""

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, True, 1)


class SumPool1d(_SumPool):
    """The sum of each window of sequences (N, C, L); arguments as in `MaxPool2d`."""

    _n = 1


class SumPool2d(_SumPool):
    """The sum of each window of images (N, C, H, W); arguments as in `MaxPool2d`."""

    _n = 2


class SumPool3d(_SumPool):
    """The sum of each window of volumes (N, C, D, H, W); arguments as in `MaxPool2d`."""

    _n = 3


class _AdaptiveAvgPool(Module):
    """Adaptive average pooling over `_n` spatial dimensions."""

    _n: int

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        check_output_size(type(self).__name__, self._n, output_size)
        self.output_size = output_size

    def forward(self, input: Any) -> Tensor:
        return adaptive_avg_pool_nd(type(self).__name__, self._n, input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """The means of `output_size` windows that cover sequences (N, C, L) evenly."""

    _n = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """The means of windows that cover the input evenly; ``AdaptiveAvgPool2d(1)`` is global pooling.

    output_size:  an int or two; None keeps a size

    Input (N, C, H, W) or (C, H, W), output (N, C, *output_size).
    """

    _n = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """The means of `output_size` windows that cover volumes (N, C, D, H, W) evenly."""

    _n = 3
