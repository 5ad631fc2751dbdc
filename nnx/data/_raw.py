"""What the readers of image files share: from bytes to pixels, and the check of labels."""

from __future__ import annotations

from typing import Any

import numpy as np


class Pixels:
    """Turn unsigned bytes into pixels of `dtype`: uint8 stays as it is, a float type is scaled from 0..white to 0..1.

    Errors: TypeError for another dtype.
    """

    def __init__(self, owner: str, dtype: Any, white: int = 255) -> None:
        try:
            self.dtype = np.dtype(dtype)
        except TypeError:
            self.dtype = np.dtype(object)
        if self.dtype not in (np.dtype("float32"), np.dtype("float64"), np.dtype("uint8")):
            raise TypeError(f"{owner}: expected dtype to be float32, float64 or uint8, got {dtype!r}")
        self.white = white

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if self.dtype == np.uint8:
            return x
        return np.divide(x, self.white, dtype=self.dtype)


def check_labels(owner: str, path: str, labels: np.ndarray, classes: int) -> None:
    """Raise ValueError if a label is not in ``[0, classes)``, naming the file and the first such record."""
    wrong = np.flatnonzero(labels >= classes)
    if wrong.size:
        i = int(wrong[0])
        raise ValueError(f"{owner}: expected labels in [0, {classes}) in {path!r}, got {int(labels[i])} in record {i}")
