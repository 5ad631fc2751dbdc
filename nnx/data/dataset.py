"""Data sets: samples under an integer index, fetched a whole batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False, repr=False)
class ImageData:
    """Training and test images with their labels, as every loader of this package returns them.

    `x_train`, `x_test`: ``(N, C, H, W)``; `y_train`, `y_test`: int64 ``(N,)``, each an index into
    `classes`. The four arrays unpack in this order:

    >>> from nnx.data import digits
    >>> x_train, y_train, x_test, y_test = digits()
    >>> digits()
    ImageData(x_train=float32 (1438, 1, 8, 8), x_test=float32 (359, 1, 8, 8), 10 classes)
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.x_train, self.y_train, self.x_test, self.y_test))

    def __repr__(self) -> str:
        train, test = (f"{x.dtype} {x.shape}" for x in (self.x_train, self.x_test))
        return f"ImageData(x_train={train}, x_test={test}, {len(self.classes)} classes)"


class ArrayDataset:
    """Arrays with one sample per row: sample ``i`` is ``(a[i], b[i], ...)``.

    Parameters: `arrays`, one or more arrays, memory maps (``numpy.load(path, mmap_mode="r")``), nnx
    Tensors or nested lists of equal length. They are not copied, and a batch of a memory map reads
    only its own rows.

    Errors: TypeError for no array or an array of objects, ValueError for a scalar or for unequal
    lengths.

    >>> data = ArrayDataset(np.arange(6).reshape(3, 2), [0, 1, 0])
    >>> data.gather([2, 0])
    (array([[4, 5],
           [0, 1]]), array([0, 0]))
    """

    def __init__(self, *arrays: Any) -> None:
        if not arrays:
            raise TypeError("ArrayDataset: expected at least one array, got none")
        # asarray strips the memmap subclass, not the mapping: rows are still read when they are
        # asked for.
        self.arrays = tuple(np.asarray(a) for a in arrays)
        for i, a in enumerate(self.arrays):
            if a.dtype.hasobject:
                raise TypeError(
                    f"ArrayDataset: expected array {i} to hold numbers, got dtype {a.dtype}. "
                    "Rows of unequal length give an array of objects."
                )
            if a.ndim == 0:
                raise ValueError(f"ArrayDataset: expected array {i} to have at least 1 dimension, got a scalar")
        if len({len(a) for a in self.arrays}) > 1:
            shapes = ", ".join(str(a.shape) for a in self.arrays)
            raise ValueError(f"ArrayDataset: expected arrays of equal length, got shapes {shapes}")

    @property
    def in_memory(self) -> bool:
        """Whether no array is a view of a memory-mapped file."""
        return not any(_is_mapped(a) for a in self.arrays)

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return tuple(a[index] for a in self.arrays)

    def gather(self, indices: Any) -> tuple[np.ndarray, ...]:
        """Return the rows of all arrays at integer `indices` as fresh arrays, without a loop over samples."""
        indices = np.asarray(indices, dtype=np.intp)
        # take moves whole rows and is the faster one, but copies all of an array that is not
        # contiguous first.
        return tuple(a.take(indices, axis=0) if a.flags.c_contiguous else a[indices] for a in self.arrays)

    def __repr__(self) -> str:
        return f"ArrayDataset({', '.join(f'{a.dtype} {a.shape}' for a in self.arrays)})"


def _is_mapped(array: Any) -> bool:
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


TensorDataset = ArrayDataset
"""`ArrayDataset` under the name that PyTorch gives it."""


class Subset:
    """The samples of `dataset` at `indices`, in that order.

    `indices`: integers in ``[0, len(dataset))``; an index may occur more than once.

    Errors: TypeError for other than integers, IndexError for an index out of range.
    """

    def __init__(self, dataset: Any, indices: Any) -> None:
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
            raise TypeError(
                f"Subset: expected indices to be a list of integers, got {chosen.dtype} of shape {chosen.shape}"
            )
        n = len(dataset)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= n):
            raise IndexError(f"Subset: expected indices in [0, {n}), got {chosen.min()} to {chosen.max()}")
        self.dataset = dataset
        self.indices = chosen.astype(np.intp)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]

    def gather(self, indices: Any) -> Any:
        """Return the batch of the samples at `indices` of this subset."""
        return gather(self.dataset, self.indices[np.asarray(indices, dtype=np.intp)])


def gather(dataset: Any, indices: np.ndarray) -> Any:
    """Return the samples of `dataset` at `indices` as one batch.

    A data set with a method ``gather(indices)`` builds the batch itself; any other is asked for
    each sample by ``dataset[i]``.
    """
    whole = getattr(dataset, "gather", None)
    if whole is not None:
        return whole(indices)
    return collate([dataset[int(i)] for i in indices])


def collate(samples: Sequence[Any]) -> tuple[np.ndarray, ...]:
    """Stack samples (arrays, numbers or tuples of them) to a tuple of arrays with one row per sample."""
    columns = zip(*samples, strict=True) if isinstance(samples[0], (tuple, list)) else (samples,)
    return tuple(_stack([np.asarray(value) for value in column]) for column in columns)


def _stack(column: list[np.ndarray]) -> np.ndarray:
    shape = column[0].shape
    for value in column:
        if value.dtype.hasobject:
            raise TypeError(
                "DataLoader: expected samples made of arrays and numbers, got an object. "
                "Pass collate_fn to build the batch yourself."
            )
        if value.shape != shape:
            raise ValueError(
                f"DataLoader: expected samples of equal shape, got {shape} and {value.shape}. "
                "Pass collate_fn to build the batch yourself."
            )
    return np.stack(column)
