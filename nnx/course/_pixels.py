"""Data and a network that several topics share: stand-ins for CIFAR-10 without a download, and the digits as rows."""

from __future__ import annotations

import numpy as np

from nnx import data, nn
from nnx.nn import init


def pixels(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """n pictures as rows of 3 x 32 x 32 = 3072 numbers around zero, and their classes.

    Each class has a coarse pattern of its own, under noise of about twice its strength.
    """
    rng = np.random.default_rng(seed)
    patterns = 30 * rng.standard_normal((10, 3, 8, 8)).repeat(4, axis=2).repeat(4, axis=3)
    y = rng.integers(0, 10, n)
    x = patterns[y] + 50 * rng.standard_normal((n, 3, 32, 32))
    return (x - x.mean(axis=0)).reshape(n, -1).astype(np.float32), y


def two_layers(seed: int = 0, std: float = 1e-4, hidden: int = 50) -> nn.Sequential:
    """The lectures' network 3072-50-10 with weights of that deviation, and zero biases."""
    rng = np.random.default_rng(seed)
    model = nn.Sequential({"first": nn.Linear(3072, hidden), "relu": nn.ReLU(), "second": nn.Linear(hidden, 10)})
    for name, p in model.named_parameters():
        if name.endswith("weight"):
            init.normal_(p, std=std, generator=rng)
        else:
            init.zeros_(p)
    return model


def flat_digits() -> tuple[np.ndarray, np.ndarray]:
    """The 1438 training digits as rows of 64 numbers around zero, in mixed order: their writers come one by one."""
    digits = data.digits()
    order = np.random.default_rng(0).permutation(len(digits.y_train))
    return digits.x_train.reshape(-1, 64)[order] - np.float32(0.3), digits.y_train[order]
