"""Convolution as mathematics defines it, with the filter turned round; layers do without the turn."""

from __future__ import annotations

from typing import Any

from nnx.autograd import Tensor
from nnx.functional import _window
from nnx.functional.conv import conv_nd

__all__ = ["true_conv1d", "true_conv2d", "true_conv3d"]


def true_conv1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """`conv1d` with the weight turned round; see `true_conv2d`."""
    return _flipped("true_conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


def true_conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """`conv2d` with the weight turned round in both directions: (f * g)[x] = sum over n of f[n] g[x - n].

    ``y[n, k, i, j] = bias[k] + sum of weight[k, c, kh - 1 - u, kw - 1 - v]
    * input[n, c, i * stride + u * dilation - low, ...]``

    `conv2d` and all layers compute the cross-correlation, without the turn. A learned filter is
    learned turned round, so nothing is lost; only a filter that is given makes a difference. The
    two agree where the filter equals itself turned by 180 degrees. ``padding=k - 1`` gives all
    positions where the two overlap ("full"), ``padding=0`` those where the filter is inside.

    Arguments, shapes and errors are those of `conv2d`.

    >>> true_conv2d([[[[0., 0, 0], [0, 1, 0], [0, 0, 0]]]], [[[[1., 2], [3, 4]]]]).tolist()
    [[[[1.0, 2.0], [3.0, 4.0]]]]
    """
    return _flipped("true_conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


def true_conv3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """`conv3d` with the weight turned round; see `true_conv2d`."""
    return _flipped("true_conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


def _flipped(owner: str, n: int, input: Any, weight: Any, *rest: Any) -> Tensor:
    w = _window.operand(owner, "weight", weight)
    if w.ndim != n + 2:
        raise ValueError(f"{owner}: expected weight with {n + 2} dimensions, got shape {w.shape}")
    return conv_nd(owner, n, input, w[(..., *(slice(None, None, -1),) * n)], *rest)
