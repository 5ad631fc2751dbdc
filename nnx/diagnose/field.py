"""Receptive fields: how much of the input a unit sees, by the formula and by its gradient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnx import _check, nn
from nnx.autograd import Tensor
from nnx.diagnose._report import columns
from nnx.diagnose._trace import Field, Trace
from nnx.diagnose._watch import check_model, leaves, untouched, watching


@dataclass(frozen=True)
class LayerField:
    """What the units of one layer see: unit i along a dimension sees ``[start + i jump, start + i jump + size)``."""

    name: str
    kind: str
    output: tuple[int, ...]  # places along each dimension
    size: tuple[int, ...]
    jump: tuple[int, ...]
    start: tuple[int, ...]  # of unit 0; negative in the padding

    def window(self, position: Iterable[int]) -> list[tuple[int, int]]:
        """The interval (low, high), high excluded, along each dimension; it may reach beyond the input."""
        lows = [s + i * j for s, i, j in zip(self.start, position, self.jump, strict=True)]
        return [(low, low + size) for low, size in zip(lows, self.size, strict=True)]


@dataclass(frozen=True)
class FieldReport:
    """Receptive fields, layer by layer; `report[name]` is one layer."""

    input: tuple[int, ...]
    layers: list[LayerField]

    def __getitem__(self, name: str) -> LayerField:
        return next(layer for layer in self.layers if layer.name == name)

    def __str__(self) -> str:
        rows = [
            (a.name, a.kind, _times(a.output), _times(a.size), _times(a.jump), _times(a.start, ", "))
            for a in self.layers
        ]
        return columns(("layer", "kind", "output", "field", "jump", "start"), rows)

    def plot(self, path: str | Path | None = None) -> Any:
        """The size of the field, layer by layer, along the first dimension."""
        from nnx import viz

        series = {"field": [a.size[0] for a in self.layers], "input": [self.input[0]] * len(self.layers)}
        return viz.lines(series, xlabel="layer", ylabel="pixels", path=path)


def _times(numbers: Iterable[int], sign: str = "x") -> str:
    return sign.join(map(str, numbers))


def stacked_field(windows: Iterable[Any]) -> int:
    """The receptive field of a stack of windows: ``1 + sum over layers of dilation (kernel - 1) prod(strides before)``.

    windows:  a kernel size, or (kernel, stride), or (kernel, stride, dilation) for each layer

    >>> stacked_field([3, 3]), stacked_field([3, 3, 3]), stacked_field([(2, 2), (2, 2)])
    (5, 7, 4)
    """
    owner = "stacked_field"
    size = jump = 1
    for window in windows:
        parts = tuple(window) if isinstance(window, (tuple, list)) else (window,)
        if not 1 <= len(parts) <= 3:
            raise ValueError(f"{owner}: expected (kernel, stride, dilation) or less for each layer, got {window!r}")
        kernel, stride, dilation = (_check.integer(owner, "windows", n, 1) for n in (*parts, *(1, 1, 1)[len(parts) :]))
        size += dilation * (kernel - 1) * jump
        jump *= stride
    return size


def receptive_field(model: Any, input_shape: Iterable[int]) -> FieldReport:
    """How much of the input each layer's units see, along each spatial dimension.

    input_shape:  (C, spatial...) of one example

    The model runs once on zeros, in evaluation mode, and the tape says which layer reads which: branches that meet
    (ResNet, GoogLeNet, DenseNet) see the smallest box around both. ``size += dilation (kernel - 1) jump``, ``jump *=
    stride``, ``start -= padding jump`` for each convolution and pooling; a linear layer, a mean over the image and a
    norm over the image see the box around all they read; functions count like layers, but only layers are listed.
    ValueError, naming the operation, for transposed convolutions and for operations of your own: `measured_field` has
    no such limits. The model is not changed.

    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    >>> print(receptive_field(model, (1, 12, 12)))
    layer  kind    output  field  jump  start
    0      Conv2d  10x10   3x3    1x1   0, 0
    1      ReLU    10x10   3x3    1x1   0, 0
    2      Conv2d  8x8     5x5    1x1   0, 0
    """
    owner = "receptive_field"
    model = check_model(owner, model)
    shape = tuple(_check.integer(owner, "input_shape", n, 1) for n in input_shape)
    if len(shape) < 2:
        raise ValueError(f"{owner}: expected input_shape to be (C, spatial...), got {shape}")
    x = Tensor(np.zeros((1, *shape), _dtype(model)), requires_grad=True)
    trace = Trace(owner, x)
    found: list[LayerField] = []

    def look(name: str, module: Any, inputs: tuple, output: Any) -> None:
        y = output[0] if isinstance(output, (tuple, list)) and output else output
        if isinstance(y, Tensor) and y.requires_grad:
            found.append(_layer(name, type(module).__name__, trace.of(y)))

    with untouched(model, training=False):
        model.requires_grad_(False)  # the tape then holds what depends on the input, and nothing else
        with watching(model, look):
            model(x)
    return FieldReport(shape[1:], found)


def _layer(name: str, kind: str, seen: Field) -> LayerField:
    size = tuple(b - a + 1 for a, b in zip(seen.start, seen.end, strict=True))
    return LayerField(name, kind, seen.count, size, seen.jump, seen.start)


def _dtype(model: nn.Module) -> np.dtype:
    return next((p.dtype for p in model.parameters()), np.dtype(np.float32))


@dataclass(frozen=True)
class MeasuredField:
    """The part of the input that one place of a layer depends on, found by its gradient."""

    layer: str
    position: tuple[int, ...]
    windows: list[list[tuple[int, int]] | None]  # of each example; None where the gradient is zero everywhere
    theory: list[tuple[int, int]] | None  # cut to the input; None where `receptive_field` does not know the model
    strength: np.ndarray = field(repr=False, compare=False)  # mean of |gradient| over examples and channels

    @property
    def window(self) -> list[tuple[int, int]] | None:
        """The smallest box around the windows of all examples."""
        seen = [w for w in self.windows if w is not None]
        if not seen:
            return None
        return [(min(w[d][0] for w in seen), max(w[d][1] for w in seen)) for d in range(len(seen[0]))]

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(high - low for low, high in self.window or [])

    @property
    def agrees(self) -> bool | None:
        """Whether the window is the theory's; None without a theory."""
        return None if self.theory is None else self.window == self.theory

    def __str__(self) -> str:
        text = f"layer {self.layer!r} at {self.position}: "
        if self.window is None:
            return text + f"no gradient reaches the input in {len(self.windows)} examples"
        text += f"sees {_times(self.size)}, {_spans(self.window)}, over {len(self.windows)} examples"
        if self.theory is None:
            return text
        return f"{text}; theory {_spans(self.theory)}: {'equal' if self.agrees else 'different'}"

    def plot(self, path: str | Path | None = None) -> Any:
        """The strength of the gradient as an image."""
        from nnx import viz

        image = self.strength if self.strength.ndim == 2 else self.strength.reshape(len(self.strength), -1)
        return viz.images(image[None], titles=[f"{self.layer} at {self.position}"], path=path)


def _spans(window: Iterable[tuple[int, int]]) -> str:
    return " x ".join(f"[{low}, {high})" for low, high in window)


def measured_field(
    model: Any, layer: str, x: Any, position: Iterable[int] | None = None, seed: int = 0
) -> MeasuredField:
    """Where the gradient of one place of a layer is not zero, example by example.

    layer:     dotted name of a layer, as `receptive_field` prints it
    x:         examples (N, C, spatial...)
    position:  the place in the layer's output; None takes the middle one
    seed:      of the random weights with which the layer's channels are added up

    ReLU and max pooling pass the gradient on along some paths only, and which ones depends on the example: a unit's
    window in one example is a part of its theoretical field, and the union over many examples fills it. The model
    runs in evaluation mode and is not changed. KeyError if there is no such layer, ValueError if it has no place for
    `position`.
    """
    owner = "measured_field"
    model = check_model(owner, model)
    names = [name for name, _ in leaves(model)]
    if layer not in names:
        raise KeyError(f"{owner}: expected layer to be one of {', '.join(names)}, got {layer!r}")
    images = np.asarray(x.data if isinstance(x, Tensor) else x)
    if images.ndim < 3 or images.size == 0:
        raise ValueError(f"{owner}: expected examples x of shape (N, C, spatial...), got shape {images.shape}")
    dimensions = images.ndim - 2
    rng = np.random.default_rng(_check.integer(owner, "seed", seed, 0))
    inputs = Tensor(images.astype(_dtype(model)), requires_grad=True)
    seen: list[Tensor] = []

    def look(name: str, module: Any, given: tuple, output: Any) -> None:
        if name == layer:
            seen.append(output[0] if isinstance(output, (tuple, list)) else output)

    with untouched(model, training=False):
        model.requires_grad_(False)
        with watching(model, look):
            model(inputs)
        if not seen or not isinstance(seen[0], Tensor) or not seen[0].requires_grad:
            raise ValueError(f"{owner}: expected the output of layer {layer!r} to depend on the input, got one without")
        y = seen[0]
        spatial = y.shape[2:]
        place: tuple[int, ...] = tuple(n // 2 for n in spatial) if position is None else tuple(position)
        if len(place) != len(spatial) or not all(0 <= i < n for i, n in zip(place, spatial, strict=False)):
            raise ValueError(f"{owner}: expected position inside the places {spatial} of {layer!r}, got {place}")
        gradient = np.zeros(y.shape, y.dtype)
        where: tuple[Any, ...] = (slice(None), slice(None), *place)
        gradient[where] = rng.standard_normal(y.shape[1])
        y.backward(gradient)
    size = np.abs(inputs.grad)
    windows = [_window(example.max(axis=0) > 0) for example in size]
    strength = size.mean(axis=(0, 1), dtype=np.float64)
    return MeasuredField(layer, place, windows, _theory(model, layer, images.shape[1:], place, dimensions), strength)


def _window(support: np.ndarray) -> list[tuple[int, int]] | None:
    if not support.any():
        return None
    spans = []
    for axis in range(support.ndim):
        hit = np.flatnonzero(support.any(axis=tuple(a for a in range(support.ndim) if a != axis)))
        spans.append((int(hit[0]), int(hit[-1]) + 1))
    return spans


def _theory(model: Any, layer: str, shape: Any, place: tuple, dimensions: int) -> list[tuple[int, int]] | None:
    try:
        known = receptive_field(model, shape)[layer]
    except ValueError:
        return None
    full = known.window(place if len(place) == dimensions else (0,) * dimensions)
    return [(max(low, 0), min(high, n)) for (low, high), n in zip(full, shape[1:], strict=True)]
