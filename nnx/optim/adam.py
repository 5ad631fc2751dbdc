"""Adam."""

from __future__ import annotations

from typing import Any

from nnx.backends import Backend
from nnx.optim.optimizer import Batch, Optimizer, check_betas, check_flags, check_real, only_default


class Adam(Optimizer):
    """Running means of the gradient and of its square, corrected for their start at zero.

    ``m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;  p -= lr M / (sqrt(V) + eps)``
    with ``M = m / (1 - beta1^step)`` and ``V = v / (1 - beta2^step)``, where g is the gradient plus
    ``weight_decay p``.

    amsgrad:                 V comes from the largest v so far
    maximize:                the objective goes up
    decoupled_weight_decay:  decay as in AdamW
    bias_correction:         False for ``M = m`` and ``V = v`` (not in PyTorch): the first step is
                             then about ``(1 - beta1) / sqrt(1 - beta2)`` times as long, which shows
                             what the correction is for

    `foreach`, `fused`, `capturable` and `differentiable` choose an implementation in PyTorch and
    are accepted at their defaults alone.

    Kingma, Ba, Adam: a method for stochastic optimization, 2015; amsgrad: Reddi et al., On the
    convergence of Adam and beyond, 2018.

    >>> import numpy as np
    >>> import nnx
    >>> p = nnx.Parameter(np.array([1.0, -2.0]))
    >>> optimizer = nnx.optim.Adam([p], lr=0.1)
    >>> p.grad = np.array([3.0, -0.5])
    >>> optimizer.step()
    >>> p.data.round(4)
    array([ 0.9, -1.9])
    """

    _optional = frozenset({"decoupled_weight_decay", "bias_correction"})

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        bias_correction: bool = True,
    ) -> None:
        only_default(
            type(self).__name__,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
        )
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
                "decoupled_weight_decay": decoupled_weight_decay,
                "bias_correction": bias_correction,
            },
        )

    def _check_group(self, owner: str, group: dict[str, Any]) -> None:
        check_real(owner, group, "lr", "eps", "weight_decay", low=0)
        check_betas(owner, group)
        check_flags(owner, group, "amsgrad", "maximize", "decoupled_weight_decay", "bias_correction")

    def _accumulators(self, group: dict[str, Any]) -> tuple[str, ...]:
        names = ("exp_avg", "exp_avg_sq")
        return (*names, "max_exp_avg_sq") if group["amsgrad"] else names

    def _known_accumulators(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")

    def _update(self, backend: Backend, batch: Batch) -> None:
        s = batch.settings
        beta1, beta2 = s["betas"]
        backend.adam_step(
            batch.params,
            batch.grads,
            batch.state["exp_avg"],
            batch.state["exp_avg_sq"],
            batch.state.get("max_exp_avg_sq"),
            batch.step,
            s["lr"],
            beta1,
            beta2,
            s["eps"],
            s["weight_decay"],
            s["decoupled_weight_decay"],
            s["bias_correction"],
            s["maximize"],
        )
