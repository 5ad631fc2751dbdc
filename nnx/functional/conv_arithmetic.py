"""The arithmetic of convolution: sizes of outputs, and the padding that keeps a size.

All of these are plain functions of integers; they say what a layer will do before it is built.
"""

from __future__ import annotations

from nnx import _check

__all__ = ["conv_output_size", "conv_transpose_output_size", "same_padding"]


def conv_output_size(
    n: int, f: int, stride: int = 1, padding: int = 0, dilation: int = 1, *, strict: bool = True
) -> int:
    """The number of places where a window fits: ``(n + 2 padding - dilation (f - 1) - 1) / stride + 1``.

    n:       size of the input along one axis
    f:       size of the filter, or of the pooling window
    strict:  refuse a result that is no whole number: the last steps would not reach the border, and
             the layers of nnx, like those of other libraries, silently leave these pixels out. False
             rounds down, as they do

    ValueError where the result is no whole number (with `strict`) or the filter does not fit.
    Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep learning".

    >>> conv_output_size(7, 3, stride=2), conv_output_size(32, 5, padding=2)
    (3, 32)
    >>> conv_output_size(7, 3, stride=3, strict=False)
    2
    """
    owner = "conv_output_size"
    n = _check.integer(owner, "n", n, 1)
    f = _check.integer(owner, "f", f, 1)
    stride = _check.integer(owner, "stride", stride, 1)
    padding = _check.integer(owner, "padding", padding, 0)
    dilation = _check.integer(owner, "dilation", dilation, 1)
    reach = dilation * (f - 1) + 1
    room = n + 2 * padding - reach
    if room < 0:
        raise ValueError(
            f"{owner}: expected a filter that fits into the padded input, got f={f} with dilation {dilation} "
            f"(reaches over {reach}) for n={n} with padding {padding}"
        )
    if strict and room % stride:
        raise ValueError(
            f"{owner}: expected (n + 2 padding - dilation (f - 1) - 1) / stride + 1 to be a whole number, got "
            f"{room} / {stride} + 1 = {room / stride + 1:.2f}. {_remedy(n, f, stride, padding, dilation)}"
            f"strict=False rounds down to {room // stride + 1}"
        )
    return room // stride + 1


def _remedy(n: int, f: int, stride: int, padding: int, dilation: int) -> str:
    """The smallest larger padding that gives a whole number, as a hint; an even stride may have none."""
    reach = dilation * (f - 1) + 1
    for more in range(1, stride + 1):
        if (n + 2 * (padding + more) - reach) % stride == 0:
            return f"padding={padding + more} would fit; "
    return ""


def conv_transpose_output_size(
    n: int, f: int, stride: int = 1, padding: int = 0, output_padding: int = 0, dilation: int = 1
) -> int:
    """The size that a transposed convolution makes of `n`.

    ``(n - 1) stride - 2 padding + dilation (f - 1) + output_padding + 1``: the way back from
    `conv_output_size`. Up to `stride` input sizes have the same output size (rounded down);
    `output_padding` says which of them is meant.

    ValueError if nothing is left of the result.

    >>> conv_transpose_output_size(3, 3, stride=2)
    7
    """
    owner = "conv_transpose_output_size"
    n = _check.integer(owner, "n", n, 1)
    f = _check.integer(owner, "f", f, 1)
    stride = _check.integer(owner, "stride", stride, 1)
    padding = _check.integer(owner, "padding", padding, 0)
    extra = _check.integer(owner, "output_padding", output_padding, 0)
    dilation = _check.integer(owner, "dilation", dilation, 1)
    if extra >= max(stride, dilation):
        raise ValueError(
            f"{owner}: expected output_padding below stride or dilation, got {extra} with stride {stride} "
            f"and dilation {dilation}"
        )
    size = (n - 1) * stride - 2 * padding + dilation * (f - 1) + extra + 1
    if size < 1:
        raise ValueError(f"{owner}: expected padding that leaves at least one element, got {size} with {padding}")
    return size


def same_padding(f: int, dilation: int = 1) -> int:
    """The padding on each side with which a stride-1 convolution keeps the size: ``dilation (f - 1) / 2``.

    ValueError where that is no whole number (an even filter); ``padding="same"`` of the convolutions
    then pads one side more than the other.

    >>> [same_padding(f) for f in (1, 3, 5, 7)]
    [0, 1, 2, 3]
    """
    f = _check.integer("same_padding", "f", f, 1)
    total = _check.integer("same_padding", "dilation", dilation, 1) * (f - 1)
    if total % 2:
        raise ValueError(
            f"same_padding: expected dilation (f - 1) to be even, got {total} for f={f}. "
            'padding="same" pads the two sides differently'
        )
    return total // 2
