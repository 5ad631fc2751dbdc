"""Which algorithm convolves what, and that each agrees with the base backend in all three passes."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx._ext import simd
from nnx._ext import spread as spread_kernels
from nnx.backends.base import Backend
from nnx.backends.cpu import CPUBackend
from nnx.backends.cpu import conv as dispatch
from nnx.backends.cpu._arrays import channels_last

BASE, CPU = Backend(), CPUBackend()

# x, w, stride, padding, dilation, groups -> what runs forward and for the weights, what runs for the data gradient
SHAPES = {
    "winograd": ((2, 16, 9, 11), (17, 16, 3, 3), 1, 1, 1, 1, "winograd", "winograd"),
    "winograd-few-pixels": ((1, 16, 5, 5), (17, 16, 3, 3), 1, 1, 1, 1, "direct", "turned"),
    "winograd-many-filters": ((1, 256, 16, 16), (256, 256, 3, 3), 1, 1, 1, 1, "columns", "columns"),
    "few-channels": ((3, 1, 12, 12), (16, 1, 5, 5), 1, 2, 1, 1, "direct", "scattered"),
    "few-filters": ((3, 3, 12, 12), (1, 3, 5, 5), 1, 2, 1, 1, "spread", "scattered"),
    "few-filters-of-two-rows": ((3, 3, 12, 12), (1, 3, 2, 5), 1, 1, 1, 1, "direct", "scattered"),
    "few-filters-stride": ((3, 3, 12, 12), (1, 3, 3, 3), 2, 1, 1, 1, "direct", "scattered"),
    "few-filters-dilation": ((3, 3, 12, 12), (1, 3, 3, 3), 1, 1, 2, 1, "direct", "scattered"),
    "few-filters-far-padding": ((3, 3, 5, 5), (1, 3, 3, 3), 1, 3, 1, 1, "direct", "scattered"),
    "few-filters-long-rows": ((1, 40, 3, 400), (1, 40, 3, 3), 1, 1, 1, 1, "direct", "turned"),
    "stride": ((2, 16, 9, 9), (32, 16, 3, 3), 2, 1, 1, 1, "direct", "scattered"),
    "turned": ((2, 20, 9, 9), (8, 20, 5, 5), 1, 2, 1, 1, "direct", "turned"),
    "padding-beyond-the-filter": ((2, 20, 5, 5), (8, 20, 2, 2), 1, 2, 1, 1, "direct", "scattered"),
    "groups": ((2, 8, 7, 7), (12, 2, 3, 3), 1, 1, 1, 4, "direct", "turned"),
    "groups-stride": ((2, 8, 7, 7), (12, 2, 3, 3), 2, 1, 1, 4, "direct", "columns"),
    "depthwise": ((2, 19, 7, 8), (19, 1, 3, 3), 1, 1, 1, 19, "direct", "turned"),
    "depthwise-stride": ((2, 19, 7, 8), (19, 1, 3, 3), 2, 1, 1, 19, "direct", "scattered"),
    "many-taps": ((1, 1, 40, 40), (2, 1, 34, 34), 1, 0, 1, 1, "direct", "scattered"),
    "too-many-taps": ((1, 1, 70, 70), (2, 1, 34, 34), 1, 0, 2, 1, "columns", "columns"),
    "far-taps": ((1, 2, 300, 3), (2, 2, 2, 2), 1, 0, (200, 1), 1, "columns", "columns"),
    "large-filters": ((1, 300, 6, 6), (80, 300, 3, 3), 2, 1, 1, 1, "columns", "columns"),
    "volumes": ((1, 3, 4, 5, 6), (5, 3, 2, 3, 2), 1, 1, 1, 1, "direct", "columns"),
    "volumes-turned": ((2, 18, 4, 5, 6), (5, 18, 3, 3, 3), 1, 1, 1, 1, "direct", "turned"),
    "volumes-stride": ((2, 18, 4, 5, 6), (5, 18, 3, 3, 3), 2, 1, 1, 1, "direct", "columns"),
    "volumes-depthwise": ((2, 18, 4, 5, 6), (18, 1, 3, 3, 3), (1, 2, 1), 1, (1, 1, 2), 18, "direct", "columns"),
    "volumes-large": ((1, 80, 4, 4, 4), (80, 80, 3, 3, 3), 1, 1, 1, 1, "columns", "columns"),
    "product": ((2, 256, 3, 5), (260, 256, 1, 1), 1, 0, 1, 1, "product", "product"),
    "groups-of-lanes": ((2, 64, 7, 9), (64, 4, 3, 3), 1, 1, 1, 16, "direct", "turned"),
    "groups-of-lanes-stride": ((2, 32, 7, 9), (32, 2, 3, 3), 2, 1, 1, 16, "direct", "columns"),
    "one-tap-narrow": ((3, 70, 5, 7), (16, 70, 1, 1), 1, 0, 1, 1, "direct", "turned"),
    "one-tap-one-filter": ((3, 33, 5, 7), (1, 33, 1, 1), 1, 0, 1, 1, "direct", "turned"),
    "one-tap-narrow-stride": ((3, 33, 5, 7), (8, 33, 1, 1), 2, 0, 1, 1, "direct", "scattered"),
    "one-tap-narrow-padding": ((3, 33, 5, 7), (8, 33, 1, 1), 1, 1, 1, 1, "direct", "scattered"),
    "one-tap": ((2, 25, 3, 5), (26, 25, 1, 1), 1, 0, 1, 1, "direct", "turned"),
}


def test_gradients_of_many_weights_over_few_pixels():
    """Each of the ways in which a weight gradient is shared out among threads; the same bits for any number of them."""
    rng = np.random.default_rng(0)
    for gy_shape, w_shape, size, stride, how, dtype in [
        ((2, 64, 3, 3), (64, 70, 3, 3), (6, 6), 2, "columns", np.float32),  # slabs of pixels
        ((2, 64, 3, 3), (64, 70, 3, 3), (6, 6), 2, "columns", np.float64),
        ((2, 64, 9, 9), (64, 60, 3, 3), (18, 18), 2, "columns", np.float32),
        ((3, 64, 9, 9), (64, 60, 3, 3), (18, 18), 2, "direct", np.float32),  # one chunk
        ((50, 64, 9, 9), (64, 60, 3, 3), (18, 18), 2, "direct", np.float32),  # chunks of pixels
        ((3, 24, 9, 11), (24, 20, 3, 3), (9, 11), 1, "winograd", np.float32),  # chunks of tiles
        ((3, 70, 9, 11), (70, 75, 3, 3), (9, 11), 1, "winograd", np.float32),  # matrices of one gradient
        ((40, 70, 9, 11), (70, 75, 3, 3), (9, 11), 1, "winograd", np.float32),  # several slabs of tiles
    ]:
        gy = rng.standard_normal(gy_shape).astype(dtype)
        x = rng.standard_normal((gy_shape[0], w_shape[1], *size)).astype(dtype)
        geometry = ((stride, stride), ((1, 1), (1, 1)), (1, 1), 1)
        chosen = dispatch._weight_algorithm(gy_shape, w_shape, (stride, stride), (1, 1), (1, 1), 1, dtype == np.float32)
        assert chosen == how
        expected = BASE.conv_weight_grad(gy.astype(np.float64), x.astype(np.float64), w_shape, *geometry)
        bits = set()
        for threads in (1, 2, 3):
            nnx.set_num_threads(threads)
            gw = CPU.conv_weight_grad(gy, x, w_shape, *geometry)
            nnx.testing.assert_close(gw.astype(np.float64), expected, 3e-5 if dtype == np.float32 else 1e-12)
            bits.add(gw.tobytes())
        assert len(bits) == 1


def spread(value, n):
    return value if isinstance(value, tuple) else (value,) * n


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SHAPES)
def test_algorithms(name, dtype):
    x_shape, w_shape, stride, padding, dilation, groups, forward, backward = SHAPES[name]
    n = len(w_shape) - 2
    stride, low, dilation = spread(stride, n), spread(padding, n), spread(dilation, n)
    pairs = tuple((p, p) for p in low)
    rng = np.random.default_rng(0)
    x = rng.standard_normal(x_shape).astype(dtype)
    w = (rng.standard_normal(w_shape) / np.sqrt(np.prod(w_shape[1:]))).astype(dtype)
    b = rng.standard_normal(w_shape[0]).astype(dtype)
    y = BASE.conv(x, w, b, stride, pairs, dilation, groups)
    gy = rng.standard_normal(y.shape).astype(dtype)
    if dispatch._is_product(w_shape, stride, pairs, groups):
        chosen = ("product", "product")
    else:
        how = (w_shape, stride, low, dilation, groups, dtype == np.float32)
        chosen = dispatch._algorithm(y.shape, *how, 1), dispatch._backward_algorithm(x_shape, *how)
        assert dispatch._weight_algorithm(y.shape, *how, 1) == chosen[0]
    if dtype == np.float32 or "winograd" not in (forward, backward):
        assert chosen == (forward, backward)
    scale = 1e-5 if dtype == np.float32 else 1e-12  # of numbers around 1; Winograd's error is below 1e-4
    if "winograd" in chosen:
        scale = 1e-4
    for layout in (np.ascontiguousarray, lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)):
        for relu in (False, True):
            expected = np.maximum(y, 0) if relu else y
            actual = CPU.conv(layout(x), w, b, stride, pairs, dilation, groups, relu)
            np.testing.assert_allclose(actual, expected, rtol=0, atol=scale * np.abs(y).max())
        for actual, expected in (
            (
                CPU.conv_data_grad(layout(gy), w, x.shape, stride, pairs, dilation, groups),
                BASE.conv_data_grad(gy, w, x.shape, stride, pairs, dilation, groups),
            ),
            (
                CPU.conv_weight_grad(layout(gy), layout(x), w.shape, stride, pairs, dilation, groups),
                BASE.conv_weight_grad(gy, x, w.shape, stride, pairs, dilation, groups),
            ),
        ):
            assert actual.shape == expected.shape
            np.testing.assert_allclose(actual, expected, rtol=0, atol=scale * np.abs(expected).max())


IMAGES = ((64, 64, 32, 32), (64, 64, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1)


@pytest.mark.parametrize(
    ("change", "how"),
    [
        ({0: (15, 64, 70, 70)}, "winograd"),
        ({0: (64, 64, 8, 8)}, "winograd"),
        ({0: (64, 32, 32, 32), 1: (129, 32, 3, 3)}, "winograd"),
        ({2: (2, 2)}, "direct"),
        ({0: (64, 64, 34, 34), 4: (2, 2)}, "direct"),
        ({5: 2, 1: (64, 32, 3, 3)}, "direct"),
    ],
    ids=["few images", "few tiles", "many weights", "stride", "dilation", "groups"],
)
def test_large_batches_go_image_by_image(change, how):
    assert dispatch._plan(*IMAGES, True, 0)[0] == "images"
    assert dispatch._plan(*IMAGES, False, 0)[0] == "direct", "float64, or high precision"
    changed = [change.get(i, value) for i, value in enumerate(IMAGES)]
    assert dispatch._plan(*changed, True, 0)[0] == how


def test_how_many_images_are_cold():
    def suits(images, channels, size, cold):
        shape, w_shape = (images, channels, size, size), (channels, channels, 3, 3)
        return dispatch._suits_images(shape, shape, w_shape, (1, 1), (1, 1), (1, 1), 1, True, cold)

    assert suits(16, 64, 32, True) and not suits(15, 64, 32, True)  # images
    assert suits(48, 64, 16, True) and not suits(47, 64, 16, True)  # tiles
    assert suits(32, 16, 32, True) and not suits(31, 16, 32, True)  # bytes
    assert suits(4, 16, 32, False) and not suits(3, 16, 32, False)  # tiles between batch norms
    assert suits(4, 64, 32, False) and not suits(4, 64, 36, False)  # bytes of an image between batch norms


@pytest.fixture
def everything_is_cold(monkeypatch):
    """As if any batch came from memory."""

    def forget():
        dispatch._plan.cache_clear()
        dispatch._suits_images.cache_clear()

    monkeypatch.setattr(dispatch, "_COLD_BYTES", 1)
    monkeypatch.setattr(dispatch, "_COLD_TILES", 1)
    forget()
    yield
    forget()


@pytest.mark.parametrize("joined", (False, True))
def test_image_by_image(everything_is_cold, joined):
    rng = np.random.default_rng(0)
    how = (1, 1), ((1, 1), (0, 2)), (1, 1), 1
    x, w = rng.standard_normal((17, 18, 9, 11), np.float32), rng.standard_normal((33, 18, 3, 3), np.float32)
    b = rng.standard_normal(33, np.float32)
    y = BASE.conv(x, w, b, *how)
    gy = rng.standard_normal(y.shape, np.float32)
    assert dispatch._plan(x.shape, w.shape, *how, True, 0)[0] == "images"
    for relu in (False, True):
        close(CPU.conv(x, w, b, *how, relu), np.maximum(y, 0) if relu else y)
    gx, gw = BASE.conv_data_grad(gy, w, x.shape, *how), BASE.conv_weight_grad(gy, x, w.shape, *how)
    onto = ()
    if joined:
        added, positive = (channels_last(a) for a in rng.standard_normal((2, *x.shape), np.float32))
        onto, gx = (added, positive), np.where(positive > 0, gx + added, 0)
    for a, expected in zip(CPU.conv_gradients(gy, x, w, *how, *onto), (gx, gw), strict=True):
        close(a, expected)
    assert CPU.conv_gradients(gy[:15], x[:15], w, *how) is None
    assert CPU.conv_gradients(gy.astype(np.float64), x.astype(np.float64), w.astype(np.float64), *how) is None
    assert BASE.conv_gradients(gy, x, w, *how) is None


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_how_many_filters_are_few_depends_on_the_level():
    shapes = (2, 6, 28, 28), (6, 1, 5, 5), (1, 1), (2, 2), (1, 1), 1, True
    assert dispatch._algorithm(*shapes, 6) == "spread" and dispatch._algorithm(*shapes, 5) == "direct"
    previous = simd.level()
    for level in simd.supported_levels():
        simd.force_level(level)
        assert dispatch._few(np.ones(1, np.float32)) == spread_kernels.most_filters(4)
    simd.force_level(previous)


def test_high_precision_sums_directly():
    how = ((2, 16, 9, 9), (16, 16, 3, 3), (1, 1), (1, 1), (1, 1), 1)
    x = np.ones((2, 16, 9, 9), np.float32)
    assert dispatch._algorithm(*how, dispatch._fast(x)) == "winograd"
    with nnx.set_conv_precision("high"):
        assert dispatch._algorithm(*how, dispatch._fast(x)) == "direct"
    assert dispatch._algorithm(*how, dispatch._fast(x.astype(np.float64))) == "direct"
