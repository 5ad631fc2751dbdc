"""Sequential runs some layers as one: nothing but the time may show."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import nn
from nnx.backends.cpu import CPUBackend
from nnx.nn import _fusion


def one_by_one(model, x):
    for module in model:
        x = module(x)
    return x


def gradients(run, model, array):
    """Output and gradients of x and of all parameters, for a fixed gradient of the output."""
    x = nnx.tensor(array, requires_grad=True)
    model.zero_grad()
    y = run(model, x)
    gy = np.random.default_rng(1).standard_normal(y.shape).astype(array.dtype)
    (y * nnx.tensor(gy)).sum().backward()
    return [y.data, x.grad, *[p.grad for p in model.parameters()]]


def image(*shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


MODELS = {
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(3, 5, 3), nn.ReLU()), (4, 3, 11)),
    "direct": (lambda: nn.Sequential(nn.Conv2d(3, 6, 5, padding=2), nn.ReLU()), (2, 3, 9, 8)),
    "winograd": (lambda: nn.Sequential(nn.Conv2d(16, 17, 3, padding=1), nn.ReLU()), (2, 16, 9, 12)),
    "groups": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.ReLU()), (2, 4, 7, 7)),
    "reflect": (lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), nn.ReLU()), (2, 2, 5, 6)),
    "conv3d": (lambda: nn.Sequential(nn.Conv3d(2, 3, 2), nn.ReLU()), (2, 2, 4, 5, 6)),
    "linear": (lambda: nn.Sequential(nn.Linear(7, 5), nn.ReLU(inplace=True), nn.Linear(5, 2)), (6, 7)),
    "linear-3d": (lambda: nn.Sequential(nn.Linear(7, 5), nn.ReLU()), (2, 3, 7)),
    "norm": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), (3, 3, 6, 6)),
    "norm-wide": (lambda: nn.Sequential(nn.BatchNorm1d(40), nn.ReLU()), (5, 40)),
    "pool": (lambda: nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)), (3, 1, 8, 8)),
    "pool-overlap": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Flatten()),
        (2, 3, 12, 11),
    ),
    "pool-wide": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(16)), (2, 3, 20, 20)),
    "no-batch": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)), (3, 8, 8)),
    "nested": (
        lambda: nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.MaxPool2d(2), nn.ReLU()),
        (2, 3, 8, 8),
    ),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_the_same_bits_as_one_by_one(name, training, dtype):
    make, shape = MODELS[name]
    model, other = make(), make()
    other.load_state_dict(model.state_dict())
    for m in (model, other):
        m.train(training)
        if dtype == np.float64:
            m.double()
    x = image(*shape, dtype=dtype)
    fused, plain = gradients(lambda m, v: m(v), model, x), gradients(one_by_one, other, x)
    for a, b in zip(fused, plain, strict=True):
        np.testing.assert_array_equal(a, b)
    for key, value in model.state_dict().items():  # running averages too
        np.testing.assert_array_equal(value, other.state_dict()[key])


FOLDED = {
    "2d": (lambda: (nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)), (2, 3, 9, 8)),
    "winograd": (lambda: (nn.Conv2d(16, 20, 3, padding=1, bias=False), nn.BatchNorm2d(20)), (3, 16, 12, 13)),
    "not-affine": (lambda: (nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8, affine=False)), (2, 3, 9, 8)),
    "1d": (lambda: (nn.Conv1d(3, 5, 3, stride=2), nn.BatchNorm1d(5)), (4, 3, 31)),
    "3d": (lambda: (nn.Conv3d(2, 4, 3, padding=1, groups=2), nn.BatchNorm3d(4)), (2, 2, 5, 6, 7)),
    "reflect": (lambda: (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(3)), (2, 2, 8, 7)),
}


def folded_model(name, relu, dtype=np.float32):
    make, shape = FOLDED[name]
    conv, norm = make()
    rng = np.random.default_rng(1)
    model = nn.Sequential(conv, norm, *([nn.ReLU()] if relu else []))
    for array in (norm.running_mean, *(p.data for p in norm.parameters())):
        array[...] = rng.standard_normal(array.shape)
    norm.running_var[...] = rng.uniform(0.1, 3, norm.running_var.shape)
    x = rng.standard_normal(shape).astype(dtype)
    return (model.double() if dtype == np.float64 else model).eval(), x


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("name", FOLDED)
def test_batch_norm_is_folded_into_the_convolution(name, relu, dtype, monkeypatch):
    """In evaluation without gradients: the same numbers but for rounding, and batch norm is not called at all."""
    model, x = folded_model(name, relu, dtype)
    conv, norm = model[0], model[1]
    plain = norm(conv(x)).data
    plain = np.maximum(plain, 0) if relu else plain
    state = {key: value.copy() for key, value in model.state_dict().items()}
    called = []
    monkeypatch.setattr(type(norm), "_forward", lambda self, x, relu=False: called.append(self) or x)
    with nnx.no_grad():
        folded = model(x).data
        conv.weight.data[...] *= 2  # nothing is kept from the call before
        doubled = model(x).data
        conv.weight.data[...] /= 2
    assert not called
    np.testing.assert_allclose(
        folded, plain, rtol=0, atol=(3e-5 if dtype == np.float32 else 1e-12) * np.abs(plain).max()
    )
    assert np.abs(doubled - folded).max() > 0.1
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, state[key])


def test_when_batch_norm_is_not_folded(monkeypatch):
    """With gradients, in training, with hooks, of another number of channels, or with more weights than pixels."""
    model, x = folded_model("2d", True)
    called = []
    original = nn.BatchNorm2d._forward

    def counting(self, *args, **kwargs):
        called.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(nn.BatchNorm2d, "_forward", counting)
    model(x)
    assert len(called) == 1
    with nnx.no_grad():
        model(x)
        assert len(called) == 1
        model(x[:1, :, :3, :3])
        assert len(called) == 2
        model.train()(x)
        assert len(called) == 3
        handle = model.eval()[0].register_forward_hook(lambda module, args, output: output)
        model(x)
        assert len(called) == 4
        handle.remove()
        with pytest.raises(ValueError, match="BatchNorm2d: expected"):
            nn.Sequential(model[0], nn.BatchNorm2d(7)).eval()(x)
        assert len(called) == 5


def test_nan_passes_through():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2))
    x = image(1, 1, 6, 6)
    x[0, 0, 0, 0] = np.nan
    for a, b in zip(gradients(lambda m, v: m(v), model, x), gradients(one_by_one, model, x), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.isnan(model(x).data).any()


@pytest.fixture
def calls(monkeypatch):
    """Counts the layers that were run together with a ReLU."""
    counted = []
    for layer in (nn.Conv2d, nn.Linear, nn.BatchNorm2d):
        original = layer._forward

        def counting(self, x, relu=False, *args, original=original, **kwargs):
            if relu:
                counted.append(type(self).__name__)
            return original(self, x, relu, *args, **kwargs)

        monkeypatch.setattr(layer, "_forward", counting)
    return counted


def test_what_is_taken_together(calls):
    nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3), nn.ReLU())(
        image(2, 1, 6, 6)
    )
    nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())(image(2, 1, 6, 6))
    assert calls == ["Conv2d", "Linear", "BatchNorm2d"]


class OwnConv(nn.Conv2d):
    pass


class OwnReLU(nn.ReLU):
    pass


def hooked(module):
    module.register_forward_hook(lambda module, inputs, output: None)
    return module


def prehooked(module):
    module.register_forward_pre_hook(lambda module, inputs: None)
    return module


def own_forward(module):
    module.forward = module.forward
    return module


@pytest.mark.parametrize(
    ("conv", "relu"),
    [
        (lambda: OwnConv(1, 2, 3), nn.ReLU),
        (lambda: nn.Conv2d(1, 2, 3), OwnReLU),
        (lambda: hooked(nn.Conv2d(1, 2, 3)), nn.ReLU),
        (lambda: prehooked(nn.Conv2d(1, 2, 3)), nn.ReLU),
        (lambda: nn.Conv2d(1, 2, 3), lambda: hooked(nn.ReLU())),
        (lambda: own_forward(nn.Conv2d(1, 2, 3)), nn.ReLU),
        (lambda: nn.Conv2d(1, 2, 3), nn.LeakyReLU),
    ],
)
def test_what_is_left_alone(calls, conv, relu):
    nn.Sequential(conv(), relu(), nn.MaxPool2d(2))(image(2, 1, 6, 6))
    assert calls == []


def test_a_hook_on_the_pooling_sees_the_positive_part(calls):
    seen = []
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2))
    model[2].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].data.min()))
    model(image(2, 1, 6, 6))
    assert seen == [0] and calls == ["Conv2d"]


def test_indices_are_returned():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2, return_indices=True))
    y, index = model(image(2, 1, 6, 6))
    assert y.shape == index.shape == (2, 2, 2, 2)


def test_the_check_fails_on_a_planted_mistake(monkeypatch):
    """Pooling that forgets to cut the gradient off gives other bits."""
    make, shape = MODELS["pool"]
    model = make()
    model[0].bias.data[:] = -1  # many windows without a positive number
    plain = gradients(one_by_one, model, image(*shape))

    def forgetful(self, x, w, b, stride, padding, dilation, groups, windows, ceil_mode):
        return self.max_pool(self.conv(x, w, b, stride, padding, dilation, groups, True), *windows, ceil_mode)

    monkeypatch.setattr(CPUBackend, "conv_max_pool", forgetful)
    fused = gradients(_fusion.run, model, image(*shape))
    assert not np.array_equal(fused[1], plain[1])


def test_errors_name_the_layer():
    with pytest.raises(ValueError, match="Conv2d: expected input with 3 channels"):
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())(image(1, 2, 5, 5))
    with pytest.raises(ValueError, match="Linear: expected input with 3 features"):
        nn.Sequential(nn.Linear(3, 4), nn.ReLU())(image(1, 2))
