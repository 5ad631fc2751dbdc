"""How large the updates are beside the weights they change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnx import _check
from nnx.autograd import Tensor
from nnx.diagnose._report import columns
from nnx.train.callbacks import Callback


@dataclass(frozen=True)
class RatioReport:
    """Sizes of the updates relative to the sizes of the weights, step by step."""

    ratios: dict[str, list[float]]
    every: int = 1  # steps from one number to the next

    @property
    def last(self) -> dict[str, float]:
        """The ratio of each parameter in the last step that was watched."""
        return {name: values[-1] for name, values in self.ratios.items() if values}

    def __str__(self) -> str:
        rows = [
            (name, len(v), v[-1], float(np.median(v)), judge_ratio(float(np.median(v)))) for name, v in self._kept()
        ]
        return columns(("parameter", "steps", "last", "median", "verdict"), rows)

    def _kept(self) -> list[tuple[str, list[float]]]:
        return [(name, values) for name, values in self.ratios.items() if values]

    def plot(self, path: str | Path | None = None) -> Any:
        """The ratios over the steps, on a logarithmic axis."""
        from nnx import viz

        series = {name: (range(1, 1 + self.every * len(v), self.every), v) for name, v in self._kept()}
        return viz.lines(series, xlabel="step", ylabel="|update| / |weights|", log="y", path=path)


def judge_ratio(ratio: float) -> str:
    """What a ratio says: about 1e-3 is wanted; a factor of ten away from it is worth a look.

    >>> judge_ratio(0.0002 / 0.02)
    'about right'
    """
    if not math.isfinite(ratio):
        return "not finite"
    return "small" if ratio < 0.9e-4 else "large" if ratio > 1.1e-2 else "about right"


def update_ratio(before: Any, after: Any) -> float:
    """``|after - before| / |before|``: the size of one update relative to the weights it changed.

    >>> update_ratio([3.0, 4.0], [3.0, 4.5])
    0.1
    """
    a, b = (np.asarray(v.data if isinstance(v, Tensor) else v, np.float64) for v in (before, after))
    if a.shape != b.shape:
        raise ValueError(f"update_ratio: expected after of shape {a.shape}, got {b.shape}")
    with np.errstate(all="ignore"):
        size, change = math.sqrt(float(np.square(a).sum())), math.sqrt(float(np.square(b - a).sum()))
    return change / size if size else (0.0 if change == 0 else math.inf)


class UpdateRatio(Callback):
    """Watch ``|update| / |weights|`` of every parameter during `Trainer.fit`; about 1e-3 is wanted.

    every:  watch each such step only (the weights are copied for it)

    The update is what the optimizer did, momentum and weight decay included; for plain gradient descent it is
    ``-lr dW``. `report()` gives the numbers so far.

    Course document S2, monitoring the training.
    """

    def __init__(self, every: int = 1) -> None:
        self.every = _check.integer("UpdateRatio", "every", every, 1)
        self._ratios: dict[str, list[float]] = {}
        self._before: dict[str, np.ndarray] = {}

    def on_fit_begin(self, trainer: Any) -> None:
        self._ratios = {name: [] for name, p in trainer.model.named_parameters() if p.requires_grad}

    def on_step_begin(self, trainer: Any) -> None:
        if trainer.step % self.every == 0:
            self._before = {name: p.data.copy() for name, p in trainer.model.named_parameters() if name in self._ratios}

    def on_step_end(self, trainer: Any) -> None:
        if self._before:
            now = dict(trainer.model.named_parameters())
            for name, before in self._before.items():
                self._ratios[name].append(update_ratio(before, now[name]))
            self._before = {}

    def report(self) -> RatioReport:
        """What was measured so far."""
        return RatioReport({name: list(values) for name, values in self._ratios.items()}, self.every)

    def state_dict(self) -> dict[str, Any]:
        return {"ratios": self.report().ratios}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._ratios = {name: list(values) for name, values in state["ratios"].items()}
