"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from nnx.backends import Backend
from nnx.optim.optimizer import Batch, Optimizer, check_flags, check_real, only_default


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if asked for.

    ``b = momentum b + (1 - dampening) g;  p -= lr b``, where g is the gradient plus
    ``weight_decay p``, and b is g in the first step. With `nesterov`, ``p -= lr (g + momentum b)``: the gradient
    is taken as if the momentum step had been made. With `maximize` the objective goes up.

    params: Parameters, ``(name, Parameter)`` pairs or dicts of groups. `foreach`, `fused` and
    `differentiable` choose an implementation in PyTorch and are accepted at their defaults alone.

    Sutskever et al., On the importance of initialization and momentum in deep learning, 2013.
    """

    _counts_steps = False

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        only_default("SGD", foreach=foreach, differentiable=differentiable, fused=fused)
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    def _check_group(self, owner: str, group: dict[str, Any]) -> None:
        check_real(owner, group, "lr", "momentum", "weight_decay", low=0)
        check_real(owner, group, "dampening")
        check_flags(owner, group, "nesterov", "maximize")
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError(
                f"{owner}: expected nesterov with momentum > 0 and dampening 0, "
                f"got momentum {group['momentum']:g} and dampening {group['dampening']:g}"
            )

    def _accumulators(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] != 0 else ()

    def _known_accumulators(self) -> tuple[str, ...]:
        return ("momentum_buffer",)

    def _update(self, backend: Backend, batch: Batch) -> None:
        s = batch.settings
        backend.sgd_step(
            batch.params,
            batch.grads,
            batch.state.get("momentum_buffer", []),
            batch.fresh,
            s["lr"],
            s["momentum"],
            s["dampening"],
            s["weight_decay"],
            s["nesterov"],
            s["maximize"],
        )
