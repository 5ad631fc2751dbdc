"""Search for hyper-parameters: random and on a grid, in log space, from coarse to fine, in several processes.

A search calls ``objective(parameters)``, which trains and returns a score, once for each trial.

>>> space = {"lr": LogUniform(1e-4, 1e-1), "hidden": Choice([16, 32])}
>>> result = random_search(lambda p: -abs(np.log10(p["lr"]) + 2.5), space, trials=20)
>>> round(math.log10(result.best.parameters["lr"]), 1)
-2.5
"""

from __future__ import annotations

import itertools
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnx import _check, _random
from nnx.io import read_json, write_json
from nnx.train._space import Choice, LogUniform, Sampler, Uniform, check_space

__all__ = [
    "Choice",
    "EdgeWarning",
    "LogUniform",
    "SearchResult",
    "Trial",
    "Uniform",
    "coarse_to_fine",
    "grid_search",
    "k_fold_scores",
    "random_search",
]

Objective = Callable[[dict[str, Any]], Any]

_EDGE = 0.05


class EdgeWarning(UserWarning):
    """The best value of a search lies at the edge of its range: a better one may lie outside."""


@dataclass(frozen=True)
class Trial:
    """One call of the objective."""

    number: int
    parameters: dict[str, Any]
    seed: int  # of the library's random stream, set before the objective is called
    score: float  # NaN where the run was stopped
    values: dict[str, Any] = field(default_factory=dict)  # what the objective returned beside the score
    note: str = ""  # why the run was stopped
    seconds: float = 0.0


@dataclass(frozen=True)
class SearchResult:
    """All trials of a search, in the order in which they were drawn."""

    space: Mapping[str, Sampler]
    trials: list[Trial]
    mode: str = "max"

    @property
    def ranked(self) -> list[Trial]:
        """Best first; runs that were stopped come last."""
        sign = -1 if self.mode == "max" else 1
        return sorted(self.trials, key=lambda t: (math.isnan(t.score), 0 if math.isnan(t.score) else sign * t.score))

    @property
    def best(self) -> Trial | None:
        """The best trial; None if no run has a score."""
        first = self.ranked[0] if self.trials else None
        return None if first is None or math.isnan(first.score) else first

    @property
    def at_edge(self) -> dict[str, str]:
        """Parameters whose best value lies within 5 % of the "lower" or "upper" edge of its range."""
        if self.best is None:
            return {}
        places = {name: sampler.place(self.best.parameters[name]) for name, sampler in self.space.items()}
        return {
            name: "lower" if place < _EDGE else "upper"
            for name, place in places.items()
            if place is not None and not _EDGE <= place <= 1 - _EDGE
        }

    @property
    def warnings(self) -> list[str]:
        """A sentence for each parameter whose best value lies at an edge."""
        return [
            f"the best {name}, {_short(self.best.parameters[name])}, lies at the {side} edge of {self.space[name]}: "
            "search further out"
            for name, side in self.at_edge.items()
            if self.best is not None
        ]

    @property
    def distinct(self) -> dict[str, int]:
        """How many different values of each parameter were tried."""
        return {name: len({_key(t.parameters[name]) for t in self.trials}) for name in self.space}

    def table(self) -> list[dict[str, Any]]:
        """The trials as plain dicts, in order: number, parameters, score, seconds, note, and the objective's values."""
        return [
            {"number": t.number, **t.parameters, "score": t.score, "seconds": t.seconds, "note": t.note, **t.values}
            for t in self.trials
        ]

    def __str__(self) -> str:
        return self.text()

    def text(self, top: int | None = 20) -> str:
        """The table as text, best first, and the warnings; `top` limits the rows."""
        rows = [
            (str(t.number), *(_short(t.parameters[name]) for name in self.space), f"{t.score:.6g}", _first(t.note))
            for t in self.ranked[:top]
        ]
        heads = ("trial", *self.space, "score", "note")
        widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in (heads, *rows)]
        if len(rows) < len(self.trials):
            lines.append(f"... and {len(self.trials) - len(rows)} more")
        return "\n".join([*lines, *(f"warning: {w}" for w in self.warnings)])

    def plot(self, path: str | Path | None = None) -> Any:
        """The score over each parameter, a plot for each; the best trial is a star."""
        from nnx.viz._figure import finish, new_figure

        owner = "SearchResult.plot"
        figure = new_figure(owner, path, 3.6 * len(self.space), 3.3)
        scored = [t for t in self.trials if math.isfinite(t.score)]
        for axes, (name, sampler) in zip(figure.subplots(1, len(self.space), squeeze=False)[0], self.space.items(),
                                         strict=True):  # fmt: skip
            positions = [sampler.axis(t.parameters[name]) for t in scored]
            axes.scatter(positions, [t.score for t in scored], s=14)
            if self.best is not None:
                axes.scatter([sampler.axis(self.best.parameters[name])], [self.best.score], s=120, marker="*", c="C3")
            axes.set_xscale("log" if isinstance(sampler, LogUniform) else "linear")
            if isinstance(sampler, Choice):
                axes.set_xticks(range(len(sampler.options)), [str(option) for option in sampler.options])
            axes.set_xlabel(name)
            axes.set_ylabel("score")
        return finish(owner, figure, path)


def random_search(
    objective: Objective,
    space: Mapping[str, Sampler],
    trials: int = 20,
    *,
    seed: int = 0,
    mode: str = "max",
    workers: int | None = 1,
    path: str | os.PathLike[str] | None = None,
) -> SearchResult:
    """Draw parameters at random and call the objective with each draw.

    objective:  function of a dict of parameters; returns the score, or a dict with "score" and other plain values.
                FloatingPointError (`nnx.train.StopOnNaN`, `StopOnExplosion`) stops a run, which then has no score;
                any other exception ends the search
    space:      names to `LogUniform`, `Uniform` or `Choice`
    seed:       trial i is drawn from (seed, i), and the library's random stream starts from its own seed in each
                trial, so that results depend neither on the workers nor on the number of trials
    mode:       "max" if large scores are good, "min" otherwise
    workers:    processes; 1 stays in this one, None takes one for each thread that nnx may use. The threads are shared
                out among them. With more than one, the objective must be importable (a function at the top of a
                module), and a script needs ``if __name__ == "__main__":``
    path:       a JSON file that is written after each trial; a search that finds it does only what is left

    Warns with EdgeWarning where the best value lies within 5 % of the edge of its range.

    Bergstra, Bengio, "Random search for hyper-parameter optimization", 2012; course document S2.
    """
    owner = "random_search"
    known = check_space(owner, space)
    count = _check.integer(owner, "trials", trials, 1)
    start = _check.integer(owner, "seed", seed, 0)
    draws = []
    for i in range(count):
        rng = np.random.default_rng([start, i])
        draws.append({name: sampler.sample(rng) for name, sampler in known.items()})
    return _search(owner, objective, known, draws, start, mode, workers, path)


def grid_search(
    objective: Objective,
    space: Mapping[str, Sampler],
    points: int | Mapping[str, int] = 5,
    *,
    seed: int = 0,
    mode: str = "max",
    workers: int | None = 1,
    path: str | os.PathLike[str] | None = None,
) -> SearchResult:
    """Call the objective at every point of a grid, edges included, evenly spaced in log space for `LogUniform`.

    points:  values along each axis, or along each named one; a Choice always has all its options

    Other arguments as for `random_search`. With as many trials, a grid tries far fewer different values of each
    parameter: 10 instead of 100 for two parameters.
    """
    owner = "grid_search"
    known = check_space(owner, space)
    if isinstance(points, Mapping):
        unknown = [name for name in points if name not in known]
        if unknown:
            raise ValueError(f"{owner}: expected points for {', '.join(known)}, got {', '.join(map(repr, unknown))}")
    axes = []
    for name, sampler in known.items():
        wanted = points.get(name, 5) if isinstance(points, Mapping) else points
        axes.append(sampler.grid(_check.integer(owner, "points", wanted, 1)))
    draws = [dict(zip(known, values, strict=True)) for values in itertools.product(*axes)]
    return _search(owner, objective, known, draws, _check.integer(owner, "seed", seed, 0), mode, workers, path)


def coarse_to_fine(
    objective: Objective | Sequence[Objective],
    space: Mapping[str, Sampler],
    trials: Sequence[int] = (20, 20),
    shrink: float = 0.3,
    *,
    extend: bool = False,
    seed: int = 0,
    mode: str = "max",
    workers: int | None = 1,
    path: str | os.PathLike[str] | None = None,
) -> list[SearchResult]:
    """Random searches one after the other, each in a smaller range around the best trial so far.

    objective:  one for all stages, or one for each: few epochs first, longer runs later
    trials:     of each stage
    shrink:     the width of the next range as a share of this one (of its logarithm for LogUniform)
    extend:     let a range reach beyond the first one, where the best lies at its edge; otherwise it ends there

    Returns the stages' results; other arguments as for `random_search`. Stages of one objective compare their scores;
    with an objective for each stage the next range lies around the stage's own best. With `path` "s.json", stage 2 is
    written to "s-2.json".
    """
    owner = "coarse_to_fine"
    known = check_space(owner, space)
    counts = [_check.integer(owner, "trials", n, 1) for n in trials]
    if not counts:
        raise ValueError(f"{owner}: expected trials of at least one stage, got none")
    width = _check.real(owner, "shrink", shrink, 0, 1, open_low=True)
    stages = list(objective) if isinstance(objective, Sequence) else [objective] * len(counts)
    if len(stages) != len(counts):
        raise ValueError(f"{owner}: expected an objective for each of {len(counts)} stages, got {len(stages)}")
    results: list[SearchResult] = []
    current = known
    for stage, (function, count) in enumerate(zip(stages, counts, strict=True), 1):
        file = None if path is None else _staged(path, stage)
        results.append(
            random_search(function, current, count, seed=_derived(seed, stage), mode=mode, workers=workers, path=file)
        )
        rivals = results if not isinstance(objective, Sequence) else results[-1:]
        best = SearchResult(known, [r.best for r in rivals if r.best is not None], mode).best
        if best is not None:
            current = {
                name: sampler.around(best.parameters[name], width, None if extend else known[name])
                for name, sampler in current.items()
            }
    return results


def k_fold_scores(
    score: Callable[[Any, Any, Any, Any], float],
    x: Any,
    y: Any,
    k: int = 5,
    *,
    stratify: bool = True,
    shuffle: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Train and score k times, each part of the data being the validation set once; an objective may return the dict.

    score:     function of (x_train, y_train, x_validation, y_validation)
    stratify:  every part has its share of each class; for targets that are no classes, pass False

    Returns "score" (the mean), "std" (of the k scores, divided by k - 1) and "scores".
    """
    from nnx.data.split import k_fold

    labels = np.asarray(y)
    folds = k_fold(len(labels), k, stratify=labels if stratify else None, shuffle=shuffle, seed=seed)
    scores = [float(score(x[train], y[train], x[held], y[held])) for train, held in folds]
    return {"score": float(np.mean(scores)), "std": float(np.std(scores, ddof=1)), "scores": scores}


# -- the trials ------------------------------------------------------------------------------------


def run_trial(objective: Objective, parameters: dict[str, Any], seed: int) -> dict[str, Any]:
    """Call the objective with a random stream of its own: score, values, note and seconds as plain data."""
    stream = _random.get_state()
    start = time.perf_counter()
    try:
        _random.manual_seed(seed)
        returned, note = objective(dict(parameters)), ""
    except FloatingPointError as error:
        returned, note = math.nan, str(error)
    finally:
        _random.set_state(stream)
    seconds = time.perf_counter() - start
    values = dict(returned) if isinstance(returned, Mapping) else {"score": returned}
    if "score" not in values:
        raise ValueError(f"objective: expected a number or a dict with 'score', got a dict with {', '.join(values)}")
    score = _score(values.pop("score"))
    if not math.isfinite(score):
        score, note = math.nan, note or f"the score is {score}"
    return {"score": score, "values": {k: _plain(v) for k, v in values.items()}, "note": note, "seconds": seconds}


def _search(
    owner: str,
    objective: Objective,
    space: dict[str, Sampler],
    draws: list[dict[str, Any]],
    seed: int,
    mode: str,
    workers: int | None,
    path: str | os.PathLike[str] | None,
) -> SearchResult:
    if not callable(objective):
        raise TypeError(f"{owner}: expected objective to be a function, got {type(objective).__name__}")
    _check.choice(owner, "mode", mode, ("max", "min"))
    seeds = [_derived(seed, i) for i in range(len(draws))]
    facts = {"search": owner, "space": {name: str(sampler) for name, sampler in space.items()}, "seed": seed}
    done = {} if path is None else _read(owner, path, facts)
    todo = [i for i in range(len(draws)) if i not in done]

    def finished(i: int, outcome: dict[str, Any]) -> None:
        done[i] = outcome
        if path is not None:
            rows = [
                {"number": n, "parameters": {k: _plain(v) for k, v in draws[n].items()}, **done[n]}
                for n in sorted(done) if n < len(draws)
            ]  # fmt: skip
            write_json(path, {**facts, "trials": rows})

    from nnx.train._workers import run_here, run_in_processes, share_of_threads

    count, threads = share_of_threads(owner, workers, len(todo))
    tasks = [(i, draws[i], seeds[i]) for i in todo]
    if count == 1:
        run_here(objective, tasks, finished)
    else:
        run_in_processes(owner, objective, tasks, finished, count, threads)
    result = SearchResult(space, [Trial(i, draws[i], seeds[i], **done[i]) for i in range(len(draws))], mode)
    for sentence in result.warnings:
        warnings.warn(f"{owner}: {sentence}", EdgeWarning, stacklevel=3)
    return result


def _read(owner: str, path: str | os.PathLike[str], facts: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The trials in a file of the same search; none if there is no file."""
    if not os.path.exists(path):
        return {}
    stored = read_json(path)
    if not isinstance(stored, dict) or {k: stored.get(k) for k in facts} != facts:
        raise ValueError(
            f"{owner}: expected {os.fspath(path)!r} to be of the same search (space and seed), got another one. "
            "Choose another path, or remove the file"
        )
    return {
        row["number"]: {
            "score": math.nan if row["score"] is None else row["score"],
            "values": row["values"],
            "note": row["note"],
            "seconds": row["seconds"],
        }
        for row in stored["trials"]
    }


def _derived(seed: int, i: int) -> int:
    """A seed that depends on both numbers."""
    return int(np.random.SeedSequence([seed, i]).generate_state(1)[0])


def _staged(path: str | os.PathLike[str], stage: int) -> str:
    stem, suffix = os.path.splitext(os.fspath(path))
    return f"{stem}-{stage}{suffix}" if stage > 1 else os.fspath(path)


def _score(value: Any) -> float:
    """`value` as a float; NaN and infinities are scores too, of runs that went wrong."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return value
    return _check.real("objective", "score", value)


def _plain(value: Any) -> Any:
    """`value` as what JSON can hold; text for what it cannot."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _first(note: str, length: int = 60) -> str:
    return note if len(note) <= length else note[: length - 3] + "..."


def _key(value: Any) -> Any:
    return value if isinstance(value, (int, float, str)) else repr(value)
