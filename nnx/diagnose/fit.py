"""Reading the curves of training and validation: too much by heart, too little learnt, or stopped too early."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnx import _check
from nnx.diagnose._report import number

_ADVICE = {
    "diverged": "the loss is not finite; try a smaller learning rate",
    "overfitting": "the model knows the training data better than it generalises: more data, augmentation, more "
    "regularisation, or stop at the best epoch",
    "underfitting": "training and validation agree, but on too little: a larger model, less regularisation, another "
    "learning rate",
    "still learning": "the validation loss is still falling: train longer",
    "good": "training and validation agree",
}


@dataclass(frozen=True)
class FitReport:
    """What the curves say."""

    verdict: str  # "diverged", "overfitting", "underfitting", "still learning" or "good"
    epochs: int
    best_epoch: int  # of the validation loss, counted from 1
    loss_gap: float  # validation minus training, in the last epoch
    accuracy_gap: float | None  # training minus validation, in the last epoch
    rise: float  # of the validation loss since its best epoch, as a share of its best value
    history: dict[str, list[Any]]

    @property
    def advice(self) -> str:
        return _ADVICE[self.verdict]

    def __str__(self) -> str:
        gap = "" if self.accuracy_gap is None else f", accuracy {number(self.accuracy_gap)} lower"
        return (
            f"{self.verdict}: {self.advice}\n"
            f"epoch {self.epochs}: validation loss {number(self.loss_gap)} above training{gap}; "
            f"best in epoch {self.best_epoch}, since then up by {100 * self.rise:.1f} %"
        )

    def plot(self, path: str | Path | None = None) -> Any:
        """The curves."""
        from nnx import viz

        wanted = {k: v for k, v in self.history.items() if k.removeprefix("val_") in ("loss", "accuracy")}
        return viz.curves(wanted, path=path)


def fit_report(
    history: Mapping[str, Sequence[Any]],
    wanted: float | None = None,
    gap: float = 0.1,
    rise: float = 0.1,
    fall: float = 0.02,
) -> FitReport:
    """Judge a run by its history: the dict with "loss" and "val_loss" (and accuracies) that `Trainer.fit` returns.

    wanted:  the training accuracy that the task allows; below it a model that does not overfit underfits. Without
             accuracies, or with None, underfitting is not looked for
    gap:     overfitting: training accuracy so much above validation accuracy at the end
    rise:    overfitting: validation loss up by this share since its best epoch, while the training loss fell
    fall:    still learning: validation loss at its best now, and lower by this share than one fifth of the run before

    Checked in the order diverged, overfitting, still learning, underfitting. KeyError without the two losses,
    ValueError for lists that are empty or of different lengths.

    >>> fit_report({"loss": [2.0, 0.5, 0.1], "val_loss": [2.0, 1.0, 1.6]}).verdict
    'overfitting'
    """
    owner = "fit_report"
    missing = [name for name in ("loss", "val_loss") if name not in history]
    if missing:
        raise KeyError(
            f"{owner}: expected history with 'loss' and 'val_loss', got {', '.join(map(repr, history)) or 'nothing'}. "
            "Pass validation=(x, y) to fit"
        )
    curves = {k: [math.nan if v is None else float(v) for v in history[k]]
              for k in ("loss", "val_loss", "accuracy", "val_accuracy") if k in history}  # fmt: skip
    lengths = {len(values) for values in curves.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"{owner}: expected lists of one length, at least 1, got {sorted(lengths)}")
    limits = [_check.real(owner, n, v, 0) for n, v in (("gap", gap), ("rise", rise), ("fall", fall))]
    aim = None if wanted is None else _check.real(owner, "wanted", wanted, 0, 1)
    loss, held = curves["loss"], curves["val_loss"]
    sound = [i for i, v in enumerate(held) if math.isfinite(v)]
    best = min(sound, key=lambda i: held[i]) if sound else 0
    difference = None
    if "accuracy" in curves and "val_accuracy" in curves:
        difference = curves["accuracy"][-1] - curves["val_accuracy"][-1]
    up = (held[-1] - held[best]) / abs(held[best]) if held[best] else 0.0
    last = len(held) - 1
    earlier = held[last - max(1, len(held) // 5)] if last else math.nan
    if not (math.isfinite(loss[-1]) and math.isfinite(held[-1])):
        verdict = "diverged"
    elif (difference is not None and difference > limits[0]) or (up > limits[1] and loss[-1] < loss[best]):
        verdict = "overfitting"
    elif best == last and earlier - held[last] > limits[2] * abs(earlier):
        verdict = "still learning"
    elif aim is not None and "accuracy" in curves and curves["accuracy"][-1] < aim:
        verdict = "underfitting"
    else:
        verdict = "good"
    return FitReport(
        verdict, len(held), best + 1, held[-1] - loss[-1], difference, up, {k: list(v) for k, v in history.items()}
    )
