"""More labelled data from an autoencoder: ten labelled digits of each class, and what lies between two of them.

Images are cheap and labels are dear: an autoencoder learns from images without labels what digits look like. Halfway
between the codes of two threes it then draws a three that nobody wrote, and that one has a label. With those drawings
the nearest-neighbour rule knows more than its hundred examples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx import data, nn, viz
from nnx.classic import KNeighborsClassifier
from nnx.course import picture

ROWS = ("F138",)


def choose(y: Any, per_class: int, rng: np.random.Generator) -> np.ndarray:
    """Return the indices of `per_class` randomly chosen samples of each class.

    >>> choose([0, 1, 1, 0, 1], 1, np.random.default_rng(0)).shape
    (2,)
    """
    y = np.asarray(y)
    return np.concatenate([rng.permutation(np.flatnonzero(y == k))[:per_class] for k in np.unique(y)])


def fit_autoencoder(x: np.ndarray, epochs: int, code: int = 32, width: int = 256) -> nn.Module:
    """Train rows of pixels in 0..1 to reproduce themselves through a code; the inputs are a little noisy."""
    pixels = x.shape[1]
    encode = nn.Sequential(nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, code))
    decode = nn.Sequential(nn.Linear(code, width), nn.ReLU(), nn.Linear(width, pixels), nn.Sigmoid())
    model = nn.Sequential({"encode": encode, "decode": decode})
    optimizer = nnx.optim.Adam(model.parameters(), lr=2e-3)
    schedule = nnx.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    trainer = nnx.train.Trainer(model, nn.MSELoss(), optimizer, scheduler=schedule, metrics=())

    def noisy(batch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return batch + 0.1 * rng.standard_normal(batch.shape, dtype=batch.dtype)

    trainer.fit(x, x, epochs=epochs, batch_size=32, transform=noisy)
    return model


def between(codes: np.ndarray, y: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` points on the lines between two codes of one class, ``a + t (b - a)``, and their labels."""
    first = rng.integers(0, len(y), count)
    second = np.array([rng.choice(np.flatnonzero(y == label)) for label in y[first]])
    t = rng.random((count, 1), dtype=np.float32)
    return codes[first] + t * (codes[second] - codes[first]), y[first]


def network_accuracy(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, steps: int) -> float:
    """Train a small network for `steps` batches, however many images there are; its accuracy on the test images."""
    model = nn.Sequential(nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, 10))
    trainer = nnx.train.Trainer(model, nn.CrossEntropyLoss(), nnx.optim.Adam(model.parameters(), lr=3e-3))
    trainer.fit(x, y, epochs=max(1, steps * 50 // len(x)), batch_size=50)
    return trainer.evaluate(x_test, y_test)["accuracy"]


def compare(
    model: nn.Module, digits: data.ImageData, rng: np.random.Generator, count: int = 1500, steps: int = 500
) -> dict[str, float]:
    """Accuracies for one choice of ten labelled digits per class, without and with `count` drawings."""
    x_train, x_test = digits.x_train.reshape(-1, 64), digits.x_test.reshape(-1, 64)
    few = choose(digits.y_train, 10, rng)
    x, y = x_train[few], digits.y_train[few]
    codes, labels = between(model.get_submodule("encode").predict(x), y, count, rng)
    more_x = np.concatenate([x, model.get_submodule("decode").predict(codes)])
    more_y = np.concatenate([y, labels])
    test = x_test, digits.y_test
    return {
        "nearest": KNeighborsClassifier(1).fit(x, y).score(*test),
        "nearest_augmented": KNeighborsClassifier(1).fit(more_x, more_y).score(*test),
        "network": network_accuracy(x, y, *test, steps),
        "network_augmented": network_accuracy(more_x, more_y, *test, steps),
    }


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Compare over ten choices of the labelled digits."""
    nnx.manual_seed(seed)
    rng = np.random.default_rng(seed)
    digits = data.digits()
    model = fit_autoencoder(digits.x_train.reshape(-1, 64), 3 if small else 60)
    size = {"count": 200, "steps": 20} if small else {}
    trials = [compare(model, digits, rng, **size) for _ in range(2 if small else 10)]
    numbers: dict[str, Any] = {name: [trial[name] for trial in trials] for name in trials[0]}
    for rule in ("nearest", "network"):
        gain = np.subtract(numbers[f"{rule}_augmented"], numbers[rule])
        print(
            f"{rule:<7}: accuracy {np.mean(numbers[rule]):.4f}, with drawings "
            f"{np.mean(numbers[f'{rule}_augmented']):.4f}; better in {np.sum(gain > 0)} of {len(gain)} trials"
        )
        numbers[f"{rule}_gain"] = float(gain.mean())
    if path := picture(out, "autoencoder_augmentation-between"):
        viz.images(_walks(model, digits), columns=9, path=path)
    return numbers


def _walks(model: nn.Module, digits: data.ImageData) -> np.ndarray:
    """For five classes an image, seven drawings on the way to another one of the class, and that one."""
    rows = []
    for label in (0, 2, 3, 4, 7):
        ends = digits.x_train[np.flatnonzero(digits.y_train == label)[[0, 5]]]
        a, b = model.get_submodule("encode").predict(ends.reshape(2, 64))
        way = np.linspace(0, 1, 9, dtype=np.float32)[1:-1, None]
        drawn = model.get_submodule("decode").predict(a + way * (b - a)).reshape(-1, 1, 8, 8)
        rows += [ends[:1], drawn, ends[1:]]
    return np.concatenate(rows)
