"""Convolutions between batch norms, image by image, and data gradients that are added and cut on the way.

Against one operation after the other: the same bits, but for weight gradients, whose sums are cut elsewhere.
"""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

import nnx
from nnx import functional as F
from nnx import nn
from nnx.autograd import Tensor, engine
from nnx.autograd._later import later_of
from nnx.backends import backend_of
from nnx.backends.base.later import read
from nnx.backends.cpu import norm

CPU = type(backend_of(np.ones(1)))
WEIGHTS = 1e-5  # relative to the largest weight gradient


def images(shape, seed=0, dtype=np.float32):
    n, c, *size = shape
    return np.moveaxis(np.random.default_rng(seed).standard_normal((n, *size, c)).astype(dtype), -1, 1)


@pytest.fixture
def calls(monkeypatch):
    """The names of the backend's operations that were asked, and answered, in order."""
    seen = []

    def noted(name, original):
        def method(self, *args, **kwargs):
            result = original(self, *args, **kwargs)
            if result is not None:
                seen.append(name)
            return result

        return method

    for name in (
        "conv",
        "conv_of_later",
        "conv_with_moments",
        "conv_gradients",
        "conv_data_grad",
        "conv_data_grad_joined",
        "conv_weight_grad",
        "relu_backward",
        "add",
        "add_in_place",
    ):
        monkeypatch.setattr(CPU, name, noted(name, getattr(CPU, name)))
    return seen


@contextmanager
def one_by_one(monkeypatch):
    """Nothing is left to another operation, added or cut on the way, but for the sums of batch norms."""
    with_moments = CPU.conv_with_moments

    def and_conv(self, x, w, *how):
        both = with_moments(self, x, w, *how)
        if both is None:
            return None
        y = self.conv(read(x), w, None, *how)
        np.testing.assert_array_equal(both[0], y)
        return y, both[1]._replace(of=y)

    with monkeypatch.context() as patch:
        patch.setattr(CPU, "conv_with_moments", and_conv)
        patch.setattr(CPU, "conv_of_later", lambda *args: None)
        patch.setattr(CPU, "conv_gradients", lambda *args: None)
        patch.setattr(CPU, "batch_norm_backward_later", lambda *args: None)
        patch.setattr(engine, "_joining", set())
        yield


class Net(nn.Module):
    """Layers that are applied by a function ``forward(net, x)``."""

    def __init__(self, forward, channels=16, bias=False, kernel=3, affine=True):
        super().__init__()
        self.convs = nn.ModuleList(
            [nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=bias) for _ in range(4)]
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(channels, affine=affine) for _ in range(4)])
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


def three(net, x):
    """Convolution, batch norm, ReLU, convolution, batch norm, ReLU, convolution."""
    x = F.relu(net.norms[0](net.convs[0](x)))
    x = F.relu(net.norms[1](net.convs[1](x)))
    return net.convs[2](x)


def block(net, x, k=0):
    y = F.relu(net.norms[k](net.convs[k](x)))
    return F.relu(net.norms[k + 1](net.convs[k + 1](y)) + x)


def two_blocks(net, x):
    return block(net, block(net, nnx.cat([x])), 2)


def two_readers(net, x):
    """A ReLU's result that goes to two convolutions and a sum."""
    x = F.relu(net.norms[0](net.convs[0](x)))
    return net.convs[1](x) * 2 + net.convs[2](x) + x


def two_convolutions(net, x):
    """Those alone, so that the first gradient that reaches the ReLU is that of one of them."""
    x = F.relu(net.norms[0](net.convs[0](x)))
    return net.convs[1](x) + net.convs[2](x) * 2


def without_relu(net, x):
    """Batch norm alone in front of a convolution, and of one with its ReLU."""
    x = nnx.cat([x])
    y = net.norms[0](net.convs[0](x))
    return nn.Sequential(net.convs[1], nn.ReLU())(y) + net.convs[2](net.norms[1](net.convs[3](x)))


def pooled(net, x):
    """A max pooling behind a convolution between batch norms."""
    x = F.relu(net.norms[0](net.convs[0](x)))
    return F.max_pool2d(net.convs[1](x), 2)


def relus_only(net, x):
    for conv in net.convs:
        x = F.relu(conv(x))
    return x


def branches(net, x):
    """A ReLU of a sum that goes to two convolutions, whose gradients arrive one after the other."""
    x = F.relu(net.convs[0](x) + 1)
    return net.convs[1](x) + net.convs[2](x) * F.sigmoid(net.convs[3](x))


def leaf_twice(net, x):
    return net.convs[0](x) + net.convs[1](x)


def evaluate(net, x, gy):
    """Result, gradients and running statistics by name, from the same start."""
    nnx.manual_seed(0)
    for module in net.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    for layer in net.norms:
        if layer.affine:
            rng = np.random.default_rng(1)
            layer.weight.data[...] = rng.standard_normal(layer.weight.shape)
            layer.bias.data[...] = rng.standard_normal(layer.bias.shape)
    net.zero_grad()
    leaf = Tensor(x, requires_grad=True)
    y = net(leaf)
    y.backward(gy)
    gradients = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    return {"result": y.data, "gradient of x": leaf.grad, **gradients, **dict(net.named_buffers())}


def compare(net, x, monkeypatch, exact=()):
    """The results of both ways are the same bits; weights of convolutions, and what depends on them, need not be."""
    gy = images(net(x).shape, 5)
    got = evaluate(net, x, gy)
    with one_by_one(monkeypatch):
        expected = evaluate(net, x, gy)
    assert got.keys() == expected.keys()
    for name, value in got.items():
        if name.startswith("convs") and name.endswith("weight") and name not in exact:
            largest = np.abs(np.nan_to_num(expected[name])).max()
            np.testing.assert_allclose(value, expected[name], rtol=0, atol=WEIGHTS * largest, err_msg=name)
        else:
            np.testing.assert_array_equal(value, expected[name], err_msg=name)
    return got


SHAPES = [(40, 16, 16, 16), (11, 16, 29, 27), (64, 16, 12, 9)]
FUNCTIONS = [three, two_blocks, two_readers, two_convolutions, without_relu, pooled, relus_only, branches, leaf_twice]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_same_as_one_by_one(function, shape, monkeypatch):
    compare(Net(function), images(shape), monkeypatch)


@pytest.mark.parametrize("function", [three, two_blocks, relus_only], ids=lambda f: f.__name__)
@pytest.mark.parametrize("channels", (17, 40))
def test_other_numbers_of_channels(function, channels, monkeypatch):
    compare(Net(function, channels), images((40, channels, 16, 15)), monkeypatch)


@pytest.mark.parametrize("kwargs", ({"bias": True}, {"kernel": 1}, {"kernel": 5}, {"affine": False}), ids=str)
@pytest.mark.parametrize("function", [three, two_blocks], ids=lambda f: f.__name__)
def test_layers_that_are_not_offered(kwargs, function, monkeypatch):
    compare(Net(function, **kwargs), images(SHAPES[0]), monkeypatch)


def test_float64_and_high_precision(monkeypatch):
    for function in FUNCTIONS:
        compare(Net(function).to(np.float64), images((8, 16, 12, 12), dtype=np.float64), monkeypatch)
    nnx.set_conv_precision("high")
    try:
        compare(Net(two_blocks), images(SHAPES[0]), monkeypatch)
    finally:
        nnx.set_conv_precision("default")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_not_finite_is_passed_on(monkeypatch):
    x = images(SHAPES[0])
    x[3, 2, 5, 5] = np.nan
    for function in (two_blocks, relus_only):
        got = compare(Net(function), x, monkeypatch)
        assert np.isnan(got["result"]).any() and np.isnan(got["convs.0.weight"]).any()


def test_what_runs(calls):
    x = images(SHAPES[0])
    gy = images(SHAPES[0], 1)
    net = Net(three)
    y = net(Tensor(x, requires_grad=True))
    assert calls == ["conv", "conv_with_moments", "conv_with_moments"]
    calls.clear()
    y.backward(gy)
    assert calls == 3 * ["conv_gradients"]
    calls.clear()
    Net(three, bias=True)(Tensor(x, requires_grad=True))
    assert calls == ["conv", "conv_of_later", "conv_of_later"]
    y = Net(two_blocks)(Tensor(x, requires_grad=True))
    calls.clear()
    y.backward(gy)
    # The ReLU at the end; all the other sums and cuts happen on the way.
    assert calls == ["relu_backward", *4 * ["conv_gradients"]]
    y = Net(relus_only)(Tensor(x, requires_grad=True))
    calls.clear()
    y.backward(gy)
    assert calls == [
        "relu_backward",
        *3 * ["conv_data_grad_joined", "conv_weight_grad"],
        "conv_data_grad",
        "conv_weight_grad",
    ]


@pytest.fixture
def normalized(monkeypatch):
    """A line for each time that a batch norm's result was written."""
    seen = []
    original = norm._normalized
    monkeypatch.setattr(norm, "_normalized", lambda *args: seen.append("written") or original(*args))
    return seen


def test_a_relu_that_somebody_reads_is_computed_once(normalized):
    net = Net(three)
    t = F.relu(net.norms[0](net.convs[0](images(SHAPES[0]))))
    assert later_of(t) is not None and t.shape == SHAPES[0] and t.dtype == np.float32 and t.ndim == 4
    y = net.convs[1](t)
    F.conv2d(t, net.convs[1].weight.data, padding=1)  # with an array, which the functions that mend things have to take
    assert later_of(t) is not None and normalized == [], "the convolution did not need the array"
    z = t * 2 + y + t
    assert later_of(t) is None and len(normalized) == 1
    z.backward(images(z.shape, 1))
    assert len(normalized) == 1


def test_the_relu_between_them_is_never_written(normalized):
    net = Net(three)
    y = net(Tensor(images((64, 16, 32, 32)), requires_grad=True))
    y.backward(images(y.shape, 1))
    assert normalized == []


@pytest.mark.parametrize(
    ("function", "summed"), [(three, 2), (two_blocks, 2), (two_readers, 0), (two_convolutions, 0), (without_relu, 0)]
)
def test_sums_for_a_batch_norm_on_the_way(function, summed, monkeypatch):
    """Where a convolution's data gradient is all that reaches the ReLU between them."""
    seen = []
    original = norm._norm.normalize_backward
    stub = SimpleNamespace(**{name: getattr(norm._norm, name) for name in dir(norm._norm) if not name.startswith("_")})
    stub.normalize_backward = lambda *args: seen.append(args[-1] is not None) or original(*args)
    monkeypatch.setattr(norm, "_norm", stub)
    x = Tensor(images(SHAPES[0]), requires_grad=True)
    y = Net(function)(x)
    y.backward(images(y.shape, 1))
    assert seen.count(True) == summed


def test_one_sample_behind_a_batch_norm():
    """The batch of a batch norm as the channels of one image."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((16, 40, 40)).astype(np.float32), rng.standard_normal((16, 16, 3, 3)).astype(np.float32)
    t = F.batch_norm(nnx.cat([Tensor(x, requires_grad=True)]), None, None, training=True)
    assert later_of(t) is not None
    y = F.conv2d(t, w, padding=1)
    np.testing.assert_array_equal(y.data, F.conv2d(t.data[None], w, padding=1).data[0])


@pytest.mark.parametrize(
    "frozen", (["convs.1.weight"], ["convs.0.weight", "convs.2.weight"], ["norms.0.weight"]), ids=" ".join
)
def test_some_gradients_only(frozen, monkeypatch):
    net = Net(three)
    for name, p in net.named_parameters():
        p.requires_grad = name not in frozen
    got = compare(net, images(SHAPES[0]), monkeypatch)
    assert not set(frozen) & set(got)


def test_weights_that_no_kernel_can_read(monkeypatch):
    """Not aligned in memory: they go to the base backend, forward and backward."""
    net = Net(three)
    memory = np.zeros(4 * net.convs[0].weight.size + 1, np.uint8)
    w = memory[1:].view(np.float32).reshape(16, 16, 3, 3)
    w[...] = images(w.shape, 3)
    assert not w.flags.aligned

    def gradients(weight):
        x, p = Tensor(images(SHAPES[0]), requires_grad=True), nnx.Tensor(weight, requires_grad=True)
        assert p.data.flags.aligned == (weight is not w)
        y = net.norms[1](F.conv2d(F.relu(net.norms[0](net.convs[0](x))), p, padding=1))
        y.backward(images(y.shape, 1))
        return x.grad, p.grad

    for a, b in zip(gradients(w), gradients(w.copy()), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(b).max())


def test_data_that_is_assigned_is_what_the_convolution_sees():
    net = Net(three)
    t = F.relu(net.norms[0](net.convs[0](images(SHAPES[0]))))
    t.data = np.ones((2, 16, 8, 8), np.float32)
    assert t.shape == (2, 16, 8, 8) and t.ndim == 4
    np.testing.assert_array_equal(net.convs[1](t).data, net.convs[1](np.ones((2, 16, 8, 8), np.float32)).data)


def test_other_readers_of_a_relu_for_later():
    net = Net(three)
    x = images(SHAPES[0])
    expected = net.convs[1](F.relu(net.norms[0](net.convs[0](x))).data).data
    t = F.relu(net.norms[0](net.convs[0](x)))
    np.testing.assert_array_equal(F.max_pool2d(net.convs[1](t), 2).data, F.max_pool2d(expected, 2).data)
    t = F.relu(net.norms[0](net.convs[0](x)))
    np.testing.assert_array_equal(F.max_pool2d(t, 2).data, F.max_pool2d(t.data, 2).data)
    with nnx.no_grad():
        assert later_of(F.relu(net.norms[0](net.convs[0](x)))) is None
        y = net.convs[1](F.relu(t))
    np.testing.assert_array_equal(y.data, expected)


@pytest.mark.parametrize("function", FUNCTIONS[:-1], ids=lambda f: f.__name__)
def test_a_second_backward(function):
    net, x = Net(function), Tensor(images(SHAPES[0]), requires_grad=True)
    y = net(x)
    gy = images(y.shape, 1)
    y.backward(gy, retain_graph=True)
    once = [p.grad.copy() for p in (x, *net.parameters()) if p.grad is not None]
    y.backward(gy)
    twice = [p.grad for p in (x, *net.parameters()) if p.grad is not None]
    for a, b in zip(once, twice, strict=True):
        np.testing.assert_array_equal(2 * a, b)


def test_retained_gradients_are_those_in_front_of_the_cut(monkeypatch):
    def gradients():
        net, kept = Net(relus_only), []
        x = Tensor(images(SHAPES[0]), requires_grad=True)
        for conv in net.convs:
            conv.weight.data[...] = images(conv.weight.shape, 3)
            for t in (x := conv(x), x := F.relu(x)):
                t.retain_grad()
                kept.append(t)
        x.backward(images(x.shape, 1))
        return [t.grad for t in kept]

    got = gradients()
    with one_by_one(monkeypatch):
        expected = gradients()
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (got[1] != 0).all() and (got[0] == 0).any()


def test_what_reaches_a_cut_gradient_afterwards_is_cut_too(monkeypatch, calls):
    """The sum at a ReLU of two convolutions and something that arrives last."""

    def gradient():
        x = Tensor(images(SHAPES[0]), requires_grad=True)
        w = images((16, 16, 3, 3), 1)
        y = F.relu(x + 0.5)
        early = y * 3  # made first, so its gradient arrives last
        z = F.conv2d(y, Tensor(w, requires_grad=True), padding=1) + early
        z.backward(images(SHAPES[0], 2))
        return x.grad

    got = gradient()
    assert "conv_data_grad_joined" in calls and "relu_backward" in calls
    with one_by_one(monkeypatch):
        np.testing.assert_array_equal(got, gradient())


def test_where_the_maps_shrink_the_shortcut_is_added_on_the_way(monkeypatch, calls):
    """Two convolutions with a stride behind a ReLU, as where a residual network goes to smaller maps."""
    rng = np.random.default_rng(0)
    w, v = rng.standard_normal((32, 16, 3, 3), np.float32), rng.standard_normal((32, 16, 1, 1), np.float32)

    def gradient():
        x = Tensor(images(SHAPES[0]), requires_grad=True)
        y = F.relu(x - 0.5)
        z = F.conv2d(y, Tensor(w, requires_grad=True), stride=2, padding=1) + F.conv2d(y, Tensor(v), stride=2)
        z.backward(images(z.shape, 2))
        return x.grad

    got = gradient()
    assert calls == ["conv", "conv", "add", *2 * ["conv_data_grad_joined"], "conv_weight_grad"]
    with one_by_one(monkeypatch):
        np.testing.assert_array_equal(got, gradient())
    assert (got == 0).any() and (got != 0).any()


def test_the_same_bits_for_any_number_of_threads(every_kernel_threaded):
    def result(threads):
        nnx.set_num_threads(threads)
        net = Net(two_blocks)
        return {name: a.tobytes() for name, a in evaluate(net, images(SHAPES[1]), images(SHAPES[1], 1)).items()}

    first = result(1)
    for threads in (2, 3, 8):
        assert result(threads) == first


def test_the_moments_of_a_convolution_are_those_of_its_result():
    """And of no other array that takes its place."""
    net = Net(three)
    for change in (lambda a: a, lambda a: a * np.float32(3) + np.float32(2)):
        norms = nn.BatchNorm2d(16, momentum=1.0)
        x = F.relu(net.norms[0](net.convs[0](Tensor(images(SHAPES[0]), requires_grad=True))))
        y = net.convs[1](x)
        y.data = change(y.data)
        exact = y.data.astype(float)
        norms(y)
        np.testing.assert_allclose(norms.running_mean, exact.mean((0, 2, 3)), rtol=0, atol=1e-6)
        unbiased = exact.var((0, 2, 3), ddof=1)
        np.testing.assert_allclose(norms.running_var, unbiased, rtol=1e-5)
