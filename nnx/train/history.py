"""History: what was measured, epoch by epoch."""

from __future__ import annotations

import os
from typing import Any

from nnx.io import read_json, write_json


class History(dict[str, list[Any]]):
    """A dict of plain lists with one entry per epoch: ``history["loss"]``, also ``history.loss``.

    Keys after `Trainer.fit`: "loss", the metrics ("accuracy"), "val_loss" and so on with validation data, "lr" (of the
    epoch's last step) and "seconds".

    >>> history = History()
    >>> history.append({"loss": 0.5, "accuracy": 0.9})
    >>> history.loss, history.epochs
    ([0.5], 1)
    """

    def __getattr__(self, name: str) -> list[Any]:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"History: expected one of {', '.join(self) or '(nothing was recorded)'}, got {name!r}"
            ) from None

    @property
    def epochs(self) -> int:
        """How many epochs were recorded."""
        return max((len(values) for values in self.values()), default=0)

    def append(self, values: dict[str, Any]) -> None:
        """Add one epoch. What is new gets None for the epochs before, what is missing None for this one."""
        n = self.epochs
        for name in values:
            self.setdefault(name, [None] * n)
        for name, column in self.items():
            column.append(values.get(name))

    def last(self) -> dict[str, Any]:
        """The numbers of the last epoch."""
        return {name: values[-1] for name, values in self.items() if values}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON, in one step; NaN and infinities become null."""
        write_json(path, dict(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> History:
        """Read the lists of what `save` or the command line wrote; null becomes NaN again."""
        table = read_json(path)
        if not isinstance(table, dict):
            raise ValueError(
                f"History.load: expected {os.fspath(path)!r} to hold names and lists, got {type(table).__name__}"
            )
        columns = {name: values for name, values in table.items() if isinstance(values, list)}
        return cls({k: [float("nan") if v is None else v for v in vs] for k, vs in columns.items()})
