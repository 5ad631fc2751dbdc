"""Activations with the compiled kernels, in the memory layout of the input.

The second number of `threads_for` is the cost of one element relative to a comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nnx._ext import activation as _activation
from nnx._ext.memory import empty_like
from nnx.backends.base.activation import ActivationOps
from nnx.backends.cpu._arrays import dense, has_kernel, is_dense, like, threads_for

_SHORT = 256  # elements of the longest slice that need not be a row: see ext/simd/rows.h


class ActivationKernels(ActivationOps):
    """Overrides for float32 and float64."""

    def add(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if not has_kernel(a, b) or a.strides != b.strides or not is_dense(a):
            return super().add(a, b)
        out = empty_like(a)
        _activation.add(a, b, out, threads_for(a.size))
        return out

    def add_in_place(self, a: np.ndarray, b: np.ndarray) -> None:
        if not has_kernel(a, b) or a.strides != b.strides or not is_dense(a):
            super().add_in_place(a, b)
        else:
            _activation.add(a, b, a, threads_for(a.size))

    def relu(self, x: np.ndarray) -> np.ndarray:
        if not has_kernel(x):
            return super().relu(x)
        return _forward(_activation.relu, x, 1)

    def relu_backward(self, gy: np.ndarray, y: np.ndarray) -> np.ndarray:
        if not has_kernel(gy, y):
            return super().relu_backward(gy, y)
        return _backward(_activation.relu_backward, gy, y, 1)

    def leaky_relu(self, x: np.ndarray, slope: float) -> np.ndarray:
        if not has_kernel(x):
            return super().leaky_relu(x, slope)
        return _forward(_activation.leaky_relu, x, 1, slope)

    def leaky_relu_backward(self, gy: np.ndarray, x: np.ndarray, slope: float) -> np.ndarray:
        if not has_kernel(gy, x):
            return super().leaky_relu_backward(gy, x, slope)
        return _backward(_activation.leaky_relu_backward, gy, x, 1, slope)

    def hardtanh(self, x: np.ndarray, low: float, high: float) -> np.ndarray:
        if not has_kernel(x):
            return super().hardtanh(x, low, high)
        return _forward(_activation.hardtanh, x, 1, low, high)

    def hardtanh_backward(self, gy: np.ndarray, x: np.ndarray, low: float, high: float) -> np.ndarray:
        if not has_kernel(gy, x):
            return super().hardtanh_backward(gy, x, low, high)
        return _backward(_activation.hardtanh_backward, gy, x, 1, low, high)

    def elu(self, x: np.ndarray, alpha: float, scale: float, rate: float) -> np.ndarray:
        if not has_kernel(x):
            return super().elu(x, alpha, scale, rate)
        return _forward(_activation.elu, x, 4, alpha, scale, rate)

    def elu_backward(self, gy: np.ndarray, x: np.ndarray, alpha: float, scale: float, rate: float) -> np.ndarray:
        if not has_kernel(gy, x):
            return super().elu_backward(gy, x, alpha, scale, rate)
        return _backward(_activation.elu_backward, gy, x, 5, alpha, scale, rate)

    def sigmoid(self, x: np.ndarray) -> np.ndarray:
        if not has_kernel(x):
            return super().sigmoid(x)
        return _forward(_activation.sigmoid, x, 5)

    def sigmoid_backward(self, gy: np.ndarray, y: np.ndarray) -> np.ndarray:
        if not has_kernel(gy, y):
            return super().sigmoid_backward(gy, y)
        return _backward(_activation.sigmoid_backward, gy, y, 1)

    def tanh(self, x: np.ndarray) -> np.ndarray:
        if not has_kernel(x):
            return super().tanh(x)
        return _forward(_activation.tanh, x, 5)

    def tanh_backward(self, gy: np.ndarray, y: np.ndarray) -> np.ndarray:
        if not has_kernel(gy, y):
            return super().tanh_backward(gy, y)
        return _backward(_activation.tanh_backward, gy, y, 1)

    def softplus(self, x: np.ndarray, beta: float, threshold: float) -> np.ndarray:
        if not has_kernel(x):
            return super().softplus(x, beta, threshold)
        return _forward(_activation.softplus, x, 8, beta, threshold)

    def softplus_backward(self, gy: np.ndarray, x: np.ndarray, beta: float, threshold: float) -> np.ndarray:
        if not has_kernel(gy, x):
            return super().softplus_backward(gy, x, beta, threshold)
        return _backward(_activation.softplus_backward, gy, x, 6, beta, threshold)

    def silu(self, x: np.ndarray) -> np.ndarray:
        if not has_kernel(x):
            return super().silu(x)
        return _forward(_activation.silu, x, 5)

    def silu_backward(self, gy: np.ndarray, x: np.ndarray) -> np.ndarray:
        if not has_kernel(gy, x):
            return super().silu_backward(gy, x)
        return _backward(_activation.silu_backward, gy, x, 7)

    def mish(self, x: np.ndarray) -> np.ndarray:
        if not has_kernel(x):
            return super().mish(x)
        return _forward(_activation.mish, x, 6)

    def mish_backward(self, gy: np.ndarray, x: np.ndarray) -> np.ndarray:
        if not has_kernel(gy, x):
            return super().mish_backward(gy, x)
        return _backward(_activation.mish_backward, gy, x, 8)

    def gelu(self, x: np.ndarray, approximate: str) -> np.ndarray:
        if not has_kernel(x):
            return super().gelu(x, approximate)
        kernel = _activation.gelu_tanh if approximate == "tanh" else _activation.gelu
        return _forward(kernel, x, 8)

    def gelu_backward(self, gy: np.ndarray, x: np.ndarray, approximate: str) -> np.ndarray:
        if not has_kernel(gy, x):
            return super().gelu_backward(gy, x, approximate)
        tanh = approximate == "tanh"
        kernel = _activation.gelu_tanh_backward if tanh else _activation.gelu_backward
        return _backward(kernel, gy, x, 9)

    # -- over an axis --------------------------------------------------------------------------

    def softmax(self, x: np.ndarray, axis: int) -> np.ndarray:
        if not has_kernel(x):
            return super().softmax(x, axis)
        return _forward_slices(_activation.softmax, x, axis)

    def softmax_backward(self, gy: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        if not has_kernel(gy, y):
            return super().softmax_backward(gy, y, axis)
        return _backward_slices(_activation.softmax_backward, gy, y, axis, 2)

    def log_softmax(self, x: np.ndarray, axis: int) -> np.ndarray:
        if not has_kernel(x):
            return super().log_softmax(x, axis)
        return _forward_slices(_activation.log_softmax, x, axis)

    def log_softmax_backward(self, gy: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        if not has_kernel(gy, y):
            return super().log_softmax_backward(gy, y, axis)
        return _backward_slices(_activation.log_softmax_backward, gy, y, axis, 6)


def _forward(kernel: Callable[..., None], x: np.ndarray, cost: float, *parameters: Any) -> Any:
    x = dense(x)
    y = empty_like(x)
    kernel(x, y, *parameters, threads_for(x.size, cost))
    return y


def _backward(kernel: Callable[..., None], gy: np.ndarray, saved: np.ndarray, cost: float, *parameters: Any) -> Any:
    saved = dense(saved)
    gx = empty_like(saved)
    kernel(like(gy, saved), saved, gx, *parameters, threads_for(saved.size, cost))
    return gx


def _slices(a: np.ndarray, axis: int, behind: bool) -> np.ndarray:
    """`a` as C-contiguous (outer, n, inner) with n along `axis`; copied only if needed.

    behind:  the elements of a slice may lie behind each other (inner > 1); otherwise slices are rows
    """
    n = a.shape[axis]
    if behind:
        return np.ascontiguousarray(a).reshape(math.prod(a.shape[:axis]), n, math.prod(a.shape[axis + 1 :]))
    last = np.moveaxis(a, axis, -1) if axis != a.ndim - 1 else a
    return np.ascontiguousarray(last).reshape(a.size // max(n, 1), n, 1)


def _unslices(slices: np.ndarray, shape: tuple[int, ...], axis: int, behind: bool) -> np.ndarray:
    """The inverse of `_slices`, as a view."""
    if behind or axis == len(shape) - 1:
        return slices.reshape(shape)
    return np.moveaxis(slices.reshape(shape[:axis] + shape[axis + 1 :] + (shape[axis],)), -1, axis)


def _lie_behind(a: np.ndarray, axis: int) -> bool:
    """Whether to take the slices of `a` as they lie: not if they are long, or rows already (channels-last)."""
    return a.shape[axis] <= _SHORT and (a.flags.c_contiguous or not np.moveaxis(a, axis, -1).flags.c_contiguous)


def _forward_slices(kernel: Callable[..., None], x: np.ndarray, axis: int) -> np.ndarray:
    behind = _lie_behind(x, axis)
    slices = _slices(x, axis, behind)
    y = np.empty_like(slices, subok=False)
    kernel(slices, y, threads_for(x.size, 5))
    return _unslices(y, x.shape, axis, behind)


def _backward_slices(kernel: Callable[..., None], gy: np.ndarray, y: np.ndarray, axis: int, cost: float) -> np.ndarray:
    behind = _lie_behind(y, axis)
    slices = _slices(y, axis, behind)
    gx = np.empty_like(slices, subok=False)
    kernel(_slices(gy, axis, behind), slices, gx, threads_for(y.size, cost))
    return _unslices(gx, y.shape, axis, behind)
