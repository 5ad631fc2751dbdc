"""The fixed filters: their numbers, borders, types and errors."""

import numpy as np
import pytest

from nnx import functional as F
from nnx.data import FILTERS, filter_image

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (3, 7, 6), dtype=np.uint8)


def test_kernels():
    sums = {name: float(kernel.sum()) for name, kernel in FILTERS.items()}
    edges = ["edge_diagonal", "edge_laplace", "edge_all"]
    assert [sums.pop(name) for name in edges] == [0, 0, 0]
    assert set(sums) == {"identity", "sharpen", "box_blur", "gaussian_blur"}
    assert all(total == pytest.approx(1, rel=1e-15) for total in sums.values())
    for kernel in FILTERS.values():
        np.testing.assert_array_equal(kernel, kernel[::-1, ::-1])
        with pytest.raises(ValueError, match="read-only"):
            kernel[0, 0] = 5
    with pytest.raises(TypeError):
        FILTERS["identity"] = np.zeros((3, 3))


def test_identity_is_exact():
    for mode in ("edge", "constant", "reflect", "symmetric", "wrap"):
        np.testing.assert_array_equal(filter_image(IMAGE, "identity", mode), IMAGE)
    np.testing.assert_array_equal(filter_image(IMAGE, "identity", "valid"), IMAGE[:, 1:-1, 1:-1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_conv2d(dtype):
    x = RNG.standard_normal((2, 3, 6, 7)).astype(dtype)
    kernel = RNG.standard_normal((3, 5)).astype(dtype)
    expected = F.conv2d(x.reshape(6, 1, 6, 7), kernel[None, None], padding=(1, 2)).data.reshape(x.shape)
    y = filter_image(x, kernel, "constant")
    assert y.dtype == dtype
    np.testing.assert_allclose(y, expected, atol=1e-5 if dtype == np.float32 else 1e-12)  # sums of 15 products


def test_bytes_are_rounded_and_cut_off():
    flat = np.full((5, 5), 200, np.uint8)
    flat[2, 2] = 255
    sharp = filter_image(flat, "sharpen")
    assert sharp.dtype == np.uint8 and sharp[2, 2] == 255 and sharp[2, 1] == 145 and sharp[0, 0] == 200
    assert filter_image(flat, "edge_laplace")[2, 2] == 0
    assert filter_image(flat.astype(int), "edge_laplace")[2, 2] == -220
    centre = np.array([[178, 174, 177], [179, 178, 179], [168, 171, 178]], np.uint8)
    assert filter_image(centre, "gaussian_blur", "valid").tolist() == [[176]]


def test_input_is_not_changed():
    before = IMAGE.copy()
    filter_image(IMAGE, "box_blur")
    np.testing.assert_array_equal(IMAGE, before)


def test_errors():
    with pytest.raises(ValueError, match="filter_image: expected kernel to be one of 'identity', .* got 'emboss'"):
        filter_image(IMAGE, "emboss")
    with pytest.raises(ValueError, match=r"filter_image: expected kernel of odd height and width, got shape \(2, 3\)"):
        filter_image(IMAGE, np.ones((2, 3)))
    with pytest.raises(ValueError, match="filter_image: expected mode to be one of 'edge', .* got 'same'"):
        filter_image(IMAGE, "identity", "same")
    with pytest.raises(
        ValueError, match=r"filter_image: expected image of numbers of shape .* got shape|of shape \(3,\)"
    ):
        filter_image(np.zeros(3), "identity")
    with pytest.raises(
        ValueError, match=r"filter_image: expected image of at least \(3, 3\) pixels, got shape \(2, 5\)"
    ):
        filter_image(np.zeros((2, 5)), "identity", "valid")
    with pytest.raises(ValueError, match="filter_image: expected image of numbers"):
        filter_image(np.array([["a"]]), "identity")
