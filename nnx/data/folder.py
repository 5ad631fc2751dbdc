"""Images in folders, one folder per class, read with Pillow."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnx import _check
from nnx.data._raw import Pixels
from nnx.data.dataset import ImageData
from nnx.data.split import split_indices

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_GREY = ("1", "L", "LA")
_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # more than 8 bits: converting would clip
_CHUNK = 32  # files per task; enough that handing out work costs nothing


def image_folder(
    folder: str | os.PathLike[str],
    *,
    size: int | Sequence[int] | None = None,
    mode: str | None = None,
    dtype: Any = "float32",
    test: float = 0.2,
    seed: int = 0,
    workers: int | None = None,
) -> ImageData:
    """Read a folder of images with one subfolder per class; needs Pillow (``nnx-core[images]``).

    `folder` holds either ``train`` and ``test``, each with one subfolder per class, or the class
    folders themselves; then the part `test` of each class (0 for none) is split off, the same one
    for the same `seed`. Classes are numbered in the order of their names. Files are found at any
    depth below the class folder; names that start with a dot and files that are no images by their
    suffix are passed over.
    `size`: (height, width), or one number for both, that images are resized to (bilinear); without
    it all images must have one size. `mode`: "RGB" or "L" (grey); None takes grey if every image is
    grey. Transparency is dropped. `dtype`: float32 or float64 scales to 0..1; uint8 keeps 0..255.
    `workers`: decoding threads, by default one per core, at most 8.

    Errors: ImportError without Pillow; FileNotFoundError for a missing folder; ValueError, naming
    the file or folder, for an image that cannot be read or has another size, for more than 8 bits
    per channel, for no images in a class, for a test class that is not in training.
    """
    owner = "image_folder"
    reader = _Reader(owner, size, mode, dtype, workers)
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(
            f"{owner}: expected a folder with one subfolder per class, got {str(root)!r}, which is no folder"
        )
    fraction = _check.real(owner, "test", test, 0, 1, open_high=True)
    _check.integer(owner, "seed", seed, 0)
    halves = [name for name in ("train", "test") if (root / name).is_dir()]
    if len(halves) == 1:
        raise ValueError(f"{owner}: expected both train and test or neither in {str(root)!r}, got only {halves[0]!r}")
    if halves:
        classes, paths, y = _list_classes(owner, root / "train")
        classes_test, paths_test, y_test = _list_classes(owner, root / "test")
        unknown = sorted(set(classes_test) - set(classes))
        if unknown:
            raise ValueError(
                f"{owner}: expected the classes of {str(root / 'train')!r} in "
                f"{str(root / 'test')!r}, got also {', '.join(unknown)}"
            )
        number = np.array([classes.index(name) for name in classes_test])
        x = reader.read([*paths, *paths_test])
        n = len(paths)
        return ImageData(x[:n], y, x[n:], number[y_test], classes)
    classes, paths, y = _list_classes(owner, root)
    held = round(fraction * len(y))
    if fraction and not 0 < held < len(y):
        raise ValueError(
            f"{owner}: expected enough images to split off the part {fraction:g} as test, "
            f"got {len(y)} in {str(root)!r}. test=0 takes all of them for training."
        )
    train, rest = np.arange(len(y)), np.arange(0)
    if held:
        train, rest = split_indices(len(y), (len(y) - held, held), stratify=y, seed=seed)
    x = reader.read([paths[i] for i in (*train, *rest)])
    n = len(train)
    return ImageData(x[:n], y[train], x[n:], y[rest], classes)


def read_images(
    paths: Sequence[str | os.PathLike[str]],
    *,
    size: int | Sequence[int] | None = None,
    mode: str | None = None,
    dtype: Any = "float32",
    workers: int | None = None,
) -> np.ndarray:
    """Read image files as one array ``(N, C, H, W)``, with the arguments and errors of `image_folder`.

    C is 1 for mode "L" and 3 for "RGB".
    """
    if isinstance(paths, (str, os.PathLike)):
        raise TypeError(f"read_images: expected a list of paths, got one path {os.fspath(paths)!r}")
    reader = _Reader("read_images", size, mode, dtype, workers)
    found = [Path(path) for path in paths]
    if not found:
        raise ValueError("read_images: expected at least one path, got none")
    for path in found:
        if not path.is_file():
            raise FileNotFoundError(f"read_images: expected image files, got {str(path)!r}")
    return reader.read(found)


def _list_classes(owner: str, root: Path) -> tuple[tuple[str, ...], list[Path], np.ndarray]:
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise ValueError(f"{owner}: expected one subfolder per class in {str(root)!r}, got none")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        files = []
        for place, inner, leaves in os.walk(root / name):
            inner[:] = [d for d in inner if not d.startswith(".")]
            files += [
                Path(place, leaf) for leaf in leaves if leaf.lower().endswith(_SUFFIXES) and not leaf.startswith(".")
            ]
        if not files:
            raise ValueError(f"{owner}: expected images ({' '.join(_SUFFIXES)}) in {str(root / name)!r}, got none")
        paths += sorted(files)
        labels += [label] * len(files)
    return tuple(names), paths, np.array(labels, np.int64)


class _Reader:
    """Reads lists of image files; the arguments are checked when it is made, before any file is."""

    def __init__(self, owner: str, size: Any, mode: str | None, dtype: Any, workers: int | None) -> None:
        self.owner = owner
        self.as_pixels = Pixels(owner, dtype)
        self.size = None if size is None else _check.ntuple(owner, "size", size, 2, 1)
        self.mode = _check.choice(owner, "mode", mode, (None, "L", "RGB"))
        if workers is None:
            workers = min(8, os.cpu_count() or 1)
        self.workers = _check.integer(owner, "workers", workers, 1)
        try:
            from PIL import Image
        except ImportError:
            raise ImportError(
                f'{owner}: expected the package Pillow to read images, got none. Run: pip install "nnx-core[images]"'
            ) from None
        self.image = Image

    def read(self, paths: list[Path]) -> np.ndarray:
        """Return the images ``(N, C, H, W)``.

        The headers of all files come first, so that what cannot fit is refused before memory is
        taken.
        """
        headers: list[tuple[tuple[int, int], str]] = [((0, 0), "")] * len(paths)

        def read_header(i: int) -> None:
            with self.image.open(paths[i]) as image:
                headers[i] = (image.height, image.width), image.mode

        self._for_each(paths, read_header)
        for path, (shape, native) in zip(paths, headers, strict=True):
            if native in _DEEP:
                raise ValueError(f"{self.owner}: expected 8 bits per channel, got mode {native!r} in {str(path)!r}")
            if self.size is None and shape != headers[0][0]:
                raise ValueError(
                    f"{self.owner}: expected all images to have one size, got {headers[0][0]} "
                    f"(height, width) in {str(paths[0])!r} and {shape} in {str(path)!r}. "
                    "size=(height, width) resizes them."
                )
        height, width = self.size or headers[0][0]
        mode = self.mode
        if mode is None:
            mode = "L" if all(native in _GREY for _, native in headers) else "RGB"
        x = np.empty((len(paths), 1 if mode == "L" else 3, height, width), self.as_pixels.dtype)

        def read_pixels(i: int) -> None:
            with self.image.open(paths[i]) as image:
                converted = image.convert(mode)
            if converted.size != (width, height):
                converted = converted.resize((width, height), self.image.Resampling.BILINEAR)
            pixels = self.as_pixels(np.asarray(converted))
            x[i] = pixels if mode == "L" else pixels.transpose(2, 0, 1)

        self._for_each(paths, read_pixels)
        return x

    def _for_each(self, paths: list[Path], work: Callable[[int], None]) -> None:
        """Call ``work(i)`` for each path in threads (Pillow decodes without the GIL).

        The ValueError for a file that cannot be read names it.
        """
        from concurrent.futures import ThreadPoolExecutor

        def run(start: int) -> None:
            for i in range(start, min(start + _CHUNK, len(paths))):
                try:
                    work(i)
                except Exception as error:  # Pillow's plugins raise whatever their parsers do
                    raise ValueError(
                        f"{self.owner}: expected an image that Pillow can read, "
                        f"got {str(paths[i])!r}: {type(error).__name__}: {error}"
                    ) from error

        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="nnx-images")
        try:
            for _ in pool.map(run, range(0, len(paths), _CHUNK)):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
