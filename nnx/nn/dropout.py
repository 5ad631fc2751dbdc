"""Dropout layers: active in training mode only. See `nnx.functional.dropout`."""

from __future__ import annotations

from typing import Any

from nnx import _check
from nnx.autograd import Tensor
from nnx.functional.dropout import alpha_dropout_as, dropout_as, dropout_nd_as
from nnx.nn.module import Module

__all__ = ["AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d"]


class _Dropout(Module):
    """`p` is the probability to drop; `inplace` is kept and shown but changes nothing."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        self.p = _check.real(type(self).__name__, "p", p, 0, 1)
        self.inplace = bool(inplace)

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
