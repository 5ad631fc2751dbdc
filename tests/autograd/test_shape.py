"""Reshaping, indexing, joining and splitting: gradients of repeated elements, and errors."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx.autograd import Tensor, tensor


def leaf(shape):
    return Tensor(np.arange(1.0, 1 + np.prod(shape, dtype=int)).reshape(shape), requires_grad=True)


# -- indexing --------------------------------------------------------------------------------------

INDEXES = {
    "int": 1,
    "negative": -1,
    "numpy int": np.int64(2),
    "slice": slice(1, 3),
    "step": slice(None, None, -2),
    "ellipsis": (..., 0),
    "newaxis": (slice(None), None, 1),
    "rows": [0, 2],
    "repeated rows": np.array([1, 1, 3, 1]),
    "negative rows": np.array([-1, 0, -1]),
    "repeated pairs": (np.array([0, 0, 1]), np.array([2, 2, 0])),
    "rows and slice": (np.array([0, 0]), slice(1, None)),
    "slice and columns": (slice(None), [2, 2, 0]),
    "mask": np.array([True, False, True, False]),
    "full mask": np.arange(12).reshape(4, 3) % 2 == 0,
    "mask and rows": (np.array([True, False, True, False]), np.array([1, 1])),
    "list mask": [True, False, True, False],
    "nothing": np.zeros(0, int),
    "empty slice": slice(3, 1),
    "tensor": tensor([1, 1, 2]),
    "tensor mask": tensor(np.array([True, True, False, False])),
    "pair with a tensor": (tensor([0, 0]), tensor([1, 1])),
    "0-d tensor": tensor(2),
}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES.keys())
def test_getitem(index, rng):
    x = leaf((4, 3))
    plain = index.data if isinstance(index, Tensor) else index
    if isinstance(plain, tuple):
        plain = tuple(i.data if isinstance(i, Tensor) else i for i in plain)
    y = x[index]
    np.testing.assert_array_equal(y.data, x.data[plain])
    g = rng.standard_normal(y.shape)
    y.backward(g)
    expected = np.zeros((4, 3))
    np.add.at(expected, plain, g)
    np.testing.assert_allclose(x.grad, expected, rtol=1e-14)


def test_an_element_taken_twice_gets_both_gradients():
    x = leaf((3,))
    x[[0, 0, 2]].sum().backward()
    assert x.grad.tolist() == [2.0, 0.0, 1.0]


def test_index_out_of_range():
    with pytest.raises(IndexError, match="out of bounds"):
        leaf((3,))[5]


def test_gather():
    x = leaf((3, 2))
    y = nnx.gather(x, 0, [[0, 2], [0, 1]])
    assert y.tolist() == [[1.0, 6.0], [1.0, 4.0]]
    y.sum().backward()
    assert x.grad.tolist() == [[2.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    with pytest.raises(TypeError, match="gather: expected an integer index with 2 dimensions, got float64 of shape"):
        nnx.gather(x, 0, np.zeros((1, 1)))
    with pytest.raises(ValueError, match=r"gather: expected an index that fits into \(3, 2\), got shape \(1, 3\)"):
        nnx.gather(x, 0, np.zeros((1, 3), int))
    with pytest.raises(IndexError, match=r"gather: expected indices in \[0, 3\), got \[-1, 0\]"):
        nnx.gather(x, 0, [[0, -1]])


# -- shape -----------------------------------------------------------------------------------------


def test_reshape():
    x = leaf((2, 6))
    assert x.reshape(3, -1).shape == (3, 4)
    assert x.reshape((4, 3)).shape == x.reshape([4, 3]).shape == (4, 3)
    assert x.reshape(-1).shape == (12,)
    assert Tensor(np.zeros((0, 3))).reshape(3, 0).shape == (3, 0)
    message = r"reshape: expected a shape for 12 elements \(input \(2, 6\)\), got \(5, -1\)"
    with pytest.raises(ValueError, match=message):
        x.reshape(5, -1)
    with pytest.raises(TypeError, match="reshape: expected shape to be an integer >= -1, got 2.5"):
        x.reshape(2.5)


def test_reshape_is_in_logical_order():
    x = Tensor(np.asfortranarray(np.arange(6.0).reshape(2, 3)), requires_grad=True)
    x.reshape(6).backward(np.arange(6.0))
    np.testing.assert_array_equal(x.grad, np.arange(6.0).reshape(2, 3))


def test_flatten():
    x = leaf((2, 3, 4))
    assert x.flatten().shape == (24,)
    assert x.flatten(1).shape == (2, 12)
    assert x.flatten(0, 1).shape == (6, 4)
    assert tensor(1.0).flatten().shape == (1,)
    assert Tensor(np.zeros((0, 3, 4))).flatten(1).shape == (0, 12)
    with pytest.raises(ValueError, match="flatten: expected start_dim <= end_dim, got 2 and 1"):
        x.flatten(2, 1)
    with pytest.raises(IndexError, match=r"flatten: expected end_dim to be in \[-3, 2\]"):
        x.flatten(0, 3)


def test_permute_and_transpose():
    x = leaf((2, 3, 4))
    assert x.permute(2, 0, 1).shape == x.permute((2, 0, 1)).shape == (4, 2, 3)
    assert x.transpose(0, -1).shape == (4, 3, 2)
    assert x.mT.shape == (2, 4, 3)
    assert np.shares_memory(x.permute(2, 0, 1).data, x.data)
    with pytest.raises(ValueError, match="permute: expected each of 3 dimensions once"):
        x.permute(0, 0, 1)


def test_squeeze_and_unsqueeze():
    x = leaf((1, 3, 1))
    assert x.squeeze().shape == (3,)
    assert x.squeeze(0).shape == (3, 1)
    assert x.squeeze(1).shape == (1, 3, 1)
    assert x.unsqueeze(-1).shape == (1, 3, 1, 1)
    assert x.unsqueeze(0).shape == (1, 1, 3, 1)
    with pytest.raises(IndexError, match=r"unsqueeze: expected dim to be in \[-4, 3\]"):
        x.unsqueeze(4)


def test_expand():
    x = leaf((3, 1))
    y = x.expand(2, -1, 4)
    assert y.shape == (2, 3, 4)
    y.sum().backward()
    assert x.grad.tolist() == [[8.0], [8.0], [8.0]]
    with pytest.raises(ValueError, match=r"expand: expected sizes that \(3, 1\) broadcasts to, got \(2, 4\)"):
        x.expand(2, 4)
    with pytest.raises(ValueError, match=r"expand: expected at least 2 sizes for shape \(3, 1\), got \(3,\)"):
        x.expand(3)


# -- joining and splitting -------------------------------------------------------------------------


def test_cat_errors():
    with pytest.raises(ValueError, match="cat: expected at least one tensor, got none"):
        nnx.cat([])
    message = r"cat: expected tensors that agree outside dimension 1, got \(2, 3\) and \(3, 3\) \(number 1\)"
    with pytest.raises(ValueError, match=message):
        nnx.cat([np.zeros((2, 3)), np.zeros((3, 3))], 1)
    with pytest.raises(ValueError, match="number 1"):
        nnx.cat([np.zeros((2, 3)), np.zeros(3)])


def test_arrays_beside_tensors_take_their_type():
    x = tensor([1.0, 2.0])
    assert nnx.cat([np.zeros(2), x]).dtype == np.float32
    assert nnx.stack([x, [3, 4]]).dtype == np.float32
    assert nnx.cat([x, Tensor(np.zeros(2))]).dtype == np.float64
    assert nnx.cat([tensor([1]), tensor([2])]).dtype == np.int64


def test_cat_keeps_channels_last_memory(rng):
    def channels_last(c):
        return Tensor(rng.standard_normal((2, 4, 5, c)).transpose(0, 3, 1, 2), requires_grad=True)

    a, b = channels_last(3), channels_last(2)
    y = nnx.cat([a, b], 1)
    assert y.data.strides[1] == y.data.itemsize
    np.testing.assert_array_equal(y.data, np.concatenate([a.data, b.data], 1))
    y.backward(y.data)
    np.testing.assert_array_equal(a.grad, a.data)
    np.testing.assert_array_equal(b.grad, b.data)


def test_stack():
    a, b = leaf((2,)), leaf((2,))
    y = nnx.stack([a, b], -1)
    assert y.shape == (2, 2)
    (y * np.array([1.0, 10.0])).sum().backward()
    assert (a.grad.tolist(), b.grad.tolist()) == ([1.0, 1.0], [10.0, 10.0])
    with pytest.raises(ValueError, match="stack: expected at least one tensor, got none"):
        nnx.stack([])
    with pytest.raises(ValueError, match=r"stack: expected tensors of one shape, got \(2,\) and \(3,\) \(number 1\)"):
        nnx.stack([a, leaf((3,))])


def test_split_and_chunk():
    x = leaf((7,))
    assert [p.size for p in x.split(3)] == [3, 3, 1]
    assert [p.size for p in x.split([2, 0, 5])] == [2, 0, 5]
    assert [p.size for p in x.chunk(3)] == [3, 3, 1]
    assert [p.size for p in x.chunk(10)] == [1] * 7
    assert [p.item() for p in x.unbind()] == list(range(1, 8))
    a, _, c = x.split(3)
    (a.sum() + c.sum() * 5).backward()
    assert x.grad.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 5.0]
    with pytest.raises(ValueError, match=r"split: expected sections that sum to 7, got \[2, 2\]"):
        x.split([2, 2])
    with pytest.raises(ValueError, match="split: expected split_size_or_sections to be an integer >= 1, got 0"):
        x.split(0)
    with pytest.raises(ValueError, match="chunk: expected chunks to be an integer >= 1, got 0"):
        x.chunk(0)
