"""Preprocessing: scaling, centring, statistics, splits, one-hot labels.

`to_float`, `Normalize` and `Standardize` take (and ignore) a second argument `rng`, so that they
fit into `nnx.data.Compose` beside the random transforms.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def split(
    *arrays: Any,
    sizes: Sequence[float] = (0.8, 0.2),
    stratify: Any = None,
    shuffle: bool = True,
    seed: int = 0,
) -> list[Any]:
    """Split arrays of equal length into parts: training and test, or training, validation and test.

    Returns one entry per part: a tuple with that part of each array, or the array itself if only
    one was given. The other arguments are those of `split_indices`.

    Errors: also TypeError for no array and ValueError for arrays of unequal length.

    >>> x, y = np.arange(20).reshape(10, 2), np.arange(10) % 2
    >>> (x_train, y_train), (x_test, y_test) = split(x, y, stratify=y)
    >>> x_train.shape, y_test.tolist()
    ((8, 2), [1, 0])
    """
    if not arrays:
        raise TypeError("split: expected at least one array, got none")
    held = [np.asarray(a) for a in arrays]
    if any(a.ndim == 0 for a in held) or len({len(a) for a in held}) > 1:
        shapes = ", ".join(str(a.shape) for a in held)
        raise ValueError(f"split: expected arrays of equal length, got shapes {shapes}")
    parts = split_indices(len(held[0]), sizes, stratify=stratify, shuffle=shuffle, seed=seed)
    if len(held) == 1:
        return [held[0][part] for part in parts]
    return [tuple(a[part] for a in held) for part in parts]


def split_indices(
    n: int,
    sizes: Sequence[float] = (0.8, 0.2),
    *,
    stratify: Any = None,
    shuffle: bool = True,
    seed: int = 0,
) -> list[np.ndarray]:
    """Split the indices 0 to n - 1 into disjoint parts, each in ascending order.

    `sizes`: fractions that add up to 1, or counts that add up to `n`. `stratify`: labels ``(n,)``;
    each part then holds its share of each class, to within one sample. `shuffle`: draw the members
    by `seed`; otherwise the parts follow each other (within each class, if stratified). For a
    memory map, `nnx.data.Subset` with these indices loads nothing.

    Errors: ValueError for sizes that do not add up, for a part without samples, or labels of
    another length.
    """
    n = _check.integer("split", "n", n, 0)
    ends = _ends(n, sizes)
    rng = np.random.default_rng(_check.integer("split", "seed", seed, 0))
    order = rng.permutation(n) if shuffle else np.arange(n)
    if stratify is not None:
        labels = np.asarray(stratify)
        if labels.shape != (n,):
            raise ValueError(f"split: expected stratify to hold {n} labels, got shape {labels.shape}")
        # Spread each class evenly over (0, 1); whatever interval is then cut out holds its share of
        # all classes.
        _, group, count = np.unique(labels[order], return_inverse=True, return_counts=True)
        by_class = np.argsort(group, kind="stable")
        rank = np.empty(n)
        rank[by_class] = np.concatenate([np.arange(c) for c in count]) if n else 0.0
        order = order[np.argsort((rank + 0.5) / count[group], kind="stable")]
    return [np.sort(part) for part in np.split(order, ends[:-1])]


def _ends(n: int, sizes: Sequence[float]) -> list[int]:
    """Return where each part ends."""
    values = list(sizes)
    counts = bool(values) and all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in values)
    kind = "size" if counts else "size as a fraction"
    for v in values:
        _check.real("split", kind, v, 0)
    total = sum(values)
    if counts and total != n:
        raise ValueError(f"split: expected sizes that add up to {n}, got {values} (sum {total})")
    if not counts and not abs(total - 1) <= 1e-9:
        raise ValueError(f"split: expected sizes that add up to 1 or to {n}, got {values}")
    sums = np.cumsum(values)
    ends = [int(end) for end in (sums if counts else np.rint(sums * n))]
    for i, (low, high) in enumerate(zip([0, *ends], ends, strict=False)):
        if low == high:
            raise ValueError(
                f"split: expected at least one sample in each part, got none in part {i} "
                f"(sizes {values} of {n} samples)"
            )
    return ends


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
