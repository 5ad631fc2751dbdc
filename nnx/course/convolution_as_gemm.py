"""Convolution as a matrix product: why GEMM is at the heart of it.

Write what lies under the filter at every place as a column, write every filter as a row, and the convolution is one
product of two matrices. The columns repeat the image many times over, but nothing is computed faster than a matrix
product. A 1x1 convolution needs no columns: it is a product as it stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import nnx
import nnx.functional as F
from nnx import viz
from nnx.course import picture

ROWS = ("F146", "F155")


def naive(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The convolution of images (N, C, H, W) with filters (K, C, kh, kw), one product after the other."""
    n, c, h, width = x.shape
    k, _, kh, kw = w.shape
    y = np.zeros((n, k, h - kh + 1, width - kw + 1), x.dtype)
    for image in range(n):
        for filter_ in range(k):
            for i in range(y.shape[2]):
                for j in range(y.shape[3]):
                    total = 0.0
                    for channel in range(c):
                        for u in range(kh):
                            for v in range(kw):
                                total += x[image, channel, i + u, j + v] * w[filter_, channel, u, v]
                    y[image, filter_, i, j] = total
    return y


def by_columns(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The same as a matrix product: filters as rows (K, C kh kw), windows as columns (N, C kh kw, places)."""
    columns = F.unfold(x, w.shape[2:])
    y = nnx.matmul(w.reshape(len(w), -1), columns).data
    return y.reshape(len(x), len(w), x.shape[2] - w.shape[2] + 1, -1)


def pointwise(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """A 1x1 convolution with w (K, C): at each pixel the matrix w times the vector of channels."""
    return nnx.matmul(w, x.reshape(*x.shape[:2], -1)).data.reshape(len(x), len(w), *x.shape[2:])


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """The shortest of several runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Compute one convolution in three ways, and one of 1x1 as a product; print differences and times."""
    rng = np.random.default_rng(seed)
    size, channels, filters = (8, 3, 4) if small else (16, 8, 16)
    x = rng.standard_normal((2, channels, size, size), dtype=np.float32)
    w = rng.standard_normal((filters, channels, 3, 3), dtype=np.float32)
    ways: dict[str, Callable[[], np.ndarray]] = {
        "loops": lambda: naive(x, w),
        "columns": lambda: by_columns(x, w),
        "conv2d": lambda: F.conv2d(x, w).data,
    }
    expected = F.conv2d(x.astype(np.float64), w.astype(np.float64)).data
    difference, times = {}, {}
    for name, way in ways.items():
        difference[name] = float(np.abs(way() - expected).max() / np.abs(expected).max())
        times[name] = seconds(way, 1 if name == "loops" else 5)
        print(f"{name:8s} {times[name] * 1e3:10.3f} ms, off by {difference[name]:.1e} of the largest value")
    windows = x.shape[0] * (size - 2) ** 2 * channels * 9
    print(f"the columns hold {windows} numbers, the images {x.size}: {windows / x.size:.1f} times as many")

    deep = rng.standard_normal((1, 64, 56, 56), dtype=np.float32)
    w1 = rng.standard_normal((32, 64), dtype=np.float32)
    gap = float(np.abs(pointwise(deep, w1) - F.conv2d(deep, w1[:, :, None, None]).data).max())
    print(f"1x1 convolution, 64 to 32 channels on 56x56: differs from the matrix product by {gap:.1e}")

    if path := picture(out, "convolution_as_gemm-times"):
        viz.bars({name: t * 1e3 for name, t in times.items()}, "milliseconds", log=True, path=path)
    return {
        "difference": difference,
        "seconds": times,
        "columns": windows,
        "image": x.size,
        "pointwise": gap,
    }
