"""What the optimizers, `minimize` and the clipping functions share: finding parameters and reading
their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nnx._device import device_of, is_array, is_writeable, move, same_device, to_host
from nnx.autograd import Tensor, enable_grad


def gradient_of(owner: str, p: Tensor, number: int, label: Callable[[int], str]) -> np.ndarray:
    """The gradient of parameter `number`, which has one, checked to be an array that fits it.

    label:  says how messages name a parameter; asked only when something is wrong
    """
    g, data = p.grad, p.data
    if not is_array(g):
        if not isinstance(g, np.generic):
            raise TypeError(
                f"{owner}: expected .grad of {label(number)} to be an array or None, got {type(g).__name__}"
            )
        g = np.asarray(g)  # sums over 0-d arrays are NumPy scalars
    if g.shape != data.shape:
        raise ValueError(f"{owner}: expected .grad of {label(number)} to have its shape {data.shape}, got {g.shape}")
    if g.dtype != data.dtype:
        raise TypeError(f"{owner}: expected .grad of {label(number)} to have its dtype {data.dtype}, got {g.dtype}")
    if type(g) is not type(data):
        same_device(owner, **{label(number): data, "its .grad": g})
    return g


def writeable(owner: str, p: Tensor, number: int, label: Callable[[int], str]) -> np.ndarray:
    """The array of parameter `number`, checked that it can be updated in place."""
    if not is_writeable(p.data):
        raise ValueError(
            f"{owner}: expected the array of {label(number)} to be writeable, got a read-only array. "
            "Assign a copy: p.data = p.data.copy()"
        )
    return p.data


def call_closure(owner: str, closure: Any) -> Any:
    """Run a closure with recording on, also inside `no_grad`."""
    if not callable(closure):
        raise TypeError(f"{owner}: expected closure to be callable, got {type(closure).__name__}")
    with enable_grad():
        return closure()


def loss_value(owner: str, loss: Any) -> float:
    """The number that a closure returned."""
    try:
        return float(loss.item() if isinstance(loss, Tensor) else loss)
    except (TypeError, ValueError):
        raise TypeError(
            f"{owner}: expected closure to return the loss, a number or a Tensor with one element, got {loss!r}"
        ) from None


def trainable(owner: str, model_or_params: Any) -> list[Tensor]:
    """The parameters that require gradients, each once."""
    if isinstance(model_or_params, Tensor):
        found: list[Any] = [model_or_params]
    elif hasattr(model_or_params, "parameters"):
        found = list(model_or_params.parameters())
    else:
        try:
            found = list(model_or_params)
        except TypeError:
            raise TypeError(
                f"{owner}: expected model_or_params to be a Module or an iterable of Parameters, "
                f"got {type(model_or_params).__name__}"
            ) from None
    for p in found:
        if not isinstance(p, Tensor):
            raise TypeError(f"{owner}: expected model_or_params to hold Parameters, got {type(p).__name__}")
    params = list({id(p): p for p in found if p.requires_grad}.values())
    if not params:
        raise ValueError(f"{owner}: expected at least one parameter that requires a gradient, got none")
    return params


def check_quiet(owner: str, model: Any) -> None:
    """Refuse a model with a layer that draws random numbers: a method that compares losses would compare the noise."""
    named_modules = getattr(model, "named_modules", None)
    noisy = [] if named_modules is None else [(n, m) for n, m in named_modules() if getattr(m, "draws_noise", False)]
    if noisy:
        name, layer = noisy[0]
        raise ValueError(
            f"{owner}: expected a model without noise, got {type(layer).__name__} {name!r} in training mode. "
            "Switch dropout off: model.eval()"
        )


class Flat:
    """Parameters seen as one vector."""

    def __init__(self, owner: str, params: Sequence[Tensor], label: Callable[[int], str] | None = None) -> None:
        self.owner = owner
        self.params = list(params)
        self.label = label or (lambda i: f"parameter {i}")

    def check_writeable(self) -> None:
        for i, p in enumerate(self.params):
            writeable(self.owner, p, i, self.label)

    def values(self, dtype: Any = None) -> np.ndarray:
        """A copy of all parameters, on the CPU."""
        return np.concatenate([to_host(p.data).ravel() for p in self.params], dtype=dtype)

    def gradient(self, dtype: Any = None) -> np.ndarray:
        """All gradients, on the CPU; zeros where a parameter has none."""
        grads = [
            np.zeros(p.data.shape, p.data.dtype)
            if p.grad is None
            else to_host(gradient_of(self.owner, p, i, self.label))
            for i, p in enumerate(self.params)
        ]
        return np.concatenate([g.ravel() for g in grads], dtype=dtype)

    @np.errstate(over="ignore")
    def assign(self, vector: np.ndarray) -> None:
        """Copy `vector` into the parameters' own storage."""
        offset = 0
        for p in self.params:
            size = p.data.size
            p.data[...] = move(vector[offset : offset + size].reshape(p.data.shape), device_of(p.data))
            offset += size
