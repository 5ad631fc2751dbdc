"""Lines, bars and tables of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnx import _check
from nnx.viz._figure import PathLike, finish, new_figure


def curves(history: Mapping[str, Sequence[Any]], path: PathLike | None = None, title: str = "") -> Any:
    """Draw what was measured over the epochs: one plot per quantity, training and validation together.

    history:  a `nnx.train.History` or any dict of equally long lists; "val_loss" is drawn with "loss", None is a gap,
              "seconds" is left out

    Raises TypeError if it is no dict, ValueError if nothing in it can be drawn.
    """
    owner = "viz.curves"
    if not isinstance(history, Mapping):
        raise TypeError(f"{owner}: expected history to be a dict of lists, got {type(history).__name__}")
    groups: dict[str, list[tuple[str, np.ndarray]]] = {}
    for name, values in history.items():
        if name == "seconds":
            continue
        line = np.array([np.nan if value is None else value for value in values], np.float64)
        if line.ndim != 1:
            raise ValueError(f"{owner}: expected a list of numbers in {name!r}, got shape {line.shape}")
        validation = name.startswith("val_")
        groups.setdefault(name.removeprefix("val_"), []).append(("validation" if validation else "training", line))
    if not groups:
        raise ValueError(f"{owner}: expected history to hold at least one list of numbers, got {list(history)}")
    figure = new_figure(owner, path, 4.2 * len(groups), 3.3)
    for axes, (quantity, entries) in zip(
        figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True
    ):
        for label, line in entries:
            axes.plot(np.arange(1, len(line) + 1), line, marker="." if len(line) < 60 else "", label=label)
        _label(axes, "epoch", quantity)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if len(entries) > 1:
            axes.legend()
    figure.suptitle(title)
    return finish(owner, figure, path)


def lines(
    series: Mapping[str, Any],
    xlabel: str = "",
    ylabel: str = "",
    log: str | None = None,
    path: PathLike | None = None,
    title: str = "",
) -> Any:
    """Draw named lines in one plot.

    series:  names to ``y`` or to ``(x, y)``; a plain y counts its x from 0
    log:     "x", "y" or "xy" for logarithmic axes

    >>> figure = lines({"loss": [3.0, 1.0, 0.5]}, xlabel="step", log="y")  # doctest: +SKIP
    """
    owner = "viz.lines"
    _check.choice(owner, "log", log, (None, "x", "y", "xy"))
    drawn = {name: _line(owner, name, values) for name, values in _filled(owner, "series", series).items()}
    figure = new_figure(owner, path, 6.0, 4.0)
    axes = figure.subplots()
    for name, (x, y) in drawn.items():
        axes.plot(x, y, marker="." if len(x) < 40 else "", label=name)
    axes.set_xscale("log" if log is not None and "x" in log else "linear")
    axes.set_yscale("log" if log is not None and "y" in log else "linear")
    _label(axes, xlabel, ylabel, title)
    axes.legend()
    return finish(owner, figure, path)


def bars(
    values: Mapping[str, float], ylabel: str = "", log: bool = False, path: PathLike | None = None, title: str = ""
) -> Any:
    """Draw one bar per name, on a logarithmic axis if `log`."""
    owner = "viz.bars"
    heights = [_check.real(owner, f"values[{name!r}]", v) for name, v in _filled(owner, "values", values).items()]
    names = [str(name) for name in values]
    width = max(4.0, 0.6 * len(names))
    crowded = max(map(len, names)) * len(names) > 9 * width  # about what fits side by side
    figure = new_figure(owner, path, width, 3.6)
    axes = figure.subplots()
    axes.bar(range(len(heights)), heights)
    axes.set_xticks(
        range(len(heights)), names, rotation=25 if crowded else 0, ha="right" if crowded else "center",
        rotation_mode="anchor",
    )  # fmt: skip
    axes.set_yscale("log" if log else "linear")
    _label(axes, "", ylabel, title)
    return finish(owner, figure, path)


def histograms(
    arrays: Mapping[str, Any],
    bins: int = 30,
    range: tuple[float, float] | None = None,
    path: PathLike | None = None,
    columns: int = 5,
) -> Any:
    """Draw one histogram per named array, side by side with mean and standard deviation, NaN and infinities left out.

    bins, range:  as in `numpy.histogram`; None takes each array's own range
    """
    owner = "viz.histograms"
    _check.integer(owner, "bins", bins, 1)
    _check.integer(owner, "columns", columns, 1)
    flat = {name: np.asarray(array, np.float64).ravel() for name, array in _filled(owner, "arrays", arrays).items()}
    across = min(columns, len(flat))
    down = -(-len(flat) // across)
    figure = new_figure(owner, path, 2.3 * across, 2.1 * down)
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (name, values) in zip(grid, flat.items(), strict=False):
        finite = values[np.isfinite(values)]
        axes.hist(finite, bins=bins, range=range)
        shown = f"{name}\n{finite.mean():.3g} +- {finite.std():.3g}" if finite.size else f"{name}\nno finite value"
        axes.set_title(shown, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.set_yticks([])
    for axes in grid[len(flat) :]:
        axes.set_axis_off()
    return finish(owner, figure, path)


def confusion_matrix(
    y: Any, predicted: Any, labels: Sequence[Any] | None = None, path: PathLike | None = None, title: str = ""
) -> Any:
    """Draw how often class i (row) was taken for class j (column).

    y, predicted:  integer classes (N,) from 0; `predicted` may be scores (N, C), of which the largest counts
    labels:        names of the classes; None shows their numbers
    """
    owner = "viz.confusion_matrix"
    counts = confusion_counts(owner, y, predicted, None if labels is None else len(labels))
    names = [str(i) for i in range(len(counts))] if labels is None else [str(label) for label in labels]
    figure = new_figure(owner, path, 1.6 + 0.5 * len(counts), 1.4 + 0.5 * len(counts))
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            if count:
                axes.text(j, i, str(count), ha="center", va="center", color="white" if share[i, j] > 0.5 else "black")
    axes.set_xticks(range(len(names)), names, rotation=45 if max(map(len, names)) > 3 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title)
    return finish(owner, figure, path)


def confusion_counts(owner: str, y: Any, predicted: Any, classes: int | None = None) -> np.ndarray:
    """The counts (C, C): row = true class, column = predicted class."""
    true = _classes(owner, "y", np.asarray(y))
    guess = np.asarray(predicted)
    guess = _classes(owner, "predicted", guess.argmax(axis=1) if guess.ndim == 2 and guess.shape[1] else guess)
    if true.shape != guess.shape:
        raise ValueError(
            f"{owner}: expected predicted to hold one class for each of the {len(true)} labels, got {len(guess)}"
        )
    needed = int(max(true.max(), guess.max())) + 1
    if classes is not None and classes < needed:
        raise ValueError(f"{owner}: expected labels to name at least {needed} classes, got {classes}")
    size = needed if classes is None else classes
    return np.bincount(true * size + guess, minlength=size * size).reshape(size, size)


def _classes(owner: str, name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.size == 0 or array.min() < 0:
        raise ValueError(
            f"{owner}: expected {name} to be a filled (N,) array of integers >= 0, "
            f"got {array.dtype} of shape {array.shape}"
        )
    return array.astype(np.int64)


def _filled(owner: str, name: str, values: Any) -> Mapping[str, Any]:
    if not isinstance(values, Mapping) or not values:
        raise ValueError(f"{owner}: expected {name} to be a dict with at least one entry, got {values!r}")
    return values


def _line(owner: str, name: str, values: Any) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(values, tuple) and len(values) == 2 and np.ndim(values[0]) == 1:
        x, y = (np.asarray(part, np.float64) for part in values)
    else:
        y = np.asarray(values, np.float64)
        x = np.arange(len(y), dtype=np.float64) if y.ndim == 1 else y
    if y.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            f"{owner}: expected series[{name!r}] to be y of shape (T,) or (x, y) of equal length, "
            f"got x of shape {x.shape} and y of shape {y.shape}"
        )
    return x, y


def _label(axes: Any, xlabel: str, ylabel: str, title: str = "") -> None:
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_title(title)
    axes.grid(alpha=0.3)
