"""Operators: operand types, result types, broadcasting, the points where a slope is a convention."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx.autograd import Tensor, tensor

F32, F64, I64 = np.float32, np.float64, np.int64


def leaf(*values, dtype=F64):
    return Tensor(np.array(values, dtype), requires_grad=True)


def slope(function, *values):
    """The gradient of the sum of function(x) at x = values."""
    x = leaf(*values)
    function(x).sum().backward()
    return x.grad.tolist()


# -- types -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "dtype"),
    [
        (2, F32),
        (2.5, F32),
        (True, F32),
        (np.float64(2.5), F32),
        (np.int64(2), F32),
        (np.ones(2), F32),
        (np.ones(2, int), F32),
        ([1.0, 2.0], F32),
        (tensor([1, 2]), F64),  # two Tensors promote as NumPy does
        (Tensor(np.ones(2)), F64),
        (Tensor(np.ones(2, F32)), F32),
    ],
)
@pytest.mark.parametrize("operation", ["add", "sub", "mul", "div", "pow", "maximum", "minimum"])
def test_type_beside_float32(operation, other, dtype):
    x = tensor([1.0, 2.0])
    function = getattr(nnx, operation)
    assert function(x, other).dtype == dtype
    assert function(other, x).dtype == dtype
    x.requires_grad_()
    function(x, other).sum().backward()
    assert x.grad.dtype == F32


def test_integer_tensors():
    a = tensor([1, 2])
    assert (a + 1).dtype == I64
    assert (a + tensor([3, 4])).tolist() == [4, 6]
    assert (a / 2).tolist() == [0.5, 1.0]
    assert (a * 2.5).tolist() == [2.5, 5.0]


def test_where_keeps_float32_beside_numbers():
    x = tensor([1.0, -2.0])
    assert nnx.where(x > 0, x, 0.0).dtype == F32
    assert nnx.where(x > 0, 1, x).dtype == F32


@pytest.mark.parametrize("other", ["text", None, 1j, object(), np.ones(2, complex)])
def test_not_numbers(other):
    x = tensor([1.0, 2.0])
    with pytest.raises(TypeError, match="arithmetic: expected numbers beside a Tensor, got"):
        x + other
    with pytest.raises(TypeError, match="arithmetic: expected numbers beside a Tensor, got"):
        nnx.mul(other, x)


def test_shapes_that_do_not_broadcast():
    with pytest.raises(ValueError, match="broadcast"):
        tensor([1.0, 2.0]) + tensor([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("a", "b"), [((2, 1), (3,)), ((), (2, 3)), ((4, 1, 3), (2, 1)), ((1,), (1, 1)), ((0, 3), (1,))]
)
@pytest.mark.parametrize("operation", ["add", "sub", "mul", "div", "maximum", "minimum"])
def test_gradients_have_the_shape_of_their_operand(operation, a, b, rng):
    x = Tensor(rng.uniform(1, 2, a), requires_grad=True)
    y = Tensor(rng.uniform(1, 2, b), requires_grad=True)
    getattr(nnx, operation)(x, y).sum().backward()
    assert (x.grad.shape, y.grad.shape) == (a, b)


def test_alpha():
    x, y = leaf(1.0), leaf(2.0)
    nnx.add(x, y, alpha=3).backward()
    nnx.sub(x, y, alpha=5).backward()
    assert (x.grad.tolist(), y.grad.tolist()) == ([2.0], [-2.0])
    assert nnx.add(tensor([1.0]), np.array([2.0]), alpha=3).dtype == F32


# -- conventions and special points ----------------------------------------------------------------


def test_slopes_at_kinks():
    assert slope(abs, -2.0, 0.0, 3.0) == [-1.0, 0.0, 1.0]
    assert slope(nnx.relu, -2.0, 0.0, 3.0) == [0.0, 0.0, 1.0]
    assert slope(nnx.sign, -2.0, 0.0) == [0.0, 0.0]
    assert slope(lambda x: x.clamp(0, 1), -1.0, 0.0, 0.5, 1.0, 2.0) == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_equal_elements_share_the_gradient():
    x, y = leaf(1.0, 2.0, 3.0), leaf(1.0, 3.0, 2.0)
    nnx.maximum(x, y).sum().backward()
    assert x.grad.tolist() == [0.5, 0.0, 1.0]
    assert y.grad.tolist() == [0.5, 1.0, 0.0]
    x.grad = None
    nnx.minimum(x, 2.0).sum().backward()
    assert x.grad.tolist() == [1.0, 0.5, 0.0]


def test_powers_at_zero():
    assert slope(lambda x: x**0, 0.0, 2.0) == [0.0, 0.0]
    assert slope(lambda x: x**1, 0.0, 2.0) == [1.0, 1.0]
    assert slope(lambda x: x**2, 0.0, -2.0) == [0.0, -4.0]
    assert slope(lambda x: x**2.0, 0.0, -2.0) == [0.0, -4.0]
    assert slope(lambda x: x**0.5, 0.0) == [np.inf]
    assert slope(lambda x: x**-1, 0.0, 2.0) == [-np.inf, -0.25]
    assert slope(lambda x: x ** np.array([0.0, 1.0, 3.0]), 0.0, 0.0, 2.0) == [0.0, 1.0, 12.0]
    base = np.array([0.0, 2.0])
    np.testing.assert_allclose(slope(lambda e: base**e, 3.0, 3.0), [0.0, 8 * np.log(2)])


def test_powers_keep_float32_gradients():
    x = leaf(1.0, 2.0, dtype=F32)
    (x**3 + x**0.5 + x**x).sum().backward()
    assert x.grad.dtype == F32


def test_division_by_zero_is_silent():
    x = leaf(1.0, 0.0, -1.0)
    y = x / Tensor(np.zeros(3))
    np.testing.assert_array_equal(y.data, [np.inf, np.nan, -np.inf])
    y.sum().backward()
    assert not np.isfinite(x.grad).any()
    np.testing.assert_array_equal((1 / tensor([0.0])).data, [np.inf])


def test_logarithm_and_root_are_silent():
    assert np.isneginf(tensor([0.0]).log().data)
    assert np.isnan(tensor([-1.0]).log().data)
    assert np.isnan(tensor([-1.0]).sqrt().data)
    assert np.isinf(tensor([1e9]).exp().data)
    assert np.isinf((tensor([1e9]) ** 9).data)


def test_nan_passes():
    nan = tensor([np.nan, 1.0])
    for result in (nnx.maximum(nan, 0), nnx.minimum(0, nan), nan.clamp(0, 1), nan.relu(), abs(nan)):
        assert np.isnan(result.data[0])
        assert result.data[1] in (0, 1)


def test_clamp():
    with pytest.raises(ValueError, match="clamp: expected min or max, got neither"):
        tensor([1.0]).clamp()
    low = np.array([[0.0], [2.0]])
    assert tensor([1.0]).clamp(min=low).tolist() == [[1.0], [2.0]]
    assert tensor([3.0]).clamp(max=tensor([2.0])).tolist() == [2.0]
    with pytest.raises(TypeError, match=r"clamp: expected min to be a constant.*nnx\.maximum"):
        tensor([3.0]).clamp(min=leaf(2.0))


def test_where():
    x, y = leaf(1.0, 2.0), leaf(5.0)
    nnx.where(np.array([True, False]), x, y).sum().backward()
    assert x.grad.tolist() == [1.0, 0.0]
    assert y.grad.tolist() == [1.0]
    with pytest.raises(TypeError, match="where: expected condition of dtype bool, got int64"):
        nnx.where(np.array([1, 0]), x, y)


def test_where_keeps_nan_of_the_other_branch_out():
    x = leaf(-1.0, 4.0)
    safe = nnx.where(x > 0, x, 1.0)
    nnx.where(x > 0, safe.sqrt(), 0.0).sum().backward()
    assert x.grad.tolist() == [0.0, 0.25]


def test_python_constants_on_the_left():
    assert slope(lambda x: 3 - x, 1.0) == [-1.0]
    assert slope(lambda x: 6 / x, 2.0) == [-1.5]
    np.testing.assert_allclose(slope(lambda x: 2**x, 3.0), [8 * np.log(2)])


# -- matrix products -------------------------------------------------------------------------------


def test_matmul_errors():
    a = tensor(np.zeros((2, 3)))
    message = (
        r"matmul: expected the last dimension of input to equal 4, for other of shape \(4, 5\), got input of shape"
    )
    with pytest.raises(ValueError, match=message):
        a @ tensor(np.zeros((4, 5)))
    with pytest.raises(ValueError, match="matmul: expected two arrays with at least one dimension, got a number"):
        a @ 3
    with pytest.raises(ValueError, match="got a number"):
        a @ tensor(3.0)


@pytest.mark.parametrize(("a", "b"), [((0, 3), (3, 2)), ((2, 0), (0, 3)), ((0,), (0,)), ((2, 3), (3, 0))])
def test_empty_products(a, b):
    x, y = Tensor(np.zeros(a), requires_grad=True), Tensor(np.zeros(b), requires_grad=True)
    z = x @ y
    assert z.shape == (np.zeros(a) @ np.zeros(b)).shape
    assert not z.data.any()
    z.sum().backward()
    assert (x.grad.shape, y.grad.shape) == (a, b)


def test_empty_tensors():
    x = Tensor(np.zeros((0, 3)), requires_grad=True)
    y = ((x + 1) * x / 2).exp() - x**2
    assert y.shape == (0, 3)
    y.sum().backward()
    assert x.grad.shape == (0, 3)
