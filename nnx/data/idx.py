"""IDX files, and the data sets that come in them: MNIST and Fashion-MNIST.

An IDX file is two zero bytes, one byte for the type, one for the number of dimensions, each
dimension as a 32-bit integer, and the values in C order; all big-endian.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from nnx.data._download import Remote, locate, retrieve
from nnx.data._raw import Pixels, check_labels
from nnx.data.dataset import ImageData

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

# Deflate cannot expand by more than this, so a small compressed file that claims to be huge is
# refused unread.
_DEFLATE_LIMIT = 1032

_PARTS = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}

_MNIST = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    {
        "x_train": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "y_train": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "x_test": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "y_test": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
)
_FASHION_MNIST = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    {
        "x_train": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "y_train": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "x_test": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "y_test": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
)
_DIGITS = tuple("0123456789")
_CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def mnist(folder: str | os.PathLike[str] | None = None, *, download: bool = False, dtype: Any = "float32") -> ImageData:
    """Read MNIST: 60,000 + 10,000 handwritten digits, 28 x 28, from its four IDX files.

    `folder` holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
    ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each as it is or with ``.gz`` (also
    in ``MNIST/raw`` below `folder`). None means ``cache_dir() / "mnist"``. `download`: fetch the
    files into the cache, checked by their sha256, if the folder does not exist; needs
    ``nnx-core[download]``. Files in a folder of your own are not compared with the published ones.
    `dtype`: float32 or float64 scales to 0..1; uint8 keeps the grey levels 0..255 in a quarter of
    the memory.

    Errors: FileNotFoundError that names the files; ValueError, naming the file, for a damaged one.

    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document
    recognition, Proc. IEEE 86 (1998).
    """
    return _load("mnist", folder, download, dtype, _MNIST, "MNIST", _DIGITS)


def fashion_mnist(
    folder: str | os.PathLike[str] | None = None, *, download: bool = False, dtype: Any = "float32"
) -> ImageData:
    """Read Fashion-MNIST: 60,000 + 10,000 pictures of clothes, 28 x 28, in the files and with the arguments of `mnist`.

    H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST, arXiv:1708.07747 (2017).
    """
    return _load("fashion_mnist", folder, download, dtype, _FASHION_MNIST, "FashionMNIST", _CLOTHES)


def _load(
    owner: str,
    folder: str | os.PathLike[str] | None,
    download: bool,
    dtype: Any,
    published: tuple[str, dict[str, str]],
    tree: str,
    classes: tuple[str, ...],
) -> ImageData:
    as_pixels = Pixels(owner, dtype)
    base, sums = published
    remotes = [Remote(f"{base}{_PARTS[part]}.gz", sums[part]) for part in _PARTS]

    def missing(root: Path) -> list[str]:
        return [f"{name}[.gz]" for name in _PARTS.values() if _find(root, tree, name) is None]

    def fetch(root: Path) -> None:
        for remote in remotes:
            retrieve(owner, remote, root)

    root = locate(owner, folder, download, missing, fetch, base)
    files = {part: _find(root, tree, name) for part, name in _PARTS.items()}
    parts = {}
    for part, path in files.items():
        assert path is not None  # locate() has seen to it
        parts[part] = _read(owner, path, ndim=3 if part.startswith("x") else 1)
    for x, y in (("x_train", "y_train"), ("x_test", "y_test")):
        if len(parts[x]) != len(parts[y]):
            raise ValueError(
                f"{owner}: expected as many labels as images, got {len(parts[x])} images in "
                f"{str(files[x])!r} and {len(parts[y])} labels in {str(files[y])!r}"
            )
        check_labels(owner, str(files[y]), parts[y], len(classes))
    if parts["x_train"].shape[1:] != parts["x_test"].shape[1:]:
        raise ValueError(
            f"{owner}: expected training and test images of one size, "
            f"got {parts['x_train'].shape[1:]} and {parts['x_test'].shape[1:]} in {str(root)!r}"
        )
    return ImageData(
        as_pixels(parts["x_train"][:, None]),
        parts["y_train"].astype(np.int64),
        as_pixels(parts["x_test"][:, None]),
        parts["y_test"].astype(np.int64),
        classes,
    )


def _find(root: Path, tree: str, name: str) -> Path | None:
    # Some copies are called train-images.idx3-ubyte.
    for place in (root, root / tree / "raw"):
        for stem in (name, name.replace("-idx", ".idx")):
            for suffix in ("", ".gz"):
                path = place / f"{stem}{suffix}"
                if path.is_file():
                    return path
    return None


def _read(owner: str, path: Path, ndim: int) -> np.ndarray:
    values = read_idx(path)
    if values.dtype != np.uint8 or values.ndim != ndim:
        raise ValueError(
            f"{owner}: expected unsigned bytes in {ndim} dimensions in {str(path)!r}, "
            f"got {values.dtype} of shape {values.shape}"
        )
    if ndim == 3 and 0 in values.shape[1:]:
        raise ValueError(f"{owner}: expected images with pixels in {str(path)!r}, got shape {values.shape}")
    return values


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read one IDX file, plain or gzip-compressed, as an array of the type and shape that it states.

    Everything the header claims is checked against the size of the file before memory is taken.

    Errors: ValueError, naming the file, for a wrong magic number, an unknown type, too few bytes,
    bytes left over or broken compression.
    """
    path = Path(path)
    size = path.stat().st_size
    with open(path, "rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not zipped:
            return _parse(raw, path, size, exact=True)
        import gzip
        import zlib

        try:
            with gzip.GzipFile(fileobj=raw) as stream:
                return _parse(stream, path, size * _DEFLATE_LIMIT, exact=False)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"read_idx: expected a whole gzip file, got {str(path)!r}: {error}") from None


def _parse(stream: Any, path: Path, limit: int, exact: bool) -> np.ndarray:
    """Parse `stream`, which has `limit` bytes at most (exactly so many if `exact`)."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or magic[3] == 0:
        raise ValueError(
            "read_idx: expected an IDX file (0, 0, type, dimensions), "
            f"got {str(path)!r} with the first bytes {list(magic)}"
        )
    dtype = np.dtype(_TYPES[magic[2]])
    header = stream.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise ValueError(f"read_idx: expected {magic[3]} dimensions in the header, got the end of {str(path)!r}")
    shape = tuple(int.from_bytes(header[i : i + 4], "big") for i in range(0, len(header), 4))
    count = 1
    for n in shape:  # exact: Python integers do not overflow
        count *= n
    total = 4 + len(header) + count * dtype.itemsize
    if total > limit or (exact and total != limit):
        size = f"{limit:,} bytes" if exact else f"room for {limit:,} bytes at most"
        raise ValueError(f"read_idx: expected {total:,} bytes for shape {shape}, got {size} in {str(path)!r}")
    data = np.empty(count * dtype.itemsize, np.uint8)
    free = data.data
    filled = 0
    while filled < len(data):
        got = stream.readinto(free[filled:])
        if not got:
            raise ValueError(
                f"read_idx: expected {len(data):,} bytes of values for shape {shape}, got {filled:,} in {str(path)!r}"
            )
        filled += got
    if stream.read(1):
        raise ValueError(f"read_idx: expected the end of {str(path)!r} after {total:,} bytes, got more")
    try:
        values = data.view(dtype).reshape(shape)
    except ValueError:  # too many dimensions, or enormous ones beside a 0
        raise ValueError(f"read_idx: expected a shape that an array can have, got {shape} in {str(path)!r}") from None
    return values.astype(dtype.newbyteorder("="), copy=False)
