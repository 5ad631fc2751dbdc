"""What all pictures share: the one place that loads matplotlib, and the one that writes files."""

from __future__ import annotations

import importlib.util
import io
import os
from pathlib import Path
from typing import Any

from nnx.io import write_atomic

PathLike = str | os.PathLike[str]

FORMATS = ("png", "svg", "pdf")


def available() -> bool:
    """Tell whether matplotlib is installed, without loading it."""
    return importlib.util.find_spec("matplotlib") is not None


def new_figure(owner: str, path: PathLike | None, width: float, height: float) -> Any:
    """An empty figure of this size in inches; refuses a path that could not be written before anything is drawn."""
    if path is not None:
        file_format(owner, path)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(
            f'{owner}: expected matplotlib to be installed, got none. Try: pip install "nnx-core[plot]"'
        ) from None
    return Figure(figsize=(width, height), layout="constrained")


def file_format(owner: str, path: PathLike) -> str:
    """The format that the ending of `path` names."""
    ending = Path(path).suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        endings = ", ".join("." + name for name in FORMATS)
        raise ValueError(f"{owner}: expected path to end in one of {endings}, got {os.fspath(path)!r}")
    return ending


def finish(owner: str, figure: Any, path: PathLike | None) -> Any:
    """Write the figure if a path was given, whole or not at all; returns the figure."""
    if path is not None:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=file_format(owner, path), dpi=110)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getvalue())
    return figure
