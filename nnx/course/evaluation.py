"""Evaluation: training, validation and test sets, cross-validation, and what the gap between curves says.

Splits data in the proportions of the lectures, chooses k of a nearest-neighbour classifier by 5-fold cross-validation
without a look at the test set, and trains two networks that go wrong in opposite ways, for a report to tell apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx import diagnose, nn, viz
from nnx.classic import KNeighborsClassifier
from nnx.course import picture
from nnx.data import k_fold, split_indices

ROWS = ("F028", "F029", "F030")

PROPORTIONS = {"usual": (0.8, 0.1, 0.1), "deep": (0.99, 0.005, 0.005)}


def part_sizes(n: int) -> dict[str, list[int]]:
    """How many of n samples the training, validation and test parts get, in both proportions."""
    return {name: [len(part) for part in split_indices(n, sizes)] for name, sizes in PROPORTIONS.items()}


def cross_validate(
    x: np.ndarray, y: np.ndarray, ks: list[int], folds: int = 5, seed: int = 0
) -> dict[int, list[float]]:
    """The accuracy of k-NN on each fold, trained on the other folds, for each k."""
    scores: dict[int, list[float]] = {k: [] for k in ks}
    for training, validation in k_fold(len(x), folds, stratify=y, shuffle=True, seed=seed):
        knn = KNeighborsClassifier(max(ks)).fit(x[training], y[training])
        index = knn.kneighbors(x[validation])[1]
        for k in ks:
            scores[k].append(float(np.mean(knn.vote(index[:, :k]) == y[validation])))
    return scores


def train(hidden: int, samples: int, epochs: int, seed: int) -> dict[str, list[float]]:
    """Train a network with one hidden layer on some digits; returns losses and accuracies by epoch."""
    nnx.manual_seed(seed)
    data = nnx.data.digits()
    x, y = data.x_train.reshape(-1, 64), data.y_train
    model = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    trainer = nnx.train.Trainer(
        model, nn.CrossEntropyLoss(), nnx.optim.Adam(model.parameters(), lr=0.01), metrics=["accuracy"]
    )
    held = x[1000:], y[1000:]
    history = trainer.fit(x[:samples], y[:samples], epochs, 50, validation=held, seed=seed, verbose=False)
    return {name: list(history[name]) for name in ("loss", "val_loss", "accuracy", "val_accuracy")}


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Print the parts, the scores of the folds and the chosen k, and the reports on both networks."""
    sizes = {n: part_sizes(n) for n in (1000, 1_000_000)}
    for n, parts in sizes.items():
        for name, counts in parts.items():
            print(f"{n:>9,} samples, {name:5}: training, validation, test = {counts}")

    data = nnx.data.digits()
    ks = [1, 3, 5, 10, 20, 50]
    scores = cross_validate(data.x_train, data.y_train, ks, seed=seed)
    means = {k: float(np.mean(v)) for k, v in scores.items()}
    for k, values in scores.items():
        print(f"k = {k:2}: folds {', '.join(f'{v:.3f}' for v in values)}; mean {means[k]:.4f} +- {np.std(values):.4f}")
    best = max(means, key=lambda k: means[k])
    test = KNeighborsClassifier(best).fit(data.x_train, data.y_train).score(data.x_test, data.y_test)
    print(f"chosen: k = {best}; on the test set, used once: {test:.4f}")

    epochs = 30 if small else 60
    cases = {"high variance": (300, 60), "high bias": (1, 1000)}
    verdicts = {}
    for name, (hidden, samples) in cases.items():
        history = train(hidden, samples, epochs, seed)
        report = diagnose.fit_report(history, wanted=0.9)
        verdicts[name] = report.verdict
        print(f"{name} ({hidden} hidden units, {samples} samples): {report}")
        if path := picture(out, f"evaluation-{name.replace(' ', '-')}"):
            viz.curves(history, path=path, title=f"{name}: {report.verdict}")
    if path := picture(out, "evaluation-folds"):
        lines = {f"fold {i + 1}": (ks, [scores[k][i] for k in ks]) for i in range(5)}
        viz.lines({**lines, "mean": (ks, list(means.values()))}, "k", "accuracy", log="x", path=path)
    return {
        "sizes": {str(n): parts for n, parts in sizes.items()},
        "k": ks,
        "scores": list(scores.values()),
        "best": best,
        "test": test,
        "verdicts": verdicts,
    }
