"""Early stopping: watch the validation loss, stop when it has turned, go back to the best weights.

A network that is large enough first learns what holds for all digits and then the accidents of its training set: the
training loss falls and falls, the validation loss turns and rises. A fifth of the labels here are wrong, so that there
is plenty to learn by heart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx import nn, viz
from nnx.course import picture
from nnx.data import digits, split
from nnx.train import EarlyStopping, Trainer

ROWS = ("F134",)


class _Clock(nn.Module):
    """One weight, which counts the epochs: its training loss is -w, so a step of size 1 adds 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nnx.Parameter(np.zeros(1, np.float32))

    def forward(self, x: Any) -> Any:
        return self.weight * np.ones((len(x), 1), np.float32)


def follow(curve: Sequence[float], patience: int) -> dict[str, Any]:
    """Run a training whose validation loss after epoch i is ``curve[i - 1]``; tell where it stops and goes back to.

    >>> found = follow([5.0, 4.0, 3.0, 3.5, 3.2, 3.1, 2.0], patience=3)
    >>> found["epochs"], found["best_epoch"], found["weight"]
    (6, 3, 3.0)
    """
    model = _Clock()

    def loss(output: Any, target: Any) -> Any:
        if target[0] == 0:
            return -output.mean()
        return nnx.Tensor(np.array(float(curve[round(float(output.data[0, 0])) - 1])))

    one = np.zeros((1, 1), np.float32)
    stopper = EarlyStopping("val_loss", patience=patience)
    trainer = Trainer(model, loss, nnx.optim.SGD(model.parameters(), lr=1.0), metrics=())
    history = trainer.fit(
        one, np.zeros(1), len(curve), validation=(one, np.ones(1)), callbacks=[stopper], shuffle=False, verbose=False
    )
    return {
        "epochs": len(history["val_loss"]),
        "best_epoch": stopper.best_epoch,
        "best": stopper.best,
        "weight": float(model.weight.data[0]),
        "val_loss": [float(value) for value in history["val_loss"]],
        "stopped": trainer.stopped,
    }


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train on noisy digits with and without early stopping, and compare on the test set."""
    rng = np.random.default_rng(seed)
    x, y, x_test, y_test = digits()
    (x, y), (x_val, y_val) = split(x[::4], y[::4], sizes=(0.7, 0.3), stratify=y[::4], seed=seed)
    noisy = y.copy()
    wrong = rng.random(len(y)) < 0.2
    noisy[wrong] = rng.integers(0, 10, wrong.sum())

    result: dict[str, Any] = {}
    histories = {}
    for name, patience in (("stopped", 5), ("not stopped", 10_000)):
        nnx.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 10))
        trainer = Trainer(model, nn.CrossEntropyLoss(), nnx.optim.Adam(model.parameters(), lr=2e-3))
        stopper = EarlyStopping("val_loss", patience=patience, restore_best=name == "stopped")
        history = trainer.fit(
            x, noisy, 15 if small else 80, 32, validation=(x_val, y_val), callbacks=[stopper], verbose=False
        )
        histories[name] = history
        measured = trainer.evaluate(x_test, y_test)
        result[name] = {
            "epochs": len(history["loss"]),
            "best_epoch": stopper.best_epoch,
            "val_loss": [float(v) for v in history["val_loss"]],
            "test_loss": float(measured["loss"]),
            "test_accuracy": float(measured["accuracy"]),
        }
        print(
            f"{name:12s} {len(history['loss']):3d} epochs, lowest validation loss {stopper.best:.3f} in epoch "
            f"{stopper.best_epoch}; test loss {measured['loss']:.3f}, test accuracy {measured['accuracy']:.3f}"
        )
    if path := picture(out, "early_stopping-curves"):
        shown = {name: values for name, values in histories["not stopped"].items() if name != "lr"}
        viz.curves(shown, path=path, title="a fifth of the training labels is wrong")
    return result
