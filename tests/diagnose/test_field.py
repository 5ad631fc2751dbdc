"""Receptive fields: the formula, the tape, and the gradient."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import diagnose, models, nn
from nnx import functional as F
from nnx.autograd import record


def test_stacks():
    assert [diagnose.stacked_field([3] * n) for n in range(4)] == [1, 3, 5, 7]
    assert diagnose.stacked_field([(7, 2), (3, 2), (3, 1)]) == 7 + 2 * 2 + 2 * 4
    assert diagnose.stacked_field([(3, 1, 2), 3]) == 7
    with pytest.raises(ValueError, match=r"stacked_field: expected \(kernel, stride, dilation\) or less .* got \(\)"):
        diagnose.stacked_field([()])
    with pytest.raises(ValueError, match="expected windows to be an integer >= 1, got 0"):
        diagnose.stacked_field([0])


ARCHITECTURES = {
    "stride and padding": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 8, 5, stride=2, padding=2), nn.Tanh(), nn.Conv2d(8, 8, 3, padding=1), nn.AvgPool2d(2)
        ),
        (2, 25, 25),
    ),
    "dilation": (lambda: nn.Sequential(nn.Conv2d(1, 8, 3, dilation=2), nn.Conv2d(8, 8, (3, 1))), (1, 15, 17)),
    "same padding of an even kernel": (
        lambda: nn.Sequential(nn.Conv2d(1, 8, 4, padding="same"), nn.Conv2d(8, 8, 2, padding="same")), (1, 13, 13)
    ),
    "one dimension": (lambda: nn.Sequential(nn.Conv1d(1, 8, 3), nn.AvgPool1d(3, 2), nn.Conv1d(8, 8, 3)), (1, 30)),
    "three dimensions": (lambda: nn.Sequential(nn.Conv3d(1, 8, (1, 2, 3)), nn.AvgPool3d(2)), (1, 6, 7, 8)),
    "adaptive pooling": (lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(4)), (1, 14, 14)),
    "adaptive pooling that does not divide": (
        lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(1, 4, 1)), (1, 9, 9)
    ),
    "mean over the image": (lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8)), (1, 9, 9)),
    "linear": (lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten(), nn.Linear(100, 3)), (1, 5, 5)),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_theory_is_what_the_gradient_shows(name, rng):
    make, shape = ARCHITECTURES[name]
    net = make()
    x = rng.standard_normal((4, *shape))
    for layer in diagnose.receptive_field(net, shape).layers:
        if layer.kind == "Flatten":
            continue  # its places are a list
        middle = diagnose.measured_field(net, layer.name, x)
        assert middle.agrees, str(middle)
        corner = diagnose.measured_field(net, layer.name, x, position=(0,) * len(middle.position))
        assert corner.agrees, str(corner)


class Branches(nn.Module):
    """Two ways that meet, the longer of them by addition, and then side by side."""

    def __init__(self, join):
        super().__init__()
        self.join = join
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.a = nn.Conv2d(4, 4, 1)
        self.b = nn.Sequential(nn.Conv2d(4, 4, 5, padding=2), nn.Tanh(), nn.Conv2d(4, 4, 3, padding=1))
        self.last = nn.Conv2d(8 if join == "cat" else 4, 4, 3, padding=1)

    def forward(self, x):
        import nnx

        x = self.first(x)
        a, b = self.a(x), self.b(x)
        y = nnx.cat([a, b], 1) if self.join == "cat" else (a + b).tanh() * 2
        return self.last(y)


@pytest.mark.parametrize("join", ["cat", "add"])
def test_branches_see_the_larger_box(join, rng):
    net = Branches(join)
    report = diagnose.receptive_field(net, (1, 21, 21))
    assert [report[name].size[0] for name in ("first", "a", "b.0", "b.2", "last")] == [3, 3, 7, 9, 11]
    assert diagnose.measured_field(net, "last", rng.standard_normal((3, 1, 21, 21))).agrees


@pytest.mark.parametrize(
    ("name", "arguments", "shape", "layer", "size"),
    [
        ("lenet5", {}, (1, 28, 28), None, None),
        ("resnet20", {}, (3, 32, 32), "layer3.2.conv2", 81 + 0),
        ("resnet18", {"num_classes": 10}, (3, 64, 64), "layer4.1.conv2", 435),
        ("densenet", {}, (3, 32, 32), None, None),
        ("googlenet", {"num_classes": 10}, (3, 64, 64), None, None),
        ("convnet", {}, None, None, None),
        ("mlp", {"sizes": [64, 20, 10]}, (1, 8, 8), "layers.0", 8),
    ],
)
def test_models(name, arguments, shape, layer, size):
    net = models.build(name, **arguments)
    if shape is None:
        shape = (next(iter(net.parameters())).shape[1], 32, 32)
    report = diagnose.receptive_field(net, shape)
    assert len(report.layers) > 1 and all(all(n >= 1 for n in a.size) for a in report.layers)
    if layer is not None:
        assert report[layer].size == (size, size)


def test_max_pooling_and_relu_fill_the_field_over_many_examples(rng):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU())
    one = diagnose.measured_field(net, "4", rng.standard_normal((1, 1, 16, 16)), position=(2, 2))
    many = diagnose.measured_field(net, "4", rng.standard_normal((60, 1, 16, 16)), position=(2, 2))
    low, high = zip(*many.theory, strict=True)
    assert many.agrees and many.size == (8, 8)
    assert (np.argwhere(one.strength) >= low).all() and (np.argwhere(one.strength) < high).all()
    assert np.count_nonzero(one.strength) < np.count_nonzero(many.strength) <= 64
    assert many.strength[4:12, 4:12].sum() == many.strength.sum()


def test_a_wrong_window_would_be_seen(rng, monkeypatch):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3))
    x = rng.standard_normal((3, 1, 12, 12))
    assert diagnose.measured_field(net, "2", x).agrees
    net[2].weight.data[:, :, :, 2] = 0  # a kernel of width 2 now
    wrong = diagnose.measured_field(net, "2", x)
    assert wrong.agrees is False and wrong.size == (5, 4) and "different" in str(wrong)


def test_a_dead_unit_sees_nothing(rng):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    net[0].bias.data[...] = -100
    report = diagnose.measured_field(net, "1", rng.standard_normal((2, 1, 8, 8)))
    assert report.window is None and report.windows == [None, None] and "no gradient reaches" in str(report)


class Functional(nn.Module):
    """Functions only, with two convolutions as layers around them."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect")
        self.last = nn.Conv2d(4, 2, 3)

    def forward(self, x):
        x = F.avg_pool2d(F.max_pool2d(F.relu(self.first(x)), 2, padding=1), 3, stride=2)
        return self.last(F.pad(x, (1, 0, 1, 0)))


def test_functions_count_like_layers(rng):
    net = Functional()
    report = diagnose.receptive_field(net, (1, 32, 32))
    # 3, 4 behind the maximum, 4 + 2 * 2 = 8 behind the mean, 8 + 2 * 4 = 16
    assert report["last"].size == (16, 16) and report["last"].start == (-1 - 1 - 4, -6)
    assert diagnose.measured_field(net, "last", rng.standard_normal((40, 1, 32, 32))).agrees


class Own(nn.Module):
    def forward(self, x):
        return record(x.data * 2, lambda needs, gy: (gy * 2,), (x,))


def test_what_the_theory_does_not_know(rng):
    with pytest.raises(ValueError, match=r"receptive_field: expected convolutions, pooling and operations on single"):
        diagnose.receptive_field(Own(), (1, 12, 12))
    up = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(2, 2, 2, stride=2))
    with pytest.raises(ValueError, match=r"got 'conv_transpose' of nnx.functional.conv, .* Use measured_field"):
        diagnose.receptive_field(up, (1, 12, 12))
    measured = diagnose.measured_field(up, "1", rng.standard_normal((2, 1, 12, 12)))
    assert measured.theory is None and measured.agrees is None and measured.size == (3, 3)


def test_nothing_is_changed(rng):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    net[0].weight.grad = mine = np.ones((2, 1, 3, 3), np.float32)
    before = {name: a.tobytes() for name, a in net.state_dict().items()}
    diagnose.receptive_field(net, (1, 8, 8))
    diagnose.measured_field(net, "2", rng.standard_normal((2, 1, 8, 8)))
    assert net[0].weight.grad is mine and (mine == 1).all() and net.training
    assert all(p.requires_grad for p in net.parameters())
    assert before == {name: a.tobytes() for name, a in net.state_dict().items()}


def test_errors(rng):
    net = nn.Sequential(nn.Conv2d(1, 2, 3))
    x = rng.standard_normal((2, 1, 8, 8))
    with pytest.raises(KeyError, match="measured_field: expected layer to be one of 0, got 'conv'"):
        diagnose.measured_field(net, "conv", x)
    with pytest.raises(ValueError, match=r"expected position inside the places \(6, 6\) of '0', got \(6, 0\)"):
        diagnose.measured_field(net, "0", x, position=(6, 0))
    with pytest.raises(ValueError, match=r"expected examples x of shape \(N, C, spatial...\), got shape \(8, 8\)"):
        diagnose.measured_field(net, "0", x[0, 0])
    with pytest.raises(ValueError, match=r"receptive_field: expected input_shape to be \(C, spatial...\), got \(5,\)"):
        diagnose.receptive_field(net, (5,))


def test_text_and_plots(rng, tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2))
    report = diagnose.receptive_field(net, (1, 8, 8))
    assert str(report).splitlines()[2].split() == ["1", "MaxPool2d", "3x3", "4x4", "2x2", "0,", "0"]
    assert report["1"].window((1, 2)) == [(2, 6), (4, 8)]
    pytest.importorskip("matplotlib")
    report.plot(tmp_path / "t.png")
    diagnose.measured_field(net, "1", rng.standard_normal((2, 1, 8, 8))).plot(tmp_path / "m.png")
    assert len(list(tmp_path.iterdir())) == 2


def test_layers_that_sequential_runs_as_one():
    """A convolution, its ReLU and the pooling behind it leave one node on the tape, with a name of its own."""
    from nnx.diagnose._trace import Trace

    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3), nn.ReLU())
    for p in model.parameters():
        p.requires_grad = False  # as the trace has it
    x = nnx.tensor(np.ones((1, 1, 12, 12), np.float32), requires_grad=True)
    y = model(x)
    assert y._node.name == "conv_relu"
    field = Trace("test", x).of(y)
    assert field.jump == (2, 2) and field.end[0] - field.start[0] + 1 == 8
