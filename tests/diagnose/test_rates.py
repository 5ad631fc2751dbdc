"""Learning rates: flat, good, unstable, exploding."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnx import diagnose, nn, optim


@pytest.fixture
def problem(rng):
    y = rng.integers(0, 4, 60)
    x = rng.standard_normal((60, 8)).astype(np.float32)
    x[np.arange(60), y] += 2
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4)), x, y


def test_verdicts(problem):
    net, x, y = problem
    before = {name: a.tobytes() for name, a in net.state_dict().items()}
    report = diagnose.learning_rate(net, nn.CrossEntropyLoss(), x, y, (1e6, 1e-6, 0.1), steps=30, batch_size=20)
    assert report.verdicts == {1e-6: "flat", 0.1: "good", 1e6: "exploding"}
    assert report.best == 0.1 and report.interval == (0.1, 0.1)
    assert before == {name: a.tobytes() for name, a in net.state_dict().items()}
    assert all(p.grad is None for p in net.parameters())
    lines = str(report).splitlines()
    assert "too small" in lines[1] and "not finite in step" in lines[3] and lines[-1] == "good: 0.1 to 0.1, best 0.1"


def test_the_first_nan_has_a_layer_and_a_step(problem):
    net, x, y = problem
    run = diagnose.learning_rate(net, nn.CrossEntropyLoss(), x, y, [1e6], steps=50, batch_size=60)[1e6]
    assert run.nonfinite is not None and run.exploded_at == 2 and math.isnan(run.after)
    assert run.nonfinite.step == len(run.losses)
    # the same run by hand
    step = 0
    by_hand = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4))
    by_hand.load_state_dict(net.state_dict())
    rows = np.random.default_rng(0).permutation(60)
    optimizer = optim.SGD(by_hand.parameters(), lr=1e6)
    while True:
        step += 1
        rows = rows if step == 1 else rows[::1]
        outputs = [x]
        with np.errstate(all="ignore"):
            for layer in by_hand:
                outputs.append(layer(outputs[-1]))
            bad = [name for (name, _), o in zip(by_hand.named_children(), outputs[1:], strict=True)
                   if not np.isfinite(o.data).all()]  # fmt: skip
            if bad:
                break
            optimizer.zero_grad()
            nn.CrossEntropyLoss()(outputs[-1], y).backward()
            optimizer.step()
    assert abs(run.nonfinite.step - step) <= 1  # sums in another order may overflow one step earlier
    assert f"layer {bad[0]!r}" in str(run.nonfinite)


class Bad(nn.Module):
    def __init__(self, at):
        super().__init__()
        self.at, self.runs = at, 0

    def forward(self, x):
        if self.training:
            self.runs += 1
        return x * (np.float32(np.nan) if self.runs == self.at else np.float32(1))


def test_a_planted_nan_is_found_exactly(problem):
    _, x, y = problem
    net = nn.Sequential(nn.Linear(8, 8), Bad(at=7), nn.ReLU(), nn.Linear(8, 4))
    run = diagnose.learning_rate(net, nn.CrossEntropyLoss(), x, y, [0.01], steps=20).runs[0]
    assert run.nonfinite == diagnose.NonFinite(7, "layer '1' (Bad)", "output (NaN)") and run.exploded_at == 7
    net = nn.Sequential(nn.Linear(8, 8), Bad(at=99), nn.ReLU(), nn.Linear(8, 4))
    assert diagnose.learning_rate(net, nn.CrossEntropyLoss(), x, y, [0.01], steps=20).runs[0].nonfinite is None


def test_a_weight_that_is_not_finite_is_named(problem):
    net, x, y = problem
    net[2].bias.data[0] = np.inf
    run = diagnose.learning_rate(net, nn.CrossEntropyLoss(), x, y, [0.01]).runs[0]
    assert (run.nonfinite.step, run.nonfinite.what) == (1, "bias") and "'2' (Linear)" in run.nonfinite.layer


def test_unstable(rng):
    # (w - 0)^2 with lr = 1: w jumps from 1 to -1 and back, with a push of the batch on top
    net = nn.Linear(1, 1, bias=False)
    net.weight.data[...] = 1
    x = np.array([[1.0], [2.0]], np.float32)
    report = diagnose.learning_rate(net, lambda o, t: (o * o).mean(), x, x, [0.25, 1 / 2], steps=2, batch_size=2)
    # curvature 2 * mean(x^2) = 5: the factor per step is 1 - 5 lr
    assert [run.verdict for run in report.runs] == ["good", "unstable"]
    assert "jumps" in report.runs[1].note


def test_errors(problem):
    net, x, y = problem
    loss = nn.CrossEntropyLoss()
    with pytest.raises(ValueError, match="learning_rate: expected rates to hold at least one number, got none"):
        diagnose.learning_rate(net, loss, x, y, [])
    with pytest.raises(ValueError, match=r"expected rates to be a number in \(0, inf\), got 0"):
        diagnose.learning_rate(net, loss, x, y, [0])
    with pytest.raises(ValueError, match=r"expected factor to be a number in \(1, inf\), got 1"):
        diagnose.learning_rate(net, loss, x, y, factor=1)


def test_no_good_rate_and_a_plot(problem, tmp_path):
    net, x, y = problem
    report = diagnose.learning_rate(net, nn.CrossEntropyLoss(), x, y, (1e-9, 1e9), steps=5)
    assert report.best is None and report.interval is None and str(report).endswith("no rate is good")
    pytest.importorskip("matplotlib")
    report.plot(tmp_path / "r.png")
    assert (tmp_path / "r.png").exists()
