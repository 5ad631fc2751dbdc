"""Retrieval: find images that show the same, by comparing short codes and not pixels.

A ConvNet is trained to name the digits. What its last hidden layer says about an image is a code of 16 numbers; images
are alike if their codes point in nearly the same direction. Every test image asks for the nearest of the training
images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx import nn, viz
from nnx.course import picture

ROWS = ("F169",)


def build(code: int = 16) -> nn.Module:
    """A classifier of digits in two parts: "encode" to codes ``(N, code)``, and "classify"."""
    encode = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(32 * 4 * 4, code),
    )
    return nn.Sequential({"encode": encode, "classify": nn.Sequential(nn.Tanh(), nn.Linear(code, 10))})


def rank(queries: Any, database: Any) -> np.ndarray:
    """For each query the indices of the database's rows, those with the largest cosine first.

    >>> rank([[1.0, 0.1]], [[0.0, 2.0], [5.0, 0.0], [3.0, 3.0]]).tolist()
    [[1, 2, 0]]
    """
    q, d = (np.asarray(a) / np.linalg.norm(a, axis=1, keepdims=True) for a in (queries, database))
    return np.argsort(-(q @ d.T), axis=1, kind="stable")


def precision_at(relevant: Any, k: int) -> float:
    """The part of the first `k` answers that is relevant; `relevant` is ``(queries, answers)`` of bools, best first."""
    return float(np.mean(np.asarray(relevant)[:, :k]))


def mean_average_precision(relevant: Any) -> float:
    """The precision at each relevant answer, averaged over those answers and then over the queries.

    >>> mean_average_precision([[True, False, True]])  # (1/1 + 2/3) / 2
    0.8333333333333333
    """
    relevant = np.asarray(relevant, np.float64)
    precision = np.cumsum(relevant, axis=1) / np.arange(1, relevant.shape[1] + 1)
    return float(np.mean((precision * relevant).sum(axis=1) / relevant.sum(axis=1)))


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train the codes and measure how many answers are of the query's class, against comparing pixels."""
    nnx.manual_seed(seed)
    digits = nnx.data.digits()
    model = build()
    optimizer = nnx.optim.Adam(model.parameters(), lr=3e-3)
    epochs = 2 if small else 20
    schedule = nnx.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    trainer = nnx.train.Trainer(model, nn.CrossEntropyLoss(), optimizer, scheduler=schedule)
    trainer.fit(digits.x_train, digits.y_train, epochs=epochs, batch_size=32, seed=seed)

    encode = model.get_submodule("encode")
    numbers: dict[str, Any] = {}
    rankings = {
        "codes": rank(encode.predict(digits.x_test), encode.predict(digits.x_train)),
        "pixels": rank(digits.x_test.reshape(-1, 64), digits.x_train.reshape(-1, 64)),
    }
    for name, order in rankings.items():
        relevant = digits.y_train[order] == digits.y_test[:, None]
        found = {"p1": precision_at(relevant, 1), "p10": precision_at(relevant, 10)}
        found["map"] = mean_average_precision(relevant)
        numbers[name] = found
        print(f"{name:>6}: P@1 {found['p1']:.3f}  P@10 {found['p10']:.3f}  mean average precision {found['map']:.3f}")
    if path := picture(out, "retrieval-neighbours"):
        nearest = digits.x_train[rankings["codes"][:8, :8]]
        viz.neighbour_grid(digits.x_test[:8], nearest, path=path)
    return numbers
