"""Nearest neighbours: backends alike, votes, refusals."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx.backends import Backend, backend_of
from nnx.classic import KNeighborsClassifier, nearest

DTYPES = ["bool", "uint8", "int8", "int32", "uint64", "float16", "float32", "float64", ">f4"]


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_backends_agree(dtype, p, rng):
    low = 0 if np.dtype(dtype).kind in "bu" else -100
    x, y = (rng.integers(low, 2 if dtype == "bool" else 100, (n, 30)).astype(dtype) for n in (40, 500))
    ours, base = backend_of(x).nearest(x, y, 9, p), Backend().nearest(x, y, 9, p)
    assert ours[0].dtype.newbyteorder("=") == base[0].dtype.newbyteorder("=")
    assert ours[0].dtype == (
        np.float32 if np.dtype(dtype).kind == "f" and np.dtype(dtype).itemsize <= 4 else np.float64
    )
    np.testing.assert_array_equal(ours[1], base[1])  # whole numbers: no rounding, so ties are ties in both
    np.testing.assert_allclose(ours[0], base[0], rtol=1e-6)


@pytest.mark.parametrize("p", [1, 2])
def test_mixed_types_are_not_rounded_or_wrapped(p):
    x, y = np.array([[200, 3]], np.uint8), np.array([[-1.5, 300.25]])
    expected = 201.5 + 297.25 if p == 1 else np.hypot(201.5, 297.25)
    assert nearest(x, y, p=p)[0].item() == pytest.approx(expected, rel=1e-12)
    assert nearest(x, y.astype(np.float32), p=p)[0].item() == pytest.approx(expected, rel=1e-6)
    assert nearest(x, np.array([[-56, 3]], np.int8), p=p)[0].item() == 256


def test_layouts(rng):
    x, y = rng.standard_normal((20, 8)), rng.standard_normal((70, 8))
    expected = nearest(x, y, 5)
    for a, b in ((np.asfortranarray(x), y[::-1][::-1]), (x[:, ::-1][:, ::-1], np.asfortranarray(y))):
        for r, e in zip(nearest(a, b, 5), expected, strict=True):
            np.testing.assert_array_equal(r, e)


@pytest.mark.parametrize("p", [1, 2])
def test_threads_do_not_change_a_bit(p, rng):
    x, y = rng.standard_normal((50, 300)).astype(np.float32), rng.standard_normal((3000, 300)).astype(np.float32)
    threads = nnx.get_num_threads()
    try:
        results = []
        for n in (1, 2, 3, 8):
            nnx.set_num_threads(n)
            results.append(nearest(x, y, 7, p))
    finally:
        nnx.set_num_threads(threads)
    for distances, index in results:
        assert distances.tobytes() == results[0][0].tobytes()
        assert index.tobytes() == results[0][1].tobytes()


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("k", [1, 4, 25])
def test_against_sklearn(k, p, rng):
    theirs = pytest.importorskip("sklearn.neighbors").KNeighborsClassifier(k, p=p, algorithm="brute")
    x, y = rng.standard_normal((300, 6)), rng.integers(0, 4, 300)
    queries = rng.standard_normal((100, 6))
    ours = KNeighborsClassifier(k, p).fit(x, y)
    theirs.fit(x, y)
    np.testing.assert_array_equal(ours.predict(queries), theirs.predict(queries))
    np.testing.assert_allclose(ours.predict_proba(queries), theirs.predict_proba(queries), rtol=0, atol=1e-12)
    for a, b in zip(ours.kneighbors(queries), theirs.kneighbors(queries), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    assert ours.score(queries, y[:100]) == theirs.score(queries, y[:100])


def test_equal_votes_and_equal_distances():
    knn = KNeighborsClassifier(2).fit([[0.0], [0.0], [0.0]], ["c", "a", "b"])
    assert knn.kneighbors([[0.0]])[1].tolist() == [[0, 1]]  # the first in training
    assert knn.predict([[0.0]]) == "a"  # the first label


def test_all_of_the_points_can_be_asked_for(rng):
    x = rng.standard_normal((30, 3))
    distances, index = nearest(x[:2], x, 30)
    assert (np.sort(index, axis=1) == np.arange(30)).all()
    assert (np.diff(distances, axis=1) >= 0).all()
    assert (index[:, 0] == [0, 1]).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nearest([[1.0]], [[1.0, 2.0]]), ValueError, "nearest: expected x with 2 features like points"),
        (
            lambda: nearest([[1.0]], [[1.0]], k=2),
            ValueError,
            "nearest: expected k to be at most 1, the number of points",
        ),
        (lambda: nearest([[1.0]], [[1.0]], k=0), ValueError, "nearest: expected k to be an integer >= 1, got 0"),
        (lambda: nearest([[1.0]], [[1.0]], p=3), ValueError, "nearest: expected p to be one of 1, 2, got 3"),
        (lambda: nearest([[np.nan]], [[1.0]]), ValueError, "nearest: expected finite numbers in x"),
        (
            lambda: KNeighborsClassifier(5).fit([[1.0], [2.0]], [0, 1]),
            ValueError,
            "KNeighborsClassifier: expected n_neighbors to be at most 2, the number of points, got 5",
        ),
        (
            lambda: KNeighborsClassifier(1, 3).fit([[1.0]], [0]),
            ValueError,
            "KNeighborsClassifier: expected p to be one of",
        ),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
