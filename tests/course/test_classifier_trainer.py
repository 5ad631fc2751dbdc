"""The calls of the lectures, with their argument names."""

from __future__ import annotations

import math
import random

import numpy as np

import nnx
from nnx.course._pixels import pixels
from nnx.train.classifier import ClassifierTrainer, init_two_layer_model, two_layer_net

TINY = """
model = init_two_layer_model(32*32*3, 50, 10) # input size, hidden size, number of classes
trainer = ClassifierTrainer()
X_tiny = X_train[:20] # take 20 examples
y_tiny = y_train[:20]
best_model, stats = trainer.train(X_tiny, y_tiny, X_tiny, y_tiny,
                                  model, two_layer_net,
                                  num_epochs=200, reg=0.0,
                                  update='sgd', learning_rate_decay=1,
                                  sample_batches = False,
                                  learning_rate=1e-3, verbose=True)
"""

COARSE = """
max_count = 2
for count in range(max_count):
    reg = 10**uniform(-5, 5)
    lr = 10**uniform(-3, -6)
    model = init_two_layer_model(32*32*3, 50, 10) # input size, hidden size, number of classes
    trainer = ClassifierTrainer()
    best_model_local, stats = trainer.train(X_train, y_train, X_val, y_val,
                                            model, two_layer_net,
                                            num_epochs=5, reg=reg,
                                            update='momentum', learning_rate_decay=0.9,
                                            sample_batches = True, batch_size = 100,
                                            learning_rate=lr, verbose=False)
    results.append((max(stats['val']), lr, reg))
"""


def names():
    x, y = pixels(300)
    return {
        "ClassifierTrainer": ClassifierTrainer,
        "init_two_layer_model": init_two_layer_model,
        "two_layer_net": two_layer_net,
        "uniform": random.Random(0).uniform,
        "X_train": x[:200], "y_train": y[:200], "X_val": x[200:], "y_val": y[200:],
        "results": [],
    }  # fmt: skip


def test_F128_the_call_for_twenty_examples_runs(capsys):
    scope = names()
    nnx.manual_seed(0)
    exec(TINY, scope)
    stats = scope["stats"]
    assert abs(stats["cost"][0] - math.log(10)) < 1e-3 and stats["cost"][-1] < 0.01 and stats["train"][-1] == 1.0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Finished epoch 1 / 200: cost 2.3026") and lines[0].endswith("lr 1.000000e-03")
    assert lines[-1] == "finished optimization. best validation accuracy: 1.000000" and len(lines) == 201


def test_F128_the_call_of_the_coarse_search_runs():
    scope = names()
    nnx.manual_seed(0)
    exec(COARSE, scope)
    assert len(scope["results"]) == 2 and all(0 <= accuracy <= 1 for accuracy, _, _ in scope["results"])
    np.testing.assert_allclose(scope["stats"]["lr"], scope["lr"] * 0.9 ** np.arange(5))


def test_F128_the_slides_call_of_the_network_alone():
    scope = names()
    loss, grad = two_layer_net(scope["X_train"], scope["y_train"], init_two_layer_model(32 * 32 * 3, 50, 10), 0.0)
    assert abs(loss - math.log(10)) < 1e-3 and grad.keys() == {"W1", "b1", "W2", "b2"}
