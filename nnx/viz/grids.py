"""Images, filters and activation maps, laid out in one mosaic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnx import _check
from nnx.autograd import Tensor
from nnx.viz._figure import PathLike, finish, new_figure
from nnx.viz.units import activations

_WHITE = 255


def as_images(arrays: Any, shape: Sequence[int] | None = None, scale: str = "each") -> np.ndarray:
    """Turn numbers into pixels: uint8 of shape (N, H, W), or (N, H, W, 3) for three channels.

    arrays:  (N, H, W), (N, C, H, W) or (N, H, W, 3); C is 1 or 3
    shape:   of one image, for rows of numbers: the (10, 3072) weights of a linear classifier are ten images of shape
             (3, 32, 32)
    scale:   "each" stretches every image from its smallest to its largest number over 0..255, "all" stretches them
             together; uint8 stays as it is. NaN becomes 0.

    >>> as_images(np.arange(8.0).reshape(2, 4), shape=(2, 2)).tolist()
    [[[0, 85], [170, 255]], [[0, 85], [170, 255]]]
    """
    return _as_images("viz.as_images", arrays, shape, scale)


def _as_images(owner: str, arrays: Any, shape: Sequence[int] | None, scale: str) -> np.ndarray:
    _check.choice(owner, "scale", scale, ("each", "all"))
    array = np.asarray(arrays.data if isinstance(arrays, Tensor) else arrays)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{owner}: expected images to be numbers, got dtype {array.dtype}")
    if shape is not None:
        size = tuple(_check.integer(owner, "shape", n, 1) for n in shape)
        if array.ndim == 0 or array.size != len(array) * int(np.prod(size)):
            raise ValueError(f"{owner}: expected rows of {int(np.prod(size))} numbers for {size}, got {array.shape}")
        array = array.reshape(len(array), *size)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    elif array.ndim == 4 and array.shape[1] == 3:
        array = array.transpose(0, 2, 3, 1)
    if array.size == 0 or not (array.ndim == 3 or (array.ndim == 4 and array.shape[3] == 3)):
        raise ValueError(
            f"{owner}: expected images of shape (N, H, W), (N, C, H, W) or (N, H, W, 3) with 1 or 3 channels, "
            f"got shape {array.shape}"
        )
    return array if array.dtype == np.uint8 else _stretch(array.astype(np.float64), scale)


def _stretch(array: np.ndarray, scale: str) -> np.ndarray:
    axes = tuple(range(1, array.ndim)) if scale == "each" else None
    finite = np.isfinite(array)
    low = np.min(array, axis=axes, keepdims=True, where=finite, initial=np.inf)
    high = np.max(array, axis=axes, keepdims=True, where=finite, initial=-np.inf)
    low = np.where(np.isfinite(low), low, 0.0)  # an image without a finite number
    span = np.where(np.isfinite(high) & (high > low), high - low, 1.0)
    pixels = np.clip((np.where(np.isnan(array), low, array) - low) / span, 0, 1) * _WHITE
    return np.rint(pixels).astype(np.uint8)


def images(
    arrays: Any,
    titles: Sequence[Any] | None = None,
    columns: int | None = None,
    path: PathLike | None = None,
    scale: str = "all",
    title: str = "",
) -> Any:
    """Draw images side by side.

    arrays, scale:  see `as_images`
    titles:         one text per image
    columns:        images in a row; None makes the mosaic about square
    """
    return _mosaic("viz.images", _as_images("viz.images", arrays, None, scale), titles, columns, path, title)


def filters(
    weight: Any,
    path: PathLike | None = None,
    shape: Sequence[int] | None = None,
    titles: Sequence[Any] | None = None,
    columns: int | None = None,
    title: str = "",
) -> Any:
    """Draw the weights of a convolution as images, or those of a linear layer as templates.

    weight:  (out, in, kh, kw), a Parameter or an array: in colour for 3 input channels, else one row of `in` grey
             pieces per filter; or (out, features) with `shape`, the shape (C, H, W) or (H, W) of an input
    """
    owner = "viz.filters"
    array = np.asarray(weight.data if isinstance(weight, Tensor) else weight)
    if shape is None and array.ndim == 4 and array.shape[1] not in (1, 3):
        columns = array.shape[1] if columns is None else columns
        array = array.reshape(-1, 1, *array.shape[2:])
    elif shape is None and array.ndim != 4:
        raise ValueError(
            f"{owner}: expected weight of shape (out, in, kh, kw), or (out, features) with shape=, got {array.shape}"
        )
    return _mosaic(owner, _as_images(owner, array, shape, "each"), titles, columns, path, title)


def activation_maps(model: Any, x: Any, layer: Any, path: PathLike | None = None, title: str = "") -> Any:
    """Draw what a layer answers to one input: a grey image per channel, or a bar per unit of a flat layer.

    model:  a `nnx.nn.Module`
    x:      one input with its batch dimension, (1, C, H, W)
    layer:  a module inside of `model`, or its dotted name
    """
    owner = "viz.activation_maps"
    answer = activations(model, x, layer)
    if len(answer) != 1 or answer.ndim not in (2, 4):
        raise ValueError(
            f"{owner}: expected the layer to answer with shape (1, C, H, W) or (1, F), got {answer.shape}. "
            "Give one input with its batch dimension"
        )
    if answer.ndim == 4:
        return _mosaic(owner, _as_images(owner, answer[0], None, "all"), None, None, path, title)
    figure = new_figure(owner, path, 7.0, 3.0)
    axes = figure.subplots()
    axes.bar(range(answer.shape[1]), answer[0])
    axes.set_xlabel("unit")
    axes.set_ylabel("activation")
    axes.set_title(title)
    return finish(owner, figure, path)


def neighbour_grid(
    queries: Any,
    neighbours: Any,
    path: PathLike | None = None,
    titles: Sequence[Sequence[Any]] | None = None,
    title: str = "",
) -> Any:
    """Draw one row per query: the query itself, then its nearest neighbours.

    queries:     (Q, H, W), (Q, C, H, W) or (Q, H, W, 3)
    neighbours:  (Q, K, ...) images of the same shape, the nearest first
    titles:      one row of 1 + K texts per query
    """
    owner = "viz.neighbour_grid"
    first, rest = np.asarray(queries), np.asarray(neighbours)
    if rest.ndim != first.ndim + 1 or rest.shape[:1] + rest.shape[2:] != first.shape:
        raise ValueError(
            f"{owner}: expected neighbours of shape (Q, K, ...) for queries of shape {first.shape}, got {rest.shape}"
        )
    rows = np.concatenate([first[:, None], rest], axis=1)
    pixels = _as_images(owner, rows.reshape(-1, *first.shape[1:]), None, "all")
    flat = None if titles is None else [text for row in titles for text in row]
    return _mosaic(owner, pixels, flat, rows.shape[1], path, title)


def _mosaic(
    owner: str,
    pixels: np.ndarray,
    titles: Sequence[Any] | None,
    columns: int | None,
    path: PathLike | None,
    title: str,
) -> Any:
    """One picture of all images: a plot for each would take matplotlib seconds."""
    count, height, width = pixels.shape[:3]
    if titles is not None and len(titles) != count:
        raise ValueError(f"{owner}: expected {count} titles, one per image, got {len(titles)}")
    if columns is None:
        columns = int(np.ceil(np.sqrt(count * height / width)))
    across = min(_check.integer(owner, "columns", columns, 1), count)
    down = -(-count // across)
    gap = max(1, round(0.06 * max(height, width)))
    head = 0 if titles is None else max(gap, round(0.3 * height))
    canvas = np.full((down * (height + gap + head) + gap, across * (width + gap) + gap, 3), _WHITE, np.uint8)
    inches = 8.0 / max(canvas.shape[1], 0.8 * canvas.shape[0])
    figure = new_figure(owner, path, canvas.shape[1] * inches, canvas.shape[0] * inches + 0.35 * bool(title))
    axes = figure.subplots()
    size = float(np.clip(72 * inches * head * 0.55, 4, 11))  # of the titles, in points
    for i, image in enumerate(pixels):
        row, column = divmod(i, across)
        top, left = gap + head + row * (height + gap + head), gap + column * (width + gap)
        bottom, right = top + height, left + width
        canvas[top:bottom, left:right] = image if image.ndim == 3 else image[..., None]
        axes.plot(  # a frame, so that white images do not run together
            np.array([left, right, right, left, left]) - 0.5,
            np.array([top, top, bottom, bottom, top]) - 0.5,
            color="0.6",
            linewidth=0.6,
        )
        if titles is not None:
            axes.text((left + right) / 2, top - 1, str(titles[i]), ha="center", va="bottom", fontsize=size)
    axes.imshow(canvas, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title)
    return finish(owner, figure, path)
