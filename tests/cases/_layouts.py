"""Arrays as the tests of convolution kernels need them to lie in memory."""

from __future__ import annotations

import numpy as np


def last(a):
    """The same array, channels-last in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


def holes(a):
    """The same array with gaps in memory, read-only."""
    wide = np.full([2 * n for n in a.shape], np.nan, a.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in a.shape)]
    view[...] = a
    view.flags.writeable = False
    return view


def empty_last(shape, dtype):
    """A channels-last array of NaN, which a kernel has to overwrite everywhere."""
    return last(np.full(shape, np.nan, dtype))
