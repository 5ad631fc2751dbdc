"""Convolution layers: parameters, initial values, arguments, and every error message."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nnx
from nnx import nn
from nnx.testing import assert_close


@pytest.mark.parametrize(
    ("layer", "count"),
    [
        (nn.Conv2d(3, 10, 5, padding=2), 760),  # the course's: 76 for each of 10 filters
        (nn.Conv2d(3, 1, 5), 76),
        (nn.Conv2d(1, 1, 3, bias=False), 9),
        (nn.Conv2d(6, 4, 3, groups=2), 4 * 3 * 9 + 4),
        (nn.Conv1d(3, 5, 2), 5 * 3 * 2 + 5),
        (nn.Conv3d(2, 3, (1, 2, 3)), 3 * 2 * 6 + 3),
        (nn.ConvTranspose2d(6, 4, 3, groups=2), 6 * 2 * 9 + 4),
    ],
)
def test_number_of_parameters(layer, count):
    assert sum(p.size for p in layer.parameters()) == count


@pytest.mark.parametrize(
    ("layer", "x", "y"),
    [
        (nn.Conv2d(3, 10, 5, padding=2), (1, 3, 32, 32), (1, 10, 32, 32)),
        (nn.Conv2d(3, 6, 5), (2, 3, 32, 32), (2, 6, 28, 28)),
        (nn.Conv2d(3, 6, 3, padding="same", dilation=2), (3, 9, 8), (6, 9, 8)),
        (nn.Conv2d(3, 6, 3, padding=((0, 2), (1, 1))), (2, 3, 5, 5), (2, 6, 5, 5)),
        (nn.Conv1d(4, 2, 3, stride=2), (2, 4, 9), (2, 2, 4)),
        (nn.Conv3d(2, 3, 2), (1, 2, 3, 4, 5), (1, 3, 2, 3, 4)),
        (nn.ConvTranspose1d(2, 3, 4, stride=4), (5, 2, 3), (5, 3, 12)),
        (nn.ConvTranspose2d(8, 4, 2, stride=2), (1, 8, 7, 7), (1, 4, 14, 14)),
        (nn.ConvTranspose3d(2, 3, 2, stride=(1, 2, 2)), (1, 2, 2, 2, 3), (1, 3, 3, 4, 6)),
        (nn.Unfold(3, padding=1), (2, 3, 4, 5), (2, 27, 20)),
        (nn.Fold((4, 5), 3, padding=1), (2, 27, 20), (2, 3, 4, 5)),
    ],
)
def test_shapes(layer, x, y):
    assert layer(np.zeros(x)).shape == y


def test_state_dict():
    layer = nn.Conv2d(4, 6, (3, 5), groups=2)
    assert {k: v.shape for k, v in layer.state_dict().items()} == {"weight": (6, 2, 3, 5), "bias": (6,)}
    layer = nn.ConvTranspose2d(4, 6, (3, 5), groups=2, bias=False)
    assert {k: v.shape for k, v in layer.state_dict().items()} == {"weight": (4, 3, 3, 5)}
    assert layer.bias is None


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (nn.Conv2d(32, 64, 5), 32 * 25),
        (nn.Conv2d(32, 64, 5, groups=4), 8 * 25),
        (nn.ConvTranspose2d(64, 32, 5), 32 * 25),
        (nn.Conv1d(50, 80, 7), 50 * 7),
    ],
)
def test_initial_distribution(layer, fan_in):
    """Uniform between +-1 / sqrt(fan_in), for the bias too."""
    bound = 1 / math.sqrt(fan_in)
    w, b = layer.weight.data, layer.bias.data
    assert w.dtype == b.dtype == np.float32
    assert 0.99 * bound < np.abs(w).max() <= bound
    assert 0.8 * bound < np.abs(b).max() <= bound
    # over 10,000 numbers: mean 0 and deviation bound / sqrt(3) to within 4 standard errors
    assert abs(w.mean()) < 4 * bound / math.sqrt(3 * w.size)
    assert abs(w.std() * math.sqrt(3) / bound - 1) < 4 / math.sqrt(w.size)


def test_seed_decides_the_initial_values():
    nnx.manual_seed(3)
    first = nn.Conv2d(3, 4, 3)
    second = nn.Conv2d(3, 4, 3)
    nnx.manual_seed(3)
    again = nn.Conv2d(3, 4, 3)
    assert (first.weight.data == again.weight.data).all() and (first.bias.data == again.bias.data).all()
    assert (first.weight.data != second.weight.data).any()


def test_input_is_cast_to_the_parameters(rng):
    layer = nn.Conv2d(3, 4, 3)
    image = rng.integers(0, 256, (2, 3, 8, 8)).astype(np.uint8)
    assert_close(layer(image), layer(image.astype(np.float64)), 1e-6)
    assert layer(image).dtype == np.float32
    assert layer.double()(image).dtype == np.float64
    assert nn.Conv2d(3, 4, 3, dtype=np.float64).weight.dtype == np.float64


def test_training_step_lowers_the_loss(rng):
    layer = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ConvTranspose2d(4, 2, 3, padding=1))
    x = rng.standard_normal((4, 2, 6, 6)).astype(np.float32)
    optimizer = nnx.optim.SGD(layer.parameters(), lr=0.05)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = ((layer(x) - x) * (layer(x) - x)).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_output_size_chooses_the_output_padding():
    """A strided convolution has one output size for several input sizes."""
    down, up = nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.ConvTranspose2d(5, 3, 3, stride=2, padding=1)
    for size in ((7, 7), (8, 7), (8, 8)):
        y = down(np.zeros((2, 3, *size)))
        assert y.shape == (2, 5, 4, 4)
        assert up(y, output_size=size).shape == (2, 3, *size)
        assert up(y, (2, 3, *size)).shape == (2, 3, *size)
    assert up(y).shape == (2, 3, 7, 7)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (nn.Conv2d(3, 6, 5), "Conv2d(3, 6, kernel_size=(5, 5), stride=(1, 1))"),
        (
            nn.Conv1d(4, 6, 3, 2, 1, 3, 2, False, "reflect"),
            "Conv1d(4, 6, kernel_size=(3,), stride=(2,), padding=(1,), dilation=(3,), groups=2, bias=False, "
            "padding_mode=reflect)",
        ),
        (
            nn.Conv2d(3, 6, 5, padding="same"),
            "Conv2d(3, 6, kernel_size=(5, 5), stride=(1, 1), padding='same')",
        ),
        (
            nn.ConvTranspose2d(3, 6, 5, 2, 1, 1),
            "ConvTranspose2d(3, 6, kernel_size=(5, 5), stride=(2, 2), padding=(1, 1), output_padding=(1, 1))",
        ),
        (nn.Unfold(3), "Unfold(kernel_size=(3, 3), dilation=(1, 1), padding=0, stride=(1, 1))"),
        (
            nn.Fold(5, 3),
            "Fold(output_size=(5, 5), kernel_size=(3, 3), dilation=(1, 1), padding=0, stride=(1, 1))",
        ),
    ],
)
def test_repr(layer, text):
    assert repr(layer) == text


# -- errors ----------------------------------------------------------------------------------------

X = np.zeros((2, 3, 6, 7))

ERRORS = [
    (lambda: nn.Conv2d(0, 1, 3), "Conv2d: expected in_channels to be an integer >= 1, got 0"),
    (lambda: nn.Conv2d(1, -1, 3), "Conv2d: expected out_channels to be an integer >= 1, got -1"),
    (lambda: nn.Conv2d(1, 1, 0), "Conv2d: expected kernel_size to be an integer >= 1, got 0"),
    (lambda: nn.Conv2d(1, 1, 3, 0), "Conv2d: expected stride to be an integer >= 1, got 0"),
    (lambda: nn.Conv2d(1, 1, 3, padding=-1), "Conv2d: expected padding to be an integer >= 0, got -1"),
    (lambda: nn.Conv2d(1, 1, 3, dilation=0), "Conv2d: expected dilation to be an integer >= 1, got 0"),
    (
        lambda: nn.Conv2d(1, 1, (3, 3, 3)),
        r"Conv2d: expected kernel_size to be one integer or 2 integers, got \(3, 3, 3\)",
    ),
    (
        lambda: nn.Conv2d(3, 4, 3, groups=2),
        "Conv2d: expected groups to divide in_channels, got in_channels=3 and groups=2",
    ),
    (
        lambda: nn.Conv3d(4, 3, 3, groups=2),
        "Conv3d: expected groups to divide out_channels, got out_channels=3 and groups=2",
    ),
    (
        lambda: nn.Conv2d(1, 1, 3, 2, "same"),
        r"Conv2d: expected stride 1 with padding='same', got stride \(2, 2\)",
    ),
    (
        lambda: nn.Conv2d(1, 1, 3, padding_mode="mirror"),
        "Conv2d: expected padding_mode to be one of 'zeros', 'reflect', 'replicate', 'circular', got 'mirror'",
    ),
    (lambda: nn.Conv2d(1, 1, 3, device="tpu"), "Conv2d: expected device to be .*got 'tpu'"),
    (lambda: nn.Conv2d(2**31, 2**31, 1), r"Conv2d: expected a result of less than 2\^63 bytes"),
    (
        lambda: nn.ConvTranspose2d(1, 1, 3, padding_mode="reflect"),
        "ConvTranspose2d: expected padding_mode to be one of 'zeros', got 'reflect'",
    ),
    (
        lambda: nn.ConvTranspose2d(1, 1, 3, padding="same"),
        r"ConvTranspose2d: expected padding to be integers or pairs \(low, high\), got 'same'",
    ),
    (
        lambda: nn.Conv2d(3, 4, 3)(np.zeros((8, 1, 28, 28))),
        r"Conv2d: expected input with 3 channels \(dimension 1 of \(N, C, H, W\)\), got shape "
        r"\(8, 1, 28, 28\)",
    ),
    (
        lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")(np.zeros((8, 1, 28, 28))),
        r"Conv2d: expected input with 3 channels \(dimension 1 of \(N, C, H, W\)\), got shape "
        r"\(8, 1, 28, 28\)",
    ),
    (
        lambda: nn.Conv2d(3, 4, 3, padding=6, padding_mode="reflect")(X),
        r"Conv2d: expected padding of at most 5 with mode='reflect' in dimension 2 of shape \(2, 3, 6, 7\)",
    ),
    (lambda: nn.Conv1d(3, 4, 3)(X), r"Conv1d: expected input with 3 dimensions \(N, C, L\), or 2 \(C, L\)"),
    (lambda: nn.Conv2d(3, 4, 8)(X), "Conv2d: expected a kernel that fits into the padded input"),
    (
        lambda: nn.ConvTranspose2d(3, 4, 3, stride=2)(X, output_size=(12, 15)),
        r"ConvTranspose2d: expected output_size between \(13, 15\) and \(14, 16\) for input of shape "
        r"\(2, 3, 6, 7\), got \(12, 15\)",
    ),
    (
        lambda: nn.ConvTranspose2d(3, 4, 3, output_padding=1)(X),
        "ConvTranspose2d: expected output_padding below stride or dilation",
    ),
    (lambda: nn.Unfold(0), "Unfold: expected kernel_size to be an integer >= 1, got 0"),
    (lambda: nn.Fold(0, 2), "Fold: expected output_size to be an integer >= 1, got 0"),
]


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[m[:60] for _, m in ERRORS])
def test_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


TYPE_ERRORS = [
    (lambda: nn.Conv2d(3.0, 4, 3), r"Conv2d: expected in_channels to be an integer >= 1, got 3\.0"),
    (lambda: nn.Conv2d(3, 4, "3"), "Conv2d: expected kernel_size to be an integer >= 1, got '3'"),
    (lambda: nn.Conv2d(3, 4, 3, dtype=np.int32), "Conv2d: expected dtype to be float32 or float64, got"),
    (
        lambda: nn.Conv2d(3, 4, 3)(nnx.Tensor(X)),
        "Conv2d: expected input of dtype float32, got a Tensor of dtype float64. Convert one with",
    ),
]


@pytest.mark.parametrize(("call", "message"), TYPE_ERRORS, ids=[m[:60] for _, m in TYPE_ERRORS])
def test_type_error(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_layer_is_unchanged_by_an_error():
    layer = nn.Conv2d(3, 4, 3)
    before = {k: v.copy() for k, v in layer.state_dict().items()}
    with pytest.raises(ValueError, match="expected input with 3 channels"):
        layer(np.zeros((1, 2, 5, 5)))
    assert all((before[k] == v).all() for k, v in layer.state_dict().items())
    assert layer.weight.grad is None
