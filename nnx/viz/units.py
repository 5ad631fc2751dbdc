"""What single units of a network answer, and the input they answer most to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from nnx import _check
from nnx.autograd import Tensor
from nnx.nn import Module


def activations(model: Module, x: Any, layer: Module | str) -> np.ndarray:
    """Return what a layer inside of `model` answers when the model sees `x`, in evaluation mode.

    layer:  a module inside of `model`, or its dotted name as `named_modules` gives it

    >>> import nnx
    >>> model = nnx.nn.Sequential(nnx.nn.Linear(3, 2), nnx.nn.ReLU())
    >>> activations(model, np.zeros((5, 3), np.float32), "0").shape
    (5, 2)
    """
    owner = "viz.activations"
    module = find_layer(owner, model, layer)
    found: list[Any] = []
    handle = module.register_forward_hook(lambda module, inputs, output: found.append(output))
    try:
        model.predict(x, batch_size=max(len(x), 1))
    finally:
        handle.remove()
    return np.array(_answer(owner, found).data)


def maximise_unit(
    model: Module,
    layer: Module | str,
    unit: int | Sequence[int],
    shape: Sequence[int],
    steps: int = 100,
    lr: float = 0.5,
    l2: float = 0.0,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, list[float]]:
    """Search the input that a unit answers most to, by gradient ascent on the input.

    Each step goes `lr` times the norm of a random start along the normalised gradient of ``a(x) - l2 * mean(x**2)``,
    where a is the unit's activation; a step that would not raise it is halved until it does, so what is returned rises
    from entry to entry.

    model:   stays as it is: its mode, its parameters and their gradients
    layer:   a module inside of `model`, or its dotted name
    unit:    channel of the layer's answer (its mean over all positions counts), or an index (channel, row, column)
    shape:   of one input without the batch dimension, such as (1, 28, 28)
    bounds:  the smallest and largest value that an input may have; None for any

    Returns the input as an array of `shape`, and the objective at the start and after each step; fewer than `steps`
    where no step raises it any more. K. Simonyan, A. Vedaldi, A. Zisserman, Deep Inside Convolutional Networks (2013).
    """
    owner = "viz.maximise_unit"
    module = find_layer(owner, model, layer)
    size = tuple(_check.integer(owner, "shape", n, 1) for n in shape)
    _check.integer(owner, "steps", steps, 0)
    rate = _check.real(owner, "lr", lr, 0, open_low=True)
    weight = _check.real(owner, "l2", l2, 0)
    low, high = _bounds(owner, bounds)
    dtype = next((p.dtype for p in model.parameters()), np.dtype(np.float32))
    index = (unit,) if np.ndim(unit) == 0 else tuple(unit)  # type: ignore[arg-type]
    index = tuple(_check.integer(owner, "unit", n) for n in index)
    start = np.random.default_rng(seed).normal(0, 0.1, (1, *size)) + (0 if bounds is None else (low + high) / 2)
    x = np.clip(start, low, high).astype(dtype)
    step = rate * float(np.linalg.norm(start))
    found: list[Any] = []

    def objective(array: np.ndarray) -> tuple[float, np.ndarray]:
        found.clear()
        image = Tensor(array, requires_grad=True)
        model(image)
        value = _pick(owner, _answer(owner, found), index) - weight * (image * image).mean()
        value.backward()
        # a part of the model that the input does not reach has no gradient
        return value.item(), np.zeros_like(array) if image.grad is None else image.grad

    with _frozen(model):
        handle = module.register_forward_hook(lambda module, inputs, output: found.append(output))
        try:
            value, gradient = objective(x)
            values = [value]
            for _ in range(steps):
                norm = float(np.linalg.norm(gradient))
                if norm == 0 or not np.isfinite(norm):
                    break
                for _ in range(30):
                    candidate = np.clip(x + (step / norm) * gradient, low, high).astype(dtype)
                    value, new_gradient = objective(candidate)
                    if value > values[-1]:
                        break
                    step /= 2
                else:
                    break  # a maximum, as far as this type of number can tell
                x, gradient = candidate, new_gradient
                values.append(value)
        finally:
            handle.remove()
    return x[0], values


def find_layer(owner: str, model: Any, layer: Any) -> Module:
    """The module of that name inside of `model`, or `layer` itself if it is one of its modules."""
    if not isinstance(model, Module):
        raise TypeError(f"{owner}: expected model to be a nnx.nn.Module, got {type(model).__name__}")
    known = dict(model.named_modules())
    if isinstance(layer, str) and layer in known:
        return known[layer]
    if not any(module is layer for module in known.values()):
        shown = repr(layer) if isinstance(layer, str) else type(layer).__name__
        names = ", ".join(repr(name) for name in list(known)[:12])
        raise ValueError(f"{owner}: expected layer to be a module of the model or one of {names}, got {shown}")
    return layer


def _answer(owner: str, found: list[Any]) -> Tensor:
    if not found or not isinstance(found[-1], Tensor):
        raise ValueError(f"{owner}: expected the layer to run and to answer with a Tensor, and it did not")
    return found[-1]


def _pick(owner: str, answer: Tensor, index: tuple[int, ...]) -> Tensor:
    """The activation that counts; the mean over the positions that `index` leaves open."""
    sizes = answer.shape[1:]
    if len(index) not in (1, len(sizes)) or not all(0 <= i < n for i, n in zip(index, sizes, strict=False)):
        raise ValueError(
            f"{owner}: expected unit to be a channel below {sizes[0]}, or an index into {sizes}, "
            f"got {index[0] if len(index) == 1 else index}"
        )
    return answer[(0, *index)].mean()


def _bounds(owner: str, bounds: tuple[float, float] | None) -> tuple[float, float]:
    if bounds is None:
        return -np.inf, np.inf
    low = _check.real(owner, "bounds[0]", bounds[0])
    return low, _check.real(owner, "bounds[1]", bounds[1], low, open_low=True)


@contextmanager
def _frozen(model: Module) -> Iterator[None]:
    """Evaluation mode without gradients of parameters, and all of it as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(p, p.requires_grad) for p in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for p, requires_grad in wanted:
            p.requires_grad = requires_grad
