"""Max, average, sum and adaptive average pooling in one, two and three dimensions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnx import _check
from nnx.autograd import Tensor, record
from nnx.autograd.engine import left_to_parent
from nnx.autograd.shape import squeeze, unsqueeze
from nnx.backends import backend_of
from nnx.backends.base.pool import first_taps, pooled_sizes
from nnx.functional import _window
from nnx.functional._window import Sizes

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "sum_pool1d",
    "sum_pool2d",
    "sum_pool3d",
]


# -- maximum ---------------------------------------------------------------------------------------


def max_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of each window of sequences (N, C, L); see `max_pool2d`."""
    return max_pool_nd("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of each window; its gradient goes to where it was found, first come first served.

    kernel_size, dilation:  size of the window, and the distance of its elements
    stride:                 distance of the windows; None means `kernel_size`
    padding:                elements of -inf on both sides, at most half the window
    ceil_mode:              round the number of windows up, not down: the last may hang over the end
    return_indices:         return (output, indices) with the int64 position h W + w of each maximum

    NaN is larger than everything.

    Shapes: input (N, C, H, W) or (C, H, W); output (N, C, Ho, Wo) with
    ``Ho = floor((H + 2 padding - dilation (kernel_size - 1) - 1) / stride) + 1``.

    >>> max_pool2d([[[1., 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]]], 2).tolist()
    [[[6.0, 8.0], [3.0, 4.0]]]
    """
    return max_pool_nd("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of each window of volumes (N, C, D, H, W); see `max_pool2d`."""
    return max_pool_nd("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool_nd(
    owner: str,
    n: int,
    input: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    return_indices: bool,
) -> Any:
    """Max pooling over n spatial dimensions, for functions and layers."""
    x = _window.operand(owner, "input", input)
    sizes, ceil_mode = x.shape[-n:], bool(ceil_mode)
    one, kernel, stride, padding, dilation = max_pool_geometry(
        owner, n, x.shape, kernel_size, stride, padding, dilation, ceil_mode
    )
    if one:
        x = unsqueeze(x, 0)
    be = backend_of(x.data)
    y, index = be.max_pool(x.data, kernel, stride, padding, dilation, ceil_mode)
    t = record(y, _max_pool_grad, (x,), be, index, x.shape, kernel, stride, padding, dilation)
    t = squeeze(t, 0) if one else t
    if not return_indices:
        return t
    positions = be.pool_positions(index, sizes, kernel, stride, padding, dilation)
    return t, Tensor(positions[0] if one else positions)


@_window.remembered(3)
def max_pool_geometry(
    owner: str, n: int, shape: Sizes, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[bool, Sizes, Sizes, Sizes, Sizes]:
    """Check shape and numbers: whether the input is one sample, and the numbers as tuples."""
    one = _window.check_images(owner, shape, n)
    kernel, stride, padding = pool_arguments(owner, n, kernel_size, stride, padding)
    dilation = _window.sizes(owner, "dilation", dilation, n)
    sizes = shape[-n:]
    out = _check_fit(owner, sizes, kernel, stride, padding, dilation, ceil_mode)
    if any(d > size for d, size in zip(dilation, sizes, strict=True)):
        _check_filled(owner, sizes, out, kernel, stride, padding, dilation)
    return one, kernel, stride, padding, dilation


@left_to_parent("max_pool")
def _max_pool_grad(needs, gy, be, index, x_shape, kernel, stride, padding, dilation):
    return (be.max_pool_backward(gy, index, x_shape, kernel, stride, padding, dilation),)


# -- mean and sum ----------------------------------------------------------------------------------


def avg_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window of sequences (N, C, L); see `avg_pool2d`."""
    return avg_pool_nd("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window; its gradient is shared equally by the window's elements.

    kernel_size, stride, padding, ceil_mode:  as in `max_pool2d`; padded elements are 0
    count_include_pad:                        whether the mean counts padded elements
    divisor_override:                         divide the sums by this number instead

    Shapes: input (N, C, H, W) or (C, H, W); output (N, C, Ho, Wo) with
    ``Ho = floor((H + 2 padding - kernel_size) / stride) + 1``.

    >>> avg_pool2d([[[1., 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]]], 2).tolist()
    [[[3.25, 5.25], [2.0, 2.0]]]
    """
    return avg_pool_nd(
        "avg_pool2d",
        2,
        input,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
    )


def avg_pool3d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of volumes (N, C, D, H, W); see `avg_pool2d`."""
    return avg_pool_nd(
        "avg_pool3d",
        3,
        input,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
    )


def sum_pool1d(input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False) -> Tensor:
    """The sum of each window of sequences (N, C, L); arguments as in `avg_pool2d`."""
    return avg_pool_nd("sum_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, True, 1)


def sum_pool2d(input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False) -> Tensor:
    """The sum of each window of images (N, C, H, W); arguments as in `avg_pool2d`.

    >>> sum_pool2d([[[1., 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]]], 2).tolist()
    [[[13.0, 21.0], [8.0, 8.0]]]
    """
    return avg_pool_nd("sum_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, True, 1)


def sum_pool3d(input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False) -> Tensor:
    """The sum of each window of volumes (N, C, D, H, W); arguments as in `avg_pool2d`."""
    return avg_pool_nd("sum_pool3d", 3, input, kernel_size, stride, padding, ceil_mode, True, 1)


def avg_pool_nd(
    owner: str,
    n: int,
    input: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Average pooling over n spatial dimensions, for functions and layers."""
    x = _window.operand(owner, "input", input)
    one = _window.check_images(owner, x.shape, n)
    kernel, stride, padding = pool_arguments(owner, n, kernel_size, stride, padding)
    divisor = check_divisor(owner, divisor_override)
    _check_fit(owner, x.shape[-n:], kernel, stride, padding, (1,) * n, bool(ceil_mode))
    if one:
        x = unsqueeze(x, 0)
    be = backend_of(x.data)
    arguments = (kernel, stride, padding, bool(ceil_mode), bool(count_include_pad), divisor)
    t = record(be.avg_pool(x.data, *arguments), _avg_pool_grad, (x,), be, x.shape, arguments)
    return squeeze(t, 0) if one else t


def _avg_pool_grad(needs, gy, be, x_shape, arguments):
    return (be.avg_pool_backward(gy, x_shape, *arguments),)


# -- adaptive mean ---------------------------------------------------------------------------------


def adaptive_avg_pool1d(input: Any, output_size: Any) -> Tensor:
    """The means of windows that cover sequences (N, C, L) evenly; see `adaptive_avg_pool2d`."""
    return adaptive_avg_pool_nd("adaptive_avg_pool1d", 1, input, output_size)


def adaptive_avg_pool2d(input: Any, output_size: Any) -> Tensor:
    """The means of windows that cover the input as evenly as they can; size 1 is global pooling.

    Along an axis of size L with O windows, window o is ``floor(o L / O)`` to
    ``ceil((o + 1) L / O)``; windows overlap where O does not divide L.

    output_size:  an int or two; None keeps a size

    Shapes: input (N, C, H, W) or (C, H, W); output (N, C, *output_size).
    """
    return adaptive_avg_pool_nd("adaptive_avg_pool2d", 2, input, output_size)


def adaptive_avg_pool3d(input: Any, output_size: Any) -> Tensor:
    """The means of windows that cover volumes (N, C, D, H, W) evenly; see `adaptive_avg_pool2d`."""
    return adaptive_avg_pool_nd("adaptive_avg_pool3d", 3, input, output_size)


def adaptive_avg_pool_nd(owner: str, n: int, input: Any, output_size: Any) -> Tensor:
    """Adaptive average pooling over n spatial dimensions, for functions and layers."""
    x = _window.operand(owner, "input", input)
    one = _window.check_images(owner, x.shape, n)
    wanted = check_output_size(owner, n, output_size)
    out = tuple(size if o is None else o for o, size in zip(wanted, x.shape[-n:], strict=True))
    if one:
        x = unsqueeze(x, 0)
    _window.check_size(owner, (*x.shape[:2], *out))
    be = backend_of(x.data)
    y = be.adaptive_avg_pool(x.data, out)
    t = record(y, _adaptive_avg_pool_grad, (x,), be, x.shape)
    return squeeze(t, 0) if one else t


def _adaptive_avg_pool_grad(needs, gy, be, x_shape):
    return (be.adaptive_avg_pool_backward(gy, x_shape),)


# -- checks ----------------------------------------------------------------------------------------


def check_divisor(owner: str, value: Any) -> int | None:
    """None or an integer that can be divided by."""
    divisor = None if value is None else _check.integer(owner, "divisor_override", value)
    if divisor == 0:
        raise ValueError(f"{owner}: expected divisor_override to be None or not 0, got 0")
    return divisor


def check_output_size(owner: str, n: int, value: Any) -> tuple[int | None, ...]:
    """The output_size of adaptive pooling as n entries, each None or an integer >= 0."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if len(values) == 1:
        values *= n
    if len(values) != n:
        raise ValueError(f"{owner}: expected output_size to be one integer or {n} integers or None, got {value!r}")
    return tuple(None if v is None else _window.sizes(owner, "output_size", v, 1, 0)[0] for v in values)


def pool_arguments(owner: str, n: int, kernel_size: Any, stride: Any, padding: Any) -> tuple[Sizes, Sizes, Sizes]:
    """Kernel size, stride (by default the kernel size) and padding as tuples of n ints."""
    kernel = _window.sizes(owner, "kernel_size", kernel_size, n)
    default = stride is None or (isinstance(stride, (tuple, list)) and not stride)
    stride = kernel if default else _window.sizes(owner, "stride", stride, n)
    padding = _window.sizes(owner, "padding", padding, n, 0)
    if any(p > k // 2 for p, k in zip(padding, kernel, strict=True)):
        raise ValueError(
            f"{owner}: expected padding of at most half of kernel_size, got padding {padding} with kernel_size {kernel}"
        )
    if math.prod(kernel) > _window.LARGEST:
        raise ValueError(f"{owner}: expected windows of at most {_window.LARGEST} elements, got kernel_size {kernel}")
    return kernel, stride, padding


def _check_fit(
    owner: str,
    sizes: Sizes,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
) -> Sizes:
    """The number of windows, at least one along each axis."""
    out = pooled_sizes(sizes, kernel, stride, padding, dilation, ceil_mode)
    if min(out) < 1:
        spread = f" and dilation {dilation}" if max(dilation) > 1 else ""
        raise ValueError(
            f"{owner}: expected windows that fit into the padded input, got kernel_size "
            f"{kernel}{spread} for spatial size {sizes} with padding {padding}"
        )
    return out


def _check_filled(
    owner: str,
    sizes: Sizes,
    out: Sizes,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
) -> None:
    """Refuse windows without an element (a dilation larger than the input may step over it)."""
    for axis, geometry in enumerate(zip(sizes, out, kernel, stride, padding, dilation, strict=True)):
        size, o, k, s, p, d = geometry
        first = first_taps((o,), (k,), (s,), (p,), (d,))
        position = np.arange(o) * s - p + first * d
        if ((position < 0) | (position >= size)).any():
            raise ValueError(
                f"{owner}: expected every window to hold at least one element of the input, got "
                f"dilation {dilation} for spatial size {sizes} with padding {padding} (dimension "
                f"{axis} of it)"
            )
