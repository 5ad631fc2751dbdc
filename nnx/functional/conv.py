"""Convolution and transposed convolution in one, two and three dimensions; unfold and fold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnx import _check
from nnx._device import same_device
from nnx._ext.arrays import are_for_conv
from nnx.autograd import Tensor, as_tensor, is_grad_enabled, record
from nnx.autograd._later import later_of
from nnx.autograd.engine import behind, cuts, fresh, joins
from nnx.autograd.shape import squeeze, unsqueeze
from nnx.backends import backend_of
from nnx.backends.base.conv import output_sizes
from nnx.backends.base.later import read
from nnx.functional import _window
from nnx.functional._window import Pairs, Sizes
from nnx.functional.pool import max_pool_geometry

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "fold",
    "unfold",
]


def conv1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve sequences (N, C, L) with a weight (K, C / groups, k); see `conv2d`."""
    return conv_nd("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Slide filters over images and take the dot product at every position, without a flip.

    ``y[n, k, i, j] = bias[k] + sum over c, u, v of weight[k, c, u, v] * input[n, c, r, s]`` with
    ``r = i * stride + u * dilation - low`` and ``s = j * stride + v * dilation - low``.

    padding:  zeros around the input: an int, one per dimension, a pair (low, high) per dimension,
              "valid" (none) or "same" (output as large as the input; stride 1 only)
    groups:   cut channels and filters into so many parts that do not see each other

    Shapes: input (N, C, H, W) or (C, H, W), weight (K, C / groups, kh, kw), bias (K,); output
    (N, K, Ho, Wo) with
    ``Ho = floor((H + low + high - dilation (kh - 1) - 1) / stride) + 1``.
    Raises ValueError where shapes do not fit, TypeError for Tensors of different float types.

    >>> import numpy as np
    >>> conv2d(np.ones((1, 3, 7, 7)), np.ones((10, 3, 5, 5)), padding=2).shape
    (1, 10, 7, 7)
    """
    return conv_nd("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve volumes (N, C, D, H, W) with a weight (K, C / groups, kd, kh, kw); see `conv2d`."""
    return conv_nd("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


def conv_nd(
    owner: str,
    n: int,
    input: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    relu: bool = False,
    pool: tuple | None = None,
) -> Tensor:
    """Convolution over n spatial dimensions, for functions and layers; `owner` is for messages.

    relu:  return the positive part, with its gradient
    pool:  with `relu`, return the max pooling of that; its owner, kernel_size, stride, padding, dilation and ceil_mode
    """
    x, w, b, later = input, weight, bias, later_of(input)
    if type(x) is np.ndarray and isinstance(w, Tensor) and x.dtype == w.data.dtype:
        x = as_tensor(x)  # the first layer's input: checked with the rest, not in the long way below
    plain = _are_plain(n, x, w, b, later)
    if not plain:
        w = _weight(owner, weight, n)
        x = _window.operand(owner, "input", x, w.dtype)
        b = None if bias is None else _window.operand(owner, "bias", bias, w.dtype)
    known, w_data, b_data = x.data if later is None else later.x, w.data, None if b is None else b.data
    if not plain:
        same_device(owner, weight=w_data, input=known, bias=b_data)
    one, stride, pairs, dilation, groups, out = _conv_geometry(
        owner, n, known.shape, w_data.shape, stride, padding, dilation, groups
    )
    _check_bias(owner, b, w_data.shape[0])
    if one:
        x = unsqueeze(x, 0)
    be = backend_of(known)
    how = stride, pairs, dilation, groups
    y: Any = None
    moments = None
    if b is None and not relu and pool is None and not one and is_grad_enabled():
        y, moments = be.conv_with_moments(x.data if later is None else later, w_data, *how) or (None, None)
    if y is None and later is not None and pool is None and not one:
        y = be.conv_of_later(later, w_data, b_data, *how, relu)
    saved = be, x.data if y is None or later is None else later, w_data, *how
    if pool is not None:
        pool_owner, *arguments = pool
        y_shape = (x.shape[0], w_data.shape[0], *out)
        windows = max_pool_geometry(pool_owner, n, y_shape, *arguments)[1:]
        y, index = be.conv_max_pool(x.data, w_data, b_data, *how, windows, arguments[-1])
        t = record(y, _conv_max_pool_grad, (x, w, b), (be, index, y_shape, *windows), *saved)
    else:
        if y is None:
            y = be.conv(x.data, w_data, b_data, *how, relu)
        t = record(y, _conv_relu_grad, (x, w, b), y, *saved) if relu else record(y, _conv_grad, (x, w, b), *saved)
        if moments is not None:
            t._moments = moments
    return squeeze(t, 0) if one else t


@_window.remembered(4)
def _conv_geometry(
    owner: str, n: int, x_shape: Sizes, w_shape: Sizes, stride: Any, padding: Any, dilation: Any, groups: Any
) -> tuple[bool, Sizes, Pairs, Sizes, int, Sizes]:
    """Check shapes and numbers: whether the input is one sample, the numbers as `Backend.conv` takes them, and the
    result's spatial sizes."""
    one = _window.check_images(owner, x_shape, n)
    kernel = w_shape[2:]
    stride = _window.sizes(owner, "stride", stride, n)
    dilation = _window.sizes(owner, "dilation", dilation, n)
    groups = _check.integer(owner, "groups", groups, 1)
    pairs = _window.paddings(owner, padding, kernel, stride, dilation)
    check_channels(owner, x_shape, n, w_shape[1] * groups, groups)
    if w_shape[0] % groups:
        raise ValueError(f"{owner}: expected groups to divide the {w_shape[0]} output channels, got groups={groups}")
    out = output_sizes(x_shape[-n:], kernel, stride, pairs, dilation)
    if min(out) < 1:
        raise ValueError(
            f"{owner}: expected a kernel that fits into the padded input, got kernel {kernel} with "
            f"dilation {dilation} for spatial size {x_shape[-n:]} with padding {pairs}"
        )
    n_images = 1 if one else x_shape[0]
    _window.check_size(owner, (n_images, w_shape[0], *out))
    padded = tuple(size + low + high for size, (low, high) in zip(x_shape[-n:], pairs, strict=True))
    _window.check_size(owner, (n_images, x_shape[-n - 1], *padded))
    return one, stride, pairs, dilation, groups, out


@joins
def _conv_relu_rest(needs, gy, y, *saved, onto=None):
    return _conv_grad(needs, gy, *saved, onto=onto)


@fresh
@joins
@cuts(0, _conv_relu_rest)
def _conv_relu_grad(needs, gy, y, be, x, w, stride, padding, dilation, groups, onto=None):
    return _conv_grad(needs, be.relu_backward(gy, y), be, x, w, stride, padding, dilation, groups, onto)


@fresh
def _conv_max_pool_grad(needs, gy, pool, be, x, w, stride, padding, dilation, groups):
    _, index, *windows = pool
    x = read(x)
    how = stride, padding, dilation, groups
    gx = sums = None
    if needs[1] or needs[2]:
        sums = be.conv_sums_behind_max_pool(gy, index, windows, x, w.shape, *how, needs[0])
    if sums is None:
        return _conv_grad(needs, be.max_pool_backward(gy, index, *windows), be, x, w, *how)
    if needs[0]:
        gx = be.conv_data_grad(be.max_pool_backward(gy, index, *windows), w, x.shape, *how)
    return gx, sums[0] if needs[1] else None, sums[1] if needs[2] else None


@joins
def _conv_behind_batch_norm(needs, gy, left, *saved, onto=None):
    (later,) = left
    return _conv_grad(needs, later.array() if needs[2] else later, *saved, onto=onto)


@fresh
@joins
@behind("max_pool", _conv_max_pool_grad)
@behind("batch_norm", _conv_behind_batch_norm)
def _conv_grad(needs, gy, be, x, w, stride, padding, dilation, groups, onto=None):
    """`gy` may be a LaterGradient, unless the bias needs it, and `x` the Later that `conv_of_later` has taken."""
    gx = gw = gb = None
    joined = (onto.added, onto.positive) if onto is not None else ()
    if needs[0] and needs[1]:
        both = be.conv_gradients(gy, x, w, stride, padding, dilation, groups, *joined)
        if both is not None:
            if onto is not None:
                onto.done = True
            return *both, be.channel_sum(gy) if needs[2] else None
    gy = read(gy)
    if needs[0] and onto is not None:
        gx = be.conv_data_grad_joined(gy, w, x.shape, stride, padding, dilation, groups, *joined)
        onto.done = gx is not None
    if needs[0] and gx is None:
        gx = be.conv_data_grad(gy, w, x.shape, stride, padding, dilation, groups)
    if needs[1]:
        gw = be.conv_weight_grad(gy, read(x), w.shape, stride, padding, dilation, groups)
    if needs[2]:
        gb = be.channel_sum(gy)
    return gx, gw, gb


# -- transposed convolution ------------------------------------------------------------------------


def conv_transpose1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """Transposed convolution of sequences (N, C, L) with a weight (C, K / groups, k).

    See `conv_transpose2d`.
    """
    return conv_transpose_nd(
        "conv_transpose1d",
        1,
        input,
        weight,
        bias,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
    )


def conv_transpose2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """The adjoint of `conv2d`: every input element adds its multiple of the filter to the output.

    ``y[n, k, i * stride + u * dilation - low, ...] += weight[c, k, u, v] * input[n, c, i, j]``,
    then the bias. It is what the gradient of a convolution does, and enlarges where a strided
    convolution shrinks.

    padding:         how much is cut off the result: an int, one per dimension, or a pair (low,
                     high) per dimension
    output_padding:  how much is added at the high side, below stride or dilation: several input
                     sizes of a strided convolution have the same output size, and this says which
                     one to return to

    Shapes: input (N, C, H, W) or (C, H, W), weight (C, K / groups, kh, kw), bias (K,); output
    (N, K, Ho, Wo) with
    ``Ho = (H - 1) stride - low - high + dilation (kh - 1) + output_padding + 1``.
    Raises ValueError where shapes do not fit. Dumoulin and Visin 2016, "A guide to convolution
    arithmetic".

    >>> import numpy as np
    >>> conv_transpose2d(np.ones((1, 8, 7, 7)), np.ones((8, 4, 2, 2)), stride=2).shape
    (1, 4, 14, 14)
    """
    return conv_transpose_nd(
        "conv_transpose2d",
        2,
        input,
        weight,
        bias,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
    )


def conv_transpose3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """Transposed convolution of volumes (N, C, D, H, W) with a weight (C, K / groups, kd, kh, kw).

    See `conv_transpose2d`.
    """
    return conv_transpose_nd(
        "conv_transpose3d",
        3,
        input,
        weight,
        bias,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
    )


def conv_transpose_nd(
    owner: str,
    n: int,
    input: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Tensor:
    """Transposed convolution over n spatial dimensions, for functions and layers."""
    w = _weight(owner, weight, n)
    x = _window.operand(owner, "input", input, w.dtype)
    b = None if bias is None else _window.operand(owner, "bias", bias, w.dtype)
    same_device(owner, weight=w.data, input=x.data, bias=None if b is None else b.data)
    one = _window.check_images(owner, x.shape, n)
    kernel = w.shape[2:]
    stride = _window.sizes(owner, "stride", stride, n)
    dilation = _window.sizes(owner, "dilation", dilation, n)
    extra = _window.sizes(owner, "output_padding", output_padding, n, 0)
    groups = _check.integer(owner, "groups", groups, 1)
    if isinstance(padding, str):
        raise ValueError(
            f"{owner}: expected padding to be integers or pairs (low, high), got {padding!r}. "
            "Strings are for convolutions only"
        )
    pairs = _window.paddings(owner, padding, kernel, stride, dilation)
    check_channels(owner, x.shape, n, len(w), 1)
    if len(w) % groups:
        raise ValueError(f"{owner}: expected groups to divide the {len(w)} input channels, got groups={groups}")
    channels = w.shape[1] * groups
    _check_bias(owner, b, channels)
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ValueError(
            f"{owner}: expected output_padding below stride or dilation, got output_padding "
            f"{extra} with stride {stride} and dilation {dilation}"
        )
    out = transposed_sizes(x.shape[-n:], kernel, stride, pairs, dilation, extra)
    if min(out) < 1:
        raise ValueError(
            f"{owner}: expected padding that leaves at least one output element, got output size "
            f"{out} for spatial size {x.shape[-n:]} with kernel {kernel}, stride {stride} and "
            f"padding {pairs}"
        )
    n_images = 1 if one else len(x)
    full = tuple(size + low + high for size, (low, high) in zip(out, pairs, strict=True))
    _window.check_size(owner, (n_images, channels, *full))
    if one:
        x = unsqueeze(x, 0)
    # The convolution that this is the adjoint of must have exactly x's size as its output. An
    # output_padding of a whole stride or more (possible with dilation) would give it more, so that
    # much is taken from its high padding, and where that is too small, from the output: no input
    # element reaches those last elements.
    pairs, beyond = _adjoint_padding(pairs, extra, stride)
    reached = tuple(o - z for o, z in zip(out, beyond, strict=True))
    be = backend_of(x.data)
    y = be.conv_data_grad(x.data, w.data, (n_images, channels, *reached), stride, pairs, dilation, groups)
    if any(beyond):
        y = be.pad(y, ((0, 0), (0, 0), *((0, z) for z in beyond)))
    if b is not None:
        y += b.data.reshape(-1, *(1,) * n)
    t = record(
        y,
        _conv_transpose_grad,
        (x, w, b),
        be,
        x.data,
        w.data,
        reached,
        stride,
        pairs,
        dilation,
        groups,
    )
    return squeeze(t, 0) if one else t


def _conv_transpose_grad(needs, gy, be, x, w, reached, stride, padding, dilation, groups):
    gx = gw = gb = None
    g = gy[:, :, *(slice(o) for o in reached)]
    if needs[0]:
        gx = be.conv(g, w, None, stride, padding, dilation, groups)
    if needs[1]:
        gw = be.conv_weight_grad(x, g, w.shape, stride, padding, dilation, groups)
    if needs[2]:
        gb = be.channel_sum(gy)
    return gx, gw, gb


def transposed_sizes(
    sizes: Sizes, kernel: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes, extra: Sizes
) -> Sizes:
    """``(size - 1) stride - low - high + dilation (kernel - 1) + extra + 1`` along each axis."""
    return tuple(
        (n - 1) * s - low - high + d * (k - 1) + e + 1
        for n, k, s, (low, high), d, e in zip(sizes, kernel, stride, padding, dilation, extra, strict=True)
    )


def _adjoint_padding(padding: Pairs, extra: Sizes, stride: Sizes) -> tuple[Pairs, Sizes]:
    """The adjoint convolution's padding, and how many of the output's last elements it skips."""
    excess = [max(e - (s - 1), 0) for e, s in zip(extra, stride, strict=True)]
    pairs = tuple((low, max(high - e, 0)) for (low, high), e in zip(padding, excess, strict=True))
    return pairs, tuple(max(e - high, 0) for (_, high), e in zip(padding, excess, strict=True))


# -- columns ---------------------------------------------------------------------------------------


def unfold(input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """Write what lies under a sliding window as columns (im2col).

    Shapes: input (N, C, H, W) or (C, H, W); output (N, C kh kw, L), one column for each of the L
    window positions.

    >>> import numpy as np
    >>> unfold(np.ones((1, 3, 5, 5)), 3).shape
    (1, 27, 9)
    """
    x = _window.operand("unfold", "input", input)
    one = _window.check_images("unfold", x.shape, 2)
    kernel, dilation, pairs, stride = _column_arguments("unfold", kernel_size, dilation, padding, stride)
    out = output_sizes(x.shape[-2:], kernel, stride, pairs, dilation)
    if min(out) < 1:
        raise ValueError(
            f"unfold: expected kernel_size that fits into the padded input, got {kernel} with "
            f"dilation {dilation} for spatial size {x.shape[-2:]} with padding {pairs}"
        )
    if one:
        x = unsqueeze(x, 0)
    _window.check_size("unfold", (*x.shape[:2], *kernel, *out))
    be = backend_of(x.data)
    y = be.im2col(x.data, kernel, stride, pairs, dilation)
    t = record(y, _unfold_grad, (x,), be, x.shape, kernel, stride, pairs, dilation)
    return squeeze(t, 0) if one else t


def _unfold_grad(needs, gy, be, x_shape, kernel, stride, padding, dilation):
    return (be.col2im(gy, x_shape, kernel, stride, padding, dilation),)


def fold(
    input: Any,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Tensor:
    """Add columns to where `unfold` would have read them (col2im); what overlaps is summed.

    Shapes: input (N, C kh kw, L) or (C kh kw, L), output_size (H, W); output (N, C, H, W).
    """
    x = _window.operand("fold", "input", input)
    if x.ndim not in (2, 3):
        raise ValueError(
            f"fold: expected input with 3 dimensions (N, C kh kw, L), or 2 for one sample, got shape {x.shape}"
        )
    size = _window.sizes("fold", "output_size", output_size, 2)
    kernel, dilation, pairs, stride = _column_arguments("fold", kernel_size, dilation, padding, stride)
    taps = math.prod(kernel)
    if x.shape[-2] == 0 or x.shape[-2] % taps:
        raise ValueError(
            f"fold: expected input with a multiple of {taps} (the size of the window) rows, got shape {x.shape}"
        )
    out = output_sizes(size, kernel, stride, pairs, dilation)
    if min(out) < 1 or x.shape[-1] != math.prod(out):
        raise ValueError(
            f"fold: expected input with {max(math.prod(out), 0)} columns, for {out} window "
            f"positions in output_size {size}, got shape {x.shape}"
        )
    one = x.ndim == 2
    if one:
        x = unsqueeze(x, 0)
    be = backend_of(x.data)
    y_shape = (len(x), x.shape[1] // taps, *size)
    _window.check_size("fold", y_shape)
    y = be.col2im(x.data, y_shape, kernel, stride, pairs, dilation)
    t = record(y, _fold_grad, (x,), be, kernel, stride, pairs, dilation)
    return squeeze(t, 0) if one else t


def _fold_grad(needs, gy, be, kernel, stride, padding, dilation):
    return (be.im2col(gy, kernel, stride, padding, dilation),)


# -- checks ----------------------------------------------------------------------------------------


def _column_arguments(
    owner: str, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> tuple[Sizes, Sizes, Pairs, Sizes]:
    kernel = _window.sizes(owner, "kernel_size", kernel_size, 2)
    dilation = _window.sizes(owner, "dilation", dilation, 2)
    stride = _window.sizes(owner, "stride", stride, 2)
    return kernel, dilation, _window.paddings(owner, padding, kernel, stride, dilation), stride


def _are_plain(n: int, x: Any, w: Any, b: Any, later: Any) -> bool:
    """Whether all is well, as nearly always: then the functions that say what is wrong, or mend it, are not called."""
    if not isinstance(x, Tensor) or not isinstance(w, Tensor) or not (b is None or isinstance(b, Tensor)):
        return False
    return are_for_conv(n, x.data if later is None else later.x, w.data, None if b is None else b.data)


def _weight(owner: str, weight: Any, n: int) -> Tensor:
    w = _window.operand(owner, "weight", weight)
    if w.ndim != n + 2 or 0 in w.shape:
        raise ValueError(f"{owner}: expected weight with {n + 2} dimensions, none of them empty, got shape {w.shape}")
    return w


def check_channels(owner: str, shape: Sizes, n: int, channels: int, groups: int) -> None:
    """Refuse input with another number of channels."""
    if shape[-n - 1] != channels:
        parts = f" in {groups} groups" if groups > 1 else ""
        raise ValueError(
            f"{owner}: expected input with {channels} channels{parts} (dimension {len(shape) - n - 1} "
            f"of {_window.layout(n, len(shape))}), got shape {shape}"
        )


def _check_bias(owner: str, b: Tensor | None, channels: int) -> None:
    if b is not None and b.shape != (channels,):
        raise ValueError(f"{owner}: expected bias of shape ({channels},), got shape {b.shape}")
