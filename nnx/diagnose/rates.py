"""Which learning rates leave the loss where it is, which bring it down, and which make it explode."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnx import _check
from nnx.autograd import no_grad
from nnx.diagnose._report import columns
from nnx.diagnose._watch import check_examples, check_loss, check_model, finite, untouched, value, watching


@dataclass(frozen=True)
class NonFinite:
    """Where the first NaN or infinity was: in which step, counted from 1, and in which layer."""

    step: int
    layer: str
    what: str

    def __str__(self) -> str:
        return f"step {self.step}, {self.what} of {self.layer}"


@dataclass(frozen=True)
class RateRun:
    """A short run with one learning rate."""

    lr: float
    losses: list[float]  # of each step's batch
    before: float  # over all examples
    after: float
    exploded_at: int | None  # the first step, counted from 1, whose loss passed the limit
    nonfinite: NonFinite | None
    verdict: str  # "flat", "good", "unstable" or "exploding"

    @property
    def note(self) -> str:
        """What to do about it."""
        if self.nonfinite is not None:
            return f"too large: not finite in {self.nonfinite}"
        if self.verdict == "exploding":
            return f"too large: the loss passed its limit in step {self.exploded_at}"
        if self.verdict == "unstable":
            return "too large: the loss jumps about and does not fall"
        return "too small: the loss hardly moves" if self.verdict == "flat" else "the loss falls"


@dataclass(frozen=True)
class LearningRateReport:
    """Runs with several learning rates, smallest first."""

    runs: list[RateRun]

    def __getitem__(self, lr: float) -> RateRun:
        return next(run for run in self.runs if run.lr == lr)

    @property
    def verdicts(self) -> dict[float, str]:
        return {run.lr: run.verdict for run in self.runs}

    @property
    def best(self) -> float | None:
        """The rate that brought the loss furthest down, among the good ones."""
        good = [run for run in self.runs if run.verdict == "good"]
        return min(good, key=lambda run: run.after).lr if good else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The smallest and the largest good rate."""
        good = [run.lr for run in self.runs if run.verdict == "good"]
        return (good[0], good[-1]) if good else None

    def __str__(self) -> str:
        rows = [(f"{run.lr:.3g}", run.before, run.after, run.verdict, run.note) for run in self.runs]
        text = columns(("rate", "loss before", "after", "verdict", "why"), rows)
        if self.interval is None:
            return f"{text}\nno rate is good"
        return f"{text}\ngood: {self.interval[0]:.3g} to {self.interval[1]:.3g}, best {self.best:.3g}"

    def plot(self, path: str | Path | None = None) -> Any:
        """The loss over the steps, a line for each rate; each line ends where the loss is not finite any more."""
        from nnx import viz

        series = {f"{r.lr:.3g} {r.verdict}": [v if math.isfinite(v) else math.nan for v in r.losses] for r in self.runs}
        return viz.lines(series, xlabel="step", ylabel="loss", log="y", path=path)


def learning_rate(
    model: Any,
    loss: Any,
    x: Any,
    y: Any,
    rates: Sequence[float] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
    steps: int = 100,
    batch_size: int = 100,
    optimizer: Callable[[Any, float], Any] | None = None,
    flat: float = 0.01,
    factor: float = 3.0,
    seed: int = 0,
) -> LearningRateReport:
    """Train copies of the model for some steps, one for each rate, and say what each rate does.

    loss:       function of (output, target)
    optimizer:  function of (parameters, rate) that makes an optimizer; None is plain gradient descent
    flat:       a loss (over all of x, y) that falls by less than this share is flat
    factor:     the loss explodes where it passes so many times the loss at the start, or is not finite
    seed:       of the order of the examples, the same for each rate

    Verdicts: "flat" (too small), "good", "unstable" (the loss jumps by a tenth or more and ends no lower) and
    "exploding". For the first number that is not finite the report names the step and the layer. The model is not
    changed.
    """
    owner = "learning_rate"
    model, loss = check_model(owner, model), check_loss(owner, loss)
    check_examples(owner, x, y)
    wanted = sorted(_check.real(owner, "rates", rate, 0, open_low=True) for rate in rates)
    if not wanted:
        raise ValueError(f"{owner}: expected rates to hold at least one number, got none")
    count = _check.integer(owner, "steps", steps, 1)
    size = min(_check.integer(owner, "batch_size", batch_size, 1), len(x))
    share = _check.real(owner, "flat", flat, 0, 1)
    limit = _check.real(owner, "factor", factor, 1, open_low=True)
    order = _batches(np.random.default_rng(_check.integer(owner, "seed", seed, 0)), len(x), size, count)
    if optimizer is None:
        from nnx.optim import SGD

        def optimizer(parameters: Any, lr: float) -> Any:
            return SGD(parameters, lr=lr)

    runs = []
    for lr in wanted:
        with untouched(model), np.errstate(all="ignore"):
            twin = copy.deepcopy(model)
            runs.append(_run(twin, loss, optimizer(twin.parameters(), lr), lr, x, y, order, share, limit))
    return LearningRateReport(runs)


def _batches(rng: np.random.Generator, n: int, size: int, steps: int) -> list[np.ndarray]:
    """Indices of so many batches, every example once before any comes again."""
    found: list[np.ndarray] = []
    while len(found) < steps:
        order = rng.permutation(n)
        found += [order[i : i + size] for i in range(0, n - size + 1, size)]
    return found[:steps]


def _run(
    model: Any, loss: Any, optimizer: Any, lr: float, x: Any, y: Any, order: list, flat: float, factor: float
) -> RateRun:
    before = _mean_loss(model, loss, x, y)
    losses: list[float] = []
    bad: NonFinite | None = None
    exploded: int | None = None
    for step, rows in enumerate(order, 1):
        optimizer.zero_grad()
        layer, total = _forward(model, loss, x[rows], y[rows])
        losses.append(float(total.item()))
        if exploded is None and not losses[-1] <= factor * before:
            exploded = step
        if layer is not None or not math.isfinite(losses[-1]):
            bad = NonFinite(step, *(layer or ("the loss", "value")))
            break
        total.backward()
        broken = [name for name, p in model.named_parameters() if not finite(p.grad)]
        if broken:  # the last one in the model is the first that the backward pass reaches
            bad = NonFinite(step, broken[-1], "gradient")
            break
        optimizer.step()
    after = math.nan if bad is not None else _mean_loss(model, loss, x, y)
    if bad is not None or exploded is not None or not math.isfinite(after):
        verdict = "exploding"
    elif after <= (1 - flat) * before:
        verdict = "good"
    else:
        verdict = "unstable" if max(*losses, after) > 1.1 * before else "flat"
    return RateRun(lr, losses, before, after, exploded, bad, verdict)


def _forward(model: Any, loss: Any, x: Any, y: Any) -> tuple[tuple[str, str] | None, Any]:
    """The loss, and the first layer with something that is not finite: its name, and what it is."""
    found: list[tuple[str, str]] = []

    def look(name: str, module: Any, inputs: tuple, output: Any) -> None:
        if found:
            return
        label = f"layer {name!r} ({type(module).__name__})"
        weights = [key for key, p in module.named_parameters() if not finite(p)]
        if weights:
            found.append((label, f"{weights[0]}"))
        elif not finite(output):
            array = value(output)
            found.append(
                (label, "output (NaN)" if array is not None and np.isnan(array).any() else "output (infinite)")
            )

    with watching(model, look):
        total = loss(model(x), y)
    return (found[0] if found else None), total


def _mean_loss(model: Any, loss: Any, x: Any, y: Any, size: int = 500) -> float:
    """The mean loss over all examples, without dropout, by batches."""
    with untouched(model, training=False), no_grad():
        sums = [float(loss(model(x[i : i + size]), y[i : i + size]).item()) * len(x[i : i + size])
                for i in range(0, len(x), size)]  # fmt: skip
    return sum(sums) / len(x)
