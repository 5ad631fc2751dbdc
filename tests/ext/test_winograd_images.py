"""ext/winograd_images.pyx against ext/norm.pyx and ext/winograd.pyx one after the other, and against float64."""

from __future__ import annotations

import numpy as np
import pytest

from cases._layouts import empty_last, last
from nnx._ext import norm, winograd, winograd_images
from nnx.backends.base import Backend

BASE = Backend()
F = np.float32
PROMISE = 1e-4  # as in test_winograd.py


def nhwc(a):
    return a.transpose(0, 2, 3, 1)


class Case:
    """Random images, filters and batch norms; `special` has NaN and infinities in the images."""

    def __init__(self, seed, images, channels, filters, size, padding, special=False):
        rng = np.random.default_rng(seed)
        height, width = size
        out = (images, filters, height + 2 * padding[0] - 2, width + 2 * padding[1] - 2)

        def draw(*shape):
            return rng.standard_normal(shape).astype(F)

        self.padding = padding
        self.x = last(draw(images, channels, *size))
        if special:
            self.x[0, 0, 1, 1], self.x[-1, -1, 0, 0] = np.nan, np.inf
        self.w = draw(filters, channels, 3, 3) / F(3 * channels**0.5)
        self.b = draw(filters)
        self.gy, self.y = last(draw(*out)), last(draw(*out))
        self.added, self.positive = last(draw(*self.x.shape)), last(draw(*self.x.shape))
        self.mean, self.weight, self.bias = draw(3, channels)
        self.var = rng.uniform(0.5, 2, channels).astype(F)
        self.behind_mean = draw(filters)
        self.factors = draw(4, filters)

    def before(self, relu):
        """What `forward` is given of the batch norm in front, and that batch norm's result."""
        z, rstd = empty_last(self.x.shape, F), np.empty_like(self.var)
        norm.normalize(nhwc(self.x), nhwc(z), self.mean, self.var, self.weight, self.bias, rstd, 1e-5, relu, 2)
        return (self.mean, rstd * self.weight, self.bias, relu), z

    def behind(self, relu):
        """What `backward` is given of the batch norm behind, and the gradient in front of that."""
        g = empty_last(self.gy.shape, F)
        norm.apply_gradient(nhwc(self.gy), nhwc(self.y), nhwc(g), self.behind_mean, self.factors, relu, 2)
        return (self.y, self.behind_mean, self.factors, relu), g


# images, channels, filters, size and padding: several images at a time and one, tiles that reach out, vectors that
# are not full, one channel, no image for some threads, more columns than one tile of ext/norm.pyx has
CASES = [
    (9, 16, 16, (8, 8), (1, 1)),
    (5, 17, 33, (13, 11), (1, 1)),
    (3, 20, 5, (9, 14), (0, 2)),
    (14, 40, 70, (4, 5), (2, 1)),
    (1, 16, 24, (40, 37), (1, 1)),
    (2, 1, 3, (6, 6), (1, 1)),
    (20, 16, 300, (3, 3), (1, 1)),
    (2, 290, 4, (5, 5), (1, 1)),
    (64, 16, 16, (30, 28), (1, 1)),
]
each_case = pytest.mark.parametrize("case", CASES, ids=str)


@each_case
@pytest.mark.parametrize("relu", (False, True))
def test_forward(level, case, relu):
    c = Case(0, *case)
    before, z = c.before(relu)
    for bias, positive in ((None, False), (c.b, True)):
        y, expected = empty_last(c.gy.shape, F), empty_last(c.gy.shape, F)
        winograd_images.forward(c.x, before, c.w, bias, y, c.padding, positive, 2)
        winograd.forward(z, c.w, bias, expected, c.padding, positive, 2)
        np.testing.assert_array_equal(y, expected)


def moments_on_the_way(x, before, w, y, padding, threads=2):
    """mean, var and rstd of the result, which goes to y."""
    images = winograd_images.images_of_sums(y)
    sums = np.full((2, -(-len(y) // images), y.shape[1]), np.nan)
    winograd_images.forward(x, before, w, None, y, padding, False, threads, sums)
    mean, var, rstd = np.full((3, y.shape[1]), np.nan, F)
    norm.moments_of_sums(sums, images * y.shape[2] * y.shape[3], y.size // len(mean), mean, var, rstd, 1e-5)
    return mean, var, rstd


@each_case
@pytest.mark.parametrize("offset", (0, 300))
def test_moments_on_the_way(level, case, offset):
    """Also where the mean is far larger than the distance from it; the images are not changed by it."""
    c = Case(8, *case)
    before, z = c.before(False)
    if offset:
        before, z = None, last(c.x / F(10) + F(offset))
        c.w -= c.w.mean(axis=(1, 2, 3), keepdims=True)
        c.w[:, :, 1, 1] += F(1 / c.w.shape[1])
    y, expected = empty_last(c.gy.shape, F), empty_last(c.gy.shape, F)
    mean, var, rstd = moments_on_the_way(z if offset else c.x, before, c.w, y, c.padding)
    winograd.forward(z, c.w, None, expected, c.padding, False, 2)
    np.testing.assert_array_equal(y, expected)
    exact = y.astype(float)
    spread = exact.var((0, 2, 3))
    assert np.all(np.abs(mean - exact.mean((0, 2, 3))) <= 1e-6 * np.sqrt(spread) + 1e-7 * np.abs(mean))
    np.testing.assert_allclose(var, spread, rtol=2e-5)
    np.testing.assert_allclose(rstd, 1 / np.sqrt(spread + 1e-5), rtol=2e-5)
    for threads in (1, 3, 8):
        again = moments_on_the_way(z if offset else c.x, before, c.w, y, c.padding, threads)
        np.testing.assert_array_equal(again, (mean, var, rstd))


def test_moments_of_what_is_not_finite(level):
    c = Case(9, 9, 16, 16, (8, 8), (1, 1))
    for bad in (np.nan, np.inf):
        c.x[7, 3, 5, 6] = bad
        mean, var, rstd = moments_on_the_way(c.x, None, c.w, empty_last(c.gy.shape, F), c.padding)
        assert not np.isfinite(mean).any() and np.isnan(var).all() and np.isnan(rstd).all()


@each_case
@pytest.mark.parametrize("relu", (False, True))
def test_backward(level, case, relu):
    c = Case(1, *case)
    before, z = c.before(relu)
    behind, g = c.behind(relu)
    exact = BASE.conv_weight_grad(
        g.astype(float), z.astype(float), c.w.shape, (1, 1), tuple((p, p) for p in c.padding), (1, 1), 1
    )
    for source, joined in (((behind, before), {}), ((None, before), {"positive": c.positive}),
                           ((behind, None), {"added": c.added, "positive": c.positive})):  # fmt: skip
        gx, gw = empty_last(c.x.shape, F), np.full(c.w.shape, np.nan, F)
        gy, x = c.gy if source[0] else g, c.x if source[1] else z
        winograd_images.backward(gy, source[0], x, source[1], c.w, gx, gw, c.padding, 2, **joined)
        expected = empty_last(c.x.shape, F)
        winograd.data_grad(g, c.w, expected, c.padding, 2, joined.get("added"), joined.get("positive"))
        np.testing.assert_array_equal(gx, expected)
        assert np.abs(gw - exact).max() < PROMISE * np.sqrt(np.mean(exact**2))


@pytest.mark.parametrize("relu", (False, True))
@pytest.mark.parametrize(
    "case",
    [(9, 16, 16, (16, 16), (1, 1)), (3, 16, 20, (32, 32), (1, 1)), (7, 64, 16, (8, 8), (1, 1)),
     (3, 20, 5, (9, 14), (0, 2)), (2, 290, 16, (4, 4), (1, 1)), (9, 290, 3, (16, 16), (1, 1)),
     (1, 33, 16, (40, 37), (1, 1))],
    ids=str,
)  # fmt: skip
def test_sums_on_the_way_have_the_bits_of_those_afterwards(level, case, relu):
    """Several images to a tile of ext/norm.pyx, several tiles to an image, more than one column of tiles."""
    c = Case(6, *case)
    rstd = (1 / np.sqrt(c.var + F(1e-5))).astype(F)
    before = (c.mean, rstd * c.weight, c.bias, relu)
    tiles = winograd_images.sum_tiles(c.x, c.gy)
    assert tiles > 0
    plain, gw = empty_last(c.x.shape, F), np.empty_like(c.w)
    winograd_images.backward(c.gy, None, c.x, before, c.w, plain, gw, c.padding, 2)

    def gradients(gx, sums):
        shapes = (c.x.shape[1],), (c.x.shape[1],), (4, c.x.shape[1])
        results = weight, bias, factors = [np.full(shape, np.nan, F) for shape in shapes]
        how = c.weight, weight, bias, True, 2, relu, c.bias, factors
        norm.normalize_backward(nhwc(gx), nhwc(c.x), None, c.mean, rstd, *how, sums)
        return [a.tobytes() for a in results]

    expected = gradients(plain, None)
    for threads in (1, 2, 5):
        gx, sums = empty_last(c.x.shape, F), np.full((2, tiles, c.x.shape[1]), np.nan)
        winograd_images.backward(c.gy, None, c.x, before, c.w, gx, gw, c.padding, threads, None, None, sums)
        np.testing.assert_array_equal(gx, plain)
        assert gradients(gx, sums) == expected


def test_sums_only_of_whole_tiles():
    c = Case(7, 11, 16, 16, (29, 27), (1, 1))
    assert winograd_images.sum_tiles(c.x, c.gy) == 0
    assert winograd_images.sum_tiles(c.x[:0], c.gy[:0]) == 0
    assert winograd_images.images_of_sums(c.gy[:0]) == 1
    arrays = c.gy, None, c.x, c.before(True)[0], c.w, empty_last(c.x.shape, F), np.empty_like(c.w)
    message = (
        r"winograd_images.backward: expected no sums where sum_tiles is 0, got some for x of shape \(11, 16, 29, 27\) "
        r"and gy of shape \(11, 16, 29, 27\)"
    )
    with pytest.raises(ValueError, match=message):
        winograd_images.backward(*arrays, c.padding, 2, None, None, np.empty((2, 9, 16)))


def test_the_number_of_threads_does_not_change_the_bits(level):
    results = set()
    for threads in (1, 2, 3, 4, 8):
        c = Case(2, 21, 20, 36, (17, 9), (1, 1))
        y, gx, gw = empty_last(c.gy.shape, F), empty_last(c.x.shape, F), np.empty_like(c.w)
        winograd_images.forward(c.x, c.before(True)[0], c.w, c.b, y, c.padding, False, threads)
        arrays = c.gy, c.behind(True)[0], c.x, c.before(True)[0], c.w, gx, gw
        winograd_images.backward(*arrays, c.padding, threads, c.added)
        results.add(y.tobytes() + gx.tobytes() + gw.tobytes())
    assert len(results) == 1


def test_what_is_not_finite(level):
    c = Case(3, 3, 16, 16, (9, 9), (1, 1), special=True)
    before, z = c.before(True)
    y, expected = empty_last(c.gy.shape, F), empty_last(c.gy.shape, F)
    winograd_images.forward(c.x, before, c.w, None, y, c.padding, False, 2)
    winograd.forward(z, c.w, None, expected, c.padding, False, 2)
    np.testing.assert_array_equal(y, expected)
    assert np.isnan(y).any() and np.isfinite(y).any()


def test_filters_and_their_gradient_of_any_strides(level):
    c = Case(4, 6, 16, 20, (8, 8), (1, 1))
    w = np.ascontiguousarray(c.w.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)
    results = []
    for filters, gw in ((c.w, np.empty_like(c.w)), (w, np.empty_like(w))):
        y, gx = empty_last(c.gy.shape, F), empty_last(c.x.shape, F)
        winograd_images.forward(c.x, c.before(False)[0], filters, None, y, c.padding, False, 2)
        winograd_images.backward(c.gy, None, c.x, None, filters, gx, gw, c.padding, 2)
        results.append([a.copy() for a in (y, gx, gw)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def arguments(**change):
    c = Case(5, 2, 4, 6, (5, 5), (1, 1))
    good = {
        "gy": c.gy, "behind": c.behind(False)[0], "x": c.x, "before": c.before(False)[0], "w": c.w,
        "gx": empty_last(c.x.shape, F), "gw": np.empty_like(c.w), "padding": (1, 1), "num_threads": 1,
        "added": None, "positive": None, "sums": None,
    }  # fmt: skip
    return (good | change).values()


def frozen(a):
    a = a.copy(order="K")
    a.flags.writeable = False
    return a


ONES = np.ones(4, F)
X, Y, W = last(np.ones((2, 4, 5, 5), F)), last(np.ones((2, 6, 5, 5), F)), np.ones((6, 4, 3, 3), F)
SIX, FACTORS, SUMS = np.ones(6, F), np.ones((4, 6), F), np.ones((2, 1, 6))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_threads": 0}, ValueError, "expected num_threads to be at least 1"),
        ({"padding": (3, 1)}, ValueError, r"expected padding to be two numbers in \[0, 2\], got \(3, 1\)"),
        ({"gx": frozen(X)}, ValueError, "expected gx to be writeable"),
        ({"gw": frozen(W)}, ValueError, "expected gw to be writeable"),
        ({"gx": last(np.ones((2, 4, 5, 6), F))}, ValueError,
         r"expected gx of x's shape \(2, 4, 5, 5\), got \(2, 4, 5, 6\)"),
        ({"gw": np.ones((6, 4, 3, 2), F)}, ValueError, r"expected gw of w's shape \(6, 4, 3, 3\), got \(6, 4, 3, 2\)"),
        ({"x": np.ones((2, 4, 5, 5), F)}, ValueError, "expected x to be channels-last in memory"),
        ({"w": np.ones((6, 5, 3, 3), F)}, ValueError, r"expected x \(N, C, ..\), w \(F, C, 3, 3\)"),
        ({"before": (ONES[:3], ONES, ONES, True)}, ValueError, "expected mean with 4 elements"),
        ({"before": (ONES, ONES[:3], ONES, True)}, ValueError, "expected scale with 4 elements"),
        ({"before": (ONES, ONES, ONES.astype(float), True)}, TypeError, "expected shift to be float32"),
        ({"behind": (X, SIX, FACTORS, True)}, ValueError, r"expected z of gy's shape, got \(2, 4, 5, 5\)"),
        ({"behind": (Y, SIX, FACTORS[:3], True)}, ValueError, "expected factors with 24 elements"),
        ({"behind": (Y, SIX[:5], FACTORS, True)}, ValueError, "expected mean with 6 elements"),
        ({"added": Y}, ValueError, r"expected added of the result's shape \(2, 4, 5, 5\), got \(2, 6, 5, 5\)"),
        ({"positive": np.ones((2, 4, 5, 5), F)}, ValueError, "expected positive to be channels-last in memory"),
        ({"sums": np.ones((2, 1, 4)), "before": None}, ValueError, "expected sums only with before, got before=None"),
        ({"sums": np.ones((2, 2, 4))}, ValueError, "expected sums with 8 elements"),
        ({"sums": np.ones((2, 1, 4), F)}, TypeError, "expected sums to be float64"),
        ({"sums": frozen(np.ones((2, 1, 4)))}, ValueError, "expected sums to be writeable"),
        ({"gy": last(np.ones((0, 6, 5, 5), F)), "x": last(np.ones((0, 4, 5, 5), F)), "behind": None,
          "gx": last(np.ones((0, 4, 5, 5), F))}, ValueError, "expected x and gy with elements, got none"),
    ],
)  # fmt: skip
def test_errors_backward(change, error, message):
    with pytest.raises(error, match=f"winograd_images.backward: {message}"):
        winograd_images.backward(*arguments(**change))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_threads": 0}, ValueError, "expected num_threads to be at least 1"),
        ({"y": frozen(Y)}, ValueError, "expected y to be writeable"),
        ({"y": Y.astype(float)}, TypeError, "expected arrays of one dtype, got y of float64"),
        ({"before": (ONES, ONES, ONES[:3], True)}, ValueError, "expected shift with 4 elements"),
        ({"bias": SIX[:5]}, ValueError, "expected .*bias of 6"),
        ({"x": X[:0], "y": Y[:0]}, ValueError, "expected x and y with elements, got none"),
        ({"w": np.ones((6, 4, 3, 2), F)}, ValueError, "expected 3x3 filters on images of two dimensions, got 3x2"),
        ({"sums": SUMS, "bias": SIX}, ValueError, "expected sums only without bias and relu"),
        ({"sums": SUMS, "relu": True}, ValueError, "expected sums only without bias and relu"),
        ({"sums": SUMS[:1]}, ValueError, "expected sums with 12 elements"),
        ({"sums": SUMS.astype(F)}, TypeError, "expected sums to be float64"),
        ({"sums": frozen(SUMS)}, ValueError, "expected sums to be writeable"),
    ],
)
def test_errors_forward(change, error, message):
    good = {
        "x": X, "before": (ONES, ONES, ONES, True), "w": W, "bias": None, "y": Y.copy(order="K"), "padding": (1, 1),
        "relu": False, "num_threads": 1, "sums": None,
    }  # fmt: skip
    with pytest.raises(error, match=f"winograd_images.forward: {message}"):
        winograd_images.forward(*(good | change).values())
