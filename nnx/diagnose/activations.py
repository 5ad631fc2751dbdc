"""What the layers put out: statistics, dead units, saturated units."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnx import _check, nn
from nnx.autograd import no_grad
from nnx.diagnose._report import columns, percent
from nnx.diagnose._watch import check_model, leaves, untouched, value, watching

_RECTIFIERS = (nn.ReLU, nn.ReLU6)
_SQUASHERS = (nn.Sigmoid, nn.Tanh)


@dataclass(frozen=True)
class LayerActivations:
    """One layer's output over a batch."""

    name: str
    kind: str
    shape: tuple[int, ...]
    mean: float
    std: float
    minimum: float
    maximum: float
    zeros: float  # fraction of the numbers
    # at most 10,000 of the numbers, evenly taken, for histograms
    sample: np.ndarray = field(repr=False, compare=False)


@dataclass(frozen=True)
class ActivationReport:
    """Statistics of every layer's output; `report[name]` is one layer, `means` and `stds` are plain lists."""

    layers: list[LayerActivations]

    def __getitem__(self, name: str) -> LayerActivations:
        return next(layer for layer in self.layers if layer.name == name)

    @property
    def means(self) -> list[float]:
        return [layer.mean for layer in self.layers]

    @property
    def stds(self) -> list[float]:
        return [layer.std for layer in self.layers]

    def __str__(self) -> str:
        rows = [
            (a.name, a.kind, str(a.shape), a.mean, a.std, a.minimum, a.maximum, percent(a.zeros)) for a in self.layers
        ]
        return columns(("layer", "kind", "output", "mean", "std", "min", "max", "zeros"), rows)

    def plot(self, path: str | Path | None = None) -> Any:
        """Histograms of the layers' outputs."""
        from nnx import viz

        return viz.histograms({layer.name: layer.sample for layer in self.layers}, path=path)


def activation_statistics(model: Any, x: Any, kinds: Any = None) -> ActivationReport:
    """Mean, standard deviation, range and share of zeros of each layer's output, in evaluation mode.

    x:      a batch of inputs
    kinds:  a class of layers, or a tuple of them, such as ``nnx.nn.ReLU``; None takes every layer

    The model is not changed. What a forward method computes without a layer (``x.relu()``) is not seen.

    >>> import nnx
    >>> model = nnx.nn.Sequential(nnx.nn.ReLU())
    >>> report = activation_statistics(model, np.array([[-1.0, 3.0]], np.float32))
    >>> report["0"].mean, report["0"].zeros
    (1.5, 0.5)
    """
    owner = "activation_statistics"
    model = check_model(owner, model)
    wanted = _chosen(owner, model, nn.Module if kinds is None else kinds)
    found: list[LayerActivations] = []

    def look(name: str, module: Any, inputs: tuple, output: Any) -> None:
        array = value(output)
        if module in wanted and array is not None and array.size:
            found.append(_summary(name, type(module).__name__, array))

    _run(model, x, look)
    return ActivationReport(found)


def _summary(name: str, kind: str, array: np.ndarray) -> LayerActivations:
    flat = array.reshape(-1)
    return LayerActivations(
        name=name,
        kind=kind,
        shape=array.shape,
        mean=float(flat.mean(dtype=np.float64)),
        std=float(flat.std(dtype=np.float64)),
        minimum=float(flat.min()),
        maximum=float(flat.max()),
        zeros=float((flat == 0).mean()),
        sample=flat[:: -(-flat.size // 10_000)].copy(),
    )


@dataclass(frozen=True)
class LayerUnits:
    """One layer's units (features or channels), some of which are `bad`: dead, or saturated."""

    name: str
    kind: str
    units: int
    bad: list[int]  # indices of the units
    fraction: float


@dataclass(frozen=True)
class UnitReport:
    """Dead or saturated units, layer by layer."""

    what: str
    layers: list[LayerUnits]
    examples: int

    def __getitem__(self, name: str) -> LayerUnits:
        return next(layer for layer in self.layers if layer.name == name)

    @property
    def fraction(self) -> float:
        """Over all layers: the mean, weighted by the number of units."""
        units = sum(layer.units for layer in self.layers)
        return sum(layer.fraction * layer.units for layer in self.layers) / units if units else 0.0

    def __str__(self) -> str:
        rows = [(a.name, a.kind, a.units, len(a.bad), percent(a.fraction)) for a in self.layers]
        headers = ("layer", "kind", "units", self.what, "fraction")
        return f"{columns(headers, rows)}\n{self.what}: {percent(self.fraction)} over {self.examples} examples"

    def plot(self, path: str | Path | None = None) -> Any:
        """A bar for each layer."""
        from nnx import viz

        return viz.bars({layer.name: layer.fraction for layer in self.layers}, path=path)


def dead_units(model: Any, x: Any, kinds: Any = _RECTIFIERS) -> UnitReport:
    """The units of ReLU layers that are zero for every example: they get no gradient, and do not learn.

    x:      a batch, large enough to speak for the data
    kinds:  the classes of layers to look at

    A unit is a feature of outputs (N, F) and a channel of outputs (N, C, ...): a channel is dead if it is zero in
    every example and at every place. Evaluation mode; the model is not changed. ValueError if there is no such layer.

    >>> from nnx import nn
    >>> x = np.array([[-1.0, 2.0], [-3.0, 0.0]], np.float32)
    >>> dead_units(nn.Sequential(nn.ReLU()), x)["0"].bad
    [0]
    """
    return _units("dead_units", "dead", model, x, kinds, lambda y, kind: y == 0, whole=True)


def saturation(model: Any, x: Any, slope: float = 0.05, kinds: Any = _SQUASHERS) -> UnitReport:
    """How much of the sigmoid and tanh layers' output lies where the curve is flat.

    slope:  an output counts as saturated where the derivative is below this share of its largest value, 1/4 for the
            sigmoid and 1 for tanh; both conditions are the same, as tanh(x) = 2 sigmoid(2 x) - 1

    `fraction` is the share of the outputs, and `bad` lists the units saturated for every example, which learn next
    to nothing. Evaluation mode; the model is not changed. ValueError if there is no such layer.
    """
    limit = _check.real("saturation", "slope", slope, 0, 1)

    def flat(y: np.ndarray, kind: str) -> np.ndarray:
        return (4 * y * (1 - y) if kind == "Sigmoid" else 1 - y * y) < limit

    return _units("saturation", "saturated", model, x, kinds, flat, whole=False)


def _units(owner: str, what: str, model: Any, x: Any, kinds: Any, test: Any, whole: bool) -> UnitReport:
    """`whole`: the fraction is that of whole units; otherwise it is that of single outputs."""
    model = check_model(owner, model)
    wanted = _chosen(owner, model, kinds)
    found: list[LayerUnits] = []

    def look(name: str, module: Any, inputs: tuple, output: Any) -> None:
        array = value(output)
        if module not in wanted or array is None or array.size == 0:
            return
        hit = test(array, type(module).__name__)
        others = tuple(a for a in range(array.ndim) if a != min(1, array.ndim - 1))
        bad = np.flatnonzero(hit.all(axis=others)).tolist()
        units = array.shape[min(1, array.ndim - 1)]
        fraction = len(bad) / units if whole else float(hit.mean())
        found.append(LayerUnits(name, type(module).__name__, units, bad, fraction))

    _run(model, x, look)
    return UnitReport(what, found, len(x))


def _chosen(owner: str, model: Any, kinds: Any) -> set:
    """The layers of the given classes; ValueError if there are none."""
    classes = kinds if isinstance(kinds, tuple) else (kinds,)
    if not all(isinstance(kind, type) for kind in classes):
        raise TypeError(f"{owner}: expected kinds to be a class of layers or a tuple of them, got {kinds!r}")
    wanted = {module for _, module in leaves(model) if isinstance(module, classes)}
    if not wanted:
        names = ", ".join(kind.__name__ for kind in classes)
        raise ValueError(
            f"{owner}: expected model to have layers of type {names}, got none. Operations that forward calls as "
            "functions cannot be seen; write them as layers"
        )
    return wanted


def _run(model: Any, x: Any, look: Any) -> None:
    with untouched(model, training=False), watching(model, look), no_grad():
        model(x)
