"""Tensor as an array: making one, NumPy's protocols, Python's, conversions, errors."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import nnx
from nnx.autograd import Parameter, Tensor, as_tensor, cast_input, tensor


def leaf(*values, dtype=np.float64):
    return Tensor(np.array(values, dtype), requires_grad=True)


# -- making ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, np.float32),
        ([1.0, 2.0], np.float32),
        ([[1.0], [2.0]], np.float32),
        ((1, 2), np.int64),
        (True, np.bool_),
        ([], np.float32),
        (np.float64(1.5), np.float64),
        ([np.float64(1.5), 2.0], np.float64),
        (np.zeros(2, np.float32), np.float32),
        (np.zeros(2, np.float64), np.float64),
        (np.zeros(2, np.uint8), np.uint8),
        ([np.zeros(2), np.zeros(2)], np.float64),
    ],
)
def test_dtype_of_new_tensors(data, dtype):
    assert tensor(data).dtype == dtype
    assert Tensor(data).dtype == dtype


def test_tensor_shares_memory():
    a = np.zeros(3)
    t = tensor(a)
    a[0] = 5
    assert t.data is a
    assert t.tolist() == [5.0, 0.0, 0.0]


def test_tensor_of_tensors():
    assert tensor([Tensor(np.ones(2)), Tensor(np.zeros(2))]).shape == (2, 2)
    t = Tensor(np.ones(2))
    assert tensor(t).data is t.data


def test_tensor_with_dtype():
    assert tensor([1.0], dtype=np.float64).dtype == np.float64
    assert tensor(np.ones(1, int), dtype="float32", requires_grad=True).requires_grad


@pytest.mark.parametrize("data", ["text", None, [1, "a"], np.zeros(2, complex), [object()]])
def test_not_numbers(data):
    with pytest.raises(TypeError, match="tensor: expected an array of numbers, got dtype"):
        tensor(data)


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.float16])
def test_only_float32_and_float64_need_gradients(dtype):
    with pytest.raises(
        TypeError, match=f"expected float32 or float64 data for requires_grad=True, got {dtype.__name__}"
    ):
        Tensor(np.zeros(2, dtype), requires_grad=True)
    with pytest.raises(TypeError, match="requires_grad_: expected float32 or float64"):
        Tensor(np.zeros(2, dtype)).requires_grad_()


def test_as_tensor_makes_floats():
    t = leaf(1.0)
    assert as_tensor(t) is t
    assert as_tensor([1, 2]).dtype == np.float32
    assert as_tensor(3).dtype == np.float32
    assert as_tensor(np.zeros(2, np.uint8)).dtype == np.float32
    assert as_tensor(np.zeros(2, np.float16)).dtype == np.float32
    assert as_tensor(np.zeros(2, np.longdouble)).dtype == np.float64
    assert as_tensor(np.zeros(2, ">f8")).dtype == np.dtype("=f8")
    assert as_tensor([1, 2], np.float64).dtype == np.float64
    a = np.zeros(2)
    assert as_tensor(a).data is a


def test_cast_input():
    assert cast_input("Linear", np.zeros(2), np.float32).dtype == np.float32
    t = Tensor(np.zeros(2, np.float32))
    assert cast_input("Linear", t, np.float32) is t
    message = r"Linear: expected input of dtype float64 like the parameters, got a Tensor of dtype float32.*\.double"
    with pytest.raises(TypeError, match=message):
        cast_input("Linear", t, np.float64)


def test_parameter():
    p = Parameter(np.ones(2))
    assert p.requires_grad
    assert isinstance(p, Tensor)
    assert repr(p) == "Parameter(tensor([1., 1.], dtype=float64, requires_grad=True))"
    assert not Parameter(np.ones(2), requires_grad=False).requires_grad


# -- facts and conversions -------------------------------------------------------------------------


def test_facts():
    t = Tensor(np.zeros((2, 3), np.float32))
    assert (t.shape, t.ndim, t.size, t.dtype, t.device) == ((2, 3), 2, 6, np.float32, "cpu")
    assert (t.dim(), t.numel(), len(t), t.is_leaf) == (2, 6, 2, True)


def test_numpy_never_copies_and_never_raises():
    t = leaf(1.0)
    y = t * 2
    assert y.numpy() is y.data
    assert t.numpy() is t.data


def test_item():
    assert type(tensor([[2.5]]).item()) is float
    assert type(tensor(2).item()) is int
    with pytest.raises(ValueError, match=r"Tensor.item: expected one element, got shape \(2,\)"):
        tensor([1.0, 2.0]).item()


def test_detach():
    x = leaf(1.0)
    d = (x * 2).detach()
    assert not d.requires_grad
    assert d.is_leaf
    assert x.detach().data is x.data


def test_requires_grad_in_place():
    t = Tensor(np.ones(1))
    assert t.requires_grad_() is t
    assert t.requires_grad
    assert not t.requires_grad_(False).requires_grad
    with pytest.raises(RuntimeError, match=r"requires_grad_: expected a leaf, got the result of an operation.*detach"):
        (leaf(1.0) * 2).requires_grad_(False)


def test_conversions():
    x = leaf(1.5, 2.5, dtype=np.float32)
    assert x.double().dtype == np.float64
    assert x.float() is x
    assert x.to(np.float64).dtype == np.float64
    assert x.to("cpu") is x
    assert x.to("cpu", "float64").dtype == np.float64
    assert x.to(device="cpu", dtype=np.float64).dtype == np.float64
    assert x.cpu() is x
    assert x.astype(int).tolist() == [1, 2]
    assert not x.astype(int).requires_grad
    x.double().sum().backward()
    assert x.grad.dtype == np.float32
    with pytest.raises(ValueError, match="Tensor.to: expected device to be .cpu., .cuda. or .cuda:0., got 'cuda:x'"):
        x.to("cuda:x")
    with pytest.raises(TypeError, match="astype: expected a dtype, got 'nonsense'"):
        x.astype("nonsense")
    with pytest.raises(TypeError, match="astype: expected a dtype, got None"):
        x.astype(None)


# -- NumPy meets Tensor ----------------------------------------------------------------------------


def test_array_beside_a_tensor_keeps_the_gradient():
    x = leaf(1.0, 2.0)
    a = np.array([3.0, 4.0])
    for y, slope in [(a + x, [1, 1]), (a * x, a), (a - x, [-1, -1]), (a / x, -a / x.data**2)]:
        assert isinstance(y, Tensor)
        x.grad = None
        y.sum().backward()
        np.testing.assert_allclose(x.grad, slope)


def test_numpy_scalar_beside_a_tensor():
    x = leaf(1.0, 2.0, dtype=np.float32)
    for y in (np.float64(2) * x, x * np.float64(2), np.int64(2) * x, x * np.array(2.0)):
        assert isinstance(y, Tensor)
        assert y.dtype == np.float32, "a constant takes the Tensor's type"
        assert y.tolist() == [2.0, 4.0]


def test_matmul_with_an_array_on_the_left():
    x = leaf(1.0, 2.0)
    y = np.eye(2) @ x
    assert isinstance(y, Tensor)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [1.0, 1.0])


def test_an_array_cannot_take_a_tensor_in_place():
    a = np.ones(2)
    with pytest.raises(TypeError, match="does not support ufuncs"):
        a += leaf(1.0, 2.0)
    np.testing.assert_array_equal(a, [1.0, 1.0])


def test_ufuncs_refuse_a_tensor():
    with pytest.raises(TypeError, match="does not support ufuncs"):
        np.exp(leaf(1.0))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda x: np.sum(x), r"nnx\.sum"),
        (lambda x: np.concatenate([x, x]), r"nnx\.cat"),
        (lambda x: np.where(x.data > 0, x, 0), r"nnx\.where"),
        (lambda x: np.clip(x, 0, 1), r"nnx\.clamp"),
        (lambda x: np.linalg.svd(x), "an nnx function"),
        (lambda x: np.full_like(np.ones(2), fill_value=x), "an nnx function"),
    ],
)
def test_numpy_functions_refuse_to_lose_a_gradient(call, name):
    with pytest.raises(TypeError, match=rf"numpy\.\w+: expected arrays, got a Tensor that needs a gradient.*{name}"):
        call(leaf(1.0, 2.0))


def test_numpy_functions_take_tensors_without_gradient():
    t = Tensor(np.array([1.0, 2.0]))
    assert np.sum(t) == 3
    np.testing.assert_array_equal(np.concatenate([t, np.ones(1)]), [1, 2, 1])
    with nnx.no_grad():
        assert np.mean(leaf(1.0, 2.0)) == 1.5
    np.testing.assert_array_equal(leaf(1.0, 2.0).detach(), [1.0, 2.0])


def test_asarray():
    t = leaf(1.0, 2.0)
    assert np.asarray(t) is t.data
    assert np.asarray(t, np.float64) is t.data
    assert np.asarray(t, np.float32).dtype == np.float32
    assert not np.shares_memory(np.array(t), t.data)
    assert np.array(t, copy=None) is t.data
    with pytest.raises(ValueError, match="copy"):
        np.asarray(t, np.float32, copy=False)


def test_dlpack():
    t = leaf(1.0, 2.0)
    a = np.from_dlpack(t)
    assert np.shares_memory(a, t.data)
    assert t.__dlpack_device__()[0] == 1  # kDLCPU


# -- Python's protocols ----------------------------------------------------------------------------


def test_truth_and_numbers():
    assert bool(tensor(1.0))
    assert not tensor([0.0])
    with pytest.raises(ValueError, match="ambiguous"):
        bool(tensor([1.0, 2.0]))
    assert float(tensor([2.5])) == 2.5
    assert int(tensor(2.9)) == 2
    assert [10, 20, 30][tensor(1)] == 20
    assert f"{tensor(2.0):.3f}" == "2.000"
    assert f"{tensor(2.0)}" == "tensor(2.)"


def test_len_and_iteration():
    t = tensor([[1.0, 2.0], [3.0, 4.0]])
    assert [row.tolist() for row in t] == [[1.0, 2.0], [3.0, 4.0]]
    with pytest.raises(TypeError, match="len: expected a Tensor with at least one dimension"):
        len(tensor(1.0))
    with pytest.raises(TypeError, match="iter: expected a Tensor with at least one dimension"):
        iter(tensor(1.0))


def test_iteration_carries_gradients():
    x = leaf(1.0, 2.0, 3.0)
    a, _, c = x
    (a * 5 + c).backward()
    np.testing.assert_array_equal(x.grad, [5.0, 0.0, 1.0])


def test_comparisons_and_membership():
    t = tensor([1.0, 2.0, 3.0])
    assert (t > 1.5).tolist() == [False, True, True]
    assert (t == np.array([1.0, 0.0, 3.0])).tolist() == [True, False, True]
    assert (2 >= t).tolist() == [True, True, False]
    assert (t != t).tolist() == [False] * 3
    assert (t > 1).dtype == bool
    assert not (leaf(1.0) > 0).requires_grad
    assert (t > 1.5).sum().item() == 2
    assert 2.0 in t
    assert 5.0 not in t


def test_hash_is_identity():
    a, b = tensor([1.0]), tensor([1.0])
    assert len({a, b, a}) == 2


def test_setitem():
    t = tensor([1.0, 2.0, 3.0])
    t[0] = 5
    t[tensor([1, 2])] = tensor([7.0, 8.0])
    assert t.tolist() == [5.0, 7.0, 8.0]
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"__setitem__: expected a Tensor without gradient.*nnx\.where"):
        x[0] = 5
    with nnx.no_grad():
        x[0] = 5
    assert x.tolist() == [5.0, 2.0]


def test_repr():
    assert repr(tensor([1.0, 2.0])) == "tensor([1., 2.])"
    assert repr(leaf(1.0)) == "tensor([1.], dtype=float64, requires_grad=True)"
    assert repr(leaf(1.0) * 2) == "tensor([2.], dtype=float64, grad_fn=mul)"


def test_deepcopy():
    x = Parameter(np.ones((2, 3), np.float32).T)
    x.sum().backward()
    y = copy.deepcopy(x)
    assert type(y) is Parameter
    assert not np.shares_memory(x.data, y.data)
    assert y.data.strides == x.data.strides
    np.testing.assert_array_equal(y.grad, x.grad)
    assert not np.shares_memory(x.grad, y.grad)
    pair = copy.deepcopy([x, x])
    assert pair[0] is pair[1]
    with pytest.raises(RuntimeError, match="deepcopy: expected a leaf Tensor, got the result of an operation"):
        copy.deepcopy(x * 2)


def test_clone():
    x = leaf(1.0, 2.0)
    y = x.clone()
    assert not np.shares_memory(x.data, y.data)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [1.0, 1.0])


# -- methods are the free functions ----------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["exp", "log", "sqrt", "sin", "cos", "abs", "sign", "square", "relu", "sigmoid", "tanh", "neg"]
)
def test_methods_of_one_argument(name):
    x = tensor([0.5, 2.0])
    method = getattr(x, {"neg": "__neg__"}.get(name, name))
    np.testing.assert_array_equal(method().data, getattr(nnx, name)(x).data)


def test_other_methods():
    x = tensor([[0.5, 2.0], [1.0, -1.0]])
    assert x.T.tolist() == [[0.5, 1.0], [2.0, -1.0]]
    assert x.mT.tolist() == x.T.tolist()
    assert x.pow(2).tolist() == (x**2).tolist() == x.square().tolist()
    assert x.clip(0, 1).tolist() == x.clamp(0, 1).tolist()
    assert x.mm(x).tolist() == (x @ x).tolist()
    assert x.view(4).tolist() == x.reshape(4).tolist() == x.flatten().tolist()
    assert (+x) is x
    assert abs(x).tolist() == x.abs().tolist()
    assert x.contiguous() is x
    assert x.T.contiguous().data.flags.c_contiguous
