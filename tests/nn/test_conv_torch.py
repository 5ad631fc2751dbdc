"""Convolution layers against PyTorch's, with the same weights: outputs and all gradients."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import nn
from nnx.testing import assert_close

torch = pytest.importorskip("torch")


def modes():
    for mode in ("zeros", "reflect", "replicate", "circular"):
        yield "Conv1d", (2, 3, 9), dict(in_channels=3, out_channels=4, kernel_size=3, padding=2, padding_mode=mode)
        yield (
            "Conv2d",
            (2, 4, 7, 8),
            dict(in_channels=4, out_channels=6, kernel_size=3, stride=2, padding=(2, 3), groups=2, padding_mode=mode),
        )
        yield (
            "Conv2d",
            (2, 3, 7, 8),
            dict(in_channels=3, out_channels=2, kernel_size=(3, 5), padding="same", dilation=2, padding_mode=mode),
        )
        yield (
            "Conv3d",
            (2, 2, 4, 5, 6),
            dict(in_channels=2, out_channels=3, kernel_size=2, padding=1, padding_mode=mode),
        )


CASES = [
    *modes(),
    ("Conv2d", (3, 7, 8), dict(in_channels=3, out_channels=2, kernel_size=3, padding=1, padding_mode="circular")),
    ("Conv2d", (2, 3, 7, 8), dict(in_channels=3, out_channels=2, kernel_size=3, bias=False, dilation=(2, 3))),
    (
        "ConvTranspose1d",
        (2, 4, 5),
        dict(in_channels=4, out_channels=6, kernel_size=3, stride=2, output_padding=1, groups=2),
    ),
    (
        "ConvTranspose2d",
        (2, 4, 5, 3),
        dict(in_channels=4, out_channels=2, kernel_size=(3, 2), stride=(3, 2), padding=1, dilation=2, bias=False),
    ),
    ("ConvTranspose3d", (1, 2, 3, 2, 3), dict(in_channels=2, out_channels=3, kernel_size=3, stride=2, padding=1)),
]


@pytest.mark.parametrize(("name", "shape", "options"), CASES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_layer(name, shape, options, dtype, rng):
    theirs = getattr(torch.nn, name)(**options, dtype=getattr(torch, dtype))
    ours = getattr(nn, name)(**options, dtype=dtype)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    x = rng.standard_normal(shape).astype(dtype)
    t, leaf = nnx.Tensor(x, requires_grad=True), torch.from_numpy(x.copy()).requires_grad_()
    y, expected = ours(t), theirs(leaf)
    tolerance = 1e-11 if dtype == "float64" else 1e-5  # sums of up to a few hundred products
    assert_close(y, expected.detach().numpy(), tolerance, tolerance)
    gy = rng.standard_normal(y.shape).astype(dtype)
    y.backward(gy)
    expected.backward(torch.from_numpy(gy))
    assert_close(t.grad, leaf.grad.numpy(), tolerance, tolerance)
    for (key, p), (other, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert key == other
        assert_close(p.grad, q.grad.numpy(), tolerance, tolerance)


@pytest.mark.parametrize(
    "name", ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]
)
def test_positional_arguments_are_pytorchs(name):
    """In order: padding, then dilation, groups, bias - or output_padding, groups, bias, dilation."""
    transposed = "Transpose" in name
    arguments = (4, 6, 3, 2, 1, 1, 2, False, 1) if transposed else (4, 6, 3, 2, 1, 2, 2, False, "zeros")
    ours, theirs = getattr(nn, name)(*arguments), getattr(torch.nn, name)(*arguments)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: tuple(v.shape) for k, v in theirs.state_dict().items()
    }
    for attribute in ("stride", "padding", "dilation", "groups", "padding_mode", "kernel_size"):
        assert getattr(ours, attribute) == getattr(theirs, attribute)
    if transposed:
        assert ours.output_padding == theirs.output_padding


@pytest.mark.parametrize("size", [(9, 10), (10, 11), (2, 3, 10, 10)])
def test_output_size(size, rng):
    options = dict(in_channels=2, out_channels=3, kernel_size=3, stride=2, padding=1)
    theirs, ours = torch.nn.ConvTranspose2d(**options), nn.ConvTranspose2d(**options)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    x = rng.standard_normal((2, 2, 5, 5 if size != (10, 11) else 6)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x), output_size=size)
    assert_close(ours(x, output_size=size), expected.numpy(), 1e-5, 1e-6)
