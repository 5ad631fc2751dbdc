"""Dropout against PyTorch: the same arguments, and the same results for the same mask."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import nnx.functional as F
from nnx import nn

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("name", [name for name in nn.dropout.__all__ if hasattr(torch.nn, name)])
def test_constructor_has_the_same_arguments(name):
    ours, theirs = (inspect.signature(getattr(home, name)).parameters for home in (nn, torch.nn))
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]


@pytest.mark.parametrize("name", ["dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout"])
def test_function_has_the_same_arguments(name):
    ours, theirs = (inspect.signature(getattr(home, name)).parameters for home in (F, torch.nn.functional))
    ours = [(p.name, p.default) for p in ours.values()]
    assert ours == [*((p.name, p.default) for p in theirs.values()), ("generator", None)]


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("name", ["dropout", "alpha_dropout"])
def test_values_are_those_of_pytorch(name, p, rng):
    """Both results have one value (0, or SELU's floor) where an element was dropped, and one line elsewhere."""
    x = rng.standard_normal(20_000)
    ours = getattr(F, name)(x, p, True).data
    theirs = getattr(torch.nn.functional, name)(torch.from_numpy(x), p, True).numpy()
    dropped = np.bincount(np.unique(theirs, return_inverse=True)[1]).argmax()
    floor = np.unique(theirs)[dropped]
    np.testing.assert_allclose(np.median(ours[np.isclose(ours, floor)]), floor, rtol=1e-12, atol=1e-15)
    both = ~np.isclose(ours, floor) & ~np.isclose(theirs, floor)
    assert both.sum() > 100
    np.testing.assert_allclose(ours[both], theirs[both], rtol=1e-9)
