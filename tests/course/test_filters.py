"""What filters learn: units answer more and more to the images that ascent finds."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import viz
from nnx.course import filters


@pytest.fixture(scope="module")
def result():
    return filters.run(small=True)


def test_F176_activation_rises_monotonically(result):
    for rise in result["rises"] + result["channel_rises"]:
        assert len(rise) > 1 and all(np.diff(rise) > 0)


def test_F176_the_image_of_a_class_is_seen_as_that_class(result):
    assert result["seen_as"] == list(range(10))


def test_F176_training_makes_filters_smoother(result):
    before, after = result["roughness"]
    assert after < before
    assert min(result["moved"]) > 0.1


def test_F176_first_layer_filters_as_images():
    weight = nnx.nn.Conv2d(3, 8, 5).weight
    pixels = viz.as_images(weight)
    assert pixels.shape == (8, 5, 5, 3) and pixels.dtype == np.uint8
    brightest = weight.numpy().reshape(8, -1).argmax(1)
    assert (pixels.transpose(0, 3, 1, 2).reshape(8, -1)[np.arange(8), brightest] == 255).all()
