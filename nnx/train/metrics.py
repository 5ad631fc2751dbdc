"""What is measured beside the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np


def accuracy(output: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Whether the largest score is the target's: bools of the target's shape.

    output:  scores (N, C) or (N, C, ...)
    target:  class indices (N,) or (N, ...)

    >>> accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
    array([ True, False])
    """
    if output.ndim != target.ndim + 1 or target.dtype.kind not in "iu":
        raise ValueError(
            "accuracy: expected scores of shape (N, C, ...) and integer targets of shape (N, ...), "
            f"got {output.shape} and {target.dtype} {target.shape}"
        )
    return output.argmax(axis=1) == target


_KNOWN = {"accuracy": accuracy}

Metric = Callable[[np.ndarray, np.ndarray], Any]


def named_metrics(owner: str, metrics: Any) -> dict[str, Metric] | None:
    """`metrics` as a dict; None for "auto"."""
    if isinstance(metrics, str):
        if metrics == "auto":
            return None
        metrics = (metrics,)
    if not isinstance(metrics, Iterable):
        raise TypeError(f"{owner}: expected metrics to be a sequence of names or functions, got {metrics!r}")
    table: dict[str, Metric] = {}
    for metric in metrics:
        if isinstance(metric, str):
            if metric not in _KNOWN:
                raise ValueError(
                    f"{owner}: expected metrics among {', '.join(map(repr, _KNOWN))} or functions, got {metric!r}"
                )
            table[metric] = _KNOWN[metric]
        elif callable(metric):
            table[getattr(metric, "__name__", type(metric).__name__)] = metric
        else:
            raise TypeError(f"{owner}: expected each of metrics to be a name or a function, got {metric!r}")
    return table


def fitting_metrics(output: Any, target: Any) -> dict[str, Metric]:
    """What "auto" means for such a batch: accuracy for class indices, nothing otherwise."""
    classes = (
        isinstance(output, np.ndarray)
        and isinstance(target, np.ndarray)
        and target.dtype.kind in "iu"
        and output.ndim == target.ndim + 1
    )
    return {"accuracy": accuracy} if classes else {}


def total_of(value: Any, count: int) -> tuple[float, int]:
    """Sum and number of what a metric returned: one value per sample (or pixel), or the mean of `count` samples."""
    array = np.asarray(value)
    return (float(array.sum()), array.size) if array.ndim else (float(array) * count, count)


class Means:
    """Running means of named numbers, weighted by the number of samples; resumable."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def add(self, name: str, total: float, count: int) -> None:
        entry = self._sums.setdefault(name, [0.0, 0])
        entry[0] += total
        entry[1] += count

    def add_totals(self, totals: Mapping[str, tuple[float, int]]) -> None:
        for name, (total, count) in totals.items():
            self.add(name, total, count)

    def totals(self) -> dict[str, tuple[float, int]]:
        return {name: (total, int(count)) for name, (total, count) in self._sums.items()}

    @classmethod
    def of(cls, totals: Mapping[str, tuple[float, int]]) -> Means:
        means = cls()
        means.add_totals(totals)
        return means

    def values(self) -> dict[str, float]:
        return {name: total / max(count, 1) for name, (total, count) in self._sums.items()}

    def state_dict(self) -> dict[str, list[float]]:
        return {name: list(entry) for name, entry in self._sums.items()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        self._sums = {name: list(entry) for name, entry in state.items()}
