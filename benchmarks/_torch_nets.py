"""Both sides of a network benchmark: nnx and PyTorch with the same weights, data and steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import nnx
from benchmarks._networks import BATCH, SHAPE, build
from nnx import nn, optim

Side = Callable[[], Any]
RATE, MOMENTUM = 0.01, 0.9


def data(name: str, batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, *SHAPE[name])).astype(np.float32), rng.integers(0, 10, batch)


def nnx_sides(name: str, batch: int = 0) -> dict[str, Any]:
    """The model, a training step that returns the loss, and a prediction."""
    x, labels = data(name, batch or BATCH[name])
    model = build(name, nn, nnx.functional)
    optimizer = optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    criterion = nn.CrossEntropyLoss()

    def train() -> float:
        optimizer.zero_grad()
        loss = criterion(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    def infer() -> np.ndarray:
        model.eval()
        with nnx.no_grad():
            return model(x).data

    return {"model": model, "train": train, "infer": infer}


def torch_sides(name: str, reference: Any, batch: int = 0, layout: str = "eager") -> dict[str, Any]:
    """The same in PyTorch, with the weights of `reference`; layout: "eager", "channels_last" or "compile"."""
    import torch

    x, labels = data(name, batch or BATCH[name])
    model = build(name, torch.nn, torch.nn.functional)
    model.load_state_dict({key: torch.tensor(np.asarray(value)) for key, value in reference.state_dict().items()})
    inputs, targets = torch.tensor(x), torch.tensor(labels)
    if layout == "channels_last" and inputs.ndim == 4:
        model = model.to(memory_format=torch.channels_last)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    criterion = torch.nn.CrossEntropyLoss()
    run = torch.compile(model) if layout == "compile" else model

    def train() -> float:
        optimizer.zero_grad()
        loss = criterion(run(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    def infer() -> np.ndarray:
        model.eval()
        with torch.inference_mode():
            return run(inputs).numpy()

    return {"model": model, "train": train, "infer": infer}


def assert_same(name: str, ours: dict, theirs: dict, batch: int = 0) -> None:
    """One prediction and three training steps agree."""
    a, b = ours["infer"](), theirs["infer"]()
    np.testing.assert_allclose(a, b, rtol=0, atol=2e-4 * np.abs(b).max(), err_msg=name)
    if batch == 1:
        return
    for side in (ours, theirs):
        side["model"].train()
    losses = [(ours["train"](), theirs["train"]()) for _ in range(3)]
    for one, other in losses:
        assert abs(one - other) < 1e-3 * max(abs(other), 1), (name, losses)
