"""Transposed convolution: the way back to a larger image.

A convolution is a linear map, so it is a matrix, with most entries zero. The transposed matrix takes small images to
large ones: each input number lays its multiple of the filter on the output, and what overlaps adds up. It is what the
gradient of a convolution does, and what networks use that answer with an image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx.functional as F
from nnx import viz
from nnx.course import picture
from nnx.data import digits

ROWS = ("F167",)


def as_matrix(w: np.ndarray, shape: tuple[int, int, int], stride: int = 1, padding: int = 0) -> np.ndarray:
    """The matrix A of the convolution with `w` on images of `shape` (C, H, W): one column for each input number."""
    size = int(np.prod(shape))
    units = np.eye(size).reshape(size, *shape)
    return F.conv2d(units, w, None, stride, padding).data.reshape(size, -1).T


def inner_products(stride: int, padding: int, seed: int = 0) -> tuple[float, float]:
    """``<A x, y>`` and ``<x, A' y>`` for a random convolution A and its transposed A'; they are equal.

    The image is 9x9, the filter 3x3, so stride 2 and padding 1 fit without a remainder.
    """
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((2, 3, 9, 9)), rng.standard_normal((4, 3, 3, 3))
    ax = F.conv2d(x, w, None, stride, padding).data
    y = rng.standard_normal(ax.shape)
    aty = F.conv_transpose2d(y, w, None, stride, padding).data
    return float((ax * y).sum()), float((x * aty).sum())


def coverage(kernel: int, stride: int, n: int = 5) -> np.ndarray:
    """How many input numbers reach each output number: a transposed convolution of ones with ones."""
    return F.conv_transpose2d(np.ones((1, 1, n, n)), np.ones((1, 1, kernel, kernel)), stride=stride).data[0, 0]


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Check that it is the transposed map; look at the uneven coverage where the stride does not divide the filter."""
    result: dict[str, Any] = {}
    for stride, padding in ((1, 0), (2, 1)):
        left, right = inner_products(stride, padding, seed)
        result[f"stride {stride}"] = [left, right]
        print(f"stride {stride}, padding {padding}: <Ax, y> = {left:.12f}, <x, A'y> = {right:.12f}")
    w = np.random.default_rng(seed).standard_normal((2, 1, 3, 3))
    a = as_matrix(w, (1, 5, 5))
    y = np.random.default_rng(seed + 1).standard_normal((1, 2, 3, 3))
    difference = float(np.abs(a.T @ y.ravel() - F.conv_transpose2d(y, w).data.ravel()).max())
    result["matrix"], result["difference"] = list(a.shape), difference
    print(f"the matrix of a 3x3 convolution on 5x5, two filters: {a.shape}, {np.mean(a == 0):.0%} zeros")
    for kernel in (3, 4):
        counts = coverage(kernel, 2)[kernel:-kernel, kernel:-kernel]
        result[f"coverage {kernel}x{kernel}"] = sorted({int(c) for c in counts.ravel()})
        print(
            f"filter {kernel}x{kernel}, stride 2: each output number gets {result[f'coverage {kernel}x{kernel}']} terms"
        )

    if path := picture(out, "transposed_convolution-coverage"):
        x = digits().x_test[5].astype(np.float64)
        tent = np.outer([0.25, 0.75, 0.75, 0.25], [0.25, 0.75, 0.75, 0.25])[None, None]
        large = F.conv_transpose2d(x[None], tent, stride=2, padding=1).data[0]
        shown = [coverage(3, 2), coverage(4, 2), x[0], large[0]]
        size = max(len(image) for image in shown)
        padded = [np.pad(image / image.max(), (0, size - len(image))) for image in shown]
        titles = ["3x3, stride 2", "4x4, stride 2", "digit", "twice as large"]
        viz.images(np.stack(padded), titles, columns=2, path=path, scale="each")
    return result
