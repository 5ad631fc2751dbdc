"""Convolution and transposed convolution against PyTorch: outputs and all gradients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import nnx
from nnx import functional as F
from nnx.testing import assert_close

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Its threads would wait for ours, and ours for them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# sums of up to a hundred products of numbers around 1; relative to the largest result
TOLERANCE = {np.float64: 1e-10, np.float32: 2e-5}


@st.composite
def geometries(draw):
    """Everything about a convolution but its numbers."""
    n = draw(st.sampled_from((1, 2, 2, 3)))
    groups = draw(st.integers(1, 3))

    def sizes(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(n))

    return {
        "n": n,
        "batch": draw(st.sampled_from((None, 1, 2, 3))),
        "inside": groups * draw(st.integers(1, 3)),
        "outside": groups * draw(st.integers(1, 3)),
        "size": sizes(1, 7 if n < 3 else 4),
        "kernel": sizes(1, 4 if n < 3 else 3),
        "stride": sizes(1, 3),
        "padding": sizes(0, 5),
        "dilation": sizes(1, 3),
        "groups": groups,
        "bias": draw(st.booleans()),
        "extra": sizes(0, 2),
        "dtype": draw(st.sampled_from((np.float32, np.float64))),
        "seed": draw(st.integers(0, 1000)),
    }


def compare(ours, theirs, arrays, dtype, seed):
    """Run both on the same arrays; compare output and gradients."""
    tensors = [nnx.Tensor(a, requires_grad=True) for a in arrays]
    leaves = [torch.from_numpy(a.copy()).requires_grad_() for a in arrays]
    y, expected = ours(*tensors), theirs(*leaves)
    tolerance = TOLERANCE[dtype]
    assert y.dtype == dtype
    assert_close(y, expected.detach().numpy(), tolerance, tolerance)
    gy = np.random.default_rng(seed).standard_normal(y.shape).astype(dtype)
    y.backward(gy)
    expected.backward(torch.from_numpy(gy))
    for t, leaf in zip(tensors, leaves, strict=True):
        assert_close(t.grad, leaf.grad.numpy(), tolerance, tolerance)


def draw_arrays(g, w_shape, channels_out):
    rng = np.random.default_rng(g["seed"])
    batch = () if g["batch"] is None else (g["batch"],)
    shapes = [(*batch, g["inside"], *g["size"]), w_shape]
    if g["bias"]:
        shapes.append((channels_out,))
    return [rng.standard_normal(s).astype(g["dtype"]) for s in shapes]


@given(geometries())
def test_conv(g):
    fits = all(
        size + 2 * p >= d * (k - 1) + 1
        for size, p, d, k in zip(g["size"], g["padding"], g["dilation"], g["kernel"], strict=True)
    )
    assume(fits)
    arrays = draw_arrays(g, (g["outside"], g["inside"] // g["groups"], *g["kernel"]), g["outside"])
    name, rest = f"conv{g['n']}d", (g["stride"], g["padding"], g["dilation"], g["groups"])

    def call(module):
        return lambda x, w, b=None: getattr(module, name)(x, w, b, *rest)

    compare(call(F), call(torch.nn.functional), arrays, g["dtype"], g["seed"])


@given(geometries())
def test_conv_transpose(g):
    extra = tuple(min(e, max(s, d) - 1) for e, s, d in zip(g["extra"], g["stride"], g["dilation"], strict=True))
    out = [
        (size - 1) * s - 2 * p + d * (k - 1) + e + 1
        for size, s, p, d, k, e in zip(
            g["size"], g["stride"], g["padding"], g["dilation"], g["kernel"], extra, strict=True
        )
    ]
    assume(min(out) >= 1)
    arrays = draw_arrays(g, (g["inside"], g["outside"] // g["groups"], *g["kernel"]), g["outside"])
    name = f"conv_transpose{g['n']}d"
    rest = (g["stride"], g["padding"], extra, g["groups"], g["dilation"])

    def call(module):
        return lambda x, w, b=None: getattr(module, name)(x, w, b, *rest)

    compare(call(F), call(torch.nn.functional), arrays, g["dtype"], g["seed"])


@given(st.integers(1, 6), st.integers(1, 3), st.integers(6, 12), st.integers(0, 1000))
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_same_padding(kernel, dilation, size, seed):
    """Odd and even kernels; where the padding is odd, the high side gets one more."""
    assume(dilation * (kernel - 1) < size)
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal((2, 2, size, 5)), rng.standard_normal((3, 2, kernel, 2))]

    def call(module):
        return lambda x, w: module.conv2d(x, w, padding="same", dilation=(dilation, 1))

    compare(call(F), call(torch.nn.functional), arrays, np.float64, seed)


def test_positional_order_and_defaults_are_pytorchs():
    """Every argument by position, and none but the first two."""
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s) for s in ((2, 4, 7, 8), (6, 2, 3, 2), (6,)))
    tx, tw, tb = map(torch.from_numpy, (x, w, b))
    ours = F.conv2d(x, w, b, (2, 1), (1, 2), (1, 2), 2)
    assert_close(ours, torch.nn.functional.conv2d(tx, tw, tb, (2, 1), (1, 2), (1, 2), 2).numpy(), 1e-12)
    w, b = rng.standard_normal((4, 3, 3, 2)), rng.standard_normal(6)
    tw, tb = map(torch.from_numpy, (w, b))
    arguments = ((2, 3), (1, 2), (1, 0), 2, (1, 2))
    ours = F.conv_transpose2d(x, w, b, *arguments)
    theirs = torch.nn.functional.conv_transpose2d(tx, tw, tb, *arguments)
    assert_close(ours, theirs.numpy(), 1e-12)


@given(st.data())
def test_fold_and_unfold(data):
    def two(low, high):
        return tuple(data.draw(st.integers(low, high)) for _ in range(2))

    size, kernel, dilation, padding, stride = two(1, 7), two(1, 3), two(1, 2), two(0, 3), two(1, 3)
    out = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(size, padding, dilation, kernel, stride, strict=True)
    ]
    assume(min(out) >= 1)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, *size))
    columns = rng.standard_normal((2, 2 * kernel[0] * kernel[1], out[0] * out[1]))
    rest = (kernel, dilation, padding, stride)
    theirs = torch.nn.functional
    compare(lambda x: F.unfold(x, *rest), lambda x: theirs.unfold(x, *rest), [x], np.float64, 0)
    compare(lambda x: F.fold(x, size, *rest), lambda x: theirs.fold(x, size, *rest), [columns], np.float64, 0)
