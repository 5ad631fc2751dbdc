"""How precise convolutions are: one of the three settings of the process (with the seed and the thread count)."""

from __future__ import annotations

from typing import Any

from nnx import _check

_LEVELS = ("default", "high")
_precision = "default"


def get_conv_precision() -> str:
    """The convolution precision in force: "default" or "high"."""
    return _precision


class set_conv_precision:
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

    def __init__(self, precision: str) -> None:
        global _precision
        _check.choice("set_conv_precision", "precision", precision, _LEVELS)
        self._previous = _precision
        self._precision = precision
        _precision = precision

    def __enter__(self) -> None:
        global _precision
        _precision = self._precision

    def __exit__(self, *exc: Any) -> None:
        global _precision
        _precision = self._previous

    def __repr__(self) -> str:
        return f"set_conv_precision({self._precision!r})"
