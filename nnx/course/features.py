"""Features by hand: histograms of gradient directions and a linear classifier, against a ConvNet.

Before networks learned their features, people wrote them down. The best known for shapes counts, in every cell of a
grid over the image, how much edge there is in each direction. A linear classifier on these counts does what it cannot
do on the pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx import nn, viz
from nnx.course import _scenes, picture

ROWS = ("F179",)


def oriented_gradients(images: Any, cell: int = 4, bins: int = 8) -> np.ndarray:
    """Histograms of gradient directions for grey images ``(N, 1, H, W)``: ``(N, H // cell, W // cell, bins)``.

    Central differences give each pixel a gradient; its length is shared between the two nearest of `bins` directions
    in [0, 180) degrees (a dark and a bright edge count alike), and added up over cells of `cell` x `cell` pixels. Each
    cell is then divided by the length of the histograms around it (3 x 3 cells), so that contrast does not matter.

    After N. Dalal, B. Triggs, Histograms of oriented gradients for human detection, CVPR 2005.
    """
    x = np.asarray(images, np.float32)[:, 0]
    n, height, width = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="edge")
    down, across = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1], padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    length = np.hypot(down, across)
    place = np.arctan2(down, across) / np.pi * bins  # in units of a bin; one turn is 2 bins
    low = np.floor(place).astype(np.int64)
    share = (place - low)[..., None]
    directions = np.eye(bins, dtype=np.float32)
    votes = (1 - share) * directions[low % bins] + share * directions[(low + 1) % bins]
    votes *= length[..., None]
    rows, columns = height // cell, width // cell
    votes = votes[:, : rows * cell, : columns * cell].reshape(n, rows, cell, columns, cell, bins)
    cells = votes.sum(axis=(2, 4), dtype=np.float32)

    energy = np.pad((cells**2).sum(axis=-1), ((0, 0), (1, 1), (1, 1)))
    around = sum(energy[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3))
    return cells / np.sqrt(around + 1e-4)[..., None]


def linear(features: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(features, classes))


def convnet(classes: int, size: int, width: int = 16) -> nn.Module:
    """Stages of convolution, normalisation and pooling until the maps are 4 x 4, and a linear layer on them."""
    layers: list[nn.Module] = []
    channels = 1
    while size > 4:
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
        channels, width, size = width, 2 * width, size // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * size * size, classes))


def score(model: nn.Module, train: tuple, test: tuple, epochs: int, seed: int) -> float:
    """Train a classifier and return its accuracy on the test set."""
    optimizer = nnx.optim.Adam(model.parameters(), lr=3e-3)
    schedule = nnx.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    trainer = nnx.train.Trainer(model, nn.CrossEntropyLoss(), optimizer, scheduler=schedule)
    trainer.fit(train[0], train[1], epochs=epochs, batch_size=32, seed=seed)
    return trainer.evaluate(*test)["accuracy"]


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Compare pixels, hand-made features and a ConvNet on the digits and on drawn shapes."""
    rng = np.random.default_rng(seed)
    digits = nnx.data.digits()
    many, few, n_test, epochs = (100, 20, 100, 2) if small else (1000, 60, 500, 15)
    shapes, shapes_test = _one_shape(many, rng), _one_shape(n_test, rng)
    sets = {  # training set, test set, size of a cell, epochs
        "digits": ((digits.x_train, digits.y_train), (digits.x_test, digits.y_test), 2, epochs),
        "shapes": (shapes, shapes_test, 4, epochs),
        "few shapes": ((shapes[0][:few], shapes[1][:few]), shapes_test, 4, epochs * many // few),
    }
    results: dict[str, Any] = {}
    for name, (train, test, cell, epochs) in sets.items():
        size, classes = train[0].shape[-1], int(train[1].max()) + 1
        described, described_test = ((oriented_gradients(x, cell), y) for x, y in (train, test))
        nnx.manual_seed(seed)
        results[name] = {
            "pixels": score(linear(size * size, classes), train, test, epochs, seed),
            "gradients": score(linear(described[0][0].size, classes), described, described_test, epochs, seed),
            "convnet": score(convnet(classes, size), train, test, epochs, seed),
        }
        for features, accuracy in results[name].items():
            print(f"{name}: {features:<9} {accuracy:.3f}")
    if path := picture(out, "features-gradients"):
        x = digits.x_test[[np.flatnonzero(digits.y_test == k)[0] for k in (0, 1, 4, 7)]]
        maps = oriented_gradients(x, 2).transpose(0, 3, 1, 2).repeat(2, axis=2).repeat(2, axis=3)
        titles = ["digit", *(f"{22.5 * k:g}°" for k in range(8))] + [""] * 27
        viz.images(np.concatenate([x, maps], axis=1).reshape(-1, 8, 8), titles, columns=9, path=path)
    return results


def _one_shape(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Images of one shape each, and which it is."""
    x, classes = _scenes.shapes(n, rng, most=1)
    return x, classes.max(axis=(1, 2)) - 1
