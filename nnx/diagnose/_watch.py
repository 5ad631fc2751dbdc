"""Looking at a model while it runs, and leaving it as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from nnx import _random
from nnx.autograd import Tensor
from nnx.nn import Module

Look = Callable[[str, Module, tuple, Any], None]


def check_model(owner: str, model: Any) -> Module:
    """Refuse what is no Module."""
    if not isinstance(model, Module):
        raise TypeError(f"{owner}: expected model to be a Module, got {type(model).__name__}")
    return model


def check_loss(owner: str, loss: Any) -> Callable[[Any, Any], Tensor]:
    """Refuse what cannot be called with (output, target)."""
    if not callable(loss):
        raise TypeError(
            f"{owner}: expected loss to be a function of (output, target), got {type(loss).__name__}. "
            "Pass for example nnx.nn.CrossEntropyLoss()"
        )
    return loss


def check_examples(owner: str, x: Any, y: Any) -> None:
    """Refuse inputs and targets of different lengths, and none at all."""
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(f"{owner}: expected as many targets y as inputs x, at least one, got {len(y)} and {len(x)}")


def leaves(model: Module) -> list[tuple[str, Module]]:
    """Every module without children, with its dotted name; a model that is one layer goes by its class."""
    found = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    return [(name or type(module).__name__, module) for name, module in found]


@contextmanager
def watching(model: Module, look: Look) -> Iterator[None]:
    """Call ``look(name, module, inputs, output)`` after each layer's forward; a layer's second run is "name#2"."""
    runs: dict[str, int] = {}

    def hook(name: str) -> Callable[[Module, tuple, Any], None]:
        def after(module: Module, inputs: tuple, output: Any) -> None:
            runs[name] = runs.get(name, 0) + 1
            look(name if runs[name] == 1 else f"{name}#{runs[name]}", module, inputs, output)

        return after

    handles = [module.register_forward_hook(hook(name)) for name, module in leaves(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def untouched(model: Module, training: bool | None = None) -> Iterator[None]:
    """Put back gradients, buffers, training flags and the random stream when this ends.

    training:  the mode to be in meanwhile; None leaves it
    """
    modes = [(module, module.training) for module in model.modules()]
    grads = [(p, p.grad, p.requires_grad) for p in model.parameters()]
    buffers = {name: b.copy() for name, b in model.named_buffers()}
    stream = _random.get_state()
    for p, _, _ in grads:
        p.grad = None  # what is there stays the caller's: the engine adds to nothing of ours
    if training is not None:
        model.train(training)
    try:
        yield
    finally:
        for module, flag in modes:
            module.training = flag
        for p, grad, needs in grads:
            p.grad, p.requires_grad = grad, needs
        for name, buffer in model.named_buffers():
            buffer[...] = buffers[name]
        _random.set_state(stream)


def value(output: Any) -> np.ndarray | None:
    """The array of a layer's output, of its first part if it is a tuple; None for anything else."""
    first = output[0] if isinstance(output, (tuple, list)) and output else output
    array = first.data if isinstance(first, Tensor) else first
    return array if isinstance(array, np.ndarray) else None


def finite(x: Any) -> bool:
    """Whether all numbers in a Tensor or array are finite; True for what holds no floats."""
    array = value(x)
    return array is None or array.dtype.kind != "f" or bool(np.isfinite(array).all())
