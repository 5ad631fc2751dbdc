"""The Embedding layer. What a look-up does is tested in functional/test_embedding.py."""

from __future__ import annotations

import numpy as np
import pytest

from nnx import nn
from nnx.autograd import Parameter, Tensor


def test_embedding():
    layer = nn.Embedding(10, 3)
    assert list(layer.state_dict()) == ["weight"]
    assert layer.weight.shape == (10, 3)
    assert layer.weight.dtype == np.float32
    y = layer(np.array([[1, 2, 2]]))
    np.testing.assert_array_equal(y.data, layer.weight.data[[[1, 2, 2]]])
    y.sum().backward()
    assert layer.weight.grad[:, 0].tolist() == [0, 1, 2, 0, 0, 0, 0, 0, 0, 0]
    assert nn.Embedding(10, 3, dtype=np.float64)([1]).dtype == np.float64


@pytest.mark.parametrize("padding_idx", [0, -1])
def test_padding_row_starts_at_zero_and_stays(padding_idx):
    layer = nn.Embedding(5, 3, padding_idx=padding_idx)
    row = padding_idx % 5
    assert layer.padding_idx == row
    assert not layer.weight.data[row].any()
    assert np.delete(layer.weight.data, row, 0).all()
    layer([row, 2]).sum().backward()
    assert not layer.weight.grad[row].any()
    assert layer.weight.grad[2].any()
    layer.reset_parameters()
    assert not layer.weight.data[row].any()


def test_starts_standard_normal():
    values = nn.Embedding(300, 200).weight.data
    # of 60,000 draws: the standard errors of mean and deviation are 0.004 and 0.003
    assert abs(values.mean()) < 0.02
    assert abs(values.std() - 1) < 0.015


def test_from_pretrained(rng):
    table = rng.standard_normal((4, 3))
    layer = nn.Embedding.from_pretrained(table)
    assert (layer.num_embeddings, layer.embedding_dim) == (4, 3)
    assert not layer.weight.requires_grad
    np.testing.assert_array_equal(layer([3]).data, table[[3]])
    layer = nn.Embedding.from_pretrained(Tensor(table), freeze=False, padding_idx=-1, scale_grad_by_freq=True)
    assert isinstance(layer.weight, Parameter)
    assert layer.weight.requires_grad
    np.testing.assert_array_equal(layer.weight.data, table)
    layer([0, 0, 3]).sum().backward()
    assert layer.weight.grad[:, 0].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Embedding(10, 3)([10]), IndexError,
         r"Embedding: expected input in \[0, 10\), got values in \[10, 10\]"),
        (lambda: nn.Embedding(10, 3)([0.5]), TypeError, "Embedding: expected input of an integer dtype, got float64"),
        (lambda: nn.Embedding(-1, 3), ValueError, "Embedding: expected num_embeddings to be an integer >= 0, got -1"),
        (lambda: nn.Embedding(3, "a"), TypeError, "Embedding: expected embedding_dim to be an integer"),
        (lambda: nn.Embedding(3, 2, padding_idx=3), ValueError, r"Embedding: expected padding_idx in \[-3, 3\), got 3"),
        (lambda: nn.Embedding(3, 2, max_norm=1), ValueError, "Embedding: expected max_norm to be None"),
        (lambda: nn.Embedding(3, 2, sparse=True), ValueError, "Embedding: expected sparse to be False"),
        (lambda: nn.Embedding(3, 2, device="tpu"), ValueError, "Embedding: expected device to be .*got 'tpu'"),
        (lambda: nn.Embedding(3, 2, dtype=int), TypeError, "Embedding: expected dtype to be float32 or float64"),
        (lambda: nn.Embedding(3, 2, _weight=np.ones((2, 3))), ValueError,
         r"Embedding: expected _weight of shape \(3, 2\), got shape \(2, 3\)"),
        (lambda: nn.Embedding.from_pretrained(np.ones(3)), ValueError,
         r"Embedding.from_pretrained: expected embeddings with 2 dimensions, got shape \(3,\)"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error, match=rf"^{message}"):
        call()


def test_repr():
    assert repr(nn.Embedding(5, 2)) == "Embedding(5, 2)"
    assert repr(nn.Embedding(5, 2, padding_idx=-1)) == "Embedding(5, 2, padding_idx=4)"
