"""Checks before the first long run: the loss at the start, the regularisation, and twenty examples by heart."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnx import _check, functional, nn
from nnx.autograd import Tensor, no_grad
from nnx.diagnose._report import columns, number
from nnx.diagnose._watch import check_examples, check_loss, check_model, untouched


@dataclass(frozen=True)
class InitialLoss:
    """The loss of the untrained model beside the loss of knowing nothing."""

    loss: float
    expected: float
    tolerance: float

    @property
    def difference(self) -> float:
        return self.loss - self.expected

    @property
    def passed(self) -> bool:
        return abs(self.difference) <= self.tolerance  # False for NaN

    def __str__(self) -> str:
        text = f"initial loss {number(self.loss)}, expected {number(self.expected)} +- {number(self.tolerance)}: "
        if self.passed:
            return text + "passed"
        if not math.isfinite(self.loss):
            return text + "failed. Look for infinities in the data or the weights"
        if self.difference > 0:
            return text + "failed. The scores are too large: smaller weights in the last layer, or inputs not scaled?"
        return text + "failed. The model knows more than it can: is the target part of the input, or is it trained?"

    def plot(self, path: str | Path | None = None) -> Any:
        """Two bars."""
        from nnx import viz

        return viz.bars({"loss": self.loss, "expected": self.expected}, path=path)


def initial_loss(
    model: Any, loss: Any, x: Any, y: Any, expected: float | None = None, tolerance: float = 0.1
) -> InitialLoss:
    """Whether the untrained model's loss is that of scores without an opinion.

    loss:       function of (output, target) that returns the mean loss
    x, y:       a batch; y holds class indices
    expected:   None works it out: ln C for cross-entropy over C classes (2.3026 for ten), margin^p (C - 1) for the
                multiclass hinge loss; ValueError for other losses
    tolerance:  largest difference that passes

    The model runs in evaluation mode and is not changed.
    """
    owner = "initial_loss"
    model, loss = check_model(owner, model), check_loss(owner, loss)
    check_examples(owner, x, y)
    allowed = _check.real(owner, "tolerance", tolerance, 0)
    with untouched(model, training=False), no_grad():
        output = model(x)
        value = float(loss(output, y).item())
    if expected is None:
        expected = _without_opinion(owner, loss, output.shape[1] if output.ndim > 1 else 0)
    return InitialLoss(value, _check.real(owner, "expected", expected), allowed)


def _without_opinion(owner: str, loss: Any, classes: int) -> float:
    """The loss of scores that are all equal."""
    if classes > 1 and (
        isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)) or loss in (functional.cross_entropy, functional.nll_loss)
    ):
        return math.log(classes)
    if classes > 1 and isinstance(loss, nn.MulticlassHingeLoss):
        return (classes - 1) * loss.margin**loss.p
    if classes > 1 and loss is functional.multiclass_hinge_loss:
        return classes - 1.0
    raise ValueError(
        f"{owner}: expected loss to be cross-entropy or the multiclass hinge loss over scores (N, C), "
        f"got {getattr(loss, '__name__', type(loss).__name__)}. Say what to expect with expected="
    )


@dataclass(frozen=True)
class RegularisationReport:
    """The loss at several strengths of the L2 penalty, beside what both conventions predict."""

    strengths: list[float]
    losses: list[float]
    squares: float  # the sum of the squared weights
    convention: str | None

    @property
    def rises(self) -> bool:
        """Whether the loss is larger for each larger strength."""
        return all(b > a for a, b in zip(self.losses, self.losses[1:], strict=False))

    @property
    def passed(self) -> bool:
        return self.rises and self.convention is not None

    def predicted(self, half: bool) -> list[float]:
        """The first loss plus ``strength sum(W^2)``, or half of that."""
        factor = self.squares / (2 if half else 1)
        return [self.losses[0] + (s - self.strengths[0]) * factor for s in self.strengths]

    def __str__(self) -> str:
        rows = list(zip(self.strengths, self.losses, self.predicted(True), self.predicted(False), strict=True))
        text = columns(("strength", "loss", "with 1/2", "without 1/2"), rows)
        if not self.rises:
            return f"{text}\nfailed: the loss does not rise with the strength. Is the penalty added to the loss?"
        if self.convention is None:
            return (
                f"{text}\nfailed: the loss rises, but as neither convention says. Are all weights, and no biases, in?"
            )
        return f"{text}\npassed: the penalty is {self.convention}"

    def plot(self, path: str | Path | None = None) -> Any:
        """The loss over the strength, and both predictions."""
        from nnx import viz

        series = {"loss": (self.strengths, self.losses)}
        series["0.5 strength sum(W^2)"] = (self.strengths, self.predicted(True))
        series["strength sum(W^2)"] = (self.strengths, self.predicted(False))
        return viz.lines(series, xlabel="strength", ylabel="loss", path=path)


def regularisation(
    loss_at: Callable[[float], Any], weights: Iterable[Any], strengths: Sequence[float] = (0.0, 1.0, 1e3)
) -> RegularisationReport:
    """Whether an L2 penalty reaches the loss, and in which convention.

    loss_at:    function of the strength that returns the whole loss, penalty included, of the same data and weights
    weights:    the arrays (or Parameters) that are penalised
    strengths:  at least two, rising

    The loss must rise, by ``0.5 strength sum(W^2)`` or ``strength sum(W^2)`` within 1 %; `convention` says which.
    A two-layer network 3072-50-10 with weights of 0.0001 goes from 2.3026 to 3.0731 at 1000 with the half, to 3.8436
    without it: the number 3.0686 that course document S2 prints has the half, though the formula there has not.
    """
    owner = "regularisation"
    steps = [_check.real(owner, "strengths", s, 0) for s in strengths]
    if len(steps) < 2 or any(b <= a for a, b in zip(steps, steps[1:], strict=False)):
        raise ValueError(f"{owner}: expected strengths to be at least two rising numbers, got {list(strengths)}")
    if not callable(loss_at):
        raise TypeError(f"{owner}: expected loss_at to be a function of the strength, got {type(loss_at).__name__}")
    squares = sum(float(np.square(_array(w), dtype=np.float64).sum()) for w in weights)
    losses = [float(loss_at(s)) for s in steps]
    convention = None
    for name, factor in (("0.5 strength sum(W^2)", 0.5), ("strength sum(W^2)", 1.0)):
        wanted = [(b - a) * factor * squares for a, b in zip(steps, steps[1:], strict=False)]
        got = [b - a for a, b in zip(losses, losses[1:], strict=False)]
        # the sum of two numbers around the loss may round: a difference cannot be more precise than that
        rounding = 1e-6 * max(map(abs, losses))
        if all(abs(g - w) <= 0.01 * w + rounding for g, w in zip(got, wanted, strict=True)) and sum(wanted) > rounding:
            convention = name
            break
    return RegularisationReport(steps, losses, squares, convention)


def _array(weight: Any) -> np.ndarray:
    return np.asarray(weight.data if isinstance(weight, Tensor) else weight)


@dataclass(frozen=True)
class OverfitReport:
    """A run on a handful of examples, which any sound network learns by heart."""

    losses: list[float]
    accuracies: list[float]  # empty where the targets are no classes
    target: float
    still: list[str]  # trainable parameters that never moved
    examples: int

    @property
    def passed(self) -> bool:
        learnt = bool(self.losses) and self.losses[-1] < self.target  # False for NaN
        return learnt and (not self.accuracies or self.accuracies[-1] == 1.0) and not self.still

    def __str__(self) -> str:
        text = f"{self.examples} examples, {len(self.losses) - 1} epochs: loss {number(self.losses[0])} -> "
        text += f"{number(self.losses[-1])} (wanted: below {number(self.target)})"
        if self.accuracies:
            text += f", accuracy {number(self.accuracies[0])} -> {number(self.accuracies[-1])}"
        if self.passed:
            return text + ": passed"
        if not math.isfinite(self.losses[-1]):
            return text + ": failed. The loss is not finite: NaN in the data, or a learning rate that is too large?"
        if self.still:
            return f"{text}: failed. No gradient reaches {', '.join(self.still)}"
        if self.losses[-1] > self.losses[0]:
            return text + ": failed. The loss rises: a smaller learning rate, or a gradient with the wrong sign?"
        return text + ": failed. More epochs or another learning rate; if that does not help, check the gradients"

    def plot(self, path: str | Path | None = None) -> Any:
        """The loss over the epochs."""
        from nnx import viz

        return viz.lines({"loss": self.losses}, xlabel="epoch", ylabel="loss", log="y", path=path)


def overfit(
    model: Any,
    loss: Any,
    x: Any,
    y: Any,
    examples: int = 20,
    epochs: int = 200,
    optimizer: Callable[[Any], Any] | None = None,
    target: float = 0.01,
) -> OverfitReport:
    """Train a copy of the model on a few examples: it must learn them by heart.

    loss:       function of (output, target)
    examples:   the first so many of x and y are used, all in one batch
    optimizer:  function of the parameters that makes an optimizer; None is ``Adam(parameters, lr=1e-2)``
    target:     the loss that must be reached

    Dropout is off. Passed: the last loss is below `target`, every example is classified (where y holds class
    indices), and every trainable parameter has moved. The last layer alone often learns twenty examples by heart, so
    the third condition is what finds a gradient that is lost on its way back.
    """
    owner = "overfit"
    model, loss = check_model(owner, model), check_loss(owner, loss)
    check_examples(owner, x, y)
    count = min(_check.integer(owner, "examples", examples, 1), len(x))
    rounds = _check.integer(owner, "epochs", epochs, 1)
    goal = _check.real(owner, "target", target, 0, open_low=True)
    if optimizer is None:
        from nnx.optim import Adam

        def optimizer(parameters: Any) -> Any:
            return Adam(parameters, lr=1e-2)

    x, y = x[:count], y[:count]
    labels = _array(y)
    with untouched(model):
        twin = copy.deepcopy(model)
        twin.train()
        for module in twin.modules():
            if "Dropout" in type(module).__name__:
                module.eval()
        update = optimizer(twin.parameters())
        before = {name: p.data.copy() for name, p in twin.named_parameters() if p.requires_grad}
        losses: list[float] = []
        accuracies: list[float] = []
        for epoch in range(rounds + 1):
            update.zero_grad()
            output = twin(x)
            value = loss(output, y)
            losses.append(float(value.item()))
            if labels.dtype.kind in "iu" and output.ndim == labels.ndim + 1:
                accuracies.append(float((output.data.argmax(axis=1) == labels).mean()))
            if epoch == rounds or not math.isfinite(losses[-1]):
                break
            value.backward()
            update.step()
        now = dict(twin.named_parameters())
        still = [name for name, a in before.items() if np.array_equal(a, now[name].data)]
    return OverfitReport(losses, accuracies, goal, still, count)
