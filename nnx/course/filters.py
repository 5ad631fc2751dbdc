"""What filters learn: the first layer as images, its answers, and the inputs that units answer most to.

Trains a small convolutional network on the shipped digits and looks inside: the weights of the first layer before and
after training, the activation maps of one digit, and for each class (and each channel of the second layer) the image
that gradient ascent on the input finds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
import nnx.functional as F
from nnx import course, nn, viz

ROWS = ("F176",)


def network() -> nn.Sequential:
    """Two convolutions and a linear layer for images of 8 x 8."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * 4 * 4, 10),
    )


def train(model: nn.Module, epochs: int, rng: np.random.Generator) -> float:
    """Train with Adam in batches of 64; returns the accuracy on the test images."""
    digits = nnx.data.digits()
    optimizer = nnx.optim.Adam(model.parameters(), lr=2e-3, weight_decay=1e-3)
    for _ in range(epochs):
        order = rng.permutation(len(digits.x_train))
        for start in range(0, len(order), 64):
            batch = order[start : start + 64]
            optimizer.zero_grad()
            F.cross_entropy(model(digits.x_train[batch]), digits.y_train[batch]).backward()
            optimizer.step()
    return float(np.mean(model.predict(digits.x_test).argmax(axis=1) == digits.y_test))


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train, then look at filters, activation maps and images that maximise units."""
    nnx.manual_seed(seed)
    model = network()
    before = model[0].weight.numpy().copy()
    accuracy = train(model, 2 if small else 12, np.random.default_rng(seed))
    after = model[0].weight.numpy()
    print(f"test accuracy {accuracy:.4f}")

    moved = np.linalg.norm((after - before).reshape(12, -1), axis=1) / np.linalg.norm(before.reshape(12, -1), axis=1)
    roughness = [_roughness(before), _roughness(after)]
    print(f"filters of the first layer moved by {moved.min():.2f} to {moved.max():.2f} of their length")
    print(f"their roughness went from {roughness[0]:.2f} to {roughness[1]:.2f} (2 is noise, 0 is flat)")

    steps = 15 if small else 80
    best = [_maximise(model, "6", unit, steps, seed) for unit in range(10)]
    images = np.stack([image for image, _ in best])
    seen_as = model.predict(images).argmax(axis=1)
    for unit, (_, rise) in enumerate(best):
        print(f"class {unit}: {rise[0]:7.2f} -> {rise[-1]:7.2f} in {len(rise) - 1} steps, seen as {seen_as[unit]}")
    channels = [_maximise(model, "3", unit, steps // 3, seed) for unit in range(24)]
    if path := course.picture(out, "filters-before"):
        viz.filters(before, path=path, columns=6, title="first layer before training")
    if path := course.picture(out, "filters-after"):
        viz.filters(after, path=path, columns=6, title="first layer after training")
    if path := course.picture(out, "filters-maps"):
        digit = nnx.data.digits().x_test[:1]
        viz.activation_maps(model, digit, "1", path=path, title="what the first layer answers to one digit")
    if path := course.picture(out, "filters-classes"):
        titles = [f"class {unit}" for unit in range(10)]
        viz.images(images, titles=titles, columns=5, path=path, title="the image that each class answers most to")
    if path := course.picture(out, "filters-channels"):
        found = np.stack([image for image, _ in channels])
        viz.images(found, columns=8, path=path, title="the image that each channel of layer two answers most to")
    return {
        "accuracy": accuracy,
        "moved": moved.tolist(),
        "roughness": roughness,
        "rises": [rise for _, rise in best],
        "channel_rises": [rise for _, rise in channels],
        "seen_as": seen_as.tolist(),
    }


def _maximise(model: nn.Module, layer: str, unit: int, steps: int, seed: int) -> tuple[np.ndarray, list[float]]:
    """The 8 x 8 image with pixels from 0 to 1 that a unit answers most to; bright pixels cost a little."""
    return viz.maximise_unit(model, layer, unit, (1, 8, 8), steps=steps, l2=10.0, bounds=(0, 1), seed=seed)


def _roughness(weight: np.ndarray) -> float:
    """Mean squared difference of neighbouring weights over their variance: 2 for noise, less if smooth."""
    across = np.diff(weight, axis=3).ravel()
    down = np.diff(weight, axis=2).ravel()
    return float(np.mean(np.concatenate([across, down]) ** 2) / weight.var())
