"""Searching for hyper-parameters: at random, in log space, from coarse to fine.

A learning rate acts as a factor, so its logarithm is drawn; random draws try a new value of every parameter each time,
where a grid repeats itself; a run whose cost passes three times its first value is stopped; and a best value at the
edge of its range says that the range was wrong.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from nnx import nn, optim
from nnx.course import picture
from nnx.course._pixels import flat_digits
from nnx.train import StopOnExplosion, Trainer, search
from nnx.train.search import LogUniform, SearchResult, Trial

ROWS = ("F123", "F124", "F125")

SPACE = {"lr": LogUniform(1e-4, 1e2), "decay": LogUniform(1e-6, 1e-1)}

# the best trials of the fine search that the lecture prints: accuracy, learning rate, regularisation
PRINTED = (
    (0.531, 9.471549e-04, 1.433895e-03),
    (0.530, 5.808183e-04, 8.259964e-02),
    (0.527, 5.340517e-04, 4.097824e-01),
    (0.522, 5.586261e-04, 2.312685e-04),
)


def accuracy(parameters: dict[str, Any], epochs: int = 3) -> dict[str, Any]:
    """Train a network 64-50-10 on the digits with these parameters; the accuracy on 438 held-out examples."""
    x, y = flat_digits()
    model = nn.Sequential(nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 10))
    rule = optim.SGD(model.parameters(), lr=parameters["lr"], momentum=0.9, weight_decay=parameters["decay"])
    trainer = Trainer(model, nn.CrossEntropyLoss(), rule)
    callbacks = [StopOnExplosion(factor=3.0)]
    history = trainer.fit(x[:1000], y[:1000], epochs, 50, callbacks=callbacks, verbose=False)
    held = trainer.evaluate(x[1000:], y[1000:])
    return {"score": held["accuracy"], "loss": history.loss[-1], "steps": trainer.step}


def longer(parameters: dict[str, Any]) -> dict[str, Any]:
    """The same with three times the epochs, for the fine stage."""
    return accuracy(parameters, epochs=9)


def printed_search() -> SearchResult:
    """The lecture's fine search as a result: its best learning rate lies at the edge of the range."""
    space = {"lr": LogUniform(1e-4, 1e-3), "reg": LogUniform(1e-4, 1.0)}
    return SearchResult(space, [Trial(i, {"lr": lr, "reg": reg}, 0, a) for i, (a, lr, reg) in enumerate(PRINTED)])


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Search coarse, then fine; compare random draws with a grid; read the lecture's own search."""
    trials = (6, 3) if small else (30, 20)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", search.EdgeWarning)
        coarse, fine = search.coarse_to_fine(
            [accuracy, longer], SPACE, trials, shrink=0.25, seed=seed, workers=1 if small else None
        )
    stopped = [t for t in coarse.trials if t.note]
    print(f"coarse:\n{coarse.text(8)}\nfine:\n{fine.text(8)}")
    print(f"{len(stopped)} of {len(coarse.trials)} coarse runs were stopped: {stopped[0].note if stopped else '-'}")
    for warning in caught:
        print(f"warning: {warning.message}")
    printed = printed_search()
    print(f"the lecture's fine search: {printed.warnings[0]}")
    tries = 16 if small else 100
    side = round(tries**0.5)
    square = {"x": search.Uniform(0, 1), "y": search.Uniform(0, 1)}
    drawn = search.random_search(_peak, square, tries, seed=seed)
    grid = search.grid_search(_peak, square, side)
    print(f"{tries} trials try {drawn.distinct['x']} values of x at random, {grid.distinct['x']} on a grid")
    if path := picture(out, "hyperparameters-coarse"):
        coarse.plot(path)
    if path := picture(out, "hyperparameters-fine"):
        fine.plot(path)
    best = fine.best
    return {
        "best": None if best is None else {**best.parameters, "accuracy": best.score},
        "stopped": len(stopped),
        "printed edge": printed.at_edge,
        "distinct": {"random": drawn.distinct["x"], "grid": grid.distinct["x"]},
        "closest": {"random": _closest(drawn), "grid": _closest(grid)},
    }


def _peak(parameters: dict[str, Any]) -> float:
    """A score that depends on x all but alone: a grid of 10 x 10 points tries 10 values of x, 100 random draws 100."""
    return -abs(parameters["x"] - 0.4321) - 1e-6 * abs(parameters["y"] - 0.5)


def _closest(result: SearchResult) -> float:
    """How close to the best x the search came."""
    return float(np.min([-t.score for t in result.trials]))
