"""Normalisation in plain NumPy.

Mean and variance are computed in two passes and summed in float64, so that features with a large
mean, or with none but one value, come out right. Per-channel operations take (N, C, spatial...),
also with no spatial axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.backends.base.later import Later, LaterGradient, Moments

Gradients = tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]

_quiet = np.errstate(invalid="ignore", over="ignore", divide="ignore")


class NormOps:
    """Normalisation per channel over a batch, per row, and across neighbouring channels."""

    xp: Any
    relu: Any
    relu_backward: Any

    # -- per channel: batch norm -------------------------------------------------------------------

    @_quiet
    def batch_moments(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and biased variance, each (C,), of the channels of x; of nothing, 0 and 0."""
        axes = _all_but_channels(x)
        count = max(x.size // max(x.shape[1], 1), 1)
        mean = (x.sum(axis=axes, dtype=np.float64) / count).astype(x.dtype)
        centred = x - _per_channel(mean, x.ndim)
        var = (centred * centred).sum(axis=axes, dtype=np.float64) / count
        return mean, var.astype(x.dtype)

    @_quiet
    def batch_norm(
        self, x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float, relu: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """``y = (x - mean) rstd weight + bias`` with the batch's mean and variance, or with `relu` its positive part.

        Returns y, and mean, var (biased) and ``rstd = 1 / sqrt(var + eps)``, each (C,).
        """
        mean, var = self.batch_moments(x)
        rstd = 1 / np.sqrt(var + eps)
        y = _normalize(x, mean, rstd, weight, bias)
        return self.relu(y) if relu else y, mean, var, rstd

    def batch_norm_later(
        self,
        x: np.ndarray,
        weight: np.ndarray | None,
        bias: np.ndarray | None,
        eps: float,
        moments: Moments | None = None,
    ) -> Later | None:
        """A `Later` that is the result, with mean, var and rstd as attributes; None where that is not offered.

        moments:  what the convolution in front, if there is one, has found out about some array
        """
        return None

    @_quiet
    def batch_norm_track(
        self,
        running_mean: np.ndarray | None,
        running_var: np.ndarray | None,
        mean: np.ndarray,
        var: np.ndarray,
        momentum: float,
        correction: float,
    ) -> None:
        """Move running averages, in place, by the share `momentum` towards the batch's mean and var * correction."""
        for running, value in ((running_mean, mean), (running_var, var * correction)):
            if running is not None:
                running *= 1 - momentum
                running += momentum * value

    @_quiet
    def batch_norm_backward(
        self,
        gy: np.ndarray,
        x: np.ndarray,
        weight: np.ndarray | None,
        mean: np.ndarray,
        rstd: np.ndarray,
        needs: tuple[bool, bool, bool],
        y: np.ndarray | None = None,
        bias: np.ndarray | None = None,
    ) -> Gradients:
        """Gradients of `batch_norm`; with ``z = (x - mean) rstd`` and n values per channel,

        ``gb = sum gy,  gw = sum gy z,  gx = weight rstd (gy - gb / n - z gw / n)``.

        With the positive part y of the result, gy is the gradient of that. The bias, where it is given too, says that
        nothing happened to the result before: a backend may work out again where it is positive.
        """
        if y is not None:
            gy = self.relu_backward(gy, y)
        z = _normalize(x, mean, rstd, None, None)
        axes = _all_but_channels(x)
        gb = gy.sum(axis=axes, dtype=np.float64).astype(x.dtype)
        gw = (gy * z).sum(axis=axes, dtype=np.float64).astype(x.dtype)
        gx = None
        if needs[0]:
            count = max(x.size // max(x.shape[1], 1), 1)
            z *= _per_channel(-gw / count, x.ndim)
            z += gy
            z -= _per_channel(gb / count, x.ndim)
            z *= _per_channel(rstd if weight is None else rstd * weight, x.ndim)
            gx = z
        return gx, gw if needs[1] else None, gb if needs[2] else None

    def batch_norm_backward_later(
        self,
        gy: np.ndarray,
        x: np.ndarray,
        weight: np.ndarray | None,
        mean: np.ndarray,
        rstd: np.ndarray,
        y: np.ndarray | None = None,
        bias: np.ndarray | None = None,
    ) -> tuple[LaterGradient, np.ndarray, np.ndarray] | None:
        """All gradients of `batch_norm_backward`, that of x as a `LaterGradient`; None where that is not offered."""
        return None

    @_quiet
    def batch_norm_infer(
        self,
        x: np.ndarray,
        mean: np.ndarray,
        var: np.ndarray,
        weight: np.ndarray | None,
        bias: np.ndarray | None,
        eps: float,
        relu: bool = False,
    ) -> np.ndarray:
        """``(x - mean) / sqrt(var + eps) weight + bias`` with a given mean and variance (C,), or its positive part."""
        y = _normalize(x, mean, 1 / np.sqrt(var + eps), weight, bias)
        return self.relu(y) if relu else y

    @_quiet
    def batch_norm_infer_backward(
        self,
        gy: np.ndarray,
        x: np.ndarray,
        mean: np.ndarray,
        var: np.ndarray,
        weight: np.ndarray | None,
        eps: float,
        needs: tuple[bool, bool, bool],
    ) -> Gradients:
        """Gradients of `batch_norm_infer`; mean and variance are constants."""
        rstd = 1 / np.sqrt(var + eps)
        axes = _all_but_channels(x)
        gx = gw = gb = None
        if needs[0]:
            gx = gy * _per_channel(rstd if weight is None else rstd * weight, x.ndim)
        if needs[1]:
            z = _normalize(x, mean, rstd, None, None)
            gw = (gy * z).sum(axis=axes, dtype=np.float64).astype(x.dtype)
        if needs[2]:
            gb = gy.sum(axis=axes, dtype=np.float64).astype(x.dtype)
        return gx, gw, gb

    # -- per row: layer, group and instance norm ---------------------------------------------------

    @_quiet
    def row_norm(
        self, x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Normalise each row of x (R, D) by its own mean and variance, then ``weight * z + bias``.

        weight, bias:  (P, D) or None; row r takes row ``r % P``, and P divides R

        Returns y (R, D), and mean, var (biased) and rstd, each (R,).
        """
        count = max(x.shape[1], 1)
        mean = (x.sum(axis=1, dtype=np.float64) / count).astype(x.dtype)
        z = np.subtract(x, mean[:, None], out=self.xp.empty(x.shape, x.dtype))
        var = ((z * z).sum(axis=1, dtype=np.float64) / count).astype(x.dtype)
        rstd = 1 / np.sqrt(var + eps)
        z *= rstd[:, None]
        periods = _by_period(z, weight if weight is not None else bias)
        if weight is not None:
            periods *= weight
        if bias is not None:
            periods += bias
        return z, mean, var, rstd

    @_quiet
    def row_norm_backward(
        self,
        gy: np.ndarray,
        x: np.ndarray,
        weight: np.ndarray | None,
        mean: np.ndarray,
        rstd: np.ndarray,
        period: int,
        needs: tuple[bool, bool, bool],
    ) -> Gradients:
        """Gradients of `row_norm`; `period` is its P, gw and gb are (P, D). With ``g = gy weight``,

        ``gx = rstd (g - mean(g) - z mean(g z))`` along each row.
        """
        rows, width = x.shape
        z = (x - mean[:, None]) * rstd[:, None]
        gx = gw = gb = None
        if needs[1]:
            gw = (gy * z).reshape(rows // period, period, width)
            gw = gw.sum(axis=0, dtype=np.float64).astype(x.dtype)
        if needs[2]:
            gb = gy.reshape(rows // period, period, width)
            gb = gb.sum(axis=0, dtype=np.float64).astype(x.dtype)
        if needs[0]:
            g = gy if weight is None else (_by_period(gy, weight) * weight).reshape(x.shape)
            count = max(width, 1)
            a = (g.sum(axis=1, dtype=np.float64) / count).astype(x.dtype)
            b = ((g * z).sum(axis=1, dtype=np.float64) / count).astype(x.dtype)
            z *= -b[:, None]
            z += g
            z -= a[:, None]
            z *= rstd[:, None]
            gx = z
        return gx, gw, gb

    # -- across channels: local response norm ------------------------------------------------------

    @_quiet
    def local_response_norm(
        self, x: np.ndarray, size: int, alpha: float, beta: float, k: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """``y = x / s ** beta``, ``s = k + alpha / size * (sum of x^2 over `size` channels)``.

        The window of channel c is ``c - size // 2 .. c + (size - 1) // 2``. Returns y and s.
        """
        scale = _window_sum(x * x, size // 2, (size - 1) // 2)
        scale *= alpha / size
        scale += k
        return x * scale**-beta, scale

    @_quiet
    def local_response_norm_backward(
        self, gy: np.ndarray, x: np.ndarray, scale: np.ndarray, size: int, alpha: float, beta: float
    ) -> np.ndarray:
        """``gx = gy s^-beta - 2 alpha beta / size x * (sum of gy x s^(-beta - 1))``.

        The sum is over the channels whose window holds the channel of gx.
        """
        power = scale**-beta
        gx = gy * power
        power *= gy * x / scale
        gx -= x * _window_sum(power, (size - 1) // 2, size // 2) * (2 * alpha * beta / size)
        return gx


def _all_but_channels(x: np.ndarray) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def _per_channel(v: np.ndarray, ndim: int) -> np.ndarray:
    """(C,) as (C, 1, 1...), which broadcasts against (N, C, spatial...)."""
    return v.reshape(-1, *(1,) * (ndim - 2))


def _normalize(
    x: np.ndarray,
    mean: np.ndarray,
    rstd: np.ndarray,
    weight: np.ndarray | None,
    bias: np.ndarray | None,
) -> np.ndarray:
    y = x - _per_channel(mean, x.ndim)
    y *= _per_channel(rstd if weight is None else rstd * weight, x.ndim)
    if bias is not None:
        y += _per_channel(bias, x.ndim)
    return y


def _by_period(x: np.ndarray, parameter: np.ndarray | None) -> np.ndarray:
    """(R, D) as a view (R / P, P, D), for a parameter (P, D)."""
    period = 1 if parameter is None else parameter.shape[0]
    return x.reshape(x.shape[0] // period, period, x.shape[1])


def _window_sum(x: np.ndarray, below: int, above: int) -> np.ndarray:
    """Sum over the channels ``c - below .. c + above``, those outside of the array being 0."""
    channels = x.shape[1]
    y = x.copy(order="K")
    for step in range(1, min(below, channels - 1) + 1):
        y[:, step:] += x[:, : channels - step]
    for step in range(1, min(above, channels - 1) + 1):
        y[:, : channels - step] += x[:, step:]
    return y
