"""What to watch while training: curves and their gap, the size of the updates, dead units.

A gap between training and validation says overfitting; two curves that agree on too little say underfitting. An update
should be about a thousandth of the weights it changes. ReLU units that are zero for every example learn nothing more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx import diagnose, nn, optim, viz
from nnx.course import picture
from nnx.course._pixels import flat_digits
from nnx.nn import init
from nnx.train import Trainer

ROWS = ("F106", "F126", "F127")


def train(
    hidden: int,
    examples: int,
    epochs: int,
    lr: float = 0.1,
    decay: float = 0.0,
    seed: int = 0,
    callbacks: Any = (),
) -> tuple[Any, nn.Module]:
    """Train 64-hidden-10 on the first examples of the digits; the history, with validation, and the model."""
    x, y = flat_digits()
    nnx.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    trainer = Trainer(
        model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=decay)
    )
    history = trainer.fit(
        x[:examples], y[:examples], epochs, 20, validation=(x[1000:], y[1000:]), callbacks=callbacks, verbose=False
    )
    return history, model


def ratio_by_hand(weight: np.ndarray, gradient: np.ndarray, lr: float) -> float:
    """The ratio as the lecture writes it down, for one step of plain gradient descent."""
    param_scale = np.linalg.norm(weight.ravel())
    update = -lr * gradient
    update_scale = np.linalg.norm(update.ravel())
    return float(update_scale / param_scale)


def layer_with_dead_units(dead: int, units: int, seed: int = 0) -> nn.Sequential:
    """A ReLU layer of which exactly so many units are dead: their bias is too low for any input of length 1."""
    layer = nn.Linear(8, units)
    init.normal_(layer.weight, generator=np.random.default_rng(seed))
    layer.weight.data /= np.linalg.norm(layer.weight.data, axis=1, keepdims=True)
    bias = np.zeros(units, np.float32)
    bias[:dead] = -1.5
    layer.load_state_dict({"weight": layer.weight.data, "bias": bias})
    return nn.Sequential(layer, nn.ReLU())


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train networks that overfit, underfit and fit; watch their updates and their dead units."""
    epochs = 12 if small else 60
    ratios = diagnose.UpdateRatio(every=5)
    runs = {
        "50 examples": train(100, 50, epochs, seed=seed),
        "2 hidden units": train(2, 1000, epochs // 3, seed=seed),
        "1000 examples": train(100, 1000, epochs // 3, lr=0.02, decay=1e-2, seed=seed, callbacks=[ratios]),
    }
    reports = {name: diagnose.fit_report(history, wanted=0.95) for name, (history, _) in runs.items()}
    for name, report in reports.items():
        print(f"{name}: {report}")
    print(ratios.report())
    x, _ = flat_digits()
    fractions = {}
    for rate in (0.1, 3.0):
        _, model = train(100, 300, 3, lr=rate, seed=seed)
        fractions[f"{rate:g}"] = diagnose.dead_units(model, x).fraction
        print(f"learning rate {rate:g}: {100 * fractions[f'{rate:g}']:.0f} % of the ReLU units are dead after 3 epochs")
    if path := picture(out, "monitoring-curves"):
        reports["50 examples"].plot(path)
    if path := picture(out, "monitoring-ratios"):
        ratios.report().plot(path)
    if path := picture(out, "monitoring-dead"):
        viz.bars(fractions, ylabel="share of dead units", path=path)
    return {
        "verdicts": {name: report.verdict for name, report in reports.items()},
        "gaps": {name: report.accuracy_gap for name, report in reports.items()},
        "ratios": ratios.report().last,
        "dead": fractions,
    }
