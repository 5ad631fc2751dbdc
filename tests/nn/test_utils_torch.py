"""Gradient clipping against PyTorch's."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nnx

torch = pytest.importorskip("torch")


def pair(rng, dtype, shapes=((3, 4), (), (70_000,), (0,))):
    ours, theirs = [], []
    for shape in shapes:
        g = np.asarray(3 * rng.standard_normal(shape), dtype)
        ours.append(nnx.Parameter(np.zeros(shape, dtype)))
        theirs.append(torch.nn.Parameter(torch.zeros(shape, dtype=torch.tensor(g).dtype)))
        ours[-1].grad, theirs[-1].grad = g.copy(), torch.tensor(g)
    ours.append(nnx.Parameter(np.zeros(2, dtype)))
    theirs.append(torch.nn.Parameter(torch.zeros(2)))
    return ours, theirs


# PyTorch sums squares in float32; here they are summed in double
@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("norm_type", [1.0, 2.0, 2.5, math.inf])
@pytest.mark.parametrize("max_norm", [1.0, 1e9])
def test_clip_grad_norm(dtype, bound, norm_type, max_norm, rng):
    # PyTorch has no largest entry of an empty tensor
    shapes = [(3, 4), (), (70_000,)] + [(0,)] * (norm_type < math.inf)
    ours, theirs = pair(rng, dtype, shapes)
    norm = nnx.nn.utils.clip_grad_norm_(ours, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert norm.item() == pytest.approx(expected.item(), rel=bound)
    assert norm.dtype == dtype
    for p, t in zip(ours[:-1], theirs[:-1], strict=True):
        np.testing.assert_allclose(p.grad, t.grad.numpy(), rtol=bound)
    assert ours[-1].grad is None


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_clip_grad_value(dtype, rng):
    ours, theirs = pair(rng, dtype)
    ours[0].grad[0, 0] = np.nan
    theirs[0].grad[0, 0] = np.nan
    nnx.nn.utils.clip_grad_value_(ours, 0.7)
    torch.nn.utils.clip_grad_value_(theirs, 0.7)
    for p, t in zip(ours[:-1], theirs[:-1], strict=True):
        np.testing.assert_array_equal(p.grad, t.grad.numpy())


def test_arguments_are_those_of_pytorch():
    import inspect

    for name in nnx.nn.utils.__all__:
        ours = inspect.signature(getattr(nnx.nn.utils, name)).parameters
        theirs = inspect.signature(getattr(torch.nn.utils, name)).parameters
        assert [(k, p.default) for k, p in ours.items()] == [(k, p.default) for k, p in theirs.items()]
