"""Three people: a ConvNet tells faces apart that a careless search has collected.

The challenge of the course: 1,588 grey images of 60 x 60 pixels, 534, 444 and 610 of each person, some of them of
somebody else or of nothing; at least 85 % are to be named as their label says. No photographs come with nnx, so the
faces are drawn. The same function trains on a folder of your own: ``python -m nnx.course.faces FOLDER``, with one
subfolder per person.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx import data, nn, viz
from nnx.course import _scenes, picture

ROWS = ("F177",)
SIZE = 60


def majority(labels: Any) -> float:
    """The part of the most frequent label: what naming everybody alike achieves.

    >>> round(majority(np.repeat([0, 1, 2], [534, 444, 610])), 3)
    0.384
    """
    labels = np.asarray(labels)
    return float(np.bincount(labels).max() / len(labels))


def build(people: int, width: int = 8) -> nn.Module:
    """Grey images ``(N, 1, 60, 60)`` to scores ``(N, people)``."""

    def stage(channels_in: int, channels_out: int, stride: int = 1) -> list[nn.Module]:
        convolution = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU()]

    return nn.Sequential(
        *stage(1, width, stride=2),
        *stage(width, 2 * width),
        nn.MaxPool2d(2),
        *stage(2 * width, 4 * width),
        nn.MaxPool2d(2),
        *stage(4 * width, 4 * width),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(4 * width * 7 * 7, people),
    )


def train(photos: data.ImageData, epochs: int, seed: int = 0, verbose: bool | None = False) -> tuple[nn.Module, Any]:
    """Train on grey 60 x 60 images with augmentation; return the network and the history of its training."""
    nnx.manual_seed(seed)
    model = build(len(photos.classes))
    augment = data.Compose(
        [data.RandomHorizontalFlip(), data.RandomRotation(10), data.RandomCrop(SIZE, padding=3, padding_mode="edge")]
    )
    optimizer = nnx.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = nnx.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    # Some labels are wrong: the smoothed loss does not ask for certainty.
    trainer = nnx.train.Trainer(model, nn.CrossEntropyLoss(label_smoothing=0.1), optimizer, scheduler=schedule)
    x = _normalised(photos.x_train)
    history = trainer.fit(x, photos.y_train, epochs, 32, transform=augment, seed=seed, verbose=verbose)
    return model, history


def _normalised(x: np.ndarray) -> np.ndarray:
    """Take its own mean and contrast from each image: how bright the light was says nothing about the person."""
    mean, std = (f(x, axis=(1, 2, 3), keepdims=True) for f in (np.mean, np.std))
    return (x - mean) / np.maximum(std, 1e-3)


def from_folder(folder: str | Path, epochs: int = 20, seed: int = 0) -> dict[str, Any]:
    """Train on your own photographs, a fifth of which is held out, and print how many of those are named rightly.

    folder:  one subfolder per person with images of any size and format that Pillow reads; they become grey and
             60 x 60 (crop them to the face before)

    Returns accuracy, the majority baseline, the names, the confusion counts, and the trained network as "model".
    """
    photos = data.image_folder(folder, size=SIZE, mode="L", seed=seed)
    if len(photos.classes) < 2:
        raise ValueError(f"faces.from_folder: expected at least 2 people, got {len(photos.classes)} in {str(folder)!r}")
    model, _ = train(photos, epochs, seed, verbose=None)
    result = _report(model, photos)
    return {**result, "model": model}


def _report(model: nn.Module, photos: data.ImageData) -> dict[str, Any]:
    predicted = model.predict(_normalised(photos.x_test)).argmax(axis=1)
    accuracy = float(np.mean(predicted == photos.y_test))
    baseline = majority(np.concatenate([photos.y_train, photos.y_test]))
    counts = np.zeros((len(photos.classes),) * 2, np.int64)
    np.add.at(counts, (photos.y_test, predicted), 1)
    print(f"{len(photos.x_train)} images to learn from, {len(photos.x_test)} held out, of {', '.join(photos.classes)}")
    print(f"everybody called by the most frequent name: {baseline:.1%}")
    print(f"named as the label says: {accuracy:.1%} of the held-out images")
    return {
        "accuracy": accuracy,
        "baseline": baseline,
        "classes": list(photos.classes),
        "confusion": counts.tolist(),
        "predicted": predicted.tolist(),
    }


def challenge(small: bool = False, seed: int = 0) -> tuple[data.ImageData, np.ndarray]:
    """The drawn images, four fifths for training, and who the held-out ones really show (-1 for nobody)."""
    counts = (53, 44, 61) if small else _scenes.FACE_COUNTS
    x, y, shown = _scenes.faces(np.random.default_rng(seed), counts)
    inside, held = data.split_indices(len(y), (0.8, 0.2), stratify=y, seed=seed)
    return data.ImageData(x[inside], y[inside], x[held], y[held], _scenes.PEOPLE), shown[held]


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Take up the challenge with the drawn faces."""
    photos, shown = challenge(small, seed)
    model, history = train(photos, 2 if small else 15, seed)
    result = _report(model, photos)
    predicted = np.array(result.pop("predicted"))
    right_label = shown == photos.y_test
    result["accuracy_of_true_labels"] = float(np.mean(predicted[right_label] == photos.y_test[right_label]))
    result["wrong_labels"] = float(np.mean(~right_label))
    print(f"held-out labels that are wrong: {result['wrong_labels']:.1%}; without them: ", end="")
    print(f"{result['accuracy_of_true_labels']:.1%}")
    if path := picture(out, "faces-examples"):
        first = np.concatenate([np.flatnonzero(shown == k)[:6] for k in (0, 1, 2, -1)])
        viz.images(photos.x_test[first], [(*photos.classes, "nobody")[k] for k in shown[first]], columns=6, path=path)
    if path := picture(out, "faces-confusion"):
        viz.confusion_matrix(photos.y_test, predicted, labels=photos.classes, path=path)
    if path := picture(out, "faces-curves"):
        viz.curves(history, path=path)
    return result


def main(arguments: list[str]) -> None:
    """Train on the folder that is named on the command line."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.exit("usage: python -m nnx.course.faces FOLDER (with one subfolder of images per person)")
    try:
        from_folder(arguments[0])
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"faces: error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
