"""Pooling: maximum, mean and sum of small windows, and where the gradient goes.

A pooling layer has no weights. It makes the image smaller and forgets where exactly in a window something was found.
The maximum sends its gradient back to the one element that was largest; a mean sends every element its share.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import nnx.functional as F
from nnx import viz
from nnx.autograd import Tensor
from nnx.course import picture
from nnx.data import digits

ROWS = ("F151", "F152", "F153")

SLICE = np.array([[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]], np.float64)

POOLS: dict[str, Callable[..., Tensor]] = {"max": F.max_pool2d, "average": F.avg_pool2d, "sum": F.sum_pool2d}


def pooled(x: Any, kind: str = "max", size: int = 2, stride: int | None = None) -> np.ndarray:
    """Pool one slice (H, W).

    >>> pooled(SLICE).tolist()
    [[6.0, 8.0], [3.0, 4.0]]
    """
    return POOLS[kind](np.asarray(x)[None, None], size, stride).data[0, 0]


def gradient(x: Any, kind: str = "max", size: int = 2, stride: int | None = None) -> np.ndarray:
    """What each element of a slice (H, W) gets if every output sends back a 1."""
    t = Tensor(np.asarray(x, np.float64)[None, None], requires_grad=True)
    POOLS[kind](t, size, stride).sum().backward()
    return t.grad[0, 0]


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Print the pools of one slice, global pools, and the gradients."""
    result: dict[str, Any] = {}
    for kind in POOLS:
        result[kind], result[f"{kind} gradient"] = pooled(SLICE, kind).tolist(), gradient(SLICE, kind).tolist()
        print(f"{kind:8s}2x2, stride 2: {result[kind]}   gradient {result[f'{kind} gradient']}")
    result["overlapping"] = gradient(SLICE, "max", 3, 1).tolist()
    print(f"max 3x3, stride 1: {pooled(SLICE, 'max', 3, 1).tolist()}   gradient {result['overlapping']}")
    result["global average"] = F.adaptive_avg_pool2d(SLICE[None, None], 1).item()
    print(f"global average: {result['global average']}")
    result["tie"] = gradient(np.full((2, 2), 5.0)).tolist()
    print(f"four equal numbers: the gradient of the maximum goes to the first of them, {result['tie']}")

    if path := picture(out, "pooling-digits"):
        x = digits().x_test[:6]
        shown = [x, *(POOLS[kind](x, 2).data.repeat(2, axis=2).repeat(2, axis=3) for kind in POOLS)]
        titles = [name for name in ("digit", *POOLS) for _ in range(6)]
        viz.images(np.concatenate(shown), titles, columns=6, path=path, scale="each")
    return result
