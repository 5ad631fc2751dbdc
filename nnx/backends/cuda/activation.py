"""Activations by activation.cu: one launch each, in the memory layout of the input."""

from __future__ import annotations

import math
from typing import Any

from nnx.backends.base.activation import ActivationOps
from nnx.backends.cuda._arrays import contiguous, dense, has_kernel, is_dense, like
from nnx.backends.cuda._kernels import Kernels, blocks_for

_k = Kernels("activation")

_LIMIT = 2**31  # elements, where the kernel's indices have 32 bits
_LONG = 256  # elements of a slice from which it is worth making it a row
_MOST_BLOCKS = 2**20


class ActivationCUDA(ActivationOps):
    """Overrides for float32 and float64."""

    def add(self, a: Any, b: Any) -> Any:
        if not _alike(a, b):
            return super().add(a, b)
        out = self.xp.empty_like(a)
        _elementwise("add", a, (a, b, out))
        return out

    def add_in_place(self, a: Any, b: Any) -> None:
        if not _alike(a, b):
            super().add_in_place(a, b)
        else:
            _elementwise("add", a, (a, b, a))

    # -- piecewise linear ----------------------------------------------------------------------

    def relu(self, x: Any) -> Any:
        return self._mapped("relu", x) if has_kernel(x) else super().relu(x)

    def relu_backward(self, gy: Any, y: Any) -> Any:
        if not has_kernel(gy, y):
            return super().relu_backward(gy, y)
        return self._mapped_backward("relu_backward", gy, y)

    def leaky_relu(self, x: Any, slope: float) -> Any:
        return self._mapped("leaky_relu", x, slope) if has_kernel(x) else super().leaky_relu(x, slope)

    def leaky_relu_backward(self, gy: Any, x: Any, slope: float) -> Any:
        if not has_kernel(gy, x):
            return super().leaky_relu_backward(gy, x, slope)
        return self._mapped_backward("leaky_relu_backward", gy, x, slope)

    def prelu(self, x: Any, weight: Any) -> Any:
        per_channel = _per_channel(x, weight)
        if per_channel is None:
            return super().prelu(x, weight)
        x, w, inner = per_channel
        y = self.xp.empty_like(x)
        _k.launch("prelu_forward", x.dtype, blocks_for(x.size), 256, x.size, inner, w.size, x, w, y)
        return y

    def prelu_backward(self, gy: Any, x: Any, weight: Any, needs: tuple[bool, bool]) -> tuple[Any, Any]:
        per_channel = _per_channel(x, weight)
        if per_channel is None or not has_kernel(gy, x):
            return super().prelu_backward(gy, x, weight, needs)
        x, w, inner = per_channel
        gy = like(gy, x)
        gx = self.xp.empty_like(x) if needs[0] else None
        gw = self.xp.empty_like(x) if needs[1] else None
        if needs[0] or needs[1]:
            outputs = (gw if gx is None else gx, gx if gw is None else gw, int(needs[0]), int(needs[1]))
            _k.launch("prelu_backward", x.dtype, blocks_for(x.size), 256, x.size, inner, w.size, gy, x, w, *outputs)
        return gx, gw

    def hardtanh(self, x: Any, low: float, high: float) -> Any:
        return self._mapped("hardtanh", x, low, high) if has_kernel(x) else super().hardtanh(x, low, high)

    def hardtanh_backward(self, gy: Any, x: Any, low: float, high: float) -> Any:
        if not has_kernel(gy, x):
            return super().hardtanh_backward(gy, x, low, high)
        return self._mapped_backward("hardtanh_backward", gy, x, low, high)

    def hardsigmoid(self, x: Any) -> Any:
        return self._mapped("hardsigmoid", x) if has_kernel(x) else super().hardsigmoid(x)

    def hardsigmoid_backward(self, gy: Any, x: Any) -> Any:
        if not has_kernel(gy, x):
            return super().hardsigmoid_backward(gy, x)
        return self._mapped_backward("hardsigmoid_backward", gy, x)

    def hardswish(self, x: Any) -> Any:
        return self._mapped("hardswish", x) if has_kernel(x) else super().hardswish(x)

    def hardswish_backward(self, gy: Any, x: Any) -> Any:
        if not has_kernel(gy, x):
            return super().hardswish_backward(gy, x)
        return self._mapped_backward("hardswish_backward", gy, x)

    # -- built on exp --------------------------------------------------------------------------

    def elu(self, x: Any, alpha: float, scale: float, rate: float) -> Any:
        if not has_kernel(x):
            return super().elu(x, alpha, scale, rate)
        return self._mapped("elu", x, scale, scale * alpha, rate)

    def elu_backward(self, gy: Any, x: Any, alpha: float, scale: float, rate: float) -> Any:
        if not has_kernel(gy, x):
            return super().elu_backward(gy, x, alpha, scale, rate)
        return self._mapped_backward("elu_backward", gy, x, scale, scale * alpha * rate, rate)

    def sigmoid(self, x: Any) -> Any:
        return self._mapped("sigmoid", x) if has_kernel(x) else super().sigmoid(x)

    def sigmoid_backward(self, gy: Any, y: Any) -> Any:
        if not has_kernel(gy, y):
            return super().sigmoid_backward(gy, y)
        return self._mapped_backward("sigmoid_backward", gy, y)

    def tanh(self, x: Any) -> Any:
        return self._mapped("tanh", x) if has_kernel(x) else super().tanh(x)

    def tanh_backward(self, gy: Any, y: Any) -> Any:
        if not has_kernel(gy, y):
            return super().tanh_backward(gy, y)
        return self._mapped_backward("tanh_backward", gy, y)

    def softplus(self, x: Any, beta: float, threshold: float) -> Any:
        if not has_kernel(x):
            return super().softplus(x, beta, threshold)
        return self._mapped("softplus", x, beta, threshold)

    def softplus_backward(self, gy: Any, x: Any, beta: float, threshold: float) -> Any:
        if not has_kernel(gy, x):
            return super().softplus_backward(gy, x, beta, threshold)
        return self._mapped_backward("softplus_backward", gy, x, beta, threshold)

    def silu(self, x: Any) -> Any:
        return self._mapped("silu", x) if has_kernel(x) else super().silu(x)

    def silu_backward(self, gy: Any, x: Any) -> Any:
        return self._mapped_backward("silu_backward", gy, x) if has_kernel(gy, x) else super().silu_backward(gy, x)

    def mish(self, x: Any) -> Any:
        return self._mapped("mish", x) if has_kernel(x) else super().mish(x)

    def mish_backward(self, gy: Any, x: Any) -> Any:
        return self._mapped_backward("mish_backward", gy, x) if has_kernel(gy, x) else super().mish_backward(gy, x)

    def gelu(self, x: Any, approximate: str) -> Any:
        if not has_kernel(x):
            return super().gelu(x, approximate)
        return self._mapped("gelu_tanh" if approximate == "tanh" else "gelu", x)

    def gelu_backward(self, gy: Any, x: Any, approximate: str) -> Any:
        if not has_kernel(gy, x):
            return super().gelu_backward(gy, x, approximate)
        return self._mapped_backward("gelu_tanh_backward" if approximate == "tanh" else "gelu_backward", gy, x)

    def softsign(self, x: Any) -> Any:
        return self._mapped("softsign", x) if has_kernel(x) else super().softsign(x)

    def softsign_backward(self, gy: Any, x: Any) -> Any:
        if not has_kernel(gy, x):
            return super().softsign_backward(gy, x)
        return self._mapped_backward("softsign_backward", gy, x)

    # -- over an axis --------------------------------------------------------------------------

    def softmax(self, x: Any, axis: int) -> Any:
        return self._over_axis(x, axis, 0) if has_kernel(x) else super().softmax(x, axis)

    def softmax_backward(self, gy: Any, y: Any, axis: int) -> Any:
        if not has_kernel(gy, y):
            return super().softmax_backward(gy, y, axis)
        return self._over_axis_backward(gy, y, axis, 0)

    def log_softmax(self, x: Any, axis: int) -> Any:
        return self._over_axis(x, axis, 1) if has_kernel(x) else super().log_softmax(x, axis)

    def log_softmax_backward(self, gy: Any, y: Any, axis: int) -> Any:
        if not has_kernel(gy, y):
            return super().log_softmax_backward(gy, y, axis)
        return self._over_axis_backward(gy, y, axis, 1)

    def maxout(self, x: Any, pieces: int, axis: int) -> tuple[Any, Any]:
        if not has_kernel(x) or not 0 < x.size < _LIMIT:
            return super().maxout(x, pieces, axis)
        x = dense(x)
        shape = (*x.shape[:axis], x.shape[axis] // pieces, *x.shape[axis + 1 :])
        y = self.xp.empty_like(x, shape=shape)
        index = self.xp.empty_like(y, dtype="uint8" if pieces <= 256 else "int32")
        inner = _slices(x, axis)[2]
        name = f"maxout_forward_{index.dtype.name}"
        _k.launch(name, x.dtype, blocks_for(y.size), 256, y.size, pieces, inner, x, y, index)
        return y, index

    def maxout_backward(self, gy: Any, index: Any, pieces: int, axis: int) -> Any:
        if not has_kernel(gy) or not 0 < gy.size * pieces < _LIMIT or not is_dense(index):
            return super().maxout_backward(gy, index, pieces, axis)
        shape = (*gy.shape[:axis], gy.shape[axis] * pieces, *gy.shape[axis + 1 :])
        gy = like(gy, index)
        gx = self.xp.empty_like(index, dtype=gy.dtype, shape=shape)
        inner = _slices(gx, axis)[2]
        name = f"maxout_backward_{index.dtype.name}"
        _k.launch(name, gy.dtype, blocks_for(gx.size), 256, gx.size, pieces, inner, gy, index, gx)
        return gx

    # -- helpers -------------------------------------------------------------------------------

    def _mapped(self, name: str, x: Any, *parameters: float) -> Any:
        x = dense(x)
        y = self.xp.empty_like(x)
        _elementwise(f"{name}_forward", x, (x, y), *parameters)
        return y

    def _mapped_backward(self, name: str, gy: Any, saved: Any, *parameters: float) -> Any:
        saved = dense(saved)
        gx = self.xp.empty_like(saved)
        _elementwise(name, saved, (like(gy, saved), saved, gx), *parameters)
        return gx

    def _over_axis(self, x: Any, axis: int, logarithm: int) -> Any:
        x, as_rows = _sliceable(x, axis)
        y = self.xp.empty_like(x)
        if x.size:
            _launch_slices("", x, axis, (x, y), as_rows, logarithm)
        return y

    def _over_axis_backward(self, gy: Any, y: Any, axis: int, logarithm: int) -> Any:
        y, as_rows = _sliceable(y, axis)
        gx = self.xp.empty_like(y)
        if y.size:
            _launch_slices("_backward", y, axis, (like(gy, y), y, gx), as_rows, logarithm)
        return gx

    def _normal_cdf(self, x: Any) -> Any:
        from cupyx.scipy.special import ndtr

        return ndtr(x)


def relu_in_place(y: Any) -> Any:
    """The positive part of a fresh result, float32 or float64 and dense, written over it."""
    _elementwise("relu_forward", y, (y, y))
    return y


def _elementwise(name: str, ref: Any, arrays: tuple, a: float = 0.0, b: float = 0.0, c: float = 0.0) -> None:
    """Launch a kernel over dense arrays of one layout, that of `ref`."""
    n = ref.size
    if n:
        blocks = blocks_for(-(-n * ref.itemsize // 16))
        _k.launch(name, ref.dtype, blocks, 256, n, *arrays, float(a), float(b), float(c))


def _alike(a: Any, b: Any) -> bool:
    """Whether the kernel adds these: float32 or float64, of one shape and one dense layout."""
    return has_kernel(a, b) and a.shape == b.shape and a.strides == b.strides and is_dense(a)


def _per_channel(x: Any, weight: Any) -> tuple[Any, Any, int] | None:
    """x dense, the weights of PReLU one behind the other, and the distance of channels in x; None: not per channel."""
    if not has_kernel(x, weight) or not 0 < x.size < _LIMIT:
        return None
    x = dense(x)
    if weight.size == 1:
        return x, weight, 1
    axes = [axis - weight.ndim for axis, n in enumerate(weight.shape) if n != 1]
    if len(axes) != 1 or weight.ndim > x.ndim or weight.size != x.shape[axes[0]]:
        return None
    return x, contiguous(weight), x.strides[axes[0]] // x.itemsize


def _slices(a: Any, axis: int) -> tuple[int, int, int]:
    """The memory of `a`, dense and not empty, as (outer, n, inner) with n along `axis`."""
    n = a.shape[axis]
    inner = a.strides[axis] // a.itemsize if n > 1 else 1
    return a.size // (n * inner), n, inner


def _sliceable(a: Any, axis: int) -> tuple[Any, bool]:
    """`a` as the kernels take it, and whether its slices are rows: long ones are made rows by a copy."""
    a = dense(a)
    if a.size == 0:
        return a, True
    inner = _slices(a, axis)[2]
    if inner > 1 and (a.shape[axis] > _LONG or a.size >= _LIMIT):
        order = (*(i for i in range(a.ndim) if i != axis), axis)
        rows = a.transpose(order).copy()
        return rows.transpose([order.index(i) for i in range(a.ndim)]), True
    return a, inner == 1


def _launch_slices(suffix: str, a: Any, axis: int, arrays: tuple, as_rows: bool, logarithm: int) -> None:
    outer, n, inner = _slices(a, axis)
    if as_rows:
        # About four elements a thread, so that short rows share a block and long ones have one.
        lanes = min(256, 1 << max(0, math.ceil(math.log2(n / 4))))
        blocks = min(-(-outer * lanes // 256), _MOST_BLOCKS)
        _k.launch(f"softmax_rows{suffix}", a.dtype, blocks, 256, outer, n, lanes, *arrays, logarithm)
    else:
        blocks = blocks_for(outer * inner)
        _k.launch(f"softmax_columns{suffix}", a.dtype, blocks, 256, outer, n, inner, *arrays, logarithm)
