"""Activation functions in plain NumPy.

Every `op` has its gradient in `op_backward` below it: ``gx = gy * slope``, with the slope computed
from the input x or, where that is enough, from the result y. NaN is passed on, infinities give the
limit, and nothing warns. Formulas are chosen so that no intermediate value overflows: the
exponential is only taken of numbers <= 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_quiet = np.errstate(all="ignore")

# Beyond these bounds sigmoid, tanh and the normal distribution are 0 or 1 in both types, so that
# cutting the factor x there changes no result but x = inf, where 0 * inf would be NaN instead of
# the limit.
_FAR = 1000.0

_GELU_CUBIC = 0.044715
_SQRT_2_OVER_PI = 0.7978845608028654
_SQRT_1_OVER_2PI = 0.3989422804014327


class ActivationOps:
    """Elementwise activations, softmax over one axis, and maxout."""

    xp: Any

    # -- sums ----------------------------------------------------------------------------------

    @_quiet
    def add(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """``a + b`` of two arrays of one shape, as where branches of a network meet, or their gradients."""
        return a + b

    @_quiet
    def add_in_place(self, a: np.ndarray, b: np.ndarray) -> None:
        """``a += b``."""
        a += b

    # -- piecewise linear ----------------------------------------------------------------------

    def relu(self, x: np.ndarray) -> np.ndarray:
        """``max(x, 0)``."""
        return np.maximum(x, 0)

    def relu_backward(self, gy: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(y <= 0, 0, gy)

    @_quiet
    def leaky_relu(self, x: np.ndarray, slope: float) -> np.ndarray:
        """``x`` where x > 0, else ``slope x``."""
        return np.where(x > 0, x, slope * x)

    @_quiet
    def leaky_relu_backward(self, gy: np.ndarray, x: np.ndarray, slope: float) -> np.ndarray:
        return np.where(x > 0, gy, slope * gy)

    @_quiet
    def prelu(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """``x`` where x > 0, else ``weight x``; `weight` broadcasts to x."""
        return np.where(x > 0, x, weight * x)

    @_quiet
    def prelu_backward(
        self, gy: np.ndarray, x: np.ndarray, weight: np.ndarray, needs: tuple[bool, bool]
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The gradients for x and, in the shape of x, for the weight."""
        positive = x > 0
        gx = np.where(positive, gy, weight * gy) if needs[0] else None
        gw = np.where(positive, 0, x * gy) if needs[1] else None
        return gx, gw

    def hardtanh(self, x: np.ndarray, low: float, high: float) -> np.ndarray:
        """``min(max(x, low), high)``."""
        return np.clip(x, low, high)

    def hardtanh_backward(self, gy: np.ndarray, x: np.ndarray, low: float, high: float) -> np.ndarray:
        """The gradient passes strictly inside the limits (and where x is NaN)."""
        return np.where((x <= low) | (x >= high), 0, gy)

    def hardsigmoid(self, x: np.ndarray) -> np.ndarray:
        """``min(max(x + 3, 0), 6) / 6``."""
        return np.clip(x + 3, 0, 6) / 6

    def hardsigmoid_backward(self, gy: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.where((x <= -3) | (x >= 3), 0, gy / 6)

    @_quiet
    def hardswish(self, x: np.ndarray) -> np.ndarray:
        """``x hardsigmoid(x)``."""
        return np.where(x <= -3, 0, x * (np.clip(x + 3, 0, 6) / 6))

    @_quiet
    def hardswish_backward(self, gy: np.ndarray, x: np.ndarray) -> np.ndarray:
        inside = np.where(x >= 3, gy, gy * (x / 3 + 0.5))
        return np.where(x <= -3, 0, inside)

    # -- built on exp --------------------------------------------------------------------------

    @_quiet
    def elu(self, x: np.ndarray, alpha: float, scale: float, rate: float) -> np.ndarray:
        """``scale x`` where x > 0, else ``scale alpha (exp(rate x) - 1)``.

        ELU has scale = rate = 1, SELU fixed `alpha` and `scale`, CELU rate = 1 / alpha. `rate` is
        positive.
        """
        return np.where(x > 0, scale * x, (scale * alpha) * np.expm1(rate * np.minimum(x, 0)))

    @_quiet
    def elu_backward(self, gy: np.ndarray, x: np.ndarray, alpha: float, scale: float, rate: float) -> np.ndarray:
        slope = np.where(x > 0, scale, (scale * alpha * rate) * np.exp(rate * np.minimum(x, 0)))
        return gy * slope

    @_quiet
    def sigmoid(self, x: np.ndarray) -> np.ndarray:
        """``1 / (1 + exp(-x))``, as ``exp(x) / (1 + exp(x))`` for negative x."""
        e = np.exp(-np.abs(x))
        return np.where(x >= 0, 1, e) / (1 + e)

    @_quiet
    def sigmoid_backward(self, gy: np.ndarray, y: np.ndarray) -> np.ndarray:
        return gy * (y * (1 - y))

    @_quiet
    def tanh(self, x: np.ndarray) -> np.ndarray:
        return np.tanh(x)

    @_quiet
    def tanh_backward(self, gy: np.ndarray, y: np.ndarray) -> np.ndarray:
        return gy * ((1 - y) * (1 + y))

    @_quiet
    def softplus(self, x: np.ndarray, beta: float, threshold: float) -> np.ndarray:
        """``log(1 + exp(beta x)) / beta``, and x itself where ``beta x > threshold``.

        With ``beta=-1, threshold=inf`` it is the logarithm of the sigmoid.
        """
        z = beta * x
        return np.where(z > threshold, x, _softplus(z) / beta)

    @_quiet
    def softplus_backward(self, gy: np.ndarray, x: np.ndarray, beta: float, threshold: float) -> np.ndarray:
        z = beta * x
        return np.where(z > threshold, gy, gy * _sigmoid_pair(z)[0])

    @_quiet
    def silu(self, x: np.ndarray) -> np.ndarray:
        """``x sigmoid(x)``."""
        return np.maximum(x, -_FAR) * _sigmoid_pair(x)[0]

    @_quiet
    def silu_backward(self, gy: np.ndarray, x: np.ndarray) -> np.ndarray:
        s, rest = _sigmoid_pair(x)
        return gy * (s * (1 + np.clip(x, -_FAR, _FAR) * rest))

    @_quiet
    def mish(self, x: np.ndarray) -> np.ndarray:
        """``x tanh(softplus(x))``."""
        return np.maximum(x, -_FAR) * _tanh_of_softplus(x)[0]

    @_quiet
    def mish_backward(self, gy: np.ndarray, x: np.ndarray) -> np.ndarray:
        t, slope = _tanh_of_softplus(x)
        return gy * (t + np.clip(x, -_FAR, _FAR) * slope * _sigmoid_pair(x)[0])

    @_quiet
    def gelu(self, x: np.ndarray, approximate: str) -> np.ndarray:
        """``x P(X <= x)`` for a standard normal X.

        `approximate`: "none", or "tanh" for ``x sigmoid(2 u)`` with ``u = sqrt(2 / pi) (x +
        0.044715 x^3)``.
        """
        if approximate == "tanh":
            p = _sigmoid_pair(2 * _gelu_u(np.clip(x, -_FAR, _FAR)))[0]
        else:
            p = self._normal_cdf(x)
        return np.maximum(x, -_FAR) * p

    @_quiet
    def gelu_backward(self, gy: np.ndarray, x: np.ndarray, approximate: str) -> np.ndarray:
        near = np.clip(x, -_FAR, _FAR)
        if approximate == "tanh":
            p, rest = _sigmoid_pair(2 * _gelu_u(near))
            u_slope = _SQRT_2_OVER_PI * (1 + 3 * _GELU_CUBIC * near * near)
            return gy * (p + near * (p * rest) * (2 * u_slope))
        density = _SQRT_1_OVER_2PI * np.exp(-0.5 * near * near)
        return gy * (self._normal_cdf(x) + near * density)

    def softsign(self, x: np.ndarray) -> np.ndarray:
        """``x / (1 + |x|)``."""
        near = np.clip(x, -(2.0**60), 2.0**60)  # from here on the quotient is 1; inf / inf is not
        return near / (1 + np.abs(near))

    @_quiet
    def softsign_backward(self, gy: np.ndarray, x: np.ndarray) -> np.ndarray:
        return gy / np.square(1 + np.abs(x))

    # -- over an axis --------------------------------------------------------------------------

    @_quiet
    def softmax(self, x: np.ndarray, axis: int) -> np.ndarray:
        """``exp(x) / sum(exp(x))``, with the largest x subtracted first; a NaN or inf makes its slice NaN."""
        if x.size == 0:
            return np.empty_like(x)
        e = np.exp(x - np.max(x, axis=axis, keepdims=True))
        return e / e.sum(axis=axis, keepdims=True)

    @_quiet
    def softmax_backward(self, gy: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return y * (gy - (gy * y).sum(axis=axis, keepdims=True))

    @_quiet
    def log_softmax(self, x: np.ndarray, axis: int) -> np.ndarray:
        """``x - log(sum(exp(x)))``, with the largest x subtracted first."""
        if x.size == 0:
            return np.empty_like(x)
        z = x - np.max(x, axis=axis, keepdims=True)
        return z - np.log(np.exp(z).sum(axis=axis, keepdims=True))

    @_quiet
    def log_softmax_backward(self, gy: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return gy - np.exp(y) * gy.sum(axis=axis, keepdims=True)

    def maxout(self, x: np.ndarray, pieces: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """The largest of each `pieces` neighbours along `axis`, and which it was (the first of
        equals; NaN wins).
        """
        groups = _groups(x, pieces, axis)
        y = groups[0].copy()
        index = self.xp.zeros(y.shape, np.uint8 if pieces <= 256 else np.int32)
        for k in range(1, pieces):
            better = ~(groups[k] <= y) & ~np.isnan(y)
            np.copyto(y, groups[k], where=better)
            index[better] = k
        return y, index

    def maxout_backward(self, gy: np.ndarray, index: np.ndarray, pieces: int, axis: int) -> np.ndarray:
        shape = gy.shape[:axis] + (gy.shape[axis] * pieces,) + gy.shape[axis + 1 :]
        gx = self.xp.empty(shape, gy.dtype)
        groups = _groups(gx, pieces, axis)
        for k in range(pieces):
            groups[k][...] = np.where(index == k, gy, 0)
        return gx

    # -- helpers -------------------------------------------------------------------------------

    def _normal_cdf(self, x: np.ndarray) -> np.ndarray:
        from scipy.special import ndtr

        return ndtr(x)


def _groups(x: np.ndarray, pieces: int, axis: int) -> list[np.ndarray]:
    """The first, second, ... elements of all groups of `pieces` neighbours, as views."""
    before = (slice(None),) * axis
    return [x[(*before, slice(k, None, pieces))] for k in range(pieces)]


def _sigmoid_pair(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """sigmoid(x) and 1 - sigmoid(x), each without cancellation."""
    e = np.exp(-np.abs(x))
    large, small = 1 / (1 + e), e / (1 + e)
    positive = x >= 0
    return np.where(positive, large, small), np.where(positive, small, large)


def _softplus(z: np.ndarray) -> np.ndarray:
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def _tanh_of_softplus(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``t = tanh(log(1 + exp(x)))`` and ``1 - t^2``.

    With e = exp(x), t = n / (n + 2) for n = e (e + 2); for x > 0 both are divided by e^2, with w =
    1 / e.
    """
    e = np.exp(-np.abs(x))
    positive = x > 0
    n = np.where(positive, 1 + 2 * e, e * (e + 2))
    gap = np.where(positive, 2 * e * e, 2)
    d = n + gap
    return n / d, gap * (n + d) / (d * d)


def _gelu_u(x: np.ndarray) -> np.ndarray:
    return _SQRT_2_OVER_PI * (x + _GELU_CUBIC * (x * x * x))
