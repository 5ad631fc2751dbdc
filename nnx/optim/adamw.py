"""AdamW."""

from __future__ import annotations

from typing import Any

from nnx.optim.adam import Adam


class AdamW(Adam):
    """Adam with weight decay that acts on the parameter and not by way of the gradient.

    ``p *= 1 - lr weight_decay`` before Adam's step, whose running means see the gradient alone.
    Arguments as Adam's.

    Loshchilov, Hutter, Decoupled weight decay regularization, 2019.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        bias_correction: bool = True,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
            bias_correction=bias_correction,
        )
