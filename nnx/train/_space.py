"""Ranges of hyper-parameters: what a search draws from."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnx import _check


class Sampler(ABC):
    """What `LogUniform`, `Uniform` and `Choice` can do."""

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> Any:
        """One value at random."""

    @abstractmethod
    def grid(self, points: int) -> list[Any]:
        """So many values, evenly spread, edges included; the middle if it is one."""

    @abstractmethod
    def place(self, value: Any) -> float | None:
        """Where `value` lies between the edges, 0 to 1; None where there are no edges."""

    @abstractmethod
    def around(self, value: Any, share: float, limits: Any = None) -> Sampler:
        """A range of `share` of this width with `value` in its middle, cut to the range `limits`."""

    def axis(self, value: Any) -> float:
        """Where to draw `value`."""
        return float(value)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


class Uniform(Sampler):
    """Numbers with equal chances from `low` to `high`.

    >>> Uniform(0, 1).grid(3)
    [0.0, 0.5, 1.0]
    """

    def __init__(self, low: float, high: float) -> None:
        owner = type(self).__name__
        self.low = self._bound(owner, "low", low)
        self.high = self._bound(owner, "high", high)
        if not self.low < self.high:
            raise ValueError(f"{owner}: expected low below high, got {low!r} and {high!r}")

    def _bound(self, owner: str, name: str, value: Any) -> float:
        number = _check.real(owner, name, value)
        if not math.isfinite(number):
            raise ValueError(f"{owner}: expected {name} to be finite, got {value!r}")
        return number

    # a LogUniform is a Uniform of logarithms

    def _to(self, value: float) -> float:
        return float(value)

    def _back(self, number: float) -> float:
        return float(number)

    def _edges(self) -> tuple[float, float]:
        return self._to(self.low), self._to(self.high)

    def sample(self, rng: np.random.Generator) -> float:
        return self._inside(self._back(rng.uniform(*self._edges())))

    def grid(self, points: int) -> list[float]:
        low, high = self._edges()
        if points == 1:
            return [self._back((low + high) / 2)]
        inner = [self._back(v) for v in np.linspace(low, high, points)[1:-1]]
        return [self.low, *inner, self.high]

    def place(self, value: Any) -> float:
        low, high = self._edges()
        return (self._to(value) - low) / (high - low)

    def around(self, value: Any, share: float, limits: Any = None) -> Uniform:
        low, high = self._edges()
        half = share * (high - low) / 2
        new_low, new_high = self._back(self._to(value) - half), self._back(self._to(value) + half)
        if limits is not None:
            new_low, new_high = max(new_low, limits.low), min(new_high, limits.high)
        return type(self)(new_low, new_high)

    def _inside(self, value: float) -> float:
        return min(max(value, self.low), self.high)  # the logarithm and back may round beyond an edge

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.low!r}, {self.high!r})"


class LogUniform(Uniform):
    """Positive numbers whose logarithm is uniform: as many from 1e-4 to 1e-3 as from 1e-3 to 1e-2.

    >>> [round(v, 6) for v in LogUniform(1e-4, 1e-2).grid(3)]
    [0.0001, 0.001, 0.01]
    """

    def _bound(self, owner: str, name: str, value: Any) -> float:
        return super()._bound(owner, name, _check.real(owner, name, value, 0, open_low=True))

    def _to(self, value: float) -> float:
        return math.log(value)

    def _back(self, number: float) -> float:
        return math.exp(number)


class Choice(Sampler):
    """One of several options, with equal chances.

    >>> Choice(["sgd", "adam"]).grid(7)
    ['sgd', 'adam']
    """

    def __init__(self, options: Sequence[Any]) -> None:
        if isinstance(options, str) or not isinstance(options, Sequence) or not options:
            raise ValueError(f"Choice: expected options to be a list of at least one, got {options!r}")
        self.options = list(options)

    def sample(self, rng: np.random.Generator) -> Any:
        return self.options[int(rng.integers(len(self.options)))]

    def grid(self, points: int) -> list[Any]:
        return list(self.options)

    def place(self, value: Any) -> None:
        return None

    def around(self, value: Any, share: float, limits: Any = None) -> Choice:
        return self

    def axis(self, value: Any) -> float:
        return float(self.options.index(value))

    def __repr__(self) -> str:
        return f"Choice({self.options!r})"


def check_space(owner: str, space: Any) -> dict[str, Sampler]:
    """`space` as a dict; TypeError or ValueError for anything that is none."""
    if not isinstance(space, Mapping) or not space:
        raise ValueError(f"{owner}: expected space to be a dict of names and ranges, got {space!r}")
    for name, sampler in space.items():
        if not isinstance(name, str) or not isinstance(sampler, Sampler):
            raise TypeError(
                f"{owner}: expected space[{name!r}] to be LogUniform, Uniform or Choice, got {type(sampler).__name__}"
            )
    return dict(space)
