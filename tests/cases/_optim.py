"""The table of optimizers: one row per class and set of options that changes its arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np

import nnx

ROWS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.05, "maximize": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.05, "maximize": True}),
    ("Adagrad", {"lr": 0.1, "initial_accumulator_value": 0.3, "eps": 1e-3}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.7, "eps": 1e-3, "weight_decay": 0.05, "maximize": True}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.05, "alpha": 0.9, "eps": 1e-3, "weight_decay": 0.05, "maximize": True}),
    ("RMSprop", {"momentum": 0.9}),
    ("RMSprop", {"centered": True, "alpha": 0.9}),
    ("RMSprop", {"centered": True, "momentum": 0.5, "weight_decay": 0.05}),
    ("Adam", {}),
    ("Adam", {"lr": 0.1, "betas": (0.7, 0.9), "eps": 1e-3, "weight_decay": 0.05, "maximize": True}),
    ("Adam", {"lr": 0.1, "amsgrad": True}),
    ("Adam", {"lr": 0.1, "decoupled_weight_decay": True, "weight_decay": 0.05}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.1, "amsgrad": True, "weight_decay": 0.05, "maximize": True}),
]
# what PyTorch has not: the tests of all optimizers take these too
OWN: list[tuple[str, dict[str, Any]]] = [
    ("Adam", {"bias_correction": False}),
    ("Adam", {"lr": 0.1, "bias_correction": False, "amsgrad": True, "weight_decay": 0.05, "maximize": True}),
]
IDS = [f"{name}-{'-'.join(options) or 'default'}" for name, options in ROWS]
EVERY_ID = [f"{name}-{'-'.join(options) or 'default'}" for name, options in ROWS + OWN]

# a scalar, nothing at all, and more than one block of the kernels are among the parameters
SHAPES = [(5, 3), (7,), (), (2, 3, 4), (0, 4), (9001,)]


def draw(rng: np.random.Generator, dtype: Any, shapes: Any = SHAPES) -> list[np.ndarray]:
    """Arrays of these shapes and of quite different sizes."""
    return [np.asarray(rng.standard_normal(shape) * (1 + i), dtype) for i, shape in enumerate(shapes)]


def make(name: str, arrays: list[np.ndarray], options: dict[str, Any]) -> tuple[list, Any]:
    """Parameters on copies of the arrays, and an optimizer of them."""
    params = [nnx.Parameter(a.copy(order="K")) for a in arrays]
    return params, getattr(nnx.optim, name)(params, **options)


def set_gradients(params: list, step: int, grads: list[np.ndarray]) -> None:
    """Copies of the gradients; in every step another parameter has none."""
    for i, (p, g) in enumerate(zip(params, grads, strict=True)):
        p.grad = None if (i + step) % 5 == 4 else g.copy()
