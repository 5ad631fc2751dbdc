"""Preparing data: centre, scale, decorrelate, whiten; what is done to images.

A cloud of points in the plane goes through the four steps, and its covariance says what each one did. For images only
the mean is taken away: the mean image, or one number per colour channel. Statistics come from the training part alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nnx import viz
from nnx.course import picture
from nnx.data import PCA, Center, Standardize, channel_stats, digits, mean_image

ROWS = ("F110", "F111", "F112")


def cloud(n: int, rng: np.random.Generator) -> np.ndarray:
    """A cloud of `n` points (n, 2), off the origin, much wider than high, and tilted."""
    stretch = np.array([[3.0, 1.2], [0.0, 0.6]])
    return rng.standard_normal((n, 2)) @ stretch + [4.0, -2.0]


def steps(x: np.ndarray) -> dict[str, np.ndarray]:
    """The same points after each kind of preparation, fitted on themselves."""
    return {
        "raw": x,
        "centred": Center().fit(x)(x),
        "standardised": Standardize().fit(x)(x),
        "decorrelated": PCA().fit(x)(x),
        "whitened": PCA(whiten=True).fit(x)(x),
    }


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Print mean and covariance after each step, and the shapes of the means of images."""
    rng = np.random.default_rng(seed)
    prepared = steps(cloud(500, rng))
    covariance = {}
    for name, points in prepared.items():
        c = np.cov(points.T)
        covariance[name] = c.tolist()
        mean = points.mean(axis=0)
        print(
            f"{name:13s} mean ({mean[0]:6.2f}, {mean[1]:6.2f})   "
            f"covariance [{c[0, 0]:5.2f} {c[0, 1]:5.2f}; {c[1, 0]:5.2f} {c[1, 1]:5.2f}]"
        )

    colour = rng.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
    whole, per_channel = mean_image(colour), channel_stats(colour)[0]
    print(f"mean image of 32x32 colour images: {whole.size} numbers; mean of each channel: {per_channel.size} numbers")

    x_train = digits().x_train
    pca = PCA().fit(x_train)
    assert pca.variance is not None and pca.components is not None
    share = np.cumsum(pca.variance) / pca.variance.sum()
    needed = int(np.searchsorted(share, 0.9)) + 1
    print(f"digits: {needed} of 64 directions hold 90 % of the variance")

    if path := picture(out, "preprocessing-cloud"):
        panels = {f"{name} {'xy'[i]}": points[:, i] for name, points in prepared.items() for i in (0, 1)}
        viz.histograms(panels, range=(-10, 14), path=path, columns=2)
    if path := picture(out, "preprocessing-digits"):
        shown = np.concatenate([mean_image(x_train)[None], pca.components[:11].reshape(11, 1, 8, 8)])
        titles = ["mean", *(f"direction {i + 1}" for i in range(11))]
        viz.images(shown, titles, columns=4, path=path, scale="each")
    return {
        "covariance": covariance,
        "mean_image": list(whole.shape),
        "channel_mean": list(per_channel.shape),
        "directions_for_90_percent": needed,
    }
