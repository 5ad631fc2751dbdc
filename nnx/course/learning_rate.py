"""Too small, right, too large: what the learning rate does in the first hundred steps.

A rate that is too small leaves the loss where it is; one that is too large brings it down for a few steps and then
makes it explode, or throws it to NaN at once. A short run of each tells, and names the layer where it broke.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnx import diagnose, nn
from nnx.course import picture
from nnx.course._pixels import pixels, two_layers

ROWS = ("F122",)

RATES = (1e-6, 1e-3, 1e-1, 1e6)


def diagnosis(rates: tuple[float, ...] = RATES, steps: int = 100, seed: int = 0) -> diagnose.LearningRateReport:
    """Plain gradient descent on the lectures' network with each of the rates."""
    x, y = pixels(1000, seed)
    return diagnose.learning_rate(two_layers(seed), nn.CrossEntropyLoss(), x, y, rates, steps, seed=seed)


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Try the rates and say what is wrong with each."""
    report = diagnosis(RATES if small else (1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 1e-1, 1.0, 1e6), seed=seed)
    print(report)
    if path := picture(out, "learning_rate-losses"):
        report.plot(path)
    return {
        "verdicts": {f"{rate:g}": verdict for rate, verdict in report.verdicts.items()},
        "notes": {f"{run.lr:g}": run.note for run in report.runs},
        "best": report.best,
    }
