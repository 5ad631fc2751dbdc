"""How precise convolutions and matrix products are: settings of the process (as are the seed and the thread count)."""

from __future__ import annotations

from typing import Any

from nnx import _check

_LEVELS = {"conv": ("default", "high"), "float32_matmul": ("highest", "high", "medium")}
_precision = {"conv": "default", "float32_matmul": "highest"}


def get_conv_precision() -> str:
    """The convolution precision in force: "default" or "high"."""
    return _precision["conv"]


def get_float32_matmul_precision() -> str:
    """How a CUDA device multiplies float32: "highest", "high" or "medium"."""
    return _precision["float32_matmul"]


class _Setting:
    """A precision that is set for the whole process or for a ``with`` block."""

    _of: str

    def __init__(self, precision: str) -> None:
        _check.choice(type(self).__name__, "precision", precision, _LEVELS[self._of])
        self._previous = _precision[self._of]
        self._precision = precision
        _precision[self._of] = precision

    def __enter__(self) -> None:
        _precision[self._of] = self._precision

    def __exit__(self, *exc: Any) -> None:
        _precision[self._of] = self._previous

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._precision!r})"


class set_conv_precision(_Setting):
    """Choose how convolutions may compute, for the whole process or for a ``with`` block.

    precision:  "default" lets a convolution use algorithms that trade a little accuracy for speed; "high" holds it to
                direct summation

    ValueError for any other value.

    >>> with set_conv_precision("high"):
    ...     get_conv_precision()
    'high'
    >>> get_conv_precision()
    'default'
    """

    _of = "conv"


class set_float32_matmul_precision(_Setting):
    """Choose how a CUDA device multiplies float32 in matrix products and convolutions, as in PyTorch.

    precision:  "highest" keeps the 24 bits of float32; "high" keeps the 11 bits of TF32 of both factors, "medium" the 8
                bits of bfloat16, which cards from 2020 on multiply many times faster. Sums stay in float32

    Keeping p bits of a factor changes it by at most ``2^(1-p)`` of its size (half of that where it is rounded, not cut
    off), so a product ``sum of a_k b_k`` is off by at most about ``2^(2-p) * sum of |a_k| |b_k|``: 2e-3 of that sum for
    "high", 1.6e-2 for "medium". Convolutions follow it too; those that use Winograd's algorithm (`set_conv_precision`)
    multiply float32 at "high" and TF32 at "medium", which gives the error of bfloat16: 3e-3 of the result's root mean
    square, 0.1 at most. The CPU always computes at "highest".

    ValueError for any other value.

    >>> with set_float32_matmul_precision("high"):
    ...     get_float32_matmul_precision()
    'high'
    >>> get_float32_matmul_precision()
    'highest'
    """

    _of = "float32_matmul"


__all__ = [
    "get_conv_precision",
    "get_float32_matmul_precision",
    "set_conv_precision",
    "set_float32_matmul_precision",
]
