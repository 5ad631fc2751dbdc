"""RMSprop."""

from __future__ import annotations

from typing import Any

from nnx.backends import Backend
from nnx.optim.optimizer import Batch, Optimizer, check_flags, check_real, only_default


class RMSprop(Optimizer):
    """Divide each step by the root of a running mean of squared gradients.

    ``v = alpha v + (1 - alpha) g^2;  p -= lr g / (sqrt(v) + eps)``, where g is the gradient plus
    ``weight_decay p``. With `centered` the square of the running mean gradient is subtracted from v
    under the root (an estimate of the variance); with `momentum`, ``b = momentum b + g / (...)``
    and ``p -= lr b``. With `maximize` the objective goes up.

    `foreach`, `capturable` and `differentiable` choose an implementation in PyTorch and are
    accepted at their defaults alone.

    Hinton, Neural networks for machine learning, lecture 6e; centered: Graves, Generating sequences
    with recurrent neural networks, 2013.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        only_default("RMSprop", foreach=foreach, capturable=capturable, differentiable=differentiable)
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "alpha": alpha,
                "eps": eps,
                "centered": centered,
                "weight_decay": weight_decay,
                "maximize": maximize,
            },
        )

    def _check_group(self, owner: str, group: dict[str, Any]) -> None:
        check_real(owner, group, "lr", "alpha", "eps", "weight_decay", "momentum", low=0)
        check_flags(owner, group, "centered", "maximize")

    def _accumulators(self, group: dict[str, Any]) -> tuple[str, ...]:
        names = ["square_avg"]
        if group["momentum"] != 0:
            names.append("momentum_buffer")
        if group["centered"]:
            names.append("grad_avg")
        return tuple(names)

    def _known_accumulators(self) -> tuple[str, ...]:
        return ("square_avg", "momentum_buffer", "grad_avg")

    def _update(self, backend: Backend, batch: Batch) -> None:
        s = batch.settings
        backend.rmsprop_step(
            batch.params,
            batch.grads,
            batch.state["square_avg"],
            batch.state.get("grad_avg"),
            batch.state.get("momentum_buffer"),
            s["lr"],
            s["alpha"],
            s["eps"],
            s["weight_decay"],
            s["momentum"],
            s["maximize"],
        )
