"""How large the gradient is in each layer: does it reach the first ones, does it grow on the way?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnx.autograd import Tensor
from nnx.diagnose._report import columns, number
from nnx.diagnose._watch import check_examples, check_loss, check_model, untouched, watching


@dataclass(frozen=True)
class LayerGradient:
    """One layer's share in a backward pass, as Euclidean norms."""

    name: str
    kind: str
    output: float  # of the loss's gradient with respect to the layer's output
    parameters: float | None  # with respect to all its parameters; None if it has none
    weights: float | None  # of the parameters themselves


@dataclass(frozen=True)
class GradientReport:
    """Norms of gradients, from the first layer to the last."""

    loss: float
    layers: list[LayerGradient]

    def __getitem__(self, name: str) -> LayerGradient:
        return next(layer for layer in self.layers if layer.name == name)

    def norms(self, kind: str | None = None) -> list[float]:
        """Norms of the gradients of the outputs, of the layers of one kind ("Sigmoid") or of all."""
        return [layer.output for layer in self.layers if kind in (None, layer.kind)]

    @property
    def factor(self) -> float:
        """How the gradient changes from the output of one layer with parameters to that of the one before, on average.

        Below 1 it shrinks on its way back; the geometric mean of the steps. NaN with fewer than two such layers.
        """
        norms = [layer.output for layer in self.layers if layer.parameters is not None]
        if len(norms) < 2 or not norms[-1]:
            return math.nan
        return (norms[0] / norms[-1]) ** (1 / (len(norms) - 1))

    @property
    def verdict(self) -> str:
        """ "vanishing" or "exploding" if the first layer's gradient is 1000 times smaller or larger than the last's."""
        count = sum(layer.parameters is not None for layer in self.layers)
        whole = self.factor ** (count - 1) if count > 1 else math.nan
        if not all(math.isfinite(layer.output) for layer in self.layers):
            return "not finite"
        return "vanishing" if whole < 1e-3 else "exploding" if whole > 1e3 else "even"

    def __str__(self) -> str:
        rows = [(a.name, a.kind, a.output, a.parameters, a.weights) for a in self.layers]
        text = columns(("layer", "kind", "|gradient of output|", "|gradient of weights|", "|weights|"), rows)
        return f"{text}\n{self.verdict}: a factor of {number(self.factor)} per layer on the way back"

    def plot(self, path: str | Path | None = None) -> Any:
        """The norms on a logarithmic axis, layer by layer."""
        from nnx import viz

        series = {"output": self.norms()}
        places = [(i, a.parameters) for i, a in enumerate(self.layers) if a.parameters is not None]
        if places:
            series["weights"] = tuple(map(list, zip(*places, strict=True)))  # type: ignore[assignment]
        return viz.lines(series, xlabel="layer", ylabel="norm of the gradient", log="y", path=path)


def gradient_norms(model: Any, loss: Any, x: Any, y: Any) -> GradientReport:
    """The norm of the loss's gradient in every layer, for its output and for its parameters.

    loss:  function of (output, target), such as ``nnx.nn.CrossEntropyLoss()``
    x, y:  a batch of inputs and targets

    In a chain the gradient of a layer is a product of one factor per later layer: a sigmoid's slope is at most 1/4,
    so each sigmoid layer with weights of gain 1 divides it by four or more. The model, its gradients and its buffers
    are not changed.
    """
    owner = "gradient_norms"
    model, loss = check_model(owner, model), check_loss(owner, loss)
    check_examples(owner, x, y)
    seen: list[tuple[str, Any, Tensor]] = []

    def look(name: str, module: Any, inputs: tuple, output: Any) -> None:
        first = output[0] if isinstance(output, (tuple, list)) and output else output
        if isinstance(first, Tensor) and first.requires_grad and not first.is_leaf:
            first.retain_grad()
            seen.append((name, module, first))

    with untouched(model):
        with watching(model, look):
            total = loss(model(x), y)
        if not isinstance(total, Tensor) or not total.requires_grad:
            raise ValueError(f"{owner}: expected a loss that depends on the model's parameters, got one that does not")
        total.backward()
        layers = [
            LayerGradient(
                name,
                type(module).__name__,
                _norm([output.grad]),
                _norm([p.grad for p in module.parameters()]) if list(module.parameters()) else None,
                _norm([p.data for p in module.parameters()]) if list(module.parameters()) else None,
            )
            for name, module, output in seen
        ]
    return GradientReport(float(total.item()), layers)


def _norm(arrays: list[Any]) -> float:
    """The Euclidean norm of all numbers together; what has no gradient counts as zero."""
    with np.errstate(all="ignore"):
        return math.sqrt(sum(float(np.square(a, dtype=np.float64).sum()) for a in arrays if a is not None))
