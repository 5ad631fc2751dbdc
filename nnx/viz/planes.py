"""Pictures over a plane: where a classifier decides what, and which way an optimizer takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nnx import _check
from nnx.viz._figure import PathLike, finish, new_figure

_COLOURS = "tab10"


def decision_regions(
    predict: Any,
    x: Any,
    y: Any,
    path: PathLike | None = None,
    resolution: int = 200,
    limits: tuple[float, float, float, float] | None = None,
    title: str = "",
) -> Any:
    """Colour the plane by the class that a classifier gives to each point, with the data on top.

    predict:     a function from points (n, 2) to classes (n,) or to scores (n, C), or anything with such a ``predict``:
                 a `nnx.nn.Module`, an estimator of `nnx.classic`
    x, y:        points (N, 2) and their integer classes (N,)
    resolution:  points along each side
    limits:      (left, right, bottom, top); None takes the data and a margin
    """
    owner = "viz.decision_regions"
    points, classes = np.asarray(x, np.float64), np.asarray(y)
    if points.ndim != 2 or points.shape[1] != 2 or classes.shape != points.shape[:1] or len(points) == 0:
        raise ValueError(
            f"{owner}: expected x of shape (N, 2) and y of shape (N,), got {points.shape} and {classes.shape}"
        )
    side = _check.integer(owner, "resolution", resolution, 2)
    left, right, bottom, top = _limits(owner, limits, points)
    across, up = np.linspace(left, right, side), np.linspace(bottom, top, side)
    grid = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    regions = _classes_of(owner, predict, grid).reshape(side, side)
    names = np.union1d(classes, regions)
    figure = new_figure(owner, path, 5.0, 4.6)
    axes = figure.subplots()
    # colours by place among the classes, so that labels such as -1 and 1 work
    axes.imshow(
        np.searchsorted(names, regions), cmap=_COLOURS, vmin=0, vmax=9, alpha=0.35, origin="lower", aspect="auto",
        extent=(left, right, bottom, top), interpolation="nearest",
    )  # fmt: skip
    axes.scatter(
        points[:, 0], points[:, 1], c=np.searchsorted(names, classes), cmap=_COLOURS, vmin=0, vmax=9, s=18,
        edgecolors="black", linewidths=0.5,
    )  # fmt: skip
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_title(title)
    return finish(owner, figure, path)


def paths(
    f: Callable[[Any], Any],
    paths: Mapping[str, Any],
    path: PathLike | None = None,
    limits: tuple[float, float, float, float] | None = None,
    log: bool = False,
    title: str = "",
) -> Any:
    """Draw the ways that optimizers take over the contours of a function of two numbers.

    f:       called with a point p, uses ``p[0]`` and ``p[1]``: ``lambda p: 5 * p[0]**2 + 0.5 * p[1]**2``
    paths:   names to arrays (T, 2), one row per step; a way that leaves the picture or turns NaN is cut there
    limits:  (left, right, bottom, top); None takes what the paths cover
    log:     contours at equal ratios of f, for a function that is positive and spans many powers of ten
    """
    owner = "viz.paths"
    if not isinstance(paths, Mapping) or not paths:
        raise ValueError(f"{owner}: expected paths to be a dict with at least one path, got {paths!r}")
    ways = {name: np.asarray(way, np.float64) for name, way in paths.items()}
    for name, way in ways.items():
        if way.ndim != 2 or way.shape[1] != 2 or len(way) == 0:
            raise ValueError(f"{owner}: expected paths[{name!r}] of shape (T, 2), got {way.shape}")
    covered = np.concatenate(list(ways.values()))
    left, right, bottom, top = _limits(owner, limits, covered[np.isfinite(covered).all(axis=1)])
    across, up = np.linspace(left, right, 120), np.linspace(bottom, top, 120)
    height = _heights(f, np.stack(np.meshgrid(across, up)))
    figure = new_figure(owner, path, 6.0, 5.0)
    axes = figure.subplots()
    if log:
        from matplotlib.colors import LogNorm
        from matplotlib.ticker import LogLocator

        positive = np.where(height > 0, height, np.nan)
        axes.contour(across, up, positive, locator=LogLocator(subs="all"), norm=LogNorm(), cmap="Greys", linewidths=0.6)
    else:
        axes.contour(across, up, height, 25, cmap="Greys", linewidths=0.6)
    for name, way in ways.items():
        axes.plot(way[:, 0], way[:, 1], marker="." if len(way) < 60 else "", linewidth=1.3, label=name)
    start = next(iter(ways.values()))[0]
    axes.plot(start[0], start[1], "k*", markersize=10)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.legend()
    axes.set_title(title)
    return finish(owner, figure, path)


def _limits(owner: str, limits: Any, points: np.ndarray) -> tuple[float, float, float, float]:
    if limits is None:
        if len(points) == 0:
            raise ValueError(f"{owner}: expected at least one finite point, got none. Give limits")
        low, high = points.min(axis=0), points.max(axis=0)
        margin = 0.1 * np.where(high > low, high - low, 1.0)
        return tuple(np.stack([low - margin, high + margin], axis=1).ravel().tolist())
    values = [_check.real(owner, "limits", value) for value in limits]
    if len(values) != 4 or values[0] >= values[1] or values[2] >= values[3]:
        raise ValueError(f"{owner}: expected limits to be (left, right, bottom, top), got {limits!r}")
    return tuple(values)  # type: ignore[return-value]


def _classes_of(owner: str, predict: Any, points: np.ndarray) -> np.ndarray:
    function = getattr(predict, "predict", predict)
    if not callable(function):
        raise TypeError(f"{owner}: expected predict to be a function or to have one, got {type(predict).__name__}")
    answer = np.asarray(function(points))
    if answer.ndim == 2 and answer.shape[1] > 1:
        answer = answer.argmax(axis=1)
    if answer.shape != points.shape[:1]:
        raise ValueError(
            f"{owner}: expected predict to answer {len(points)} points with classes of shape ({len(points)},) or "
            f"scores of shape ({len(points)}, C), got {answer.shape}"
        )
    return answer


def _heights(f: Callable[[Any], Any], grid: np.ndarray) -> np.ndarray:
    """f over a (2, rows, columns) grid at once if f can, else point by point."""
    try:
        height = np.asarray(f(grid), np.float64)
        if height.shape == grid.shape[1:]:
            return height
    except (TypeError, ValueError, IndexError):
        pass  # f takes one point at a time
    rows = [[float(f(grid[:, i, j])) for j in range(grid.shape[2])] for i in range(grid.shape[1])]
    return np.array(rows)
