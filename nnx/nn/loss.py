"""Losses as layers: what the function of the same purpose in `nnx.functional` takes besides input
and target is given to the constructor.
"""

from __future__ import annotations

from typing import Any

from nnx import _check
from nnx.autograd import Tensor
from nnx.functional import loss as F
from nnx.functional._loss_checks import REDUCTIONS, refuse_deprecated
from nnx.nn.module import Module

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "MSELoss",
    "MulticlassHingeLoss",
    "NLLLoss",
    "SmoothL1Loss",
]


class _Loss(Module):
    """Checks what all losses share; weights are buffers, so that ``double()`` reaches them."""

    _reductions: tuple[str, ...] = REDUCTIONS
    weight: Any
    pos_weight: Any

    def __init__(self, size_average: Any, reduce: Any, reduction: str) -> None:
        super().__init__()
        self._name = type(self).__name__
        refuse_deprecated(self._name, size_average, reduce)
        self.reduction = _check.choice(self._name, "reduction", reduction, self._reductions)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class MSELoss(_Loss):
    """The mean of ``(x - t)^2``.

    >>> MSELoss()([1.0, 2.0], [1.0, 4.0]).item()
    2.0
    """

    def __init__(self, size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.mse_loss_as(self._name, input, target, self.reduction)


class L1Loss(_Loss):
    """The mean of ``|x - t|``."""

    def __init__(self, size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.l1_loss_as(self._name, input, target, self.reduction)


class HuberLoss(_Loss):
    """The mean of ``d^2 / 2`` for ``d = |x - t| < delta``, else ``delta (d - delta / 2)``."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(None, None, reduction)
        self.delta = _check.real(self._name, "delta", delta, 0, open_low=True)

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.huber_loss_as(self._name, input, target, self.reduction, self.delta)


class SmoothL1Loss(_Loss):
    """The mean of ``d^2 / (2 beta)`` for ``d = |x - t| < beta``, else ``d - beta / 2``."""

    def __init__(
        self,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
        beta: float = 1.0,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.beta = _check.real(self._name, "beta", beta, 0)

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.smooth_l1_loss_as(self._name, input, target, self.reduction, self.beta)


class BCELoss(_Loss):
    """``-(t log(x) + (1 - t) log(1 - x))`` for probabilities x; scores take BCEWithLogitsLoss."""

    def __init__(
        self,
        weight: Any = None,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.binary_cross_entropy_as(self._name, input, target, self.weight, self.reduction)


class BCEWithLogitsLoss(_Loss):
    """`BCELoss` of the sigmoid of the scores, in one stable formula.

    weight:      factors that broadcast to the input
    pos_weight:  factors of the term of t, one per class for input (N, C)
    """

    def __init__(
        self,
        weight: Any = None,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
        pos_weight: Any = None,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.binary_cross_entropy_with_logits_as(
            self._name, input, target, self.weight, self.reduction, self.pos_weight
        )


class KLDivLoss(_Loss):
    """``t (log(t) - x)`` for log-probabilities x; ``reduction="batchmean"`` is the divergence per
    sample.
    """

    _reductions = (*REDUCTIONS, "batchmean")

    def __init__(
        self,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
        log_target: bool = False,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_target = bool(log_target)

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.kl_div_as(self._name, input, target, self.reduction, self.log_target)


class CrossEntropyLoss(_Loss):
    """``-log(softmax(x)[target])``, the mean over samples: for scores, not for probabilities.

    weight:           (C,), a factor for each class
    ignore_index:     samples with this label count nothing
    label_smoothing:  this share of the target is spread evenly over all classes

    Input (N, C), (N, C, d1, ...) or (C,); the target is class labels in the shape of the input
    without C, or probabilities in the shape of the input.

    >>> round(CrossEntropyLoss()([[3.2, 5.1, -1.7]], [0]).item(), 5)
    2.04035
    """

    def __init__(
        self,
        weight: Any = None,
        size_average: Any = None,
        ignore_index: int = -100,
        reduce: Any = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = _check.integer(self._name, "ignore_index", ignore_index)
        self.label_smoothing = _check.real(self._name, "label_smoothing", label_smoothing, 0, 1)

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.cross_entropy_as(
            self._name,
            input,
            target,
            self.weight,
            self.ignore_index,
            self.reduction,
            self.label_smoothing,
        )


class NLLLoss(_Loss):
    """``-x[target]``, the mean over samples: for log-probabilities, such as LogSoftmax gives.

    Arguments as for CrossEntropyLoss.
    """

    def __init__(
        self,
        weight: Any = None,
        size_average: Any = None,
        ignore_index: int = -100,
        reduce: Any = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = _check.integer(self._name, "ignore_index", ignore_index)

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.nll_loss_as(self._name, input, target, self.weight, self.ignore_index, self.reduction)


class MulticlassHingeLoss(_Loss):
    """``sum(max(0, margin + x[j] - x[target])^p)`` over the wrong classes j, the mean over samples.

    The multiclass support vector machine of Weston & Watkins (1999); PyTorch's MultiMarginLoss is
    this divided by the number of classes.

    p:       1 or 2
    weight:  (C,), a factor for each class

    >>> round(MulticlassHingeLoss()([[3.2, 5.1, -1.7]], [0]).item(), 5)
    2.9
    """

    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: Any = None,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.p = _check.choice(self._name, "p", p, (1, 2))
        self.margin = _check.real(self._name, "margin", margin)
        self.register_buffer("weight", weight)

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.multiclass_hinge_loss_as(self._name, input, target, self.p, self.margin, self.weight, self.reduction)
