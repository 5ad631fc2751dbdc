"""Augmentation: random changes that leave the class of an image as it is, drawn for a whole batch at a time.

A transform is called as ``t(batch, rng)`` with images ``(N, C, H, W)``, uint8 or float, and a
`numpy.random.Generator`; it returns a new batch of the same dtype and never changes its input. The
same generator state gives the same result. uint8 results are rounded and cut off at 0 and 255;
float results are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nnx import _check


class Compose:
    """Apply transforms one after the other; all draw from the same generator.

    Parameters: `transforms`, a sequence of callables ``t(batch, rng)``; `nnx.data.to_float`,
    `Normalize` and `Standardize` fit in.

    >>> augment = Compose([RandomCrop(32, padding=4), RandomHorizontalFlip()])
    >>> augment(np.zeros((8, 3, 32, 32), np.float32), np.random.default_rng(0)).shape
    (8, 3, 32, 32)
    """

    def __init__(self, transforms: Sequence[Callable[..., np.ndarray]]) -> None:
        self.transforms = list(transforms)
        for t in self.transforms:
            if not callable(t) or isinstance(t, type):
                raise TypeError(f"Compose: expected transforms to be callable objects, got {t!r}")

    def __call__(self, batch: Any, rng: np.random.Generator) -> np.ndarray:
        for t in self.transforms:
            batch = t(batch, rng)
        return batch

    def __repr__(self) -> str:
        return f"Compose({self.transforms!r})"


class RandomHorizontalFlip:
    """Mirror each image left to right with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = _check.real("RandomHorizontalFlip", "p", p, 0, 1)

    def __call__(self, batch: Any, rng: np.random.Generator) -> np.ndarray:
        x = _images("RandomHorizontalFlip", batch, rng)
        chosen = np.flatnonzero(rng.random(len(x)) < self.p)
        y = x.copy()
        y[chosen] = x[chosen][..., ::-1]
        return y

    def __repr__(self) -> str:
        return f"RandomHorizontalFlip(p={self.p})"


class RandomCrop:
    """Pad each image on all sides and cut out a window of `size` at a random place.

    `size`: (height, width) or one number for both. `padding`: pixels added on each side. `fill`:
    the value of added pixels with `padding_mode` "constant"; "edge", "reflect" and "symmetric"
    continue the image as `numpy.pad` does.

    Errors: ValueError if the padded images are smaller than `size`.

    K. He, X. Zhang, S. Ren, J. Sun, Deep residual learning for image recognition, arXiv:1512.03385
    (2015), section 4.2.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        padding: int | None = None,
        fill: float = 0,
        padding_mode: str = "constant",
    ) -> None:
        owner = "RandomCrop"
        self.size = _check.ntuple(owner, "size", size, 2, 1)
        self.padding = 0 if padding is None else _check.integer(owner, "padding", padding, 0)
        self.fill = _check.real(owner, "fill", fill)
        self.padding_mode = _check.choice(
            owner, "padding_mode", padding_mode, ("constant", "edge", "reflect", "symmetric")
        )

    def __call__(self, batch: Any, rng: np.random.Generator) -> np.ndarray:
        x = _images("RandomCrop", batch, rng)
        n, c, h, w = x.shape
        p = self.padding
        high, wide = h + 2 * p - self.size[0], w + 2 * p - self.size[1]
        if high < 0 or wide < 0:
            raise ValueError(
                f"RandomCrop: expected images of at least {self.size} with padding {p}, got shape {x.shape}"
            )
        top = rng.integers(0, high + 1, n)
        left = rng.integers(0, wide + 1, n)
        if p:
            if self.padding_mode == "constant":
                padded = np.full((n, c, h + 2 * p, w + 2 * p), _cast(self.fill, x.dtype), x.dtype)
                padded[:, :, p : p + h, p : p + w] = x
            else:
                padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)), mode=self.padding_mode)
            x = padded
        # All windows as a view (N, rows, columns, C, h, w), of which one per image is copied.
        windows = np.lib.stride_tricks.sliding_window_view(x, self.size, axis=(2, 3))
        return windows.transpose(0, 2, 3, 1, 4, 5)[np.arange(n), top, left]

    def __repr__(self) -> str:
        return (
            f"RandomCrop(size={self.size}, padding={self.padding}, fill={self.fill:g}, "
            f"padding_mode={self.padding_mode!r})"
        )


class RandomRotation:
    """Turn each image about its centre by a random angle, with bilinear interpolation.

    `degrees`: the angle is uniform in [-degrees, degrees], or in (low, high); positive is
    counter-clockwise. `fill`: the value outside of the image.
    """

    def __init__(self, degrees: float | Sequence[float], fill: float = 0) -> None:
        owner = "RandomRotation"
        if isinstance(degrees, (tuple, list)):
            self.degrees = _interval(owner, "degrees", degrees)
        else:
            limit = _check.real(owner, "degrees", degrees, 0)
            self.degrees = (-limit, limit)
        self.fill = _check.real(owner, "fill", fill)

    def __call__(self, batch: Any, rng: np.random.Generator) -> np.ndarray:
        x = _images("RandomRotation", batch, rng)
        angle = np.deg2rad(rng.uniform(*self.degrees, len(x)))
        cos, sin = np.cos(angle), np.sin(angle)
        # Where a pixel (y, x) of the result comes from: the inverse turn, with y pointing down.
        return _warp(x, cos, sin, -sin, cos, self.fill)

    def __repr__(self) -> str:
        return f"RandomRotation(degrees={self.degrees}, fill={self.fill:g})"


class RandomScale:
    """Enlarge or shrink each image about its centre by a random factor, with bilinear interpolation; the size stays.

    `scale`: (low, high), the factor is uniform between them; above 1 enlarges. `fill`: the value
    outside of the image.
    """

    def __init__(self, scale: Sequence[float], fill: float = 0) -> None:
        self.scale = _interval("RandomScale", "scale", scale)
        _check.real("RandomScale", "scale", self.scale[0], 0, open_low=True)
        self.fill = _check.real("RandomScale", "fill", fill)

    def __call__(self, batch: Any, rng: np.random.Generator) -> np.ndarray:
        x = _images("RandomScale", batch, rng)
        step = 1 / rng.uniform(*self.scale, len(x))
        none = np.zeros_like(step)
        return _warp(x, step, none, none, step, self.fill)

    def __repr__(self) -> str:
        return f"RandomScale(scale={self.scale}, fill={self.fill:g})"


class GaussianNoise:
    """Add white noise: y = x + e, with e normal, of mean 0 and standard deviation `std`, for each value on its own.

    `std` has the unit of the batch: about 0.02 for images in 0..1, 5 for uint8.
    """

    def __init__(self, std: float) -> None:
        self.std = _check.real("GaussianNoise", "std", std, 0)

    def __call__(self, batch: Any, rng: np.random.Generator) -> np.ndarray:
        x = _images("GaussianNoise", batch, rng)
        y = rng.standard_normal(x.shape, dtype=_working(x.dtype))
        y *= self.std
        y += x
        return _cast(y, x.dtype)

    def __repr__(self) -> str:
        return f"GaussianNoise(std={self.std:g})"


def _images(owner: str, batch: Any, rng: Any) -> np.ndarray:
    """Return `batch` as an array after checking both arguments of a transform."""
    x = np.asarray(batch)
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise TypeError(f"{owner}: expected batch to be uint8 or float, got {x.dtype}")
    if x.ndim != 4:
        raise ValueError(f"{owner}: expected batch of shape (N, C, H, W), got shape {x.shape}")
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"{owner}: expected rng to be a numpy.random.Generator, got {type(rng).__name__}")
    return x


def _interval(owner: str, name: str, value: Sequence[float]) -> tuple[float, float]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{owner}: expected {name} to be (low, high), got {value!r}")
    low = _check.real(owner, name, value[0])
    return low, _check.real(owner, name, value[1], low)


def _working(dtype: np.dtype) -> np.dtype:
    """Return the type to compute in: float64 for float64, else float32."""
    return np.dtype(np.float64 if dtype.itemsize >= 8 else np.float32)


def _cast(values: Any, dtype: np.dtype) -> np.ndarray:
    """Return `values` in `dtype`; for uint8 rounded and cut off at 0 and 255."""
    values = np.asarray(values)
    if dtype == np.uint8:
        values = np.clip(np.rint(values), 0, 255)
    return values.astype(dtype, copy=False)


def _warp(x: np.ndarray, yy: np.ndarray, yx: np.ndarray, xy: np.ndarray, xx: np.ndarray, fill: float) -> np.ndarray:
    """Resample each image about its centre: pixel (y, x) is read at (yy y + yx x, xy y + xx x), bilinearly.

    The coefficients hold one number per image. One border of `fill` around the images stands for
    all that is outside.
    """
    n, c, h, w = x.shape
    work = _working(x.dtype)
    rows = np.arange(h, dtype=work) - work.type((h - 1) / 2)
    columns = np.arange(w, dtype=work) - work.type((w - 1) / 2)

    def place(by_row: np.ndarray, by_column: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixel below each coordinate (-1 to size - 1) and the distance to it."""
        t = by_row.astype(work)[:, None, None] * rows[:, None]
        t = t + by_column.astype(work)[:, None, None] * columns
        t += work.type((size - 1) / 2)
        np.clip(t, -1, size, out=t)
        low = np.minimum(np.floor(t), size - 1)
        t -= low
        return low.astype(np.intp), t

    row, down = place(yy, yx, h)
    column, right = place(xy, xx, w)
    # Planes (C, N * (H + 2) * (W + 2)), so that the four neighbours of all pixels are at the same
    # indices in each.
    planes = np.full((c, n, h + 2, w + 2), fill, work)
    planes[:, :, 1:-1, 1:-1] = x.transpose(1, 0, 2, 3)
    planes = planes.reshape(c, -1)
    row += 1
    row *= w + 2
    row += column
    row += (np.arange(n) * ((h + 2) * (w + 2)) + 1)[:, None, None]
    shifts = 0, 1, w + 2, w + 3  # from a pixel to its neighbours to the right, below, and both
    values = np.empty((4, n, h, w), work)  # reused: fresh pages cost more than the sums (benchmarks/bench_data.py)
    a, b, d, e = values
    y = np.empty((n, c, h, w), work)
    with np.errstate(invalid="ignore"):  # infinite pixels
        for k, plane in enumerate(planes):
            for shift, out in zip(shifts, values, strict=True):
                plane[shift:].take(row, out=out, mode="clip")  # "clip": straight into `out`
            b -= a
            b *= right
            a += b
            e -= d
            e *= right
            d += e
            d -= a
            d *= down
            np.add(a, d, out=y[:, k])
    return _cast(y, x.dtype)
