"""Gradients laid out one after the other, as they travel."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from nnx._device import is_writeable


class Bucket:
    """Some parameters of one type, and memory for one message about them.

    `flat` holds the parameters' values, then one flag per parameter (how many ranks have a value for it), then the
    number of samples. All of it is summed over the ranks; dividing by the last number gives the average.
    """

    def __init__(self, parameters: list[Any]) -> None:
        self.parameters = parameters
        first = parameters[0].data
        count = sum(p.data.size for p in parameters)
        self.flat = _empty(count + len(parameters) + 1, first)
        self._flags = self.flat[count:-1]
        self._views = []
        start = 0
        for p in parameters:
            self._views.append(self.flat[start : start + p.data.size].reshape(p.data.shape))
            start += p.data.size

    def read_gradients(self, samples: int) -> None:
        """Take ``samples * grad`` of each parameter: the sum over this rank's samples, if its loss was their mean."""
        self._read([p.grad for p in self.parameters], samples)

    def read_parameters(self, samples: int) -> None:
        self._read([p.data for p in self.parameters], samples)

    def _read(self, values: list[Any], samples: int) -> None:
        for i, (value, view) in enumerate(zip(values, self._views, strict=True)):
            if value is None or samples == 0:  # the mean over no samples is NaN, and 0 * NaN too
                view[...] = 0
                self._flags[i] = 0
            else:
                np.multiply(value, samples, out=view)
                self._flags[i] = 1
        self.flat[-1] = samples

    def write_gradients(self) -> None:
        """Put the average into each ``.grad``; None where no rank has a gradient."""
        samples, flags = float(self.flat[-1]), self._flags.tolist()
        for p, view, flag in zip(self.parameters, self._views, flags, strict=True):
            if flag == 0:
                p.grad = None
            elif p.grad is not None and p._own_grad is not None and p._own_grad() is p.grad and is_writeable(p.grad):
                np.divide(view, samples, out=p.grad)
            else:  # an array of somebody else's is not written to
                p.grad = view / samples

    def write_parameters(self) -> None:
        samples = float(self.flat[-1])
        if samples:
            for p, view in zip(self.parameters, self._views, strict=True):
                np.divide(view, samples, out=p.data)


def make_buckets(parameters: list[Any], limit: int | None) -> list[Bucket]:
    """One bucket per type; or several of about `limit` bytes, from the last parameter to the first."""
    groups: dict[Any, list[list[Any]]] = {}
    sizes: dict[Any, int] = {}
    for p in parameters if limit is None else reversed(parameters):
        dtype = p.data.dtype
        lists = groups.setdefault(dtype, [[]])
        if limit is not None and lists[-1] and sizes[dtype] + p.data.nbytes > limit:
            lists.append([])
            sizes[dtype] = 0
        lists[-1].append(p)
        sizes[dtype] = sizes.get(dtype, 0) + p.data.nbytes
    return [Bucket(members) for lists in groups.values() for members in lists]


def _empty(size: int, like: Any) -> Any:
    """A fresh vector where `like` lives: a NumPy or a CuPy array."""
    return import_module(type(like).__module__.partition(".")[0]).empty(size, like.dtype)
