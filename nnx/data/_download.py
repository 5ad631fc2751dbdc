"""Where data sets lie, and how they get there when the user asks for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Remote(NamedTuple):
    """A file to download, with the checksum that its publisher's copy has."""

    url: str
    sha256: str


def cache_dir() -> Path:
    """Return the folder that downloads go to: ``NNX_CACHE`` if set, else ``nnx`` in the user's cache folder.

    That is ``$XDG_CACHE_HOME`` or ``~/.cache`` on Linux, ``~/Library/Caches`` on macOS,
    ``%LOCALAPPDATA%`` on Windows. The folder need not exist.
    """
    own = os.environ.get("NNX_CACHE")
    if own:
        return Path(own).expanduser()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        base = Path(local) if local else Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        xdg = os.environ.get("XDG_CACHE_HOME")
        base = Path(xdg) if xdg else Path.home() / ".cache"
    return base / "nnx"


def locate(
    owner: str,
    folder: str | os.PathLike[str] | None,
    download: bool,
    missing: Callable[[Path], list[str]],
    fetch: Callable[[Path], None],
    source: str,
) -> Path:
    """Return the folder that holds the data set `owner`, downloading it if it is absent and `download` is true.

    A `folder` that exists is used as it is, whatever its checksums: people keep data in their own
    form. Without one, or with one that does not exist and `download`, it is ``cache_dir() /
    owner``.

    Parameters: `missing(folder)` names the files that a folder lacks; `fetch(folder)` downloads
    into it; `source` tells where people get the files.

    Errors: FileNotFoundError that names the files.
    """
    cache = cache_dir() / owner
    given = None if folder is None else Path(folder).expanduser()
    if given is not None and (given.exists() or not download):
        place = given
    else:
        place = cache
        if download and missing(place):
            fetch(place)
    absent = missing(place)
    if not absent:
        return place
    names = ", ".join(absent)
    if place.is_dir():
        problem = f"expected all files of the data set, got {str(place)!r} without {names}"
    else:
        problem = f"expected a folder with {names}, got {str(place)!r}, which is no folder"
    raise FileNotFoundError(
        f"{owner}: {problem}. Get them from {source}, or let {owner}(download=True) fetch them into {str(cache)!r}."
    )


def retrieve(owner: str, remote: Remote, folder: Path) -> Path:
    """Download `remote` into `folder` and check its sha256; a file already there is used if its checksum is right.

    Errors: ImportError without pooch; ValueError (pooch's) for a wrong checksum.
    """
    try:
        import pooch
    except ImportError:
        raise ImportError(
            f'{owner}: expected the package pooch for a download, got none. Run: pip install "nnx-core[download]"'
        ) from None
    name = remote.url.rsplit("/", 1)[1]
    known = f"sha256:{remote.sha256}"
    return Path(pooch.retrieve(remote.url, known_hash=known, fname=name, path=folder))


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that the file is there whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
