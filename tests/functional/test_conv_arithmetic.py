"""The arithmetic agrees with what the layers do."""

import itertools

import numpy as np
import pytest

from nnx import functional as F

SETTINGS = list(itertools.product((5, 7, 8), (1, 2, 3), (1, 2, 3), (0, 1, 2), (1, 2)))


@pytest.mark.parametrize(("n", "f", "stride", "padding", "dilation"), SETTINGS)
def test_size_is_that_of_conv1d(n, f, stride, padding, dilation):
    y = F.conv1d(np.zeros((1, 1, n)), np.zeros((1, 1, f)), None, stride, padding, dilation)
    assert F.conv_output_size(n, f, stride, padding, dilation, strict=False) == y.shape[-1]
    whole = (n + 2 * padding - dilation * (f - 1) - 1) % stride == 0
    if whole:
        assert F.conv_output_size(n, f, stride, padding, dilation) == y.shape[-1]
    else:
        with pytest.raises(ValueError, match="to be a whole number"):
            F.conv_output_size(n, f, stride, padding, dilation)


@pytest.mark.parametrize(("n", "f", "stride", "padding", "dilation"), SETTINGS[::3])
def test_transposed_size_is_that_of_conv_transpose1d(n, f, stride, padding, dilation):
    for extra in range(max(stride, dilation)):
        try:
            size = F.conv_transpose_output_size(n, f, stride, padding, extra, dilation)
        except ValueError as error:
            assert "at least one element" in str(error)
            continue
        y = F.conv_transpose1d(np.zeros((1, 1, n)), np.zeros((1, 1, f)), None, stride, padding, extra, 1, dilation)
        assert size == y.shape[-1]
        if extra < stride:
            assert F.conv_output_size(size, f, stride, padding, dilation, strict=False) == n


def test_strict_message_and_remedy():
    with pytest.raises(
        ValueError, match=r"got 4 / 3 \+ 1 = 2\.33\. padding=1 would fit; strict=False rounds down to 2"
    ):
        F.conv_output_size(7, 3, stride=3)
    assert F.conv_output_size(7, 3, stride=3, padding=1) == 3
    # an even stride and an odd remainder: no padding on both sides helps
    with pytest.raises(ValueError, match=r"= 3\.50\. strict=False rounds down to 3"):
        F.conv_output_size(8, 3, stride=2)


def test_same_padding():
    for f, dilation in ((1, 1), (3, 1), (5, 1), (7, 1), (3, 2), (2, 2)):
        assert F.conv_output_size(9, f, 1, F.same_padding(f, dilation), dilation) == 9
    with pytest.raises(ValueError, match=r"same_padding: expected dilation \(f - 1\) to be even, got 3 for f=4"):
        F.same_padding(4)


def test_errors():
    with pytest.raises(
        ValueError, match=r"expected a filter that fits .* f=5 with dilation 2 \(reaches over 9\) for n=8"
    ):
        F.conv_output_size(8, 5, dilation=2)
    with pytest.raises(ValueError, match="conv_output_size: expected stride to be an integer >= 1, got 0"):
        F.conv_output_size(8, 3, 0)
    with pytest.raises(TypeError, match=r"conv_output_size: expected n to be an integer >= 1, got 7\.5"):
        F.conv_output_size(7.5, 3)
    with pytest.raises(ValueError, match="expected output_padding below stride or dilation, got 2 with stride 2"):
        F.conv_transpose_output_size(3, 3, stride=2, output_padding=2)
    with pytest.raises(ValueError, match="expected padding that leaves at least one element, got -1 with 2"):
        F.conv_transpose_output_size(1, 3, padding=2)
