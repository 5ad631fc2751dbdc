"""Augmentation: more images from the ones there are, by changes that leave the class alone.

A digit that is turned a little, larger, shifted or noisy is the same digit. Each batch is changed anew, so the network
never sees the same numbers twice. What may be done depends on the classes: a mirrored face is a face, a mirrored 2 is
no digit.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx import nn, viz
from nnx.course import picture
from nnx.data import (
    Compose,
    GaussianNoise,
    RandomCrop,
    RandomHorizontalFlip,
    RandomRotation,
    RandomScale,
    digits,
)
from nnx.train import Trainer

ROWS = ("F137",)

CHANGES: dict[str, Callable[..., np.ndarray]] = {
    "as it is": Compose([]),
    "rotated": RandomRotation(15),
    "scaled": RandomScale((0.8, 1.2)),
    "shifted": RandomCrop(8, padding=1),
    "noisy": GaussianNoise(0.1),
    "mirrored": RandomHorizontalFlip(1.0),
}

GENTLE = Compose([RandomRotation(10), RandomScale((0.9, 1.1)), GaussianNoise(0.05)])


def trained(x: np.ndarray, y: np.ndarray, transform: Any, epochs: int, seed: int) -> nn.Module:
    """A small convolutional network on images that `transform` changes anew in every batch."""
    nnx.manual_seed(seed)
    model = nnx.models.convnet(in_channels=1, image_size=8, widths=(16, 32))
    trainer = Trainer(model, nn.CrossEntropyLoss(), nnx.optim.Adam(model.parameters(), lr=3e-3))
    trainer.fit(x, y, epochs, 32, transform=transform, seed=seed, verbose=False)
    return model


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train on 20 digits of each class with no, fitting and unfitting changes; compare on the test set."""
    x, y, x_test, y_test = digits()
    few = np.concatenate([np.flatnonzero(y == label)[:20] for label in range(10)])
    transforms = {
        "none": None,
        "rotate, scale, noise": GENTLE,
        "turned by up to 180 degrees": RandomRotation(180),
    }
    result: dict[str, Any] = {}
    for name, transform in transforms.items():
        runs = []
        for repeat in range(1 if small else 3):
            model = trained(x[few], y[few], transform, 3 if small else 60, seed + repeat)
            runs.append(float((model.predict(x_test).argmax(axis=1) == y_test).mean()))
        result[name] = float(np.mean(runs))
        print(f"{name:27s} test accuracy {result[name]:.3f}")

    if path := picture(out, "augmentation-changes"):
        rng = np.random.default_rng(seed)
        shown = np.concatenate([change(x[:6], rng) for change in CHANGES.values()])
        viz.images(shown, [name for name in CHANGES for _ in range(6)], columns=6, path=path)
    return result
