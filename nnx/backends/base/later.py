"""Results that are computed when somebody reads them."""

from __future__ import annotations

from typing import Any, Protocol


class Later(Protocol):
    """The result of an operation, computed when it is read, so that what follows can be done in the same pass.

    Only for operations on the tape whose input nobody writes to (`engine.made_fresh`), with copies of the parameters.
    """

    shape: tuple[int, ...]
    dtype: Any

    def array(self, relu: bool = False) -> Any:
        """The result, or its positive part: a new array in each call."""

    def plus(self, other: Any) -> Later | None:
        """The sum with an array of the same shape and type, for later as well; None where that is not offered."""
