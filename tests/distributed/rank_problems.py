"""Small models and data that the ranks and the tests that look at them share."""

from __future__ import annotations

from typing import Any

import numpy as np

import nnx
from nnx import nn


def model(dtype: Any, norm: bool = False) -> Any:
    """A network with a convolution, the same at every call."""
    nnx.manual_seed(3)
    layers = [nn.Conv2d(1, 4, 3, padding=1), *([nn.BatchNorm2d(4)] if norm else []), nn.Tanh(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 3)).to(dtype)


def batches(dtype: Any, steps: int, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(5)
    return [(rng.standard_normal((size, 1, 4, 4)).astype(dtype), rng.integers(0, 3, size)) for _ in range(steps)]


def part(n: int, rank: int, ranks: int) -> slice:
    """The samples of a rank: shares differ by one at most."""
    return slice(n * rank // ranks, n * (rank + 1) // ranks)


def sgd(net: Any) -> Any:
    return nnx.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)


def train(net: Any, data: list, rank: int = 0, ranks: int = 1) -> None:
    """An ordinary loop: nothing in it knows of ranks but the choice of samples."""
    optimizer = sgd(net)
    for x, y in data:
        mine = part(len(x), rank, ranks)
        optimizer.zero_grad()
        nnx.functional.cross_entropy(net(x[mine]), y[mine]).backward()
        optimizer.step()


def weights(net: Any, prefix: str) -> dict[str, np.ndarray]:
    return {f"{prefix}/{name}": array.copy() for name, array in net.state_dict().items()}


def whole_numbers() -> tuple[np.ndarray, np.ndarray]:
    """A regression whose every step is exact in float64: whole numbers, and learning rates that are powers of two."""
    rng = np.random.default_rng(11)
    return rng.integers(-4, 5, (16, 3)).astype(np.float64), rng.integers(-4, 5, (16, 1)).astype(np.float64)


def regression() -> Any:
    net = nn.Linear(3, 1).to(np.float64)
    net.weight.data[...] = [[1.0, -2.0, 0.5]]
    net.bias.data[...] = 0.25
    return net


def fit_regression(net: Any, x: np.ndarray, y: np.ndarray, steps: int = 3) -> None:
    optimizer = nnx.optim.SGD(net.parameters(), lr=2.0**-5)
    for _ in range(steps):
        optimizer.zero_grad()
        nnx.functional.mse_loss(net(x), y).backward()
        optimizer.step()


def images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    y = rng.integers(0, 3, 46)
    x = rng.standard_normal((46, 1, 4, 4)).astype(np.float32)
    x[np.arange(46), 0, y, y] += 2
    return x, y


def picked(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(f"{prefix}/"): a for k, a in arrays.items() if k.startswith(f"{prefix}/")}


def distance(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """Norm of the difference of all parameters, relative to their norm."""
    assert a.keys() == b.keys() and a
    square = sum(float(((a[k].astype(np.float64) - b[k]) ** 2).sum()) for k in a)
    return (square / sum(float((b[k].astype(np.float64) ** 2).sum()) for k in b)) ** 0.5


def same_bits(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    assert a.keys() == b.keys() and a
    return all(a[k].tobytes() == b[k].tobytes() and a[k].shape == b[k].shape for k in a)
