"""Splits of a data set: training, validation and test parts, and the folds of cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnx import _check


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
    order = _order("split", n, stratify, shuffle, seed)
    return [np.sort(part) for part in np.split(order, ends[:-1])]


def k_fold(
    n: int,
    k: int = 5,
    *,
    stratify: Any = None,
    shuffle: bool = False,
    seed: int = 0,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the indices of k-fold cross-validation: `k` pairs (training, validation), each in ascending order.

    Every sample is in the validation part of exactly one fold; the sizes of the parts differ by one
    at most, the first ones being larger. Without `shuffle` and `stratify` the folds are runs of
    neighbours, the same as those of scikit-learn's ``KFold(k)``. `stratify`: labels ``(n,)``; each
    validation part then holds its share of each class, to within one sample. `seed` is for
    `shuffle` only.

    Errors: ValueError for fewer samples than folds, fewer than 2 folds, or labels of another length.

    >>> [validation.tolist() for training, validation in k_fold(7, 3)]
    [[0, 1, 2], [3, 4], [5, 6]]
    """
    n = _check.integer("k_fold", "n", n, 0)
    k = _check.integer("k_fold", "k", k, 2)
    if n < k:
        raise ValueError(f"k_fold: expected at least one sample for each of {k} folds, got n={n}")
    order = _order("k_fold", n, stratify, shuffle, seed)
    parts = [np.sort(part) for part in np.array_split(order, k)]
    return [(np.setdiff1d(np.arange(n), part, assume_unique=True), part) for part in parts]


def _order(owner: str, n: int, stratify: Any, shuffle: bool, seed: int) -> np.ndarray:
    """Return the samples in the order in which parts are cut off."""
    rng = np.random.default_rng(_check.integer(owner, "seed", seed, 0))
    order = rng.permutation(n) if shuffle else np.arange(n)
    if stratify is None:
        return order
    labels = np.asarray(stratify)
    if labels.shape != (n,):
        raise ValueError(f"{owner}: expected stratify to hold {n} labels, got shape {labels.shape}")
    # Spread each class evenly over (0, 1); whatever interval is then cut out holds its share of all
    # classes.
    _, group, count = np.unique(labels[order], return_inverse=True, return_counts=True)
    by_class = np.argsort(group, kind="stable")
    rank = np.empty(n)
    rank[by_class] = np.concatenate([np.arange(c) for c in count]) if n else 0.0
    return order[np.argsort((rank + 0.5) / count[group], kind="stable")]


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
