"""The lectures' ClassifierTrainer: its calls as they are printed.

The model is a dict of arrays, the network a function that returns cost and gradients. The calls below are those of the
slides, argument for argument; the arrays stand in for CIFAR-10.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nnx
from nnx import viz
from nnx.course import picture
from nnx.course._pixels import pixels
from nnx.train.classifier import ClassifierTrainer, init_two_layer_model, two_layer_net

ROWS = ("F128",)


def overfit_twenty(num_epochs: int = 200, verbose: bool = False) -> Any:
    """Twenty examples by heart."""
    X_train, y_train = pixels(100)
    model = init_two_layer_model(32 * 32 * 3, 50, 10)  # input size, hidden size, number of classes
    trainer = ClassifierTrainer()
    X_tiny = X_train[:20]  # take 20 examples
    y_tiny = y_train[:20]
    best_model, stats = trainer.train(
        X_tiny,
        y_tiny,
        X_tiny,
        y_tiny,
        model,
        two_layer_net,
        num_epochs=num_epochs,
        reg=0.0,
        update="sgd",
        learning_rate_decay=1,
        sample_batches=False,
        learning_rate=1e-3,
        verbose=verbose,
    )
    return best_model, stats


def preliminary(rate: float, num_epochs: int = 10, examples: int = 1000, verbose: bool = False) -> Any:
    """Preliminary training with batches, at some learning rate."""
    X, y = pixels(examples + 200)
    X_train, y_train, X_val, y_val = X[:examples], y[:examples], X[examples:], y[examples:]
    model = init_two_layer_model(32 * 32 * 3, 50, 10)  # input size, hidden size, number of classes
    trainer = ClassifierTrainer()
    best_model, stats = trainer.train(
        X_train,
        y_train,
        X_val,
        y_val,
        model,
        two_layer_net,
        num_epochs=num_epochs,
        reg=0.000001,
        update="sgd",
        learning_rate_decay=1,
        sample_batches=True,
        learning_rate=rate,
        verbose=verbose,
    )
    return best_model, stats


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Twenty examples by heart, then rates that are too small, right, and too large."""
    nnx.manual_seed(seed)
    _, tiny = overfit_twenty(num_epochs=60 if small else 200)
    print(f"20 examples: cost {tiny['cost'][0]:.6f} -> {tiny['cost'][-1]:.6f}, train accuracy {tiny['train'][-1]}")
    runs = {f"{rate:g}": preliminary(rate, *((2, 300) if small else (10, 1000)))[1] for rate in (1e-6, 1e-3, 1e6)}
    for rate, stats in runs.items():
        print(f"learning rate {rate}: cost {stats['cost'][0]:.6g} -> {stats['cost'][-1]:.6g}, val {stats['val'][-1]}")
    if path := picture(out, "classifier_trainer-cost"):
        viz.lines({"20 examples": tiny["cost"]}, xlabel="epoch", ylabel="cost", log="y", path=path)
    return {"tiny": tiny["cost"][-1], "train": tiny["train"][-1], "costs": {k: v["cost"] for k, v in runs.items()}}
