"""The data set that comes with nnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nnx.data._raw import Pixels
from nnx.data.dataset import ImageData


def digits(dtype: Any = "float32") -> ImageData:
    """Return the shipped handwritten digits: 1,438 training and 359 test images of 8 x 8 pixels, scaled to 0..1.

    The split never changes: counting the images of each class in file order from 0, those whose
    number leaves 2 when divided by 5 are the test images (36, 36, 35, 37, 36, 36, 36, 36, 35, 36 of
    the classes 0 to 9). Both halves show the hands of the same 13 writers.
    `dtype`: float32 or float64 scales to 0..1; uint8 keeps the grey levels 0..16.

    E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository (1998), doi:10.24432/C50P49, CC BY 4.0; see ``digits.txt`` beside this module.

    >>> digits().x_train.shape
    (1438, 1, 8, 8)
    """
    as_pixels = Pixels("digits", dtype, white=16)
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as archive:
        x, y = archive["images"][:, None], archive["labels"].astype(np.int64)
    rank = np.empty(len(y), np.int64)  # how many of its class come before it
    for label in range(10):
        members = np.flatnonzero(y == label)
        rank[members] = np.arange(len(members))
    test = rank % 5 == 2
    return ImageData(as_pixels(x[~test]), y[~test], as_pixels(x[test]), y[test], tuple("0123456789"))
