"""Sums, means, extrema and norms: dimensions, ties, empty input, the origin."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx.autograd import Tensor, tensor


def leaf(*values, dtype=np.float64):
    return Tensor(np.array(values, dtype), requires_grad=True)


@pytest.mark.parametrize("name", ["sum", "mean", "var", "std", "amax", "amin"])
@pytest.mark.parametrize(
    ("dim", "keepdim", "shape"),
    [
        (None, False, ()),
        (None, True, (1, 1, 1)),
        (1, False, (2, 4)),
        (-1, True, (2, 3, 1)),
        ((0, -1), False, (3,)),
        ([0, 2], True, (1, 3, 1)),
    ],
)
def test_dimensions(name, dim, keepdim, shape, rng):
    x = Tensor(rng.standard_normal((2, 3, 4)), requires_grad=True)
    y = getattr(nnx, name)(x, dim=dim, keepdim=keepdim)
    axes = tuple(dim) if isinstance(dim, list) else dim
    reference = getattr(np, name)
    options = {"ddof": 1} if name in ("var", "std") else {}
    assert y.shape == shape
    np.testing.assert_allclose(y.data, reference(x.data, axis=axes, keepdims=keepdim, **options))
    method = getattr(x, name)(dim=dim, keepdim=keepdim)
    np.testing.assert_array_equal(method.data, y.data)
    y.sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("name", ["sum", "mean", "amax", "logsumexp", "norm", "argmax", "max"])
def test_dimension_out_of_range(name):
    argument = {"norm": {"p": 2, "dim": 2}}.get(name, {"dim": 2})
    with pytest.raises(IndexError, match=rf"{name}: expected dim to be in \[-2, 1\] for 2 dimensions, got 2"):
        getattr(nnx, name)(np.zeros((2, 3)), **argument)


def test_dimension_twice():
    with pytest.raises(ValueError, match=r"sum: expected every dim once, got \(0, -2\)"):
        nnx.sum(np.zeros((2, 3)), (0, -2))
    with pytest.raises(TypeError, match="sum: expected dim to be an integer, got 0.5"):
        nnx.sum(np.zeros((2, 3)), 0.5)


def test_types():
    assert tensor([1.0, 2.0]).sum().dtype == np.float32
    assert tensor([1.0, 2.0]).mean().dtype == np.float32
    assert tensor([1.0, 2.0]).var().dtype == np.float32
    assert tensor([1.0, 2.0]).norm(3).dtype == np.float32
    assert tensor([1, 2]).sum().dtype == np.int64
    assert (tensor([1, 2]) == tensor([1, 3])).mean().item() == 0.5


def test_of_nothing():
    empty = Tensor(np.zeros((0, 3)), requires_grad=True)
    assert empty.sum().item() == 0
    assert np.isnan(empty.mean().item())
    assert np.isnan(empty.mean(0).data).all()
    assert empty.mean(1).shape == (0,)
    assert empty.amax(1).shape == (0,)
    for function, owner in ((nnx.amax, "amax"), (nnx.amin, "amin"), (nnx.max, "amax"), (nnx.argmax, "argmax")):
        message = rf"^{owner}: expected at least one element to choose from, got shape \(0, 3\)"
        with pytest.raises(ValueError, match=message):
            function(empty)
    with pytest.raises(ValueError, match="logsumexp: expected at least one element"):
        nnx.logsumexp(empty, 0)
    with pytest.raises(ValueError, match=r"max: expected at least one element to choose from, got shape \(0, 3\)"):
        nnx.max(empty, 0)
    empty.sum().backward()
    assert empty.grad.shape == (0, 3)


def test_variance_corrections():
    x = tensor(np.array([1.0, 2.0, 4.0]))
    assert x.var(correction=0).item() == pytest.approx(14 / 9)
    assert x.var().item() == pytest.approx(7 / 3)
    assert np.isnan(tensor([1.0]).var().item()), "0 / 0"
    assert tensor([1.0]).var(correction=0).item() == 0


def test_ties_of_amax_share_the_gradient():
    x = leaf(3.0, 1.0, 3.0, 3.0)
    x.amax().backward()
    np.testing.assert_allclose(x.grad, [1 / 3, 0, 1 / 3, 1 / 3])
    x = leaf([2.0, 2.0], [1.0, 0.0])
    x.amin(1).sum().backward()
    assert x.grad.tolist() == [[0.5, 0.5], [0.0, 1.0]]


def test_ties_of_max_go_to_the_first():
    x = leaf([3.0, 1.0, 3.0], [0.0, 0.0, 0.0])
    values, indices = x.max(1)
    assert indices.tolist() == [0, 0]
    values.sum().backward()
    assert x.grad.tolist() == [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    result = x.min(1, keepdim=True)
    assert result.values.shape == result.indices.shape == (2, 1)
    assert result.indices.tolist() == [[1], [0]]


def test_nan_is_the_extremum():
    x = leaf(1.0, np.nan, 3.0)
    assert np.isnan(x.amax().item())
    assert x.max(0).indices.item() == 1
    assert x.min(0).indices.item() == 1
    x.amax().backward()
    assert x.grad.tolist() == [0.0, 1.0, 0.0]


def test_positions():
    x = np.array([[1.0, 5.0], [7.0, 2.0]])
    assert nnx.argmax(x).item() == 2
    assert nnx.argmax(x, 0).tolist() == [1, 0]
    assert nnx.argmin(x, 1, keepdim=True).tolist() == [[0], [1]]
    assert not nnx.argmax(leaf(1.0, 2.0)).requires_grad
    large = np.array([2**53, 2**53 + 1])  # equal, as floats
    assert nnx.argmax(large).item() == 1


def test_logsumexp_does_not_overflow():
    x = leaf(1000.0, 1000.0)
    y = x.logsumexp(0)
    assert y.item() == pytest.approx(1000 + np.log(2))
    y.backward()
    np.testing.assert_allclose(x.grad, [0.5, 0.5])
    assert tensor([-np.inf, 0.0]).logsumexp(0).item() == 0
    assert tensor([-np.inf, -np.inf]).logsumexp(0).item() == -np.inf
    assert tensor([np.inf, 0.0]).logsumexp(0).item() == np.inf
    assert tensor([[1.0, 2.0]]).logsumexp((0, 1), keepdim=True).shape == (1, 1)


def test_norms():
    x = leaf(3.0, -4.0)
    assert x.norm().item() == 5
    assert x.norm(1).item() == 7
    assert x.norm(float("inf")).item() == 4
    assert x.norm(3).item() == pytest.approx(91 ** (1 / 3))
    with pytest.raises(ValueError, match=r"norm: expected p to be a number in \(0, inf\), got 0"):
        x.norm(0)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, 4.5, float("inf")])
def test_slope_of_a_norm_at_the_origin_is_zero(p):
    x = leaf([0.0, 0.0], [3.0, -4.0])
    x.norm(p, 1).sum().backward()
    assert x.grad[0].tolist() == [0.0, 0.0]
    assert np.isfinite(x.grad).all()


def test_sum_gradient_is_read_but_not_written():
    x = leaf(1.0, 2.0)
    x.sum().backward()
    assert x.grad.flags.writeable
    x.grad += 1  # not a broadcast view of one number
    assert x.grad.tolist() == [2.0, 2.0]
