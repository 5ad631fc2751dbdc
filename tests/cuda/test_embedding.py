"""The kernels of table look-ups, run by the emulator, against the base backend."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import functional as F
from nnx import nn
from nnx.backends.base import Backend

BASE = Backend()
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
# rows and width of the table, shape of the index: one of all, tails, more than a list of 1024, two tiles of columns,
# empty ones
SIZES = [
    (1, 1, (1,)),
    (7, 5, (3, 4)),
    (3, 33, (1100,)),
    (5, 300, (40,)),
    (4, 3, (0, 2)),
    (4, 0, (3,)),
]


@pytest.fixture
def be(cuda):
    from nnx.backends.cuda import CUDABackend

    return CUDABackend()


@pytest.mark.parametrize(("num", "width", "shape"), SIZES, ids=str)
@each_dtype
def test_rows_and_their_gradients(cuda, be, num, width, shape, dtype, rng):
    weight = rng.standard_normal((num, width)).astype(dtype)
    index = rng.integers(0, num, shape)
    gy = rng.standard_normal((*shape, width)).astype(dtype)
    there = cuda.asarray(index)
    assert be.take(cuda.asarray(weight), there).get().tobytes() == BASE.take(weight, index).tobytes()
    g = be.embedding_backward(cuda.asarray(gy), there, num)
    # added in the order of the index, as the base backend does: the same bits
    assert g.get().tobytes() == BASE.embedding_backward(gy, index, num).tobytes()
    assert be.index_counts(there, num).get().tolist() == BASE.index_counts(index, num).tolist()


@pytest.mark.parametrize("num", [8, 11, 100])
def test_blocks_of_several_rows(cuda, be, num, monkeypatch, rng):
    """As for large tables; the last block has fewer rows."""
    from nnx.backends.cuda import embedding

    monkeypatch.setattr(embedding, "_BLOCKS", 4)
    monkeypatch.setattr(embedding, "_MOST_ROWS", 7)
    index, gy = rng.integers(0, num, 300), rng.standard_normal((300, 3))
    g = be.embedding_backward(cuda.asarray(gy), cuda.asarray(index), num)
    assert g.get().tobytes() == BASE.embedding_backward(gy, index, num).tobytes()


def test_more_rows_than_groups(cuda, be, monkeypatch, rng):
    """As for more than a million rows: every group of threads takes several."""
    from nnx.backends.cuda import embedding

    monkeypatch.setattr(embedding, "blocks_for", lambda n: 1)
    weight, index = rng.standard_normal((5, 33)), rng.integers(0, 5, 100)
    assert be.take(cuda.asarray(weight), cuda.asarray(index)).get().tobytes() == weight[index].tobytes()


def test_other_layouts_and_types(cuda, be, rng):
    weight, index = rng.standard_normal((6, 8)), rng.integers(0, 6, (4, 6))
    gy = rng.standard_normal((4, 3, 8))
    there = cuda.asarray(index)[:, ::2]
    turned = cuda.asarray(np.ascontiguousarray(weight.T)).T
    assert be.take(turned, there).get().tobytes() == BASE.take(weight, index[:, ::2]).tobytes()
    assert be.take(turned, there.astype(np.int32)).get().tobytes() == BASE.take(weight, index[:, ::2]).tobytes()
    held = cuda.asarray(np.ascontiguousarray(gy.T)).T
    got = be.embedding_backward(held, there.astype(np.uint8), 6)
    assert got.get().tobytes() == BASE.embedding_backward(gy, index[:, ::2], 6).tobytes()


def test_numbers_out_of_range(cuda, be):
    weight = cuda.ones((3, 2), np.float32)
    index = cuda.asarray(np.array([0, 3, -1, 2, 2**40]))
    assert np.isnan(be.take(weight, index).get()).all(axis=1).tolist() == [False, True, True, False, True]
    g = be.embedding_backward(cuda.ones((5, 2), np.float32), index, 3)
    assert g.get().tolist() == [[1, 1], [0, 0], [1, 1]]


def test_layer(cuda, rng):
    index = rng.integers(0, 5, (4, 3))
    here = nn.Embedding(5, 3, padding_idx=2, scale_grad_by_freq=True)
    there = nn.Embedding(5, 3, padding_idx=2, scale_grad_by_freq=True)
    there.load_state_dict(here.state_dict())
    there.to("cuda")
    for layer, i in ((here, index), (there, cuda.asarray(index))):
        (layer(i) ** 2).sum().backward()
    np.testing.assert_allclose(there.weight.grad.get(), here.weight.grad, 1e-6)
    assert there([[0, 1]]).device == "cuda:0", "a list has no device"
    with pytest.raises(ValueError, match="Embedding: expected input on cuda:0 like weight, got it on cpu"):
        there(index)


def test_nothing_waits(cuda, rng):
    weight = nnx.Parameter(cuda.asarray(rng.standard_normal((5, 3)).astype(np.float32)))
    index = cuda.asarray(rng.integers(0, 5, (4,)))
    pool, stream = cuda.cuda.MemoryPool(), cuda.cuda.Stream()
    with stream, cuda.cuda.using_allocator(pool.malloc):
        stream.begin_capture()  # waiting is an error while a stream captures
        F.embedding(index, weight, padding_idx=1, scale_grad_by_freq=True).sum().backward()
        F.one_hot(index, 5)
        graph = stream.end_capture()
        graph.launch()
    counts = np.bincount(index.get(), minlength=5)
    counts[1] = 0
    assert weight.grad.get().tolist() == [[float(c > 0)] * 3 for c in counts]


def test_one_hot(cuda, rng):
    index = rng.integers(0, 4, (3, 2))
    for num in (-1, 6):
        assert F.one_hot(cuda.asarray(index), num).tolist() == F.one_hot(index, num).tolist()
    assert F.one_hot(cuda.asarray(np.array([1, 9])), 3).tolist() == [[0, 1, 0], [0, 0, 0]]
