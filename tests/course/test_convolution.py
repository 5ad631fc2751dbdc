"""The demo, the flip, tiles, neurons that share weights, gradients, one and three dimensions."""

from __future__ import annotations

import numpy as np
import pytest

import nnx.functional as F
from nnx.autograd import Tensor
from nnx.course import convolution
from nnx.course.convolution import DEMO_BIAS, DEMO_FILTERS, DEMO_IMAGE
from nnx.testing import gradcheck

RNG = np.random.default_rng(0)
PRINTED = [[[7, 10, 9], [2, -1, 9], [0, 6, 4]], [[1, -1, 6], [4, 2, 1], [2, 6, 4]]]  # N1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_F140_demo_of_two_filters(dtype):
    args = [a.astype(dtype) for a in (DEMO_IMAGE[None], DEMO_FILTERS, DEMO_BIAS)]
    np.testing.assert_array_equal(F.conv2d(*args, stride=2, padding=1).data[0], PRINTED)
    np.testing.assert_array_equal(convolution.demo(), PRINTED)


def test_F140_demo_with_channels_last():
    np.testing.assert_array_equal(convolution.demo_channels_last(), np.transpose(PRINTED, (1, 2, 0)))


def test_F141_the_flip_gives_other_numbers():
    np.testing.assert_array_equal(convolution.demo(flip=True)[0], [[2, 3, 1], [5, 11, 3], [6, 7, 8]])


def test_F141_true_convolution_equals_scipy():
    signal = pytest.importorskip("scipy.signal")
    x, g = RNG.standard_normal((7, 9)), RNG.standard_normal((3, 5))
    for mode, padding in (("full", (2, 4)), ("same", (1, 2)), ("valid", 0)):
        y = F.true_conv2d(x[None, None], g[None, None], padding=padding).data[0, 0]
        np.testing.assert_allclose(y, signal.convolve2d(x, g, mode), atol=1e-12)
    np.testing.assert_allclose(
        F.conv2d(x[None, None], g[None, None]).data[0, 0], signal.correlate2d(x, g, "valid"), atol=1e-12
    )


@pytest.mark.parametrize("n", [1, 2, 3])
def test_F148_one_two_and_three_dimensions_equal_torch(n):
    torch = pytest.importorskip("torch")
    x = RNG.standard_normal((2, 3, 7, 6, 5)[: 2 + n]).astype(np.float32)
    w = RNG.standard_normal((4, 3, 3, 2, 3)[: 2 + n]).astype(np.float32)
    ours = getattr(F, f"conv{n}d")(x, w, None, 2, 1).data
    theirs = getattr(torch.nn.functional, f"conv{n}d")(torch.tensor(x), torch.tensor(w), None, 2, 1).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_F150_gradients_of_input_weight_and_bias():
    x, w, b = RNG.standard_normal((2, 3, 6, 5)), RNG.standard_normal((4, 3, 3, 3)), RNG.standard_normal(4)
    gradcheck(lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1), (x, w, b), rtol=1e-7, atol=1e-7)


def test_F150_gradients_equal_torch():
    torch = pytest.importorskip("torch")
    arrays = RNG.standard_normal((2, 3, 6, 5)), RNG.standard_normal((4, 3, 3, 3)), RNG.standard_normal(4)
    ours = [Tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = F.conv2d(*ours, stride=2, padding=1)
    gy = RNG.standard_normal(y.shape)
    y.backward(gy)
    torch.nn.functional.conv2d(*theirs, stride=2, padding=1).backward(torch.tensor(gy))
    for a, t in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.grad, t.grad.numpy(), atol=1e-10)


def test_F150_the_gradient_of_the_input_is_a_true_convolution():
    x, w = Tensor(RNG.standard_normal((1, 1, 6, 6)), requires_grad=True), RNG.standard_normal((1, 1, 3, 3))
    gy = RNG.standard_normal((1, 1, 4, 4))
    F.conv2d(x, w).backward(gy)
    np.testing.assert_allclose(x.grad, F.true_conv2d(gy, w, padding=2).data, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_F154_a_small_network_on_every_tile(stride):
    x, w, b = RNG.standard_normal((3, 11, 15)), RNG.standard_normal((4, 3, 5, 5)), RNG.standard_normal(4)
    expected = F.conv2d(x[None], w, b, stride=stride).data[0]
    assert stride == 2 or expected[0].size == 77
    np.testing.assert_allclose(convolution.tile_by_tile(x, w, b, stride), expected, atol=1e-12)


def test_F158_neurons_that_share_weights_are_a_convolution():
    x, w, b = RNG.standard_normal((2, 3, 32, 32)), RNG.standard_normal((5, 3, 5, 5)), RNG.standard_normal(5)
    expected = F.conv2d(x, w, b).data
    assert expected.shape == (2, 5, 28, 28)  # X6: not 26 x 26
    y = convolution.locally_connected(x, *convolution.tied(w, b, 28 * 28), 5)
    np.testing.assert_allclose(y.data.reshape(expected.shape), expected, atol=1e-11)


def test_F158_tied_gradients_add_up_to_the_gradient_of_the_filter():
    x, w, b = RNG.standard_normal((2, 2, 6, 6)), RNG.standard_normal((3, 2, 3, 3)), RNG.standard_normal(3)
    shared = [Tensor(a, requires_grad=True) for a in (w, b)]
    gy = RNG.standard_normal((2, 3, 4, 4))
    F.conv2d(x, *shared).backward(gy)
    own = [Tensor(a, requires_grad=True) for a in convolution.tied(w, b, 16)]
    convolution.locally_connected(x, *own, 3).backward(gy.reshape(2, 3, 16))
    np.testing.assert_allclose(own[0].grad.sum(axis=1).reshape(w.shape), shared[0].grad, atol=1e-12)
    np.testing.assert_allclose(own[1].grad.sum(axis=1), shared[1].grad, atol=1e-12)
    own[0].data[:, 3] += 1.0  # neurons with weights of their own are more than a convolution
    assert not np.allclose(convolution.locally_connected(x, *own, 3).data.reshape(2, 3, 4, 4), F.conv2d(x, w, b).data)
