"""Filters with known weights: identity, edges, sharpening, blurring.

Before filters were learned they were written down. Seven 3x3 filters, each applied to one picture: what a filter does
can be read off its weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nnx import viz
from nnx.course import picture
from nnx.data import FILTERS, filter_image

ROWS = ("F142",)

WINDOW = np.array([[178, 174, 177], [179, 178, 179], [168, 171, 178]], np.uint8)


def scene(size: int = 48) -> np.ndarray:
    """A grey picture (size, size), uint8: a disc, a square and a fading background."""
    rows, columns = np.mgrid[:size, :size] / size
    grey = 60 + 100 * rows
    grey[(rows - 0.35) ** 2 + (columns - 0.3) ** 2 < 0.04] = 230
    grey[(np.abs(rows - 0.65) < 0.15) & (np.abs(columns - 0.7) < 0.15)] = 20
    return np.rint(grey).astype(np.uint8)


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Print each filter's sum and what it makes of the picture; average one window by hand."""
    image = scene()
    result: dict[str, Any] = {"sums": {}, "spread": {}}
    answers = {}
    for name, kernel in FILTERS.items():
        answers[name] = filter_image(image.astype(np.float64), name)
        result["sums"][name] = float(kernel.sum())
        result["spread"][name] = float(answers[name].std())
        print(
            f"{name:14s} weights add up to {kernel.sum():4.1f}; brightness {image.mean():5.1f} -> "
            f"{answers[name].mean():6.1f}, deviation {image.std():4.1f} -> {answers[name].std():5.1f}"
        )
    exact = filter_image(WINDOW.astype(np.float64), "gaussian_blur", "valid")
    rounded = filter_image(WINDOW, "gaussian_blur", "valid")
    result["gaussian"] = [float(exact[0, 0]), int(rounded[0, 0])]
    print(f"the window of S2 under the Gaussian: {exact[0, 0]}, as a byte {rounded[0, 0]}")

    if path := picture(out, "filter_bank-pictures"):
        shown = np.stack([image.astype(np.float64), *answers.values()])
        viz.images(shown, ["picture", *answers], columns=4, path=path, scale="each")
    return result
