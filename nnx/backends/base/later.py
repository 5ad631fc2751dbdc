"""Results and gradients that are computed when somebody reads them."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol


class Later(Protocol):
    """The result of an operation, computed when it is read, so that what follows can be done in the same pass.

    Only for operations on the tape whose input nobody writes to (`engine.made_fresh`), with copies of the parameters.
    """

    shape: tuple[int, ...]
    dtype: Any
    x: Any  # an array that the result is made of

    def array(self, relu: bool = False) -> Any:
        """The result, or its positive part: a new array in each call, but for one that is `positive` already."""

    def plus(self, other: Any) -> Later | None:
        """The sum with an array of the same shape and type, for later as well; None where that is not offered."""

    def positive(self) -> Later | None:
        """The positive part, for later as well, where what follows may read it (`conv_of_later`); otherwise None."""


class LaterGradient(Protocol):
    """A gradient whose sums over the batch are there, so that the operation in front can make the rest in its pass."""

    def array(self) -> Any:
        """The gradient: a new array in each call."""


class Moments(NamedTuple):
    """Sums over an array (N, C, ...), made as it was written, of which each channel's mean and variance follow."""

    of: Any  # the array
    sums: Any  # (2, P, C): of each part of the batch the sum, and the squares of the distance from the part's own mean
    height: int  # values of a channel in each part, but for the last one


def is_later(a: Any) -> bool:
    """Whether `a` is a Later or a LaterGradient: no array has a method `array`."""
    return hasattr(a, "array")


def read(a: Any) -> Any:
    """`a` itself if it is an array or None, otherwise its array."""
    return a.array() if is_later(a) else a
