"""Statistics of outputs, dead and saturated units."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import diagnose, nn


def still(model):
    """What looking at a model must leave alone."""
    return (
        {name: a.tobytes() for name, a in model.state_dict().items()},
        [p.grad for p in model.parameters()],
        [p.requires_grad for p in model.parameters()],
        [m.training for m in model.modules()],
        [len(m._forward_hooks) for m in model.modules()],
        nnx._random.get_state(),
    )


@pytest.fixture
def net():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3)
    )


@pytest.fixture
def images(rng):
    return rng.standard_normal((8, 1, 6, 6)).astype(np.float32)


def test_statistics_are_those_of_the_outputs(net, images):
    report = diagnose.activation_statistics(net, images)
    assert [layer.name for layer in report.layers] == ["0", "1", "2", "3", "4", "5"]
    net.eval()
    y = net[0](images).data
    first = report["0"]
    assert first.kind == "Conv2d" and first.shape == (8, 4, 4, 4)
    np.testing.assert_allclose([first.mean, first.std], [y.mean(), y.std()], rtol=1e-5)
    assert (first.minimum, first.maximum, first.zeros) == (y.min(), y.max(), 0.0)
    assert report["2"].zeros == (net[:3](images).data == 0).mean() == report["3"].zeros  # dropout is off
    assert report.means[0] == first.mean and report.stds[0] == first.std


def test_the_text_is_a_table(net, images):
    lines = str(diagnose.activation_statistics(net, images)).splitlines()
    assert lines[0].split() == ["layer", "kind", "output", "mean", "std", "min", "max", "zeros"]
    assert len(lines) == 7 and lines[3].startswith("2      ReLU")


def test_looking_changes_nothing(net, images):
    net.train()
    net[5].weight.grad = np.ones((3, 64), np.float32)
    net[5].bias.requires_grad = False
    before = still(net)
    diagnose.activation_statistics(net, images)
    diagnose.dead_units(net, images)
    after = still(net)
    assert before[0] == after[0] and before[2:] == after[2:]
    assert all(a is b for a, b in zip(before[1], after[1], strict=True))


def test_a_failing_model_is_left_alone_too(net):
    before = still(net)
    with pytest.raises(ValueError, match="Conv2d: expected input"):
        diagnose.activation_statistics(net, np.zeros((2, 3, 6, 6), np.float32))
    assert before[2:] == still(net)[2:]


def test_a_layer_that_runs_twice_is_numbered():
    relu = nn.ReLU()
    report = diagnose.activation_statistics(nn.Sequential(relu, nn.Linear(2, 2), relu), np.ones((1, 2), np.float32))
    assert [layer.name for layer in report.layers] == ["0", "1", "0#2"]


def test_kinds_choose_layers(net, images):
    report = diagnose.activation_statistics(net, images, kinds=(nn.ReLU, nn.Linear))
    assert [layer.name for layer in report.layers] == ["2", "5"]


def rectified(bias):
    """Units max(0, x + bias)."""
    layer = nn.Linear(3, 3)
    layer.weight.data[...] = np.eye(3)
    layer.bias.data[...] = bias
    return nn.Sequential(layer, nn.ReLU())


def test_dead_units_exactly():
    x = np.array([[1, 2, 3], [-1, -2, 0.5], [0.5, -1, 1]], np.float32)
    report = diagnose.dead_units(rectified([0, -2, -5]), x)
    assert report["1"].bad == [1, 2] and report["1"].fraction == report.fraction == 2 / 3
    assert diagnose.dead_units(rectified([0, -1.9, -2.9]), x)["1"].bad == []  # alive for one example is alive
    assert "dead: 66.7 % over 3 examples" in str(report)


def test_a_dead_channel_is_dead_everywhere(rng):
    conv = nn.Conv2d(1, 3, 1)
    conv.weight.data[...] = 1
    conv.bias.data[...] = [0, -100, 0]
    x = rng.random((4, 1, 5, 5)).astype(np.float32)
    x[1:] = 0
    x[0, 0, :4] = 0
    report = diagnose.dead_units(nn.Sequential(conv, nn.ReLU()), x)
    assert report["1"].bad == [1] and report["1"].units == 3


def test_dead_units_get_no_gradient(rng):
    net = rectified([0, -9, 0])
    x = rng.standard_normal((20, 3)).astype(np.float32)
    bad = diagnose.dead_units(net, x)["1"].bad
    net(x).sum().backward()
    assert bad == np.flatnonzero(np.abs(net[0].weight.grad).sum(axis=1) == 0).tolist() == [1]


@pytest.mark.parametrize(("layer", "factor"), [(nn.Sigmoid(), 2.0), (nn.Tanh(), 1.0)], ids=["sigmoid", "tanh"])
def test_saturation_is_the_same_curve(layer, factor):
    # slope of tanh: 1 - tanh(x)^2 < 0.05 for |x| > atanh(sqrt(0.95)) = 2.178; of the sigmoid at twice that
    x = np.array([[2.17, 2.19, 0.0], [-2.17, -2.19, 9.0]], np.float32) * np.float32(factor)
    report = diagnose.saturation(nn.Sequential(layer), x)
    assert report["0"].bad == [1] and report["0"].fraction == 0.5
    assert diagnose.saturation(nn.Sequential(layer), x, slope=0.0).fraction == 0.0


def test_errors(net, images):
    with pytest.raises(ValueError, match="saturation: expected model to have layers of type Sigmoid, Tanh, got none"):
        diagnose.saturation(net, images)
    with pytest.raises(ValueError, match="dead_units: expected model to have layers of type ReLU, ReLU6, got none"):
        diagnose.dead_units(nn.Linear(2, 2), np.ones((1, 2)))
    with pytest.raises(TypeError, match="activation_statistics: expected model to be a Module, got function"):
        diagnose.activation_statistics(lambda x: x, images)
    with pytest.raises(TypeError, match="expected kinds to be a class of layers or a tuple of them, got 'ReLU'"):
        diagnose.activation_statistics(net, images, kinds="ReLU")
    with pytest.raises(ValueError, match=r"saturation: expected slope to be a number in \[0, 1\], got 2"):
        diagnose.saturation(net, images, slope=2)


def test_plots(net, images, tmp_path):
    pytest.importorskip("matplotlib")
    diagnose.activation_statistics(net, images).plot(tmp_path / "a.png")
    diagnose.dead_units(net, images).plot(tmp_path / "b.png")
    assert {p.name for p in tmp_path.iterdir()} == {"a.png", "b.png"}
