"""What backpropagation computes on its way: the delta of every layer, and whole Jacobians."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnx.autograd import Tensor, as_tensor, enable_grad
from nnx.nn import Module


@dataclass(frozen=True)
class LayerDelta:
    """One layer in the four equations of backpropagation.

    name:         the layer's name in the model
    input:        a, the activations that came in
    output:       z, the weighted sums that went out
    delta:        dC/dz, the layer's error
    weight_grad:  dC/dw; for a Linear layer ``delta^T a``
    bias_grad:    dC/db; for a Linear layer the sum of delta over the batch; None without a bias
    """

    name: str
    input: np.ndarray
    output: np.ndarray
    delta: np.ndarray
    weight_grad: np.ndarray
    bias_grad: np.ndarray | None


def deltas(model: Module, input: Any, loss: Callable[[Tensor], Tensor]) -> list[LayerDelta]:
    """The error ``delta = dC/dz`` of every layer with a weight, in the order of the forward pass.

    model:  its layers with a parameter `weight` are followed; activations must be layers behind them, so that a layer's
            output is z
    input:  a batch
    loss:   takes the model's output and returns the cost C, one number

    Gradients that the parameters hold already stay as they were. A layer that runs twice appears twice, each time with
    its own delta and with the total gradient of its weight.
    """
    layers = [(name, m) for name, m in model.named_modules() if getattr(m, "_parameters", {}).get("weight") is not None]
    if not layers:
        raise ValueError("deltas: expected a model with at least one layer that has a weight, got none")
    seen: list[tuple[str, Module, np.ndarray, Tensor]] = []
    handles = [m.register_forward_hook(_watch(seen, name)) for name, m in layers]
    parameters = list(model.parameters())
    kept = [(p, p.grad, p.requires_grad) for p in parameters]
    try:
        for p in parameters:
            p.grad, p.requires_grad = None, True
        with enable_grad():
            cost = loss(model(input))
            if not isinstance(cost, Tensor) or cost.size != 1:
                raise ValueError(f"deltas: expected loss to return a Tensor with one number, got {cost!r}")
            cost.backward()
        return [_delta(name, m, a, z) for name, m, a, z in seen]
    finally:
        for handle in handles:
            handle.remove()
        for p, grad, requires_grad in kept:
            p.grad, p.requires_grad = grad, requires_grad


def _watch(seen: list, name: str) -> Callable[..., None]:
    def hook(module: Module, inputs: tuple, output: Any) -> None:
        output.retain_grad()
        seen.append((name, module, as_tensor(inputs[0]).data, output))

    return hook


def _delta(name: str, module: Any, a: np.ndarray, z: Tensor) -> LayerDelta:
    bias = module._parameters.get("bias")
    return LayerDelta(
        name,
        a,
        z.data,
        np.zeros_like(z.data) if z.grad is None else z.grad,
        np.zeros_like(module.weight.data) if module.weight.grad is None else module.weight.grad,
        None if bias is None else np.zeros_like(bias.data) if bias.grad is None else bias.grad,
    )


def jacobian(function: Callable[[Tensor], Tensor], x: Any) -> np.ndarray:
    """All partial derivatives ``J[i..., j...] = d function(x)[i...] / d x[j...]``, one backward pass per output.

    function:  takes a Tensor, returns a Tensor
    x:         the point; integers become float32

    Returns an array of shape ``(*output shape, *input shape)``.

    >>> jacobian(lambda x: x * x, np.array([1.0, 3.0])).tolist()
    [[2.0, 0.0], [0.0, 6.0]]
    """
    leaf = Tensor(as_tensor(x).data.copy(), requires_grad=True)
    with enable_grad():
        y = function(leaf)
    if not isinstance(y, Tensor):
        raise TypeError(f"jacobian: expected function to return a Tensor, got {type(y).__name__}")
    rows = np.zeros((y.size, *leaf.shape), y.dtype)
    if y.requires_grad:
        for i in range(y.size):
            unit = np.zeros(y.size, y.dtype)
            unit[i] = 1
            leaf.grad = None
            y.backward(unit.reshape(y.shape), retain_graph=True)
            if leaf.grad is not None:
                rows[i] = leaf.grad
    return rows.reshape(*y.shape, *leaf.shape)
