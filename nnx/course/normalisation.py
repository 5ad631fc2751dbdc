"""Batch normalisation and renormalisation: layers that keep their inputs centred and scaled.

Batch norm gives every feature mean 0 and variance 1 over the batch, then a scale and a shift that are learned. A deep
sigmoid network, which hardly learns without it, does with it. In evaluation running averages take the place of the
batch's own numbers; where batches are no fair sample the two disagree, and renormalisation trains with what evaluation
will use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
import nnx.functional as F
from nnx import nn, viz
from nnx.course import picture
from nnx.data import digits

ROWS = ("F135", "F136")


def normalised(x: Any, eps: float = 1e-5) -> np.ndarray:
    """Batch norm as a formula, for a batch (N, C): ``(x - mean) / sqrt(var + eps)``, var divided by N."""
    x = np.asarray(x)
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps)


def renormalised(
    x: Any, running_mean: Any, running_var: Any, rmax: float, dmax: float, eps: float = 1e-5
) -> np.ndarray:
    """Batch renorm as a formula: the normalised batch times r plus d.

    ``r = clip(sigma_batch / sigma, 1 / rmax, rmax)`` and ``d = clip((mean_batch - mean) / sigma, -dmax, dmax)`` bring
    it back to what the running mean and sigma would have made of it, within limits; they count as constants.
    """
    x = np.asarray(x)
    sigma_batch, sigma = np.sqrt(x.var(axis=0) + eps), np.sqrt(running_var + eps)
    r = np.clip(sigma_batch / sigma, 1 / rmax, rmax)
    d = np.clip((x.mean(axis=0) - running_mean) / sigma, -dmax, dmax)
    return normalised(x, eps) * r + d


def deep_sigmoid(norm: bool, layers: int = 5) -> nn.Sequential:
    """64 - 50 - 50 - ... - 10 with sigmoids, with batch norm before each of them or without."""
    parts: list[nn.Module] = [nn.Flatten()]
    for i in range(layers):
        parts += [nn.Linear(64 if i == 0 else 50, 50), *([nn.BatchNorm1d(50)] if norm else []), nn.Sigmoid()]
    return nn.Sequential(*parts, nn.Linear(50, 10))


def uneven_batches(y: np.ndarray, classes: int, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Indices of batches in which only `classes` of the ten digits occur."""
    batches = []
    for _ in range(len(y) // size):
        members = np.flatnonzero(np.isin(y, rng.choice(10, classes, replace=False)))
        batches.append(rng.choice(members, size))
    return batches


def train(
    model: nn.Module, x: np.ndarray, y: np.ndarray, epochs: int, rng: np.random.Generator, classes: int = 10
) -> list[float]:
    """Adam on batches of 32 with `classes` digits each; returns the mean loss of each epoch."""
    optimizer = nnx.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for epoch in range(epochs):
        for layer in model.modules():
            if isinstance(layer, nn.BatchRenorm1d):  # batch norm at first, until the averages mean something
                settled = min(1.0, epoch / max(epochs / 4, 1))
                layer.rmax, layer.dmax = 1 + 2 * settled, 5 * settled
        total = []
        for batch in uneven_batches(y, classes, 32, rng):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            total.append(float(loss.item()))
        losses.append(float(np.mean(total)))
    return losses


def accuracy(model: nn.Module, x: np.ndarray, y: np.ndarray) -> float:
    return float((model.predict(x).argmax(axis=1) == y).mean())


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """A deep sigmoid network with and without batch norm; batch norm and renorm on batches of one class."""
    x, y, x_test, y_test = digits()
    epochs = 3 if small else 20
    result: dict[str, Any] = {}
    curves = {}
    for name in ("without", "with"):
        nnx.manual_seed(seed)
        model = deep_sigmoid(name == "with")
        curves[f"{name} batch norm"] = train(model, x, y, epochs, np.random.default_rng(seed))
        result[f"{name} batch norm"] = accuracy(model, x_test, y_test)
        print(f"five sigmoid layers {name:7s} batch norm: test accuracy {result[f'{name} batch norm']:.3f}")

    norms = {"batch norm": nn.BatchNorm1d, "batch renorm": nn.BatchRenorm1d}
    for name, norm in norms.items():
        nnx.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 100), norm(100), nn.ReLU(), nn.Linear(100, 10))
        train(model, x, y, epochs, np.random.default_rng(seed), classes=1)
        result[f"{name}, one class per batch"] = accuracy(model, x_test, y_test)
        print(f"batches of one class, {name:12s}: test accuracy {accuracy(model, x_test, y_test):.3f}")

    if path := picture(out, "normalisation-loss"):
        viz.lines(curves, "epoch", "training loss", path=path, title="five sigmoid layers")
    result["curves"] = curves
    return result
