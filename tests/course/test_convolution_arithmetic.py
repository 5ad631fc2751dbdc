"""Sizes, padding, numbers of weights."""

from __future__ import annotations

import numpy as np
import pytest

import nnx.functional as F
from nnx import nn
from nnx.course import convolution_arithmetic
from nnx.course.convolution_arithmetic import parameters, shrink

IMAGE = np.zeros((1, 3, 32, 32), np.float32)


def test_F143_seven_by_seven_with_three_by_three():
    assert [F.conv_output_size(7, 3, stride) for stride in (1, 2)] == [5, 3]  # N13; X7: stride 2 is possible
    with pytest.raises(ValueError, match=r"to be a whole number, got 4 / 3 \+ 1 = 2\.33"):
        F.conv_output_size(7, 3, 3)
    assert F.conv_output_size(7, 3, 3, strict=False) == 2


def test_F143_layers_round_down():
    seven = np.zeros((1, 1, 7, 7), np.float32)
    assert nn.Conv2d(1, 1, 3, stride=3)(seven).shape == (1, 1, 2, 2)
    assert nn.MaxPool2d(3, 3)(seven).shape == (1, 1, 2, 2)


@pytest.mark.parametrize(("f", "padding"), [(3, 1), (5, 2), (7, 3)])
def test_F144_same_padding(f, padding):
    assert F.same_padding(f) == padding
    assert nn.Conv2d(3, 2, f, padding=padding)(IMAGE).shape == (1, 2, 32, 32)
    assert nn.Conv2d(3, 2, f, padding="same")(IMAGE).shape == (1, 2, 32, 32)


def test_F145_numbers_of_parameters():
    assert parameters(nn.Conv2d(3, 1, 5)) == 5 * 5 * 3 + 1 == 76  # N14
    assert parameters(nn.Conv2d(3, 10, 5, padding=2)) == 760
    assert parameters(nn.Conv2d(1, 1, 3, bias=False)) == 9
    assert parameters(nn.Linear(100, 100, bias=False)) == 100 * 100
    assert nn.Conv2d(3, 10, 5, padding=2)(IMAGE).shape == (1, 10, 32, 32)


def test_F147_six_maps_are_stacked():
    assert nn.Conv2d(3, 6, 5)(IMAGE).shape == (1, 6, 28, 28)  # X6: not 26
    net = nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.Conv2d(6, 10, 5), nn.ReLU())
    assert net(IMAGE).shape == (1, 10, 24, 24)
    assert shrink(32, [5, 5]) == [32, 28, 24]
    assert shrink(32, [5, 5], padded=True) == [32, 32, 32]
    assert F.conv_output_size(7, 3, padding=1) == 7


def test_F149_a_stride_of_two_replaces_pooling():
    pooled = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2))(IMAGE)
    strided = nn.Conv2d(3, 8, 3, stride=2, padding=1)(IMAGE)
    assert pooled.shape == strided.shape == (1, 8, 16, 16)


def test_F143_the_topic_says_what_is_refused():
    result = convolution_arithmetic.run(small=True)
    assert result["7x7, 3x3, stride 2"] == "3" and "2.33" in result["7x7, 3x3, stride 3"]
