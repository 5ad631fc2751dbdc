"""Linear classifiers and a network with one hidden layer on the pixels of CIFAR-10.

    python examples/cifar10_linear.py FOLDER
    python examples/cifar10_linear.py FOLDER --search 20 --models two-layer

FOLDER holds CIFAR-10 in its binary version, or train/ and test/ with a folder of images for each class. 5,000 of the
training images are held out to choose by; the test images are looked at once, at the end. --search N draws N pairs of
learning rate and regularisation, both evenly on a logarithmic scale, tries each for two epochs, and trains the best to
the end; without it the values in BEST are taken, the best of a grid over the same ranges in runs of eight epochs.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx.classic import LinearSVM, SoftmaxClassifier, TwoLayerClassifier

MODELS: dict[str, Any] = {"svm": LinearSVM, "softmax": SoftmaxClassifier, "two-layer": TwoLayerClassifier}
BEST: dict[str, dict[str, Any]] = {
    "svm": {"learning_rate": 1e-4, "reg": 1e-2},
    "softmax": {"learning_rate": 1e-3, "reg": 1e-2},
    "two-layer": {"learning_rate": 3e-2, "reg": 1e-3, "hidden": 200},
}
# exponents of ten: learning rate, regularisation
RANGES = {"svm": ((-5, -3), (-4, 0)), "softmax": ((-4, -2), (-4, 0)), "two-layer": ((-3, -1), (-5, -2))}


def load(folder: str) -> nnx.data.ImageData:
    """The images as bytes, in either form."""
    if (Path(folder) / "train").is_dir():
        return nnx.data.image_folder(folder, dtype="uint8")
    return nnx.data.cifar10(folder, dtype="uint8")


def prepare(data: nnx.data.ImageData, held: int) -> tuple[list[tuple[np.ndarray, np.ndarray]], tuple[int, int, int]]:
    """Training, validation and test pixels, each with the mean and deviation of its column in training removed."""
    (x, y), (x_val, y_val) = nnx.data.split(
        data.x_train, data.y_train, sizes=(len(data.x_train) - held, held), stratify=data.y_train
    )
    flat = [a.reshape(len(a), -1).astype(np.float32) for a in (x, x_val, data.x_test)]
    mean, deviation = flat[0].mean(axis=0), flat[0].std(axis=0) + 1e-6
    for a in flat:
        a -= mean
        a /= deviation
    return list(zip(flat, (y, y_val, data.y_test), strict=True)), data.x_train.shape[1:]


def search(name: str, sets: list[tuple[np.ndarray, np.ndarray]], tries: int, seed: int) -> dict[str, Any]:
    """Try pairs of learning rate and regularisation; print them, and return the best by validation accuracy."""
    rng = np.random.default_rng(seed)
    best, chosen = -1.0, BEST[name]
    for i in range(tries):
        learning_rate, reg = (float(10 ** rng.uniform(low, high)) for low, high in RANGES[name])
        options = {**BEST[name], "learning_rate": learning_rate, "reg": reg}
        score = MODELS[name](**options, epochs=2).fit(*sets[0]).score(*sets[1])
        print(
            f"  {i + 1:3}/{tries}: learning rate {learning_rate:.2e}, reg {reg:.2e}: validation {score:.4f}", flush=True
        )
        if score > best:
            best, chosen = score, options
    return chosen


def train(name: str, sets: list[tuple[np.ndarray, np.ndarray]], options: dict[str, Any], epochs: int) -> Any:
    """Train one model, print its accuracies, and return it."""
    start = time.perf_counter()
    model = MODELS[name](**options, epochs=epochs, learning_rate_decay=0.8).fit(*sets[0])
    seconds = time.perf_counter() - start
    accuracy = [model.score(*part) for part in sets]
    print(
        f"{name} ({', '.join(f'{k} {v:g}' for k, v in options.items())}, {epochs} epochs, {seconds:.0f} s): "
        f"training {accuracy[0]:.4f}, validation {accuracy[1]:.4f}, test {accuracy[2]:.4f}",
        flush=True,
    )
    return model


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train the models; returns the test accuracy of each."""
    parser = argparse.ArgumentParser(description="linear classifiers and a two-layer network on CIFAR-10")
    parser.add_argument("folder")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--search", type=int, default=0, metavar="N", help="draw N settings instead of taking BEST")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--held", type=int, default=5000, help="training images held out to choose by")
    parser.add_argument("--seed", type=int, default=0, help="of the search")
    parser.add_argument("--out", type=Path, help="folder for pictures of the linear models' templates")
    options = parser.parse_args(arguments)
    data = load(options.folder)
    sets, shape = prepare(data, options.held)
    results = {}
    for name in options.models:
        chosen = search(name, sets, options.search, options.seed) if options.search else BEST[name]
        model = train(name, sets, chosen, options.epochs)
        results[name] = model.score(*sets[2])
        if options.out and name != "two-layer":
            templates = model.templates(shape).transpose(0, 3, 1, 2)
            nnx.viz.images(templates, titles=data.classes, columns=5, path=options.out / f"{name}.png")
    return results


if __name__ == "__main__":
    main()
