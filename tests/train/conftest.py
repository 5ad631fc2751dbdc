"""A small problem and a model with everything that a checkpoint must hold: dropout, batch norm, augmentation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnx
from nnx import nn
from nnx.train import Trainer


class Toy:
    """Images of 4 x 4 pixels, whose class is the brightest quarter."""

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        self.y = rng.integers(0, 4, 50)
        self.x = rng.standard_normal((50, 1, 4, 4)).astype(np.float32) * 0.3
        for i, label in enumerate(self.y):
            row, column = divmod(int(label), 2)
            self.x[i, 0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 1.0
        self.xv, self.yv = self.x[40:], self.y[40:]
        self.x, self.y = self.x[:40], self.y[:40]

    def model(self, seed: int = 0) -> Any:
        nnx.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.25),
            nn.Linear(16, 4),
        )

    def trainer(self, seed: int = 0, optimizer: Any = None, **arguments: Any) -> Trainer:
        model = self.model(seed)
        make = optimizer or (lambda p: nnx.optim.SGD(p, lr=0.05, momentum=0.9))
        return Trainer(model, nn.CrossEntropyLoss(), make(model.parameters()), **arguments)

    @staticmethod
    def jitter(batch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return batch + rng.standard_normal(batch.shape).astype(batch.dtype) * np.float32(0.01)

    def fit(self, trainer: Trainer, **arguments: Any) -> Any:
        """5 batches per epoch, the last one of 4 samples."""
        settings: dict[str, Any] = {
            "epochs": 3,
            "batch_size": 9,
            "validation": (self.xv, self.yv),
            "seed": 1,
            "transform": self.jitter,
            "verbose": False,
        }
        return trainer.fit(self.x, self.y, **(settings | arguments))

    @staticmethod
    def bits(trainer: Trainer) -> bytes:
        """Weights, buffers and optimizer state, byte for byte."""
        parts = [a.tobytes() for a in trainer.model.state_dict().values()]
        state = trainer.optimizer.state_dict()["state"] if trainer.optimizer is not None else {}
        for _, entry in sorted(state.items()):
            parts += [repr(k).encode() + np.asarray(v).tobytes() for k, v in sorted(entry.items()) if v is not None
                      and not isinstance(v, (list, dict))]  # fmt: skip
        return b"".join(parts)

    @staticmethod
    def numbers(history: Any) -> dict[str, list[float]]:
        """The history without the wall-clock time."""
        return {name: values for name, values in history.items() if name != "seconds"}


@pytest.fixture
def toy() -> Toy:
    return Toy()
