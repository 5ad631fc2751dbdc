"""Convolution: the demo with two filters, the flip, tiles and neurons that share weights, and its gradient.

One small filter is laid on every place of the image; the sum of the products is the answer at that place. That is one
tiny network applied to every tile of the picture, or a layer of neurons that see a tile each and share their weights.
All of them give the same numbers, and this topic computes each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx.functional as F
from nnx import viz
from nnx.autograd import Tensor
from nnx.course import picture
from nnx.data import digits

ROWS = ("F140", "F141", "F148", "F150", "F154", "F158")

# The demo of S0: an image 5x5x3 (padded by 1 it is 7x7x3), two filters 3x3x3, in the order (channel, row, column).
DEMO_IMAGE = np.array(
    [
        [[1, 0, 2, 1, 1], [2, 0, 2, 2, 0], [2, 0, 0, 2, 0], [1, 1, 0, 0, 1], [1, 2, 0, 0, 0]],
        [[0, 0, 0, 0, 0], [1, 2, 2, 2, 1], [0, 2, 1, 0, 1], [0, 2, 2, 1, 2], [1, 2, 1, 2, 1]],
        [[1, 2, 2, 1, 1], [0, 0, 0, 0, 2], [2, 0, 1, 0, 1], [0, 0, 1, 1, 1], [1, 0, 2, 0, 2]],
    ],
    np.float64,
)
DEMO_FILTERS = np.array(
    [
        [
            [[0, -1, -1], [1, 0, 0], [1, 1, 0]],
            [[0, 0, -1], [0, 0, 1], [0, 1, 0]],
            [[1, 1, -1], [1, 1, 1], [-1, 1, -1]],
        ],
        [
            [[-1, 0, 1], [1, 1, -1], [1, 1, -1]],
            [[0, 0, 1], [1, -1, 0], [0, -1, -1]],
            [[1, 0, 1], [0, 1, 0], [1, 1, -1]],
        ],
    ],
    np.float64,
)
DEMO_BIAS = np.array([1.0, 0.0])


def demo(flip: bool = False) -> np.ndarray:
    """The demo's output (2, 3, 3): stride 2, padding 1; `flip` turns the filters round first."""
    convolve = F.true_conv2d if flip else F.conv2d
    return convolve(DEMO_IMAGE[None], DEMO_FILTERS, DEMO_BIAS, stride=2, padding=1).data[0]


def demo_channels_last() -> np.ndarray:
    """The same from arrays laid out as S0 prints them, (row, column, channel); the result is (3, 3, 2).

    nnx takes (channel, row, column); a transposed view has that shape and copies nothing.
    """
    image, filters = np.ascontiguousarray(DEMO_IMAGE.transpose(1, 2, 0)), DEMO_FILTERS.transpose(0, 2, 3, 1).copy()
    y = F.conv2d(image.transpose(2, 0, 1)[None], filters.transpose(0, 3, 1, 2), DEMO_BIAS, stride=2, padding=1)
    return y.data[0].transpose(1, 2, 0)


def tiles(x: np.ndarray, size: int, stride: int = 1) -> np.ndarray:
    """All tiles (rows, columns, C, size, size) of an image (C, H, W)."""
    rows, columns = ((n - size) // stride + 1 for n in x.shape[1:])
    cut = np.empty((rows, columns, len(x), size, size), x.dtype)
    for i in range(rows):
        for j in range(columns):
            cut[i, j] = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
    return cut


def tile_by_tile(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int = 1) -> np.ndarray:
    """Feed every tile to the same one-layer network, and keep the answers in the order of the tiles."""
    cut = tiles(x, weight.shape[-1], stride)
    y = np.empty((len(weight), *cut.shape[:2]))
    for i, row in enumerate(cut):
        for j, tile in enumerate(row):
            y[:, i, j] = weight.reshape(len(weight), -1) @ tile.ravel() + bias
    return y


def locally_connected(x: Any, weight: Any, bias: Any, kernel: int, stride: int = 1) -> Tensor:
    """A layer of neurons that each see one tile and have weights of their own.

    x: (N, C, H, W); weight: (filters, places, C kernel^2), bias: (filters, places); returns (N, filters, places). With
    weights that are equal at all places it is a convolution.
    """
    seen = F.unfold(x, kernel, stride=stride)  # (N, C kernel^2, places)
    weight, bias = (t if isinstance(t, Tensor) else Tensor(np.asarray(t)) for t in (weight, bias))
    products = seen.transpose(1, 2).unsqueeze(1) * weight.unsqueeze(0)  # (N, filters, places, C kernel^2)
    return products.sum(-1) + bias


def tied(weight: np.ndarray, bias: np.ndarray, places: int) -> tuple[np.ndarray, np.ndarray]:
    """The weights of `locally_connected` that make it the convolution with `weight` and `bias`."""
    rows = weight.reshape(len(weight), 1, -1)
    return np.repeat(rows, places, axis=1), np.repeat(bias[:, None], places, axis=1)


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Print the demo with and without the flip, and that tiles, neurons and convolution agree."""
    rng = np.random.default_rng(seed)
    for name, y in (("cross-correlation, as layers do it", demo()), ("true convolution", demo(flip=True))):
        print(f"{name}: o0 = {y[0].astype(int).tolist()}, o1 = {y[1].astype(int).tolist()}")
    x, w, b = rng.standard_normal((3, 11, 15)), rng.standard_normal((4, 3, 5, 5)), rng.standard_normal(4)
    y = F.conv2d(x[None], w, b).data[0]
    by_tiles = tile_by_tile(x, w, b)
    places = y.shape[1] * y.shape[2]
    neurons = locally_connected(x[None], *tied(w, b, places), 5).data.reshape(y.shape)
    difference = float(max(np.abs(by_tiles - y).max(), np.abs(neurons - y).max()))
    print(f"{places} tiles of 5x5, one small network on each: largest difference to the convolution {difference:.1e}")

    if path := picture(out, "convolution-digit"):
        digit = digits().x_test[3:4]
        maps = F.conv2d(digit, rng.standard_normal((7, 1, 3, 3)).astype(np.float32), padding=1).data[0]
        shown = np.concatenate([digit[0], maps])[:, None]
        viz.images(shown, ["digit", *(f"filter {i + 1}" for i in range(7))], columns=4, path=path, scale="each")
    return {
        "demo": demo().tolist(),
        "flipped": demo(flip=True).tolist(),
        "tiles": places,
        "difference": difference,
    }
