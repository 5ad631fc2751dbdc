"""Norms of gradients, and the size of updates."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnx import diagnose, nn, optim
from nnx.autograd import Tensor
from nnx.train import Trainer


@pytest.fixture
def problem(rng):
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    return net, rng.standard_normal((7, 5)), rng.integers(0, 3, 7)


def test_norms_are_those_of_the_backward_pass(problem):
    net, x, y = problem
    report = diagnose.gradient_norms(net, nn.CrossEntropyLoss(), x, y)
    hidden = net[0](x)
    hidden.retain_grad()
    loss = nn.CrossEntropyLoss()(net[2](net[1](hidden)), y)
    loss.backward()
    assert report.loss == loss.item()
    np.testing.assert_allclose(report["0"].output, np.linalg.norm(hidden.grad), rtol=1e-12)
    both = np.concatenate([net[0].weight.grad.ravel(), net[0].bias.grad])
    np.testing.assert_allclose(report["0"].parameters, np.linalg.norm(both), rtol=1e-12)
    weights = np.concatenate([net[0].weight.data.ravel(), net[0].bias.data])
    np.testing.assert_allclose(report["0"].weights, np.linalg.norm(weights), rtol=1e-12)
    assert report["1"].parameters is None and [a.kind for a in report.layers] == ["Linear", "Tanh", "Linear"]
    assert report.factor == report["0"].output / report["2"].output
    assert report.norms("Tanh") == [report["1"].output]


def test_gradients_of_the_caller_stay(problem):
    net, x, y = problem
    net[0].weight.grad = mine = np.full((4, 5), 7.0)
    diagnose.gradient_norms(net, nn.CrossEntropyLoss(), x, y)
    assert net[0].weight.grad is mine and (mine == 7).all() and net[2].weight.grad is None


def chain(gain, depth=8):
    parts = []
    for _ in range(depth):
        layer = nn.Linear(6, 6, bias=False)
        layer.weight.data[...] = gain * np.eye(6)
        parts.append(layer)
    return nn.Sequential(*parts)


@pytest.mark.parametrize(("gain", "verdict"), [(0.25, "vanishing"), (1.0, "even"), (4.0, "exploding")])
def test_verdicts(gain, verdict, rng):
    x, y = rng.standard_normal((4, 6)).astype(np.float32), np.array([0, 1, 2, 3])
    report = diagnose.gradient_norms(chain(gain), nn.CrossEntropyLoss(), x, y)
    assert report.verdict == verdict and verdict in str(report)
    # in a chain of gain * identity, the gradient is multiplied by the gain in each layer
    norms = report.norms()
    np.testing.assert_allclose([a / b for a, b in zip(norms, norms[1:], strict=False)], gain, rtol=1e-4)
    np.testing.assert_allclose(report.factor, gain, rtol=1e-4)


def test_not_finite(rng):
    net = chain(1.0, 2)
    net[1].weight.data[0, 0] = np.nan
    report = diagnose.gradient_norms(net, nn.MSELoss(), np.ones((1, 6), np.float32), np.ones((1, 6), np.float32))
    assert report.verdict == "not finite"


def test_gradient_errors(problem):
    net, x, y = problem
    with pytest.raises(ValueError, match="gradient_norms: expected as many targets y as inputs x, at least one, got 3"):
        diagnose.gradient_norms(net, nn.CrossEntropyLoss(), x, y[:3])
    with pytest.raises(TypeError, match=r"expected loss to be a function of \(output, target\), got str"):
        diagnose.gradient_norms(net, "mse", x, y)
    with pytest.raises(ValueError, match="expected a loss that depends on the model's parameters"):
        diagnose.gradient_norms(net, lambda output, target: Tensor(np.float64(1.0)), x, y)


# -- updates ---------------------------------------------------------------------------------------


def test_update_ratio():
    assert diagnose.update_ratio([3.0, 4.0], [3.0, 4.5]) == 0.1
    assert diagnose.update_ratio([0.0], [0.0]) == 0.0 and diagnose.update_ratio([0.0], [1.0]) == math.inf
    with pytest.raises(ValueError, match=r"update_ratio: expected after of shape \(2,\), got \(3,\)"):
        diagnose.update_ratio(np.ones(2), np.ones(3))


def test_the_callback_sees_what_the_optimizer_did(problem):
    net, x, y = problem
    before = {name: p.data.copy() for name, p in net.named_parameters()}
    watch = diagnose.UpdateRatio()
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    Trainer(net, nn.CrossEntropyLoss(), optimizer).fit(x, y, batch_size=7, callbacks=[watch], verbose=False)
    for name, p in net.named_parameters():
        assert watch.report().last[name] == diagnose.update_ratio(before[name], p)


def test_every(problem):
    net, x, y = problem
    watch = diagnose.UpdateRatio(every=3)
    trainer = Trainer(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), lr=0.1))
    trainer.fit(x, y, epochs=7, batch_size=7, callbacks=[watch], verbose=False)
    assert {len(v) for v in watch.report().ratios.values()} == {3}  # steps 1, 4 and 7
    again = diagnose.UpdateRatio(every=3)
    again.load_state_dict(watch.state_dict())
    assert again.report() == watch.report()
    lines = str(watch.report()).splitlines()
    assert lines[0].split() == ["parameter", "steps", "last", "median", "verdict"] and len(lines) == 5


def test_judging():
    from nnx.diagnose.updates import judge_ratio

    words = [judge_ratio(r) for r in (1e-6, 1e-3, 0.01, 0.5, math.nan)]
    assert words == ["small", "about right", "about right", "large", "not finite"]


def test_plots(problem, tmp_path):
    pytest.importorskip("matplotlib")
    net, x, y = problem
    diagnose.gradient_norms(net, nn.CrossEntropyLoss(), x, y).plot(tmp_path / "g.png")
    diagnose.RatioReport({"w": [1e-3, 2e-3], "b": []}).plot(tmp_path / "r.png")
    assert len(list(tmp_path.iterdir())) == 2
