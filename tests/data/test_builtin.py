"""The shipped digits: what is in them, and that their split never moves."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

import nnx.data
from nnx.data import digits

DIGEST = "49f411d0fa2ef5be0900bea1bc08065915bade5fe64ae85946ecb4124750e7be"


def test_shapes_types_and_range():
    data = digits()
    x_train, y_train, x_test, y_test = data
    assert x_train.shape == (1438, 1, 8, 8) and x_test.shape == (359, 1, 8, 8)
    assert y_train.shape == (1438,) and y_test.shape == (359,)
    assert x_train.dtype == x_test.dtype == np.float32
    assert y_train.dtype == y_test.dtype == np.int64
    assert x_train.min() == 0 and x_train.max() == 1
    assert data.classes == tuple("0123456789")
    assert repr(data).startswith("ImageData(x_train=float32 (1438, 1, 8, 8)")


def test_counts_per_class():
    data = digits()
    assert np.bincount(data.y_test).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    total = np.bincount(data.y_train) + np.bincount(data.y_test)
    assert total.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_split_is_the_written_rule_and_covers_everything():
    with np.load(Path(nnx.data.__file__).with_name("digits.npz"), allow_pickle=False) as archive:
        images, labels = archive["images"], archive["labels"]
    seen = dict.fromkeys(range(10), 0)
    parts = {True: [], False: []}
    for image, label in zip(images, labels, strict=True):
        parts[seen[label] % 5 == 2].append(image)
        seen[label] += 1
    data = digits(dtype="uint8")
    np.testing.assert_array_equal(data.x_test[:, 0], parts[True])
    np.testing.assert_array_equal(data.x_train[:, 0], parts[False])
    np.testing.assert_array_equal(digits().x_test, data.x_test / np.float32(16))


def test_the_bytes_are_those_that_were_published():
    # The sum over uint8 pixels and labels: a changed file would silently change every result.
    data = digits(dtype="uint8")
    digest = hashlib.sha256()
    for array in data:
        digest.update(array.astype(np.uint8).tobytes())
    assert digest.hexdigest() == DIGEST


def test_size_and_attribution():
    folder = Path(nnx.data.__file__).parent
    assert (folder / "digits.npz").stat().st_size < 200_000
    text = (folder / "digits.txt").read_text(encoding="utf-8")
    for word in ("E. Alpaydin, C. Kaynak", "1998", "CC BY 4.0", "10.24432/C50P49"):
        assert word in text


def test_calls_give_independent_arrays():
    first = digits()
    first.x_train[:] = -1
    assert digits().x_train.min() == 0


def test_dtype():
    assert digits(dtype=np.float64).x_train.dtype == np.float64
    with pytest.raises(TypeError, match=r"digits: expected dtype .* uint8, got 'int32'"):
        digits(dtype="int32")
    with pytest.raises(TypeError, match=r"digits: expected dtype .*, got 'nonsense'"):
        digits(dtype="nonsense")


def test_equals_the_copy_in_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    source = datasets.load_digits()
    data = digits(dtype="uint8")
    ours = np.concatenate([data.x_train, data.x_test]).reshape(-1, 64)
    order, theirs = np.lexsort(ours.T), np.lexsort(source.data.T)
    np.testing.assert_array_equal(ours[order], source.data[theirs])
