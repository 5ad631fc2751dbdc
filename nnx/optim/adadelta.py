"""Adadelta."""

from __future__ import annotations

from typing import Any

from nnx.backends import Backend
from nnx.optim.optimizer import Batch, Optimizer, check_flags, check_real, only_default


class Adadelta(Optimizer):
    """Scale each step by the root mean square of earlier steps over that of earlier gradients.

    ``v = rho v + (1 - rho) g^2;  d = g sqrt(a + eps) / sqrt(v + eps);  a = rho a + (1 - rho) d^2;
    p -= lr d``, where g is the gradient plus ``weight_decay p``. With `maximize` the objective goes
    up.

    `foreach`, `capturable` and `differentiable` choose an implementation in PyTorch and are
    accepted at their defaults alone.

    Zeiler, ADADELTA: an adaptive learning rate method, 2012.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        only_default("Adadelta", foreach=foreach, capturable=capturable, differentiable=differentiable)
        super().__init__(
            params,
            {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize},
        )

    def _check_group(self, owner: str, group: dict[str, Any]) -> None:
        check_real(owner, group, "lr", "eps", "weight_decay", low=0)
        check_real(owner, group, "rho", low=0, high=1)
        check_flags(owner, group, "maximize")

    def _accumulators(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("square_avg", "acc_delta")

    def _update(self, backend: Backend, batch: Batch) -> None:
        s = batch.settings
        backend.adadelta_step(
            batch.params,
            batch.grads,
            batch.state["square_avg"],
            batch.state["acc_delta"],
            s["lr"],
            s["rho"],
            s["eps"],
            s["weight_decay"],
            s["maximize"],
        )
