"""Adagrad."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.backends import Backend
from nnx.optim.optimizer import Batch, Optimizer, check_flags, check_real, only_default


class Adagrad(Optimizer):
    """Divide each step by the root of all squared gradients so far.

    ``s += g^2;  p -= lr / (1 + (step - 1) lr_decay) g / (sqrt(s) + eps)``, where g is the gradient
    plus ``weight_decay p`` and s starts at `initial_accumulator_value`. With `maximize` the
    objective goes up.

    `foreach`, `fused` and `differentiable` choose an implementation in PyTorch and are accepted at
    their defaults alone.

    Duchi, Hazan, Singer, Adaptive subgradient methods for online learning and stochastic
    optimization, 2011.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        only_default("Adagrad", foreach=foreach, differentiable=differentiable, fused=fused)
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
                "eps": eps,
                "maximize": maximize,
            },
        )

    def _check_group(self, owner: str, group: dict[str, Any]) -> None:
        check_real(
            owner,
            group,
            "lr",
            "lr_decay",
            "weight_decay",
            "initial_accumulator_value",
            "eps",
            low=0,
        )
        check_flags(owner, group, "maximize")

    def _accumulators(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("sum",)

    def _initial(self, group: dict[str, Any], name: str, p: np.ndarray) -> np.ndarray:
        return self._filled(p, group["initial_accumulator_value"])

    def _update(self, backend: Backend, batch: Batch) -> None:
        s = batch.settings
        backend.adagrad_step(
            batch.params,
            batch.grads,
            batch.state["sum"],
            batch.step,
            s["lr"],
            s["lr_decay"],
            s["eps"],
            s["weight_decay"],
            s["maximize"],
        )
