"""CIFAR-10 and CIFAR-100 in the binary version: records of one or two label bytes and 3 x 32 x 32 pixels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from nnx import _check
from nnx.data._download import Remote, locate, retrieve, write_atomic
from nnx.data._raw import Pixels, check_labels
from nnx.data.dataset import ImageData

_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html (the binary version)"
_PIXELS = 3 * 32 * 32
_MAX_FILE = 1 << 28  # no file in the archives is nearly as large

_CIFAR10 = Remote(
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
_CIFAR100 = Remote(
    "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
)
_TRAIN10 = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_CLASSES10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def cifar10(
    folder: str | os.PathLike[str] | None = None, *, download: bool = False, dtype: Any = "float32"
) -> ImageData:
    """Read CIFAR-10: 50,000 + 10,000 colour photographs of 10 classes, 32 x 32, from its binary version.

    `folder` holds ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin`` (also in
    ``cifar-10-batches-bin`` below it). None means ``cache_dir() / "cifar10"``. `download`: fetch
    the archive (162 MB) into the cache, checked by its sha256, if the folder does not exist; needs
    ``nnx-core[download]``.
    `dtype`: float32 (737 MB) or float64 scales to 0..1; uint8 (184 MB) keeps 0..255.

    The "python version" is pickle, which can run any code; nnx never opens it.

    Errors: FileNotFoundError that names the files; ValueError, naming the file, for a damaged one.

    A. Krizhevsky, Learning multiple layers of features from tiny images (2009).
    """
    owner = "cifar10"
    root = _locate(owner, folder, download, _CIFAR10, (*_TRAIN10, "test_batch.bin"), "cifar-10-batches-bin", ())
    train = [root / name for name in _TRAIN10]
    return _load(owner, train, [root / "test_batch.bin"], dtype, (10,), 0, _CLASSES10)


def cifar100(
    folder: str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    dtype: Any = "float32",
    labels: str = "fine",
) -> ImageData:
    """Read CIFAR-100: as `cifar10`, with 100 classes in 20 groups, from ``train.bin`` and ``test.bin``.

    `labels`: "fine" for the 100 classes, "coarse" for the 20 groups. Class names come from
    ``fine_label_names.txt`` and ``coarse_label_names.txt``; without these files the classes are
    called by their numbers.
    """
    owner = "cifar100"
    kind = ("coarse", "fine").index(_check.choice(owner, "labels", labels, ("fine", "coarse")))
    names = f"{labels}_label_names.txt"
    root = _locate(
        owner,
        folder,
        download,
        _CIFAR100,
        ("train.bin", "test.bin"),
        "cifar-100-binary",
        ("fine_label_names.txt", "coarse_label_names.txt"),
    )
    classes = _read_names(owner, root / names, (20, 100)[kind])
    return _load(owner, [root / "train.bin"], [root / "test.bin"], dtype, (20, 100), kind, classes)


def _locate(
    owner: str,
    folder: str | os.PathLike[str] | None,
    download: bool,
    remote: Remote,
    names: tuple[str, ...],
    tree: str,
    extras: tuple[str, ...],
) -> Path:
    def home(root: Path) -> Path:
        return root / tree if (root / tree).is_dir() else root

    def missing(root: Path) -> list[str]:
        absent = [name for name in names if not (home(root) / name).is_file()]
        if absent and (pickled := _pickled(root)) is not None:
            raise FileNotFoundError(
                f"{owner}: expected the binary version ({', '.join(names)}), "
                f"got the python version in {str(pickled)!r}. It is pickle, which can run any "
                f"code, so nnx does not read it. Get the binary version from {_PAGE}."
            )
        return absent

    def fetch(root: Path) -> None:
        archive = retrieve(owner, remote, root)
        _unpack(archive, root, names, extras)
        archive.unlink()

    return home(locate(owner, folder, download, missing, fetch, _PAGE))


def _pickled(root: Path) -> Path | None:
    """Return the folder at or below `root` with the python version of CIFAR, if there is one."""
    for place in (root, root / "cifar-10-batches-py", root / "cifar-100-python"):
        if any((place / name).is_file() for name in ("data_batch_1", "batches.meta", "meta")):
            return place
    return None


def _unpack(archive: Path, root: Path, names: tuple[str, ...], extras: tuple[str, ...]) -> None:
    """Write the files called `names` and `extras` in the archive to `root`: their contents, and nothing else in it."""
    import tarfile

    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            name = member.name.rsplit("/", 1)[-1]
            if name in (*names, *extras) and member.isfile() and member.size <= _MAX_FILE:
                stream = tar.extractfile(member)
                assert stream is not None  # a regular file
                write_atomic(root / name, stream.read())


def _load(
    owner: str,
    train: list[Path],
    test: list[Path],
    dtype: Any,
    classes: tuple[int, ...],
    kind: int,
    names: tuple[str, ...],
) -> ImageData:
    as_pixels = Pixels(owner, dtype)
    counts = {path: _count(owner, path, len(classes) + _PIXELS) for path in (*train, *test)}

    def read(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
        n = sum(counts[path] for path in paths)
        x = np.empty((n, 3, 32, 32), as_pixels.dtype)
        y = np.empty(n, np.int64)
        start = 0
        for path in paths:
            record = np.fromfile(path, np.uint8).reshape(counts[path], len(classes) + _PIXELS)
            for column, limit in enumerate(classes):
                check_labels(owner, str(path), record[:, column], limit)
            stop = start + len(record)
            x[start:stop] = as_pixels(record[:, len(classes) :].reshape(-1, 3, 32, 32))
            y[start:stop] = record[:, kind]
            start = stop
        return x, y

    return ImageData(*read(train), *read(test), names)


def _count(owner: str, path: Path, record: int) -> int:
    size = path.stat().st_size
    if size == 0 or size % record:
        raise ValueError(
            f"{owner}: expected records of {record:,} bytes in {str(path)!r}, got {size:,} bytes "
            f"({size % record:,} over {size // record:,} records)"
        )
    return size // record


def _read_names(owner: str, path: Path, count: int) -> tuple[str, ...]:
    if not path.is_file():
        return tuple(str(i) for i in range(count))
    names = tuple(path.read_text(encoding="utf-8", errors="replace").split())
    if len(names) != count:
        raise ValueError(f"{owner}: expected {count} names in {str(path)!r}, got {len(names)}")
    return names
