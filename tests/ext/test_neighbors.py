"""ext/neighbors.pyx against plain NumPy at every level, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from nnx._ext import neighbors

KINDS = ["uint8", "float32", "float64"]
each_kind = pytest.mark.parametrize("kind", KINDS)
each_p = pytest.mark.parametrize("p", [1, 2])
# queries, points, numbers in a row, neighbours: one row, rests of all tiles, few and many queries, nothing in a row
SIZES = [
    (1, 1, 1, 1),
    (3, 7, 5, 7),
    (70, 333, 17, 20),
    (20, 50, 0, 3),
    (5, 4100, 33, 9),
    (130, 2100, 100, 4),
    (0, 3, 4, 2),
]


def rows(kind, n, width, rng):
    if kind == "uint8":
        return rng.integers(0, 256, (n, width)).astype(np.uint8)
    return (rng.standard_normal((n, width)) + 3).astype(kind)  # off centre: |q|^2 + |p|^2 - 2 q p would cancel


def search(x, y, k, p, center=None, threads=2):
    distances = np.full((len(x) + 2, k), 7, np.float32 if x.dtype == np.float32 else np.float64)
    index = np.full((len(x) + 2, k), 7, np.int64)
    neighbors.nearest(x, y, distances[1:-1], index[1:-1], p, center, threads)
    assert (distances[[0, -1]] == 7).all()
    assert (index[[0, -1]] == 7).all()
    return distances[1:-1], index[1:-1]


def middle(y):
    return y.mean(axis=0).astype(np.float32 if y.dtype == np.float32 else np.float64)


def reference(x, y, k, p):
    """Distances in float64, ties by number."""
    wide = y.astype(np.float64)
    d = np.array([np.abs(r - wide).sum(1) if p == 1 else ((r - wide) ** 2).sum(1) for r in x.astype(np.float64)])
    d = d.reshape(len(x), len(y))
    index = np.argsort(d, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(d, index, 1), index


@each_kind
@each_p
@pytest.mark.parametrize("size", SIZES)
def test_against_numpy(size, p, kind, level, rng):
    queries, points, width, k = size
    x, y = rows(kind, queries, width, rng), rows(kind, points, width, rng)
    y[points // 2] = y[0]  # a tie
    if queries:
        x[-1] = y[0]
    expected, order = reference(x, y, k, p)
    results = [search(x, y, k, p, center, threads) for center in (None, middle(y)) for threads in (1, 2, 5)]
    for distances, index in results:  # by products or directly, on any number of threads: the same bits
        np.testing.assert_array_equal(distances, results[0][0])
        np.testing.assert_array_equal(index, results[0][1])
    distances, index = results[0]
    if kind == "uint8":
        np.testing.assert_array_equal(distances, expected)
    else:
        # sums of positive numbers: the relative error is below `width` roundings
        limit = {"float32": 6e-8, "float64": 1.2e-16}[kind] * max(width, 4)
        np.testing.assert_allclose(distances, expected, rtol=limit, atol=0)
    if kind != "float32":
        np.testing.assert_array_equal(index, order)
    # in order, equal ones by number
    assert (np.diff(distances, axis=1) >= 0).all()
    same = np.diff(distances, axis=1) == 0
    assert (np.diff(index, axis=1)[same] > 0).all()


def test_bytes_never_wrap(level):
    """The lecture's 4 x 4 pictures: 456, where uint8 arithmetic gives 1128."""
    test = np.array([[56, 32, 10, 18, 90, 23, 128, 133, 24, 26, 178, 200, 2, 0, 255, 220]], np.uint8)
    train = np.array([[10, 20, 24, 17, 8, 10, 89, 100, 12, 16, 178, 170, 4, 32, 233, 112]], np.uint8)
    assert np.abs(test - train).sum() == 1128  # wrapped
    assert search(test, train, 1, 1)[0].item() == 456
    assert np.sqrt(search(test, train, 1, 2)[0].item()) == pytest.approx(162.111, abs=5e-4)


def test_the_largest_differences_of_bytes_are_exact(level):
    """Rows beyond one block of 32,768 bytes, all differences 255."""
    x, y = np.zeros((17, 70_001), np.uint8), np.full((3, 70_001), 255, np.uint8)
    assert (search(x, y, 1, 1)[0] == 255 * 70_001).all()
    assert (search(x, y, 1, 2)[0] == 65025 * 70_001).all()
    assert (search(x, y, 1, 2, middle(y))[0] == 65025 * 70_001).all()


@each_p
@each_kind
def test_a_query_alone_and_in_a_batch(kind, p, rng):
    x, y = rows(kind, 40, 50, rng), rows(kind, 3000, 50, rng)
    together = search(x, y, 6, p, middle(y))
    for i in (0, 17, 39):
        alone = search(x[i : i + 1], y, 6, p, middle(y))
        np.testing.assert_array_equal(alone[0][0], together[0][i])
        np.testing.assert_array_equal(alone[1][0], together[1][i])


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_products_lose_no_winner(kind, level, rng):
    """Points so close to each other, and so far from zero, that a product cannot tell them apart."""
    y = (1000 + 1e-3 * rng.standard_normal((500, 40))).astype(kind)
    x = (1000 + 1e-3 * rng.standard_normal((32, 40))).astype(kind)
    for center in (np.zeros(40, kind), middle(y)):
        for a, b in zip(search(x, y, 10, 2, center), search(x, y, 10, 2), strict=True):
            np.testing.assert_array_equal(a, b)


@each_p
def test_equal_points_come_by_number(p):
    x, y = np.ones((20, 9), np.float32), np.zeros((2500, 9), np.float32)
    distances, index = search(x, y, 30, p, middle(y))
    assert (distances == 9).all()
    assert (index == np.arange(30)).all()


@each_p
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_nan_and_infinity_are_the_farthest(kind, p):
    y = np.zeros((40, 3), kind)
    y[3], y[5] = np.nan, np.inf
    x = np.ones((20, 3), kind)
    x[7] = np.nan
    distances, index = search(x, y, 40, p, np.zeros(3, kind))
    assert index[0, :4].tolist() == [0, 1, 2, 4]
    assert index[0, 38:].tolist() == [3, 5]
    assert np.isinf(distances[0, 38:]).all()
    assert index[7].tolist() == list(range(40))
    assert np.isinf(distances[7]).all()
    assert (search(x, y, 40, p)[1] == index).all()


X, Y, D, I = np.ones((4, 3)), np.ones((6, 3)), np.ones((4, 2)), np.ones((4, 2), np.int64)  # noqa: E741
BX, BY = X.astype(np.uint8), Y.astype(np.uint8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X[0], Y, D, I, 1, None, 1), ValueError, "nearest: expected x with 2 dimensions"),
        ((X, Y[0], D, I, 1, None, 1), ValueError, "nearest: expected y with 2 dimensions"),
        ((X, Y[:, :2], D, I, 1, None, 1), ValueError, "nearest: expected y to have 3 in dimension 1"),
        ((X, Y, D[:3], I, 1, None, 1), ValueError, "nearest: expected distances to have 4 in dimension 0"),
        ((X, Y, D, I[:3], 1, None, 1), ValueError, "nearest: expected index to have 4 in dimension 0"),
        ((X, Y, D, I[:, :1], 1, None, 1), ValueError, "nearest: expected index to have 2 in dimension 1"),
        ((X, Y, np.ones((4, 7)), np.ones((4, 7), np.int64), 1, None, 1), ValueError, "1 to 6 neighbours.*got 7"),
        ((X, Y, D[:, :0], I[:, :0], 1, None, 1), ValueError, "nearest: expected 1 to 6 neighbours.*got 0"),
        ((X, Y, D, I, 3, None, 1), ValueError, "nearest: expected p to be 1 or 2, got 3"),
        ((X, Y, D, I, 1, None, 0), ValueError, "nearest: expected num_threads to be at least 1"),
        ((X.astype(np.float32), Y, D, I, 1, None, 1), TypeError, "nearest: expected x to be float64"),
        ((X, BY, D, I, 1, None, 1), TypeError, "nearest: expected y to be float64"),
        ((BX, Y, D, I, 1, None, 1), TypeError, "nearest: expected y to be uint8"),
        ((BX, BY, D.astype(np.float32), I, 1, None, 1), ValueError, "nearest: expected distances of float64"),
        ((X, Y, D, I.astype(np.int32), 1, None, 1), TypeError, "nearest: expected index to be int64"),
        ((X, Y, D, I, 2, np.ones(2), 1), ValueError, "nearest: expected center with 3 elements"),
        ((X, Y, D, I, 2, np.ones(3, np.float32), 1), TypeError, "nearest: expected center to be float64"),
        ((BX, BY, D, I, 2, np.ones(3, np.float32), 1), TypeError, "nearest: expected center to be float64"),
        ((X.T, np.ones((6, 4)), np.ones((3, 2)), I[:3], 1, None, 1), ValueError, "expected x to be C-contiguous"),
        ((None, Y, D, I, 1, None, 1), TypeError, "nearest: expected x to be an array, got None"),
    ],
)  # fmt: skip
def test_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        neighbors.nearest(*arguments)
    assert (D == 1).all()
    assert (I == 1).all()


def test_read_only_results_are_refused():
    fixed = D.copy()
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="nearest: expected distances to be writeable"):
        neighbors.nearest(X, Y, fixed, I, 1, None, 1)
