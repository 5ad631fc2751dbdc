"""Receptive fields of well-known networks, and those that the gradient shows."""

from __future__ import annotations

import numpy as np

import nnx
from nnx import models, nn
from nnx.course.receptive_field import ALEXNET, VGG16, small_convnet
from nnx.diagnose import measured_field, receptive_field, stacked_field
from nnx.models.vgg import _STAGES, _features


def convolutions(n, **settings):
    return nn.Sequential(*(nn.Conv2d(1, 1, 3, **settings) for _ in range(n)))


def test_F156_two_3x3_see_5_and_three_see_7():
    assert (stacked_field([3, 3]), stacked_field([3, 3, 3])) == (5, 7)
    for n, size in ((1, 3), (2, 5), (3, 7)):
        assert receptive_field(convolutions(n), (1, 12, 12)).layers[-1].size == (size, size)
        assert receptive_field(convolutions(n, padding=1), (1, 12, 12)).layers[-1].size == (size, size)


def test_F156_alexnet_pool5_sees_195():
    assert stacked_field(ALEXNET) == 195
    report = receptive_field(models.alexnet(10, widths=(4,) * 5).features, (3, 227, 227))  # widths play no part
    assert report["12"].size == (195, 195) and report["12"].kind == "MaxPool2d"


def test_F156_vgg16_pool5_sees_212():
    assert stacked_field(VGG16) == 212
    features = _features(_STAGES[16])  # vgg16().features, without the 124 million weights behind it
    report = receptive_field(features, (3, 64, 64))
    assert report.layers[-1].size == (212, 212) and report.layers[-1].kind == "MaxPool2d"
    assert report.layers[-2].size == (196, 196)


def test_F156_a_wrong_stride_or_kernel_would_be_seen():
    assert stacked_field([(11, 3), *ALEXNET[1:]]) != 195 and stacked_field([*VGG16[:-1], 2]) == 212  # the last stride
    assert stacked_field([5, *VGG16[1:]]) != 212 and stacked_field(VGG16[:-1]) == 196


def test_F157_the_gradients_support_equals_the_theory(rng):
    for n in (1, 2, 3):
        model = convolutions(n)
        field = measured_field(model, str(n - 1), rng.standard_normal((2, 1, 15, 15)))
        assert field.size == (2 * n + 1,) * 2 and field.agrees
        assert np.count_nonzero(field.strength) == (2 * n + 1) ** 2


def test_F157_over_many_examples_the_field_of_a_trained_net_fills_up():
    model = small_convnet(epochs=2)
    x = nnx.data.digits().x_test[:100]
    for layer in ("0", "2", "4"):
        assert measured_field(model, layer, x, position=(2, 2)).agrees
    counts = {np.count_nonzero(measured_field(model, "4", x[i : i + 1], position=(2, 2)).strength) for i in range(20)}
    assert len(counts) > 1 and max(counts) <= 49  # it changes with the example


def test_F157_a_kernel_with_a_zero_column_sees_less(rng):
    model = convolutions(2)
    model[1].weight.data[..., 0] = 0
    field = measured_field(model, "1", rng.standard_normal((2, 1, 15, 15)))
    assert field.size == (5, 4) and field.agrees is False
