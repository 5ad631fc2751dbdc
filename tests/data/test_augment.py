"""Augmentation: each transform against a slow, obvious version; input, types, seeds, errors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnx.data import (
    Compose,
    GaussianNoise,
    RandomCrop,
    RandomHorizontalFlip,
    RandomRotation,
    RandomScale,
    to_float,
)

TRANSFORMS = [
    RandomHorizontalFlip(0.5),
    RandomCrop((6, 5), padding=2),
    RandomCrop(5, padding=3, fill=7),
    RandomCrop(6, padding=3, padding_mode="reflect"),
    RandomCrop((3, 4)),
    RandomRotation(15),
    RandomRotation((20, 30), fill=9),
    RandomScale((0.7, 1.4)),
    GaussianNoise(5),
    Compose([RandomCrop(6, padding=1), RandomHorizontalFlip(), GaussianNoise(2)]),
]


def rng(seed=0):
    return np.random.default_rng(seed)


def images(n=4, c=3, h=6, w=7, dtype=np.float32, seed=0):
    values = rng(seed).integers(0, 256, (n, c, h, w))
    return values.astype(dtype)


# ------------------------------------------------------------------------- for every transform


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
def test_dtype_is_kept_input_unchanged_and_seeded(transform, dtype):
    x = images(dtype=dtype)
    before = x.copy()
    x.flags.writeable = False
    y = transform(x, rng(1))
    assert y.dtype == x.dtype and len(y) == len(x) and y.shape[1] == 3
    assert not np.shares_memory(x, y)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(y, transform(x, rng(1)))
    assert not np.array_equal(y, transform(x, rng(2)))


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
def test_strides_do_not_matter(transform):
    x = images()
    want = transform(x, rng())
    channels_last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    backwards = np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1]
    for view in (channels_last, backwards, x.astype(">f4")):
        np.testing.assert_array_equal(transform(view, rng()), want)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
def test_empty_batch(transform):
    assert transform(images(n=0), rng()).shape[:2] == (0, 3)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
def test_argument_errors(transform):
    with pytest.raises(TypeError, match=r"expected batch to be uint8 or float, got int64"):
        transform(images(dtype=np.int64), rng())
    with pytest.raises(ValueError, match=r"of shape \(N, C, H, W\), got shape \(3, 6, 7\)"):
        transform(images()[0], rng())
    with pytest.raises(TypeError, match=r"rng to be a numpy.random.Generator, got NoneType"):
        transform(images(), None)


# --------------------------------------------------------------------------------------- flips


def test_flip():
    x = images(n=200)
    y = RandomHorizontalFlip(0.3)(x, rng())
    flipped = np.array([np.array_equal(b, a[..., ::-1]) for a, b in zip(x, y, strict=True)])
    same = np.array([np.array_equal(b, a) for a, b in zip(x, y, strict=True)])
    assert (flipped ^ same).all()
    assert 30 <= flipped.sum() <= 90  # 60 expected, standard deviation 6.5
    always = RandomHorizontalFlip(1)
    np.testing.assert_array_equal(always(always(x, rng()), rng()), x)
    np.testing.assert_array_equal(RandomHorizontalFlip(0)(x, rng()), x)


# --------------------------------------------------------------------------------------- crops


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(0, 3),
    st.sampled_from(["constant", "edge", "reflect", "symmetric"]),
    st.data(),
)
def test_crop_cuts_windows_of_the_padded_images(n, c, h, w, padding, mode, data):
    size = data.draw(st.tuples(st.integers(1, h + 2 * padding), st.integers(1, w + 2 * padding)), "size")
    x = images(n, c, h, w)
    crop = RandomCrop(size, padding=padding, fill=3.5, padding_mode=mode)
    y = crop(x, rng(5))
    widths = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    options = {"constant_values": 3.5} if mode == "constant" else {}
    padded = np.pad(x, widths, mode=mode, **options)
    draw = rng(5)  # the same draws: all rows first, then all columns
    top = draw.integers(0, h + 2 * padding - size[0] + 1, n)
    left = draw.integers(0, w + 2 * padding - size[1] + 1, n)
    for i in range(n):
        window = padded[i, :, top[i] : top[i] + size[0], left[i] : left[i] + size[1]]
        np.testing.assert_array_equal(y[i], window)


def test_crop_reaches_every_place():
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4).repeat(300, axis=0)
    y = RandomCrop(3)(x, rng())
    assert sorted(set(y[:, 0, 0, 0].tolist())) == [0, 1, 4, 5]


def test_crop_errors():
    with pytest.raises(ValueError, match=r"at least \(9, 4\) with padding 1, got shape \(4, 3, 6"):
        RandomCrop((9, 4), padding=1)(images(), rng())
    with pytest.raises(ValueError, match="RandomCrop: expected size to be an integer >= 1, got 0"):
        RandomCrop(0)
    with pytest.raises(ValueError, match="RandomCrop: expected padding to be an integer >= 0"):
        RandomCrop(3, padding=-1)
    with pytest.raises(ValueError, match="padding_mode to be one of 'constant', 'edge', 'reflect'"):
        RandomCrop(3, padding_mode="wrap")


# ----------------------------------------------------------------------- rotation and scaling


def bilinear(image, y, x, fill):
    """The value of a plane at a real coordinate, by the textbook."""
    h, w = image.shape

    def pixel(i, j):
        return image[i, j] if 0 <= i < h and 0 <= j < w else fill

    i, j = math.floor(y), math.floor(x)
    dy, dx = y - i, x - j
    top = (1 - dx) * pixel(i, j) + dx * pixel(i, j + 1)
    bottom = (1 - dx) * pixel(i + 1, j) + dx * pixel(i + 1, j + 1)
    return (1 - dy) * top + dy * bottom


@pytest.mark.parametrize("fill", [0, 40])
@pytest.mark.parametrize(("h", "w"), [(5, 8), (6, 6), (1, 3), (1, 1)])
def test_rotation_equals_the_textbook(h, w, fill):
    x = images(3, 2, h, w, np.float64)
    y = RandomRotation(60, fill=fill)(x, rng(4))
    angles = np.deg2rad(rng(4).uniform(-60, 60, 3))
    want = np.empty_like(x)
    for n, c, i, j in np.ndindex(x.shape):
        dy, dx = i - (h - 1) / 2, j - (w - 1) / 2
        cos, sin = math.cos(angles[n]), math.sin(angles[n])
        at = (cos * dy + sin * dx + (h - 1) / 2, -sin * dy + cos * dx + (w - 1) / 2)
        want[n, c, i, j] = bilinear(x[n, c], *at, fill)
    np.testing.assert_allclose(y, want, atol=1e-10 * 255)  # float64


@pytest.mark.parametrize("scale", [0.5, 0.9, 1.3, 2.5])
def test_scale_equals_the_textbook(scale):
    x = images(2, 2, 5, 8, np.float64)
    y = RandomScale((scale, scale), fill=11)(x, rng())
    want = np.empty_like(x)
    for n, c, i, j in np.ndindex(x.shape):
        want[n, c, i, j] = bilinear(x[n, c], (i - 2) / scale + 2, (j - 3.5) / scale + 3.5, 11)
    np.testing.assert_allclose(y, want, atol=1e-10 * 255)


@pytest.mark.parametrize("quarters", [-2, -1, 0, 1, 2, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_quarter_turns_are_counter_clockwise(quarters, dtype):
    x = images(2, 3, 6, 6, dtype)
    y = RandomRotation((90 * quarters, 90 * quarters))(x, rng())
    want = np.rot90(x, quarters, axes=(2, 3))
    if dtype == np.uint8:
        np.testing.assert_array_equal(y, want)
    else:  # a coordinate is off by its own rounding, times the step between two pixels
        np.testing.assert_allclose(y, want, atol=4e-6 * 255 if dtype == np.float32 else 1e-11)


def test_float32_is_close_to_float64():
    x = images(4, 1, 40, 40) / 255
    for transform in (RandomRotation(30), RandomScale((0.8, 1.2))):
        exact = transform(x.astype(np.float64), rng())
        # Coordinates up to 40 in float32 are off by some 1e-6 pixels, steps are up to 1.
        np.testing.assert_allclose(transform(x, rng()), exact, atol=2e-5)


def test_identities():
    x = images()
    np.testing.assert_array_equal(RandomRotation(0)(x, rng()), x)
    np.testing.assert_array_equal(RandomScale((1, 1))(x, rng()), x)
    np.testing.assert_array_equal(GaussianNoise(0)(x, rng()), x)


def test_uint8_stays_in_range_and_rounds():
    x = np.full((2, 1, 4, 4), 200, np.uint8)
    y = RandomRotation(45, fill=3000)(x, rng())
    assert y.max() == 255  # cut off, not wrapped around
    noisy = GaussianNoise(200)(x, rng())
    assert noisy.min() == 0 and noisy.max() == 255
    picture = images(dtype=np.uint8)
    exact = RandomRotation(20)(picture.astype(np.float32), rng())
    np.testing.assert_array_equal(RandomRotation(20)(picture, rng()), np.rint(exact))
    ramp = np.tile(np.array([0, 1], np.uint8), (1, 1, 1, 4))
    np.testing.assert_array_equal(RandomRotation((180, 180))(ramp, rng())[0, 0, 0], ramp[0, 0, 0, ::-1])


def test_infinite_pixels_do_not_warn():
    x = images()
    x[0, 0, 2, 2] = np.inf
    assert RandomRotation(10)(x, rng()).shape == x.shape


def test_rotation_and_scale_errors():
    with pytest.raises(ValueError, match=r"RandomRotation: expected degrees to be a number in \[0"):
        RandomRotation(-5)
    with pytest.raises(ValueError, match=r"RandomRotation: expected degrees to be \(low, high\)"):
        RandomRotation((1, 2, 3))
    with pytest.raises(ValueError, match=r"degrees to be a number in \[10, inf\), got 5"):
        RandomRotation((10, 5))
    with pytest.raises(ValueError, match=r"RandomScale: expected scale to be \(low, high\), got 1.5"):
        RandomScale(1.5)
    with pytest.raises(ValueError, match=r"scale to be a number in \(0, inf\), got 0"):
        RandomScale((0, 1))
    with pytest.raises(TypeError, match=r"RandomRotation: expected fill to be a number, got 'a'"):
        RandomRotation(5, fill="a")


# ---------------------------------------------------------------------------- noise and compose


def test_noise_has_the_stated_spread():
    x = np.full((50, 3, 20, 20), 5, np.float32)
    noise = GaussianNoise(0.25)(x, rng()) - x
    # 60,000 values: the standard errors are 0.001 (mean) and 0.0007 (std).
    assert abs(noise.mean()) < 0.005 and abs(noise.std() - 0.25) < 0.004
    with pytest.raises(ValueError, match="GaussianNoise: expected std to be a number in"):
        GaussianNoise(-1)


def test_compose_applies_in_order():
    x = images(dtype=np.uint8)
    both = Compose([RandomCrop(5), to_float, GaussianNoise(0.1)])
    draw = rng(3)
    want = GaussianNoise(0.1)(to_float(RandomCrop(5)(x, draw)), draw)
    np.testing.assert_array_equal(both(x, rng(3)), want)
    assert Compose([])(x, rng()) is x
    assert repr(both).startswith("Compose([RandomCrop(size=(5, 5), padding=0, fill=0, ")
    with pytest.raises(TypeError, match="Compose: expected transforms to be callable objects, got 3"):
        Compose([3])
    with pytest.raises(TypeError, match="callable objects, got <class"):
        Compose([RandomHorizontalFlip])
