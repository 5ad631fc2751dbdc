"""Dropout layers: they drop in training mode only. See `nnx.functional.dropout`."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx import _check, _random
from nnx.autograd import Tensor
from nnx.functional._floats import floats
from nnx.functional.dropout import alpha_dropout_as, dropout_as, dropout_nd_as, masked, plain_dropout_as
from nnx.nn.module import Module

__all__ = [
    "AlphaDropout",
    "AlternatingDropout",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "PlainDropout",
]


class _Dropout(Module):
    """`p` is the probability to drop; `inplace` is kept and shown but changes nothing."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        self.p = _check.real(type(self).__name__, "p", p, 0, 1)
        self.inplace = bool(inplace)

    @property
    def draws_noise(self) -> bool:
        """Whether a forward pass draws random numbers now, which methods that compare losses refuse."""
        return self.training and 0 < self.p < 1

    def extra_repr(self) -> str:
        return f"p={self.p:g}" + (", inplace=True" if self.inplace else "")


class Dropout(_Dropout):
    """Set each element to 0 with probability `p`, and divide the others by ``1 - p``.

    Random numbers come from the library's stream (`nnx.manual_seed`).

    >>> Dropout(0.5).eval()([1.0, 2.0]).data.tolist()
    [1.0, 2.0]
    """

    def forward(self, input: Any) -> Tensor:
        return dropout_as("Dropout", input, self.p, self.training)


class Dropout1d(_Dropout):
    """Drop whole channels of (N, C, L) or (C, L)."""

    def forward(self, input: Any) -> Tensor:
        return dropout_nd_as("Dropout1d", 1, input, self.p, self.training)


class Dropout2d(_Dropout):
    """Drop whole channels of (N, C, H, W) or (C, H, W)."""

    def forward(self, input: Any) -> Tensor:
        return dropout_nd_as("Dropout2d", 2, input, self.p, self.training)


class Dropout3d(_Dropout):
    """Drop whole channels of (N, C, D, H, W) or (C, D, H, W)."""

    def forward(self, input: Any) -> Tensor:
        return dropout_nd_as("Dropout3d", 3, input, self.p, self.training)


class AlphaDropout(_Dropout):
    """Dropout that keeps mean 0 and variance 1 behind SELU: Klambauer et al. (2017)."""

    def forward(self, input: Any) -> Tensor:
        return alpha_dropout_as("AlphaDropout", input, self.p, self.training)


class PlainDropout(Module):
    """Set each element to 0 with probability `p` in training; multiply by ``1 - p`` in evaluation.

    The first form of dropout (`nnx.functional.plain_dropout`); `Dropout` scales in training instead
    and leaves evaluation alone.

    >>> PlainDropout(0.5).eval()([1.0, 2.0]).data.tolist()
    [0.5, 1.0]
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = _check.real("PlainDropout", "p", p, 0, 1)

    @property
    def draws_noise(self) -> bool:
        """Whether a forward pass draws random numbers now."""
        return self.training and 0 < self.p < 1

    def forward(self, input: Any) -> Tensor:
        return plain_dropout_as("PlainDropout", input, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p:g}"


class AlternatingDropout(Module):
    """Train a random half of the units, then the other half, then draw anew; evaluate with all, halved.

    Each pair of training calls uses complementary masks, one value per unit and the same for the
    whole batch, so that within a pair every unit is trained exactly once (of an odd number of units
    the first half is the smaller one). In evaluation the output is multiplied by 1/2: this halves
    the weights that lead out of this layer and leaves the biases behind them alone, because a sum
    over half of the units has half the size and a bias is no part of that sum.

    Input and output: (N, units...); the mask has the shape (units...). The buffer `pair` holds the
    seed of an open pair, or -1: checkpoints keep it. ValueError for another number of units between
    the two calls of a pair; `reset` begins a new pair.

    >>> from nnx import nn
    >>> layer = nn.AlternatingDropout()
    >>> x = np.ones((1, 6), np.float32)
    >>> (layer(x) + layer(x)).tolist()
    [[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]]
    """

    pair: Any

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pair", np.full((), -1, np.int64))
        self._units: tuple[int, ...] = ()  # of the open pair

    @property
    def draws_noise(self) -> bool:
        """Whether a forward pass draws random numbers now."""
        return self.training

    def reset(self) -> None:
        """Forget the half that was trained last."""
        self.pair[...] = -1

    def forward(self, input: Any) -> Tensor:
        x = floats("AlternatingDropout", input)
        if x.ndim < 2:
            raise ValueError(f"AlternatingDropout: expected input of shape (N, units...), got shape {x.shape}")
        if not self.training:
            return x * 0.5
        units, seed = x.shape[1:], int(self.pair)
        second = seed >= 0
        if second and self._units and self._units != units:
            raise ValueError(
                f"AlternatingDropout: expected units {self._units} as in the first call of the pair, "
                f"got {units}. reset() begins a new pair"
            )
        if not second:
            seed = int(_random.generator().integers(2**63 - 1))
        order = np.random.default_rng(seed).permutation(int(np.prod(units)))
        half = (order < order.size // 2).reshape(units)
        self.pair[...] = -1 if second else seed
        self._units = units
        return masked(x, np.broadcast_to(~half if second else half, x.shape), 1.0)
