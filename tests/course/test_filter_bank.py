"""The seven filters of the documents."""

from __future__ import annotations

import numpy as np
import pytest

import nnx.functional as F
from nnx.course import filter_bank
from nnx.data import FILTERS, filter_image


def test_F142_gaussian_window():
    assert filter_image(filter_bank.WINDOW.astype(float), "gaussian_blur", "valid").item() == 176.1875  # N12
    assert filter_image(filter_bank.WINDOW, "gaussian_blur", "valid").item() == 176


def test_F142_identity_is_exact():
    image = np.random.default_rng(0).integers(0, 256, (3, 9, 8), dtype=np.uint8)
    np.testing.assert_array_equal(filter_image(image, "identity"), image)


def test_F142_edge_kernels_add_up_to_zero_and_the_others_to_one():
    edges = [name for name in FILTERS if name.startswith("edge")]
    assert len(edges) == 3 and len(FILTERS) == 7
    for name, kernel in FILTERS.items():
        assert kernel.sum() == pytest.approx(0 if name in edges else 1, abs=1e-15)
    flat = np.full((5, 6), 93.0)
    for name in edges:
        np.testing.assert_array_equal(filter_image(flat, name), 0)


@pytest.mark.parametrize("name", list(FILTERS))
def test_F142_each_is_a_convolution_whether_flipped_or_not(name):
    image = filter_bank.scene().astype(float)
    kernel = np.array(FILTERS[name])[None, None]
    expected = filter_image(image, name, "constant")
    np.testing.assert_allclose(F.conv2d(image[None, None], kernel, padding=1).data[0, 0], expected, atol=1e-10)
    np.testing.assert_allclose(F.true_conv2d(image[None, None], kernel, padding=1).data[0, 0], expected, atol=1e-10)


def test_F142_blurs_smooth_and_sharpening_does_not():
    spread = filter_bank.run(small=True)["spread"]
    assert spread["box_blur"] < spread["gaussian_blur"] < spread["identity"] < spread["sharpen"]
