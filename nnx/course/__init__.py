"""The lecture topics, one runnable module each.

``python -m nnx course`` lists them, ``python -m nnx course TOPIC --out DIR`` runs one and writes its pictures. A topic
is a module of this room with ``ROWS``, the rows of the course table that it teaches, and ``run``; its page is
``docs/course/TOPIC.md``.

>>> result = run("history", small=True)  # doctest: +SKIP
"""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["load", "names", "picture", "run", "title"]


def names() -> list[str]:
    """The names of all topics, in alphabetical order; no topic is loaded for it."""
    return sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_"))


def load(topic: str) -> ModuleType:
    """Import a topic and return its module; ValueError, with the topics there are, if there is no such one."""
    if topic not in names():
        raise ValueError(f"course: expected one of the topics {', '.join(names())}, got {topic!r}")
    return import_module(f"nnx.course.{topic}")


def title(topic: str) -> str:
    """The first line of the topic's docstring, without its full stop."""
    return (load(topic).__doc__ or topic).strip().splitlines()[0].rstrip(".")


def run(topic: str, out: str | Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Run a topic: it prints what it finds, writes pictures into the folder `out`, and returns its numbers.

    out:    folder for pictures, made if it is not there; None draws nothing
    small:  less data and fewer steps: about three seconds at most
    """
    from nnx import viz

    module = load(topic)
    folder = None if out is None else Path(out).expanduser()
    if folder is not None and viz.available():
        folder.mkdir(parents=True, exist_ok=True)
    return module.run(out=folder, small=small, seed=seed)


_told: set[Path] = set()


def picture(out: Path | None, name: str) -> Path | None:
    """The file for the picture `name`, or None where none is drawn: `out` is None, or matplotlib is missing.

    The second case is said once, in one line on standard error.

        if path := picture(out, "perceptron-regions"):
            viz.decision_regions(model, x, y, path=path)
    """
    from nnx import viz

    if out is None:
        return None
    if not viz.available():
        if out not in _told:
            _told.add(out)
            print('nnx: pictures need matplotlib: pip install "nnx-core[plot]"', file=sys.stderr)
        return None
    return out / f"{name}.png"
