"""Data sets over arrays and memory maps, and how samples become batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnx.data import ArrayDataset, Subset, TensorDataset
from nnx.data.dataset import collate, gather


def test_samples_and_batches():
    x, y = np.arange(12.0).reshape(4, 3), np.arange(4)
    data = ArrayDataset(x, y)
    assert len(data) == 4 and TensorDataset is ArrayDataset
    assert data[2][1] == 2 and data[1][0].tolist() == [3, 4, 5]
    bx, by = data.gather([3, 0, 3])
    np.testing.assert_array_equal(bx, x[[3, 0, 3]])
    np.testing.assert_array_equal(by, [3, 0, 3])
    assert repr(data) == "ArrayDataset(float64 (4, 3), int64 (4,))"


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a,
        lambda a: a[::-1],
        lambda a: a[::2],
        lambda a: a.transpose(0, 2, 1),
        lambda a: a.astype(">f4"),
        lambda a: np.asfortranarray(a),
        lambda a: np.broadcast_to(a[:1], a.shape),
    ],
)
def test_gather_of_any_layout_is_a_fresh_copy(view):
    a = view(np.random.default_rng(0).random((8, 3, 5), np.float32))
    before = a.copy()
    (batch,) = ArrayDataset(a).gather([2, 0, 1])
    np.testing.assert_array_equal(batch, before[[2, 0, 1]])
    batch[:] = -1
    np.testing.assert_array_equal(a, before)


@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5)),
    st.data(),
)
def test_gather_equals_a_loop(a, data):
    indices = data.draw(st.lists(st.integers(0, len(a) - 1), max_size=7))
    (batch,) = ArrayDataset(a).gather(indices)
    assert batch.shape == (len(indices), *a.shape[1:]) and batch.dtype == a.dtype
    for row, i in zip(batch, indices, strict=True):
        np.testing.assert_array_equal(row, a[i])


def test_memory_map(tmp_path):
    a = np.random.default_rng(0).random((50, 6))
    np.save(tmp_path / "a.npy", a)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    data = ArrayDataset(mapped, np.arange(50))
    assert not data.in_memory and ArrayDataset(a).in_memory
    assert not ArrayDataset(mapped[10:].reshape(-1, 3)).in_memory
    assert np.shares_memory(data.arrays[0], mapped)
    batch, _ = data.gather([49, 3])
    assert type(batch) is np.ndarray and batch.flags.writeable
    np.testing.assert_array_equal(batch, a[[49, 3]])


def test_errors():
    with pytest.raises(TypeError, match="ArrayDataset: expected at least one array, got none"):
        ArrayDataset()
    with pytest.raises(ValueError, match=r"arrays of equal length, got shapes \(3, 2\), \(4,\)"):
        ArrayDataset(np.zeros((3, 2)), np.zeros(4))
    with pytest.raises(ValueError, match=r"array 1 to have at least 1 dimension, got a scalar"):
        ArrayDataset(np.zeros(3), 5)
    with pytest.raises(TypeError, match=r"array 0 to hold numbers, got dtype object"):
        ArrayDataset(np.array([None, 1], dtype=object))
    with pytest.raises(IndexError):
        ArrayDataset(np.zeros(3)).gather([3])


def test_subset():
    data = ArrayDataset(np.arange(10) * 10)
    part = Subset(data, [7, 2, 7])
    assert len(part) == 3 and part[1] == (20,)
    np.testing.assert_array_equal(part.gather([2, 1])[0], [70, 20])
    np.testing.assert_array_equal(Subset(part, [1]).gather([0])[0], [20])
    assert len(Subset(data, [])) == 0
    with pytest.raises(IndexError, match=r"Subset: expected indices in \[0, 10\), got -1 to 3"):
        Subset(data, [3, -1])
    with pytest.raises(IndexError, match=r"got 2 to 10"):
        Subset(data, [2, 10])
    with pytest.raises(TypeError, match=r"list of integers, got float64 of shape \(1,\)"):
        Subset(data, [0.5])
    with pytest.raises(TypeError, match=r"list of integers, got bool of shape \(10,\)"):
        Subset(data, np.ones(10, bool))


class Squares:
    """A data set without gather()."""

    def __len__(self):
        return 5

    def __getitem__(self, i):
        return np.full(2, i, np.float32), i * i


def test_gather_of_single_samples():
    for data, indices in ((Squares(), [4, 1]), (Subset(Squares(), [0, 4, 1]), [1, 2])):
        x, y = gather(data, np.array(indices))
        np.testing.assert_array_equal(x, [[4, 4], [1, 1]])
        np.testing.assert_array_equal(y, [16, 1])
        assert x.dtype == np.float32 and y.dtype == np.int64


def test_collate():
    (x,) = collate([np.zeros(3), np.ones(3)])
    assert x.shape == (2, 3)
    with pytest.raises(ValueError, match=r"samples of equal shape, got \(3,\) and \(4,\)"):
        collate([np.zeros(3), np.zeros(4)])
    with pytest.raises(TypeError, match=r"samples made of arrays and numbers, got an object"):
        collate([{"x": 1}])
