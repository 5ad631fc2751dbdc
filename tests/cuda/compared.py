"""Methods of the CUDA backend, on the stand-in, beside those of the base backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nnx.backends.base import Backend

BASE = Backend()
TOLERANCE = {"float32": {"rtol": 1e-5, "atol": 1e-6}, "float64": {"rtol": 1e-10, "atol": 1e-12}}
DTYPES = ("float32", "float64")
_TO_LAST = {3: (0, 2, 1), 4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}
_TO_FIRST = {3: (0, 2, 1), 4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)}


def backend(cupy: Any, mixin: type) -> Any:
    """One family's overrides over the base backend."""
    return type("OneFamily", (mixin, Backend), {"xp": cupy})()


def layouts(cupy: Any, x: np.ndarray) -> Iterator[tuple[str, Any]]:
    """The same numbers on the device in several orders and distances, by name."""
    yield "rows", cupy.asarray(x)
    if x.ndim in _TO_LAST:
        yield "channels-last", channels_last(cupy, x)
    if x.ndim > 1:
        yield "columns", cupy.asarray(np.ascontiguousarray(x.T)).T
    yield "with gaps", cupy.asarray(np.repeat(x, 2, axis=-1))[..., ::2]
    yield "backwards", cupy.asarray(np.ascontiguousarray(x[..., ::-1]))[..., ::-1]
    yield "off a pack's address", cupy.asarray(np.concatenate([np.zeros(1, x.dtype), x.ravel()]))[1:].reshape(x.shape)


def channels_last(cupy: Any, x: np.ndarray) -> Any:
    """x, (N, C, spatial...), on the device and channels-last in memory."""
    if x.ndim not in _TO_LAST:
        return cupy.asarray(x)
    return cupy.asarray(np.ascontiguousarray(x.transpose(_TO_LAST[x.ndim]))).transpose(_TO_FIRST[x.ndim])


def same(got: Any, expected: Any, what: str = "", **tolerance: float) -> None:
    """Compare results, or tuples of them: shape, type, values, and where there is NaN or infinity."""
    if isinstance(expected, tuple):
        assert len(got) == len(expected)
        for i, (g, e) in enumerate(zip(got, expected, strict=True)):
            same(g, e, f"{what} [{i}]", **tolerance)
        return
    if expected is None:
        assert got is None, what
        return
    assert got.shape == expected.shape and got.dtype == expected.dtype, what
    tolerance = tolerance or TOLERANCE.get(expected.dtype.name, {"rtol": 0, "atol": 0})
    np.testing.assert_allclose(got.get(), expected, **tolerance, err_msg=what)
