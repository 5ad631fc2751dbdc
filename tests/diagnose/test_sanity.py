"""The loss at the start, the regularisation, and a few examples by heart."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnx import diagnose, nn, optim
from nnx import functional as F
from nnx.autograd import record


def quiet(features=6, classes=10):
    net = nn.Linear(features, classes)
    net.weight.data[...] *= 1e-3
    net.bias.data[...] = 0
    return net


@pytest.fixture
def data(rng):
    return rng.standard_normal((40, 6)).astype(np.float32), rng.integers(0, 10, 40)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (nn.CrossEntropyLoss(), math.log(10)),
        (F.cross_entropy, math.log(10)),
        (nn.MulticlassHingeLoss(), 9.0),
        (nn.MulticlassHingeLoss(p=2, margin=2.0), 36.0),
        (F.multiclass_hinge_loss, 9.0),
    ],
)
def test_initial_loss(loss, expected, data):
    report = diagnose.initial_loss(quiet(), loss, *data)
    assert report.expected == expected and report.passed and "passed" in str(report)
    assert abs(report.difference) < 0.05


def test_initial_loss_fails_on_a_wrong_scale(data):
    net = quiet()
    net.weight.data[...] *= 1e4
    report = diagnose.initial_loss(net, nn.CrossEntropyLoss(), *data)
    assert not report.passed and "smaller weights in the last layer" in str(report)
    net.weight.data[0, 0] = np.nan
    assert "failed. Look for infinities" in str(diagnose.initial_loss(net, nn.CrossEntropyLoss(), *data))


def test_initial_loss_fails_where_the_answer_is_in_the_input(rng):
    y = rng.integers(0, 10, 30)
    net = nn.Linear(10, 10)
    net.weight.data[...] = 5 * np.eye(10)
    report = diagnose.initial_loss(net, nn.CrossEntropyLoss(), np.eye(10, dtype=np.float32)[y], y)
    assert not report.passed and "knows more than it can" in str(report)


def test_initial_loss_of_another_loss(data):
    x, _ = data
    with pytest.raises(ValueError, match="initial_loss: expected loss to be cross-entropy .* got MSELoss. Say what"):
        diagnose.initial_loss(quiet(6, 6), nn.MSELoss(), x, x)
    assert diagnose.initial_loss(quiet(6, 6), nn.MSELoss(), x, x, expected=float((x * x).mean())).passed


# -- regularisation --------------------------------------------------------------------------------


def penalised(weight, factor):
    return lambda strength: 2.3 + factor * strength * float((weight * weight).sum())


def test_regularisation_names_the_convention(rng):
    w = rng.standard_normal((4, 4))
    half = diagnose.regularisation(penalised(w, 0.5), [w], (0, 0.1, 1))
    full = diagnose.regularisation(penalised(w, 1.0), [w], (0, 0.1, 1))
    assert half.passed and half.convention == "0.5 strength sum(W^2)" and half.losses == half.predicted(True)
    assert full.passed and full.convention == "strength sum(W^2)"
    assert "passed: the penalty is 0.5 strength" in str(half)


@pytest.mark.parametrize(
    ("factor", "message"),
    [(0.0, "does not rise"), (-0.5, "does not rise"), (0.7, "as neither convention says")],
)
def test_regularisation_fails(factor, message, rng):
    w = rng.standard_normal((4, 4))
    report = diagnose.regularisation(penalised(w, factor), [w])
    assert not report.passed and message in str(report)


def test_regularisation_that_forgets_a_layer_fails(rng):
    first, second = rng.standard_normal((2, 4, 4))
    report = diagnose.regularisation(penalised(first, 0.5), [first, second])
    assert report.rises and not report.passed


def test_regularisation_errors():
    with pytest.raises(ValueError, match=r"expected strengths to be at least two rising numbers, got \[1, 0\]"):
        diagnose.regularisation(lambda s: s, [], [1, 0])
    with pytest.raises(TypeError, match="expected loss_at to be a function of the strength, got float"):
        diagnose.regularisation(2.3, [])


# -- overfitting -----------------------------------------------------------------------------------


class Broken(nn.Module):
    """tanh with a planted mistake in its gradient."""

    def __init__(self, mistake):
        super().__init__()
        self.mistake = mistake

    def forward(self, x):
        if self.mistake == "lost":
            return x.tanh().detach()
        factor = {"sign": -1.0, "size": 1e-6, "right": 1.0}[self.mistake]
        y = np.tanh(x.data)
        return record(y, lambda needs, gy, y: (factor * gy * (1 - y * y),), (x,), y)


def two_layers(mistake, last=True):
    net = nn.Sequential(nn.Linear(6, 60), Broken(mistake), nn.Linear(60, 10))
    if not last:
        net[2].requires_grad_(False)
    return net


def test_overfit_passes(data):
    net = two_layers("right")
    before = {name: a.tobytes() for name, a in net.state_dict().items()}
    report = diagnose.overfit(net, nn.CrossEntropyLoss(), *data)
    assert report.passed and report.losses[-1] < 0.01 and report.accuracies[-1] == 1.0 and report.examples == 20
    assert str(report).endswith("passed") and len(report.losses) == 201
    assert before == {name: a.tobytes() for name, a in net.state_dict().items()}


def test_overfit_finds_a_gradient_that_is_lost(data):
    report = diagnose.overfit(two_layers("lost"), nn.CrossEntropyLoss(), *data, epochs=400)
    # the last layer alone learns the examples by heart: loss and accuracy would not have told
    assert report.losses[-1] < 0.5 and not report.passed
    assert report.still == ["0.weight", "0.bias"] and "No gradient reaches 0.weight, 0.bias" in str(report)


def test_overfit_fails_on_a_wrong_sign(data):
    report = diagnose.overfit(two_layers("sign", last=False), nn.CrossEntropyLoss(), *data)
    assert not report.passed and "a gradient with the wrong sign?" in str(report)
    assert diagnose.overfit(two_layers("right", last=False), nn.CrossEntropyLoss(), *data, target=2.0).passed is False


def test_overfit_fails_on_a_loss_with_the_wrong_sign(data):
    def wrong(output, target):
        loss = F.cross_entropy(output, target)
        return record(loss.data, lambda needs, gy: (-gy,), (loss,))

    report = diagnose.overfit(two_layers("right"), wrong, *data, epochs=30)
    assert not report.passed and report.losses[-1] > report.losses[0]


def test_overfit_fails_without_enough_steps_and_on_nan(data):
    assert "More epochs or another" in str(
        diagnose.overfit(two_layers("right"), nn.CrossEntropyLoss(), *data, epochs=3)
    )
    x, y = data
    x = x.copy()
    x[0, 0] = np.nan
    report = diagnose.overfit(two_layers("right"), nn.CrossEntropyLoss(), x, y)
    assert len(report.losses) == 1 and not report.passed and "The loss is not finite" in str(report)


def test_overfit_takes_an_optimizer_and_targets_that_are_no_classes(data):
    x, _ = data
    report = diagnose.overfit(
        nn.Linear(6, 2), nn.MSELoss(), x[:5], x[:5, :2], epochs=300, optimizer=lambda p: optim.SGD(p, lr=0.3)
    )
    assert report.passed and report.accuracies == [] and report.examples == 5


def test_overfit_ignores_dropout(data):
    net = nn.Sequential(nn.Linear(6, 30), nn.ReLU(), nn.Dropout(0.9), nn.Linear(30, 10))
    assert diagnose.overfit(net, nn.CrossEntropyLoss(), *data).passed
    assert all(module.training for module in net.modules())


def test_plots(data, tmp_path):
    pytest.importorskip("matplotlib")
    diagnose.initial_loss(quiet(), nn.CrossEntropyLoss(), *data).plot(tmp_path / "i.png")
    diagnose.regularisation(lambda s: s, [np.ones(2)]).plot(tmp_path / "r.png")
    diagnose.overfit(quiet(), nn.CrossEntropyLoss(), *data, epochs=2).plot(tmp_path / "o.png")
    assert len(list(tmp_path.iterdir())) == 3
