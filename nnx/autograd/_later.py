"""Tensors whose data is computed when somebody reads it (`nnx.backends.base.later`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nnx.autograd._tensor import Tensor, record
from nnx.backends.base.later import Later


class _Unread(Tensor):
    """A Tensor without `data` so far, which becomes an ordinary one when somebody reads it.

    A class of its own, since the attributes of a class with ``__getattr__`` take longer to read.
    """

    __slots__ = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return (later_of(self) or self.data).shape

    @property
    def dtype(self) -> np.dtype:
        return (later_of(self) or self.data).dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            later = self._later if name == "data" else None
            if later is None:
                return object.__getattribute__(self, name)  # another thread has just done it, or an AttributeError
            self.data = array = later.array()
            self.__class__ = Tensor
            self._later = None
            return array


_Unread.__name__ = _Unread.__qualname__ = "Tensor"  # for messages


def record_later(later: Later, grad: Callable[..., tuple], inputs: tuple, *saved: Any) -> Tensor:
    """`record` for a result that is not there yet; there is an input that needs a gradient."""
    t = record(later, grad, inputs, *saved)
    t.__class__ = _Unread
    t._later = later
    del t.data
    return t


_data_of = vars(Tensor)["data"].__get__  # without _Unread.__getattr__


def later_of(x: Any) -> Later | None:
    """What computes the data of `x`, if x is a Tensor without data so far."""
    if type(x) is not _Unread:
        return None
    try:
        _data_of(x)
    except AttributeError:
        return x._later
    return None
