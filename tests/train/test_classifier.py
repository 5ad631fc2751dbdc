"""The lectures' trainer; that its call runs as printed is in tests/course/test_classifier_trainer.py."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nnx
from nnx import optim
from nnx.train.classifier import UPDATES, ClassifierTrainer, init_two_layer_model, two_layer_net


@pytest.fixture
def problem(rng):
    y = rng.integers(0, 3, 40)
    x = rng.standard_normal((40, 6))
    x[np.arange(40), y] += 3
    return x, y, init_two_layer_model(6, 10, 3, std=0.1, rng=rng)


def train(problem, **arguments):
    x, y, model = problem
    settings = {"num_epochs": 20, "learning_rate": 0.1, "learning_rate_decay": 1, "sample_batches": False, "seed": 0}
    return ClassifierTrainer().train(x, y, x[:10], y[:10], model, two_layer_net, **(settings | arguments))


def test_two_layer_net_has_the_right_gradient(problem):
    x, y, model = problem
    for half in (True, False):
        cost, gradients = two_layer_net(x, y, model, 0.3, l2_half=half)
        for name, array in model.items():
            for index in [(0,) * array.ndim, tuple(n - 1 for n in array.shape)]:
                up, down = ({k: a.copy() for k, a in model.items()} for _ in range(2))
                up[name][index] += 1e-6
                down[name][index] -= 1e-6
                slope = (two_layer_net(x, y, up, 0.3, half)[0] - two_layer_net(x, y, down, 0.3, half)[0]) / 2e-6
                assert gradients[name][index] == pytest.approx(slope, abs=1e-8)
        squares = sum(float((model[w] ** 2).sum()) for w in ("W1", "W2"))
        assert cost - two_layer_net(x, y, model)[0] == pytest.approx(0.3 * squares * (0.5 if half else 1), rel=1e-10)


def test_scores_without_classes(problem):
    x, _, model = problem
    by_hand = np.maximum(0, x @ model["W1"] + model["b1"]) @ model["W2"] + model["b2"]
    np.testing.assert_allclose(two_layer_net(x, None, model), by_hand, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("update", UPDATES)
def test_every_update_learns(update, problem):
    rate = {"adam": 0.01, "rmsprop": 0.01}.get(update, 0.1)
    best, stats = train(problem, update=update, learning_rate=rate, num_epochs=60)
    assert stats["cost"][-1] < 0.5 * stats["cost"][0] and max(stats["val"]) == 1.0
    assert best.keys() == {"W1", "b1", "W2", "b2"} and len(stats["train"]) == 60


def test_sgd_is_the_lectures_update(problem):
    x, y, model = problem
    best, stats = train(problem, update="sgd", num_epochs=3, learning_rate_decay=0.5)
    w = {name: a.copy() for name, a in model.items()}
    for lr in (0.1, 0.05, 0.025):
        for name, g in two_layer_net(x, y, w)[1].items():
            w[name] += -lr * g
    assert stats["lr"] == [0.1, 0.05, 0.025] and stats["cost"] == stats["costs"]
    last = two_layer_net(x, y, w)[0]
    assert train(problem, update="sgd", num_epochs=4, learning_rate_decay=0.5)[1]["cost"][-1] == pytest.approx(last)


def test_the_best_model_is_that_of_the_best_epoch(problem):
    x, y, model = problem
    best, stats = train(problem, update="sgd", learning_rate=3.0, num_epochs=15)
    accuracy = (two_layer_net(x[:10], None, best).argmax(axis=1) == y[:10]).mean()
    assert accuracy == max(stats["val"])


def test_arguments_are_not_changed(problem):
    x, y, model = problem
    before = [a.tobytes() for a in (x, y, *model.values())]
    best, _ = train(problem)
    assert before == [a.tobytes() for a in (x, y, *model.values())]
    assert not any(np.shares_memory(best[name], model[name]) for name in model)


def test_batches_are_seeded_and_counted(problem):
    first, stats = train(problem, sample_batches=True, batch_size=10, num_epochs=3, seed=4)
    again, _ = train(problem, sample_batches=True, batch_size=10, num_epochs=3, seed=4)
    other, _ = train(problem, sample_batches=True, batch_size=10, num_epochs=3, seed=5)
    assert len(stats["costs"]) == 12 and len(stats["cost"]) == 3
    assert first["W1"].tobytes() == again["W1"].tobytes() != other["W1"].tobytes()
    nnx.manual_seed(1)
    a, _ = train(problem, sample_batches=True, batch_size=10, seed=None)
    nnx.manual_seed(1)
    b, _ = train(problem, sample_batches=True, batch_size=10, seed=None)
    assert a["W1"].tobytes() == b["W1"].tobytes()


def test_adam_is_the_librarys(problem):
    x, y, model = problem
    _, stats = train(problem, update="adam", num_epochs=5, learning_rate=0.01)
    params = {name: nnx.Parameter(a.copy()) for name, a in model.items()}
    optimizer = optim.Adam(params.values(), lr=0.01, eps=1e-7)
    for expected in stats["costs"]:
        cost, gradients = two_layer_net(x, y, {name: p.data for name, p in params.items()})
        assert cost == expected
        for name, p in params.items():
            p.grad = gradients[name]
        optimizer.step()


def test_verbose_prints_the_lectures_lines(problem, capsys):
    train(problem, num_epochs=2, verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Finished epoch 1 / 2: cost 1.0") and lines[0].endswith("lr 1.000000e-01")
    assert lines[2].startswith("finished optimization. best validation accuracy: ")


def test_a_cost_that_explodes_is_shown(problem):
    _, stats = train(problem, update="sgd", learning_rate=1e200, num_epochs=6)
    assert not math.isfinite(stats["cost"][-1]) and len(stats["cost"]) == 6


def test_errors(problem):
    x, y, model = problem
    with pytest.raises(ValueError, match="train: expected update to be one of 'sgd', .* got 'newton'"):
        train(problem, update="newton")
    with pytest.raises(ValueError, match="expected a class for each of X, at least one, got 40, 39"):
        train((x[:39], y, model))
    with pytest.raises(KeyError, match="two_layer_net: expected model with W1, b1, W2 and b2, got W1"):
        two_layer_net(x, y, {"W1": model["W1"]})
    with pytest.raises(ValueError, match="two_layer_net: expected X with 6 numbers per example, got 3"):
        two_layer_net(x[:, :3], y, model)
    trainer = ClassifierTrainer()
    with pytest.raises(KeyError, match="expected loss_function to return a gradient for 'b1', got none"):
        trainer.train(x, y, x, y, model, lambda X, y, m, reg: (1.0, {"W1": m["W1"]}))
    with pytest.raises(ValueError, match=r"expected the gradient of 'W1' of shape \(6, 10\), got \(10, 6\)"):
        trainer.train(x, y, x, y, model, lambda X, y, m, reg: (1.0, {n: a.T for n, a in m.items()}))
    with pytest.raises(ValueError, match="init_two_layer_model: expected hidden_size to be an integer >= 1, got 0"):
        init_two_layer_model(3, 0, 2)
