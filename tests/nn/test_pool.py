"""Pooling layers: they are the functions, with PyTorch's arguments and messages of their own."""

from __future__ import annotations

import numpy as np
import pytest

from nnx import functional as F
from nnx import nn

X = {1: (2, 3, 9), 2: (2, 3, 7, 8), 3: (2, 3, 5, 6, 7)}


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(
    ("layer", "function", "arguments"),
    [
        ("MaxPool", "max_pool", {"kernel_size": 3}),
        ("MaxPool", "max_pool", {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2, "ceil_mode": True}),
        ("AvgPool", "avg_pool", {"kernel_size": 2}),
        (
            "AvgPool",
            "avg_pool",
            {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False},
        ),
        ("SumPool", "sum_pool", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
        ("AdaptiveAvgPool", "adaptive_avg_pool", {"output_size": 3}),
    ],
)
def test_layer_is_the_function(layer, function, arguments, n, rng):
    x = rng.standard_normal(X[n])
    module = getattr(nn, f"{layer}{n}d")(**arguments)
    np.testing.assert_array_equal(module(x), getattr(F, f"{function}{n}d")(x, **arguments))
    np.testing.assert_array_equal(module(x[0]), getattr(F, f"{function}{n}d")(x[0], **arguments))
    assert not list(module.parameters()) and not module.state_dict()


def test_return_indices(rng):
    x = rng.standard_normal(X[2])
    y, index = nn.MaxPool2d(2, return_indices=True)(x)
    expected, positions = F.max_pool2d(x, 2, return_indices=True)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(index, positions)


def test_divisor_override(rng):
    x = rng.standard_normal(X[2])
    np.testing.assert_array_equal(nn.AvgPool2d(2, divisor_override=3)(x), F.avg_pool2d(x, 2, divisor_override=3))
    np.testing.assert_array_equal(nn.AvgPool3d(2, divisor_override=1)(x), nn.SumPool3d(2)(x))


def test_positional_arguments():
    """(kernel_size, stride, padding, dilation, return_indices, ceil_mode), as in torch.nn."""
    layer = nn.MaxPool2d(3, 2, 1, 2, True, True)
    assert (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == (3, 2, 1, 2)
    assert layer.return_indices is True and layer.ceil_mode is True
    layer = nn.AvgPool2d(3, 2, 1, True, False, 5)
    assert (layer.kernel_size, layer.stride, layer.padding, layer.divisor_override) == (3, 2, 1, 5)
    assert layer.ceil_mode is True and layer.count_include_pad is False


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (nn.MaxPool2d(2), "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)"),
        (nn.AvgPool2d(3, 2), "AvgPool2d(kernel_size=3, stride=2, padding=0)"),
        (nn.SumPool1d((2,)), "SumPool1d(kernel_size=(2,), stride=(2,), padding=0)"),
        (nn.AdaptiveAvgPool2d((None, 2)), "AdaptiveAvgPool2d(output_size=(None, 2))"),
    ],
)
def test_repr(layer, text):
    assert repr(layer) == text


ERRORS = [
    (lambda: nn.MaxPool2d(0), "MaxPool2d: expected kernel_size to be an integer >= 1, got 0"),
    (lambda: nn.MaxPool2d(3, 0), "MaxPool2d: expected stride to be an integer >= 1, got 0"),
    (lambda: nn.MaxPool2d(3, dilation=0), "MaxPool2d: expected dilation to be an integer >= 1, got 0"),
    (lambda: nn.MaxPool2d(3, padding=2), "MaxPool2d: expected padding of at most half of kernel_size"),
    (lambda: nn.AvgPool1d((2, 2)), "AvgPool1d: expected kernel_size to be one integer or 1 integers"),
    (lambda: nn.AvgPool2d(2, divisor_override=0), "AvgPool2d: expected divisor_override to be None or not 0"),
    (lambda: nn.SumPool2d(2, padding=2), "SumPool2d: expected padding of at most half of kernel_size"),
    (lambda: nn.AdaptiveAvgPool2d(-1), "AdaptiveAvgPool2d: expected output_size to be an integer >= 0"),
    (lambda: nn.MaxPool2d(2)(np.zeros((4, 4))), r"MaxPool2d: expected input with 4 dimensions \(N, C, H, W\)"),
    (lambda: nn.SumPool2d(5)(np.zeros((1, 4, 4))), "SumPool2d: expected windows that fit into the padded input"),
    (lambda: nn.AdaptiveAvgPool1d(1)(np.zeros((1, 1, 4, 4))), "AdaptiveAvgPool1d: expected input with 3 dim"),
]


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[m[:60] for _, m in ERRORS])
def test_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
