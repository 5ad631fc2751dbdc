"""Preprocessing: scaling, centring, decorrelation, statistics, one-hot labels.

`to_float` and the objects take (and ignore) a second argument `rng`, so that they fit into
`nnx.data.Compose` beside the random transforms. What is learned from data is learned by `fit`, from
the training part alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx import _check

_BLOCK = 1 << 20  # values per block of the statistics: no second copy of a large or memory-mapped array


def to_float(x: Any, rng: object = None, *, dtype: Any = "float32") -> np.ndarray:
    """Return `x` as `dtype` (float32 or float64), unsigned integers divided by the largest value of their type.

    So uint8 images come out in 0..1. Floats are cast and not scaled. The result is always a fresh
    array.

    Errors: TypeError for signed integers and other types, whose white is not known.
    """
    x = np.asarray(x)
    target = _check.float_dtype("to_float", dtype)
    if x.dtype.kind == "f":
        return x.astype(target)
    if x.dtype.kind != "u":
        raise TypeError(f"to_float: expected x to hold floats or unsigned integers, got {x.dtype}")
    return np.divide(x, target.type(np.iinfo(x.dtype).max), dtype=target)


def channel_stats(x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the standard deviation of each channel, as float64 ``(C,)``.

    mean_c = sum over n and positions of x[n, c, ...] / count; std_c = sqrt(mean of (x - mean_c)^2),
    not divided by count - 1.
    `x`: ``(N, C, ...)``, numbers of any type, also a memory map: it is read block by block, twice.

    Errors: ValueError without samples or with fewer than 2 dimensions.
    """
    x = _samples("channel_stats", x)
    axes = (0, *range(2, x.ndim))
    count = x.size // x.shape[1]
    total = sum(block.sum(axis=axes) for block in _blocks(x))
    mean = total / count
    column = mean.reshape(-1, *(1,) * (x.ndim - 2))
    squares = sum(((block - column) ** 2).sum(axis=axes) for block in _blocks(x))
    return mean, np.sqrt(squares / count)


def mean_image(x: Any) -> np.ndarray:
    """Return the mean over the samples of `x` ``(N, ...)`` as float64 ``(...)``, read block by block."""
    x = _samples("mean_image", x)
    return sum(block.sum(axis=0) for block in _blocks(x)) / len(x)


def _samples(owner: str, x: Any) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim < 2 or x.size == 0:
        raise ValueError(f"{owner}: expected x of shape (N, C, ...) with at least one sample, got shape {x.shape}")
    return x


def _blocks(x: np.ndarray) -> Any:
    rows = max(1, _BLOCK // (x.size // len(x)))
    return (x[i : i + rows].astype(np.float64) for i in range(0, len(x), rows))


class Normalize:
    """Subtract a mean and divide by a standard deviation: y = (x - mean) / std.

    `mean`, `std`: a number; one value per channel (see `channel_stats`); or an array of the shape
    of a sample (see `mean_image`). Called with ``(N, C, ...)`` floats it returns the same shape and
    dtype; `inverse` goes back.

    Errors: ValueError for a std that is not positive (`Standardize` copes with constant columns) or
    for shapes that do not fit; TypeError for integers, whose scale the mean cannot share: use
    `to_float` first.

    >>> Normalize(0.5, 0.25)(np.array([[0.0, 0.5, 1.0]]))
    array([[-2.,  0.,  2.]])
    """

    def __init__(self, mean: Any, std: Any = 1.0) -> None:
        self.mean = np.asarray(mean, np.float64)
        self.std = np.asarray(std, np.float64)
        if not np.all(self.std > 0):
            raise ValueError(f"Normalize: expected std to be positive, got {self.std.min()}")

    def __call__(self, x: Any, rng: object = None) -> np.ndarray:
        x, mean, std = self._fit(x)
        y = x - mean
        y /= std
        return y

    def inverse(self, y: Any) -> np.ndarray:
        """Return ``y * std + mean``."""
        y, mean, std = self._fit(y)
        x = y * std
        x += mean
        return x

    def _fit(self, x: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x = _floats("Normalize", x)
        return x, _per_channel("mean", self.mean, x), _per_channel("std", self.std, x)

    def __repr__(self) -> str:
        return f"Normalize(mean={_brief(self.mean)}, std={_brief(self.std)})"


def _floats(owner: str, x: Any) -> np.ndarray:
    x = np.asarray(x)
    if x.dtype.kind != "f":
        raise TypeError(f"{owner}: expected x to hold floats, got {x.dtype}. to_float(x) scales bytes to 0..1.")
    return x


def _per_channel(name: str, value: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return `value` in the dtype of `x`, shaped to broadcast over samples (and positions, if one per channel)."""
    sample = x.shape[1:]
    if value.ndim == 1 and sample and value.shape[0] == sample[0]:
        value = value.reshape(-1, *(1,) * (len(sample) - 1))
    elif value.ndim and value.shape != sample:
        raise ValueError(
            f"Normalize: expected {name} to be a number, one value per channel "
            f"or of a sample's shape {sample}, got shape {value.shape}"
        )
    return value.astype(x.dtype)


def _brief(value: np.ndarray) -> str:
    return repr(value.tolist()) if value.size <= 4 else f"array of shape {value.shape}"


class Center:
    """Subtract the mean of the training data: y = x - mean.

    `per`: "position" takes the mean of each value of a sample (for images the mean image, as for
    AlexNet); "channel" takes one mean for each channel, dimension 1 of ``(N, C, ...)``, as for VGG.
    ``Center().fit(x_train)`` sets `mean` (float64; the shape of a sample, or ``(C,)``); calling it
    transforms floats ``(N, ...)``; `inverse` goes back.

    Errors: RuntimeError when it is called before `fit`; ValueError for no samples or shapes that do
    not fit; TypeError for integers in the call (`fit` takes any numbers).

    >>> Center().fit([[1.0, 10.0], [3.0, 10.0]])(np.array([[2.0, 12.0]]))
    array([[0., 2.]])
    """

    def __init__(self, per: str = "position") -> None:
        self.per = _check.choice("Center", "per", per, ("position", "channel"))
        self.mean: np.ndarray | None = None

    def fit(self, x: Any) -> Center:
        """Take the mean of `x` and return self."""
        x = _samples("Center", x)
        self.mean = mean_image(x) if self.per == "position" else channel_stats(x)[0]
        return self

    def __call__(self, x: Any, rng: object = None) -> np.ndarray:
        x, mean = self._ready(x)
        return x - mean

    def inverse(self, y: Any) -> np.ndarray:
        """Return ``y + mean``."""
        y, mean = self._ready(y)
        return y + mean

    def _ready(self, x: Any) -> tuple[np.ndarray, np.ndarray]:
        if self.mean is None:
            raise RuntimeError("Center: expected fit(x) before the call, got no mean")
        x = _floats("Center", x)
        if self.per == "channel":
            if x.ndim < 2 or x.shape[1] != len(self.mean):
                raise ValueError(
                    f"Center: expected x with {len(self.mean)} channels (dimension 1) as in fit, got shape {x.shape}"
                )
            return x, self.mean.reshape(-1, *(1,) * (x.ndim - 2)).astype(x.dtype)
        if x.shape[1:] != self.mean.shape:
            raise ValueError(f"Center: expected samples of shape {self.mean.shape} as in fit, got {x.shape[1:]}")
        return x, self.mean.astype(x.dtype)

    def __repr__(self) -> str:
        return f"Center(per={self.per!r}, fitted={self.mean is not None})"


class Standardize:
    """Give each column mean 0 and standard deviation 1: y = (x - mean) / std; a constant column becomes 0.

    ``Standardize().fit(x_train)`` takes `mean` and `std` (float64, the shape of a sample) from the
    training data; calling it transforms any ``(N, ...)`` floats; `inverse` goes back. A column
    whose std is within rounding of 0 counts as constant and gets the std 1, so that it becomes 0
    and neither noise nor NaN.

    Errors: RuntimeError when it is called before `fit`; ValueError for no samples or another shape;
    TypeError for integers in the call (`fit` takes any numbers).
    """

    def __init__(self) -> None:
        self.mean: np.ndarray | None = None
        self.std: np.ndarray | None = None

    def fit(self, x: Any) -> Standardize:
        """Take the statistics of the columns of `x` and return self."""
        x = _samples("Standardize", x)
        mean = mean_image(x)
        squares = sum(((block - mean) ** 2).sum(axis=0) for block in _blocks(x))
        std = np.sqrt(squares / len(x))
        # Equal values have a std of some rounding errors; dividing by that would turn noise into a
        # signal.
        unit = len(x) * float(np.finfo(np.float64).eps)
        if x.dtype.kind == "f":
            unit = max(unit, float(np.finfo(x.dtype).eps))
        std[(std <= unit * np.abs(mean)) | (std < np.finfo(np.float32).tiny)] = 1.0
        self.mean, self.std = mean, std
        return self

    def __call__(self, x: Any, rng: object = None) -> np.ndarray:
        x, mean, std = self._ready(x)
        y = x - mean
        y /= std
        return y

    def inverse(self, y: Any) -> np.ndarray:
        """Return ``y * std + mean``."""
        y, mean, std = self._ready(y)
        x = y * std
        x += mean
        return x

    def _ready(self, x: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self.mean is None or self.std is None:
            raise RuntimeError("Standardize: expected fit(x) before the call, got no statistics")
        x = _floats("Standardize", x)
        if x.shape[1:] != self.mean.shape:
            raise ValueError(f"Standardize: expected samples of shape {self.mean.shape} as in fit, got {x.shape[1:]}")
        return x, self.mean.astype(x.dtype), self.std.astype(x.dtype)

    def __repr__(self) -> str:
        return f"Standardize(fitted={self.mean is not None})"


class PCA:
    """Turn the data so that its columns are uncorrelated; with `whiten`, give them variance 1 as well.

    y = (x - mean) @ components.T, and with `whiten` y / sqrt(variance): the covariance of y is
    diagonal, or the identity. Rows of `components` are the directions of largest variance, in
    falling order; the largest entry of each is positive.

    `n_components`: how many are kept (None: all; no more than there are columns). ``PCA().fit(x)``
    takes samples ``(N, ...)``, flattened to D columns, and sets `mean` ``(D,)``, `components`
    ``(k, D)`` and `variance` ``(k,)`` (divided by N - 1), all float64. The call returns ``(N, k)``;
    `inverse` returns samples of the shape that `fit` saw, up to what the dropped directions held.
    Directions without variance become 0 under `whiten`, like the constant columns of `Standardize`.

    Errors: RuntimeError when it is called before `fit`; ValueError for fewer than 2 samples, NaN or
    infinity, too many components, or another shape; TypeError for integers in the call.

    >>> y = PCA().fit([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])(np.array([[3.0, 6.0]]))
    >>> y.round(4).tolist()
    [[4.4721, 0.0]]
    """

    def __init__(self, n_components: int | None = None, whiten: bool = False) -> None:
        self.n_components = None if n_components is None else _check.integer("PCA", "n_components", n_components, 1)
        self.whiten = bool(whiten)
        self.mean: np.ndarray | None = None
        self.components: np.ndarray | None = None
        self.variance: np.ndarray | None = None
        self._shape: tuple[int, ...] = ()
        self._scale: np.ndarray | None = None

    def fit(self, x: Any) -> PCA:
        """Take mean, directions and variances from `x` and return self."""
        x = _samples("PCA", x)
        if len(x) < 2:
            raise ValueError(f"PCA: expected x of at least 2 samples, got shape {x.shape}")
        columns = x.size // len(x)
        kept = columns if self.n_components is None else self.n_components
        if kept > columns:
            raise ValueError(f"PCA: expected n_components of at most {columns} (the columns of x), got {kept}")
        mean = mean_image(x).reshape(-1)
        covariance = np.zeros((columns, columns))
        for block in _blocks(x):
            centred = block.reshape(len(block), -1) - mean
            covariance += centred.T @ centred
        covariance /= len(x) - 1
        if not np.isfinite(covariance).all():
            raise ValueError("PCA: expected x without NaN and infinity, got some")
        variance, vectors = np.linalg.eigh(covariance)
        variance, components = variance[::-1].clip(0), vectors.T[::-1]
        sign = np.sign(np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1))
        # eigh finds each variance to within some roundings of the largest one
        none = variance <= columns * np.finfo(np.float64).eps * variance[0]
        self.mean, self._shape = mean, x.shape[1:]
        self.components, self.variance = (components * sign)[:kept].copy(), variance[:kept].copy()
        self._scale = np.where(none, 0.0, 1 / np.sqrt(np.where(none, 1.0, variance)))[:kept]
        return self

    def __call__(self, x: Any, rng: object = None) -> np.ndarray:
        mean, components, scale = self._ready()
        x = _floats("PCA", x)
        if x.shape[1:] != self._shape:
            raise ValueError(f"PCA: expected samples of shape {self._shape} as in fit, got {x.shape[1:]}")
        y = (x.reshape(len(x), len(mean)) - mean.astype(x.dtype)) @ components.T.astype(x.dtype)
        if self.whiten:
            y *= scale.astype(x.dtype)
        return y

    def inverse(self, y: Any) -> np.ndarray:
        """Return the samples whose transform is `y`."""
        mean, components, scale = self._ready()
        y = _floats("PCA", y)
        if y.ndim != 2 or y.shape[1] != len(components):
            raise ValueError(f"PCA: expected y of shape (N, {len(components)}), got shape {y.shape}")
        if self.whiten:
            y = y * np.where(scale > 0, 1 / np.where(scale > 0, scale, 1.0), 0.0).astype(y.dtype)
        x = y @ components.astype(y.dtype)
        x += mean.astype(y.dtype)
        return x.reshape(len(y), *self._shape)

    def _ready(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self.mean is None or self.components is None or self._scale is None:
            raise RuntimeError("PCA: expected fit(x) before the call, got no components")
        return self.mean, self.components, self._scale

    def __repr__(self) -> str:
        return f"PCA(n_components={self.n_components}, whiten={self.whiten}, fitted={self.mean is not None})"


def one_hot(labels: Any, num_classes: int | None = None, *, dtype: Any = "float32") -> np.ndarray:
    """Return rows with a 1 at the label and 0 elsewhere: integers of any shape ``(...)`` to ``(..., num_classes)``.

    `num_classes`: None means the largest label + 1.

    Errors: TypeError for labels that are no integers, ValueError for a label out of range.

    >>> one_hot([2, 0])
    array([[0., 0., 1.],
           [1., 0., 0.]], dtype=float32)
    """
    index = np.asarray(labels)
    if index.dtype.kind not in "iu":
        raise TypeError(f"one_hot: expected labels to be integers, got {index.dtype}")
    if num_classes is None:
        if index.size == 0:
            raise ValueError("one_hot: expected num_classes for an empty array of labels, got None")
        num_classes = int(index.max()) + 1
    num_classes = _check.integer("one_hot", "num_classes", num_classes, 1)
    wrong = index[(index < 0) | (index >= num_classes)]
    if wrong.size:
        raise ValueError(f"one_hot: expected labels in [0, {num_classes}), got {wrong[0]}")
    rows = np.zeros((*index.shape, num_classes), np.dtype(dtype))
    np.put_along_axis(rows, index[..., None].astype(np.intp), 1, axis=-1)
    return rows
