"""Checkpoints: everything that training needs to go on with the same bits, in one file.

The file is safetensors. Arrays (weights, optimizer state, ...) are its tensors; all the rest is JSON in its header,
with ``{"$array": name}`` where an array belongs. One file and one rename: after a crash at any moment the newest
checkpoint under a final name is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnx import _check
from nnx._device import is_array, to_host
from nnx.io import load_with_metadata, remove_leftovers, save
from nnx.train.callbacks import Best, Callback

if TYPE_CHECKING:
    from nnx.train.trainer import Trainer

_VERSION = 1
_NAME = re.compile(r"checkpoint-(\d+)\.safetensors")


class Checkpoint(Callback):
    """Write checkpoints into a folder while training, and when Ctrl-C ends it.

    folder:        made if it is missing
    every_epochs:  after how many epochs (None: not by epochs); every_steps: after how many steps, also mid-epoch
    keep:          how many of the newest checkpoints are kept (None: all)
    best:          name of a number, such as "val_accuracy": the weights of its best epoch go to ``best.safetensors``,
                   for `nnx.load`; mode: "min" or "max", None takes "max" for accuracies
    overwrite:     delete the checkpoints of another run that lie in the folder; otherwise they are an error

    With several ranks (`nnx.distributed`) rank 0 does all of it.

    ``fit(..., resume=folder)`` goes on from the newest one. FileExistsError for a folder with checkpoints without
    `resume` or `overwrite`.
    """

    order = 100  # last: a checkpoint holds what the other callbacks did

    def __init__(
        self,
        folder: str | os.PathLike[str],
        every_epochs: int | None = 1,
        every_steps: int | None = None,
        *,
        keep: int | None = 2,
        best: str | None = None,
        mode: str | None = None,
        overwrite: bool = False,
    ) -> None:
        owner = "Checkpoint"
        self.folder = Path(folder)
        self.every_epochs = _optional(owner, "every_epochs", every_epochs)
        self.every_steps = _optional(owner, "every_steps", every_steps)
        self.keep = _optional(owner, "keep", keep)
        self.overwrite = bool(overwrite)
        self._best = None if best is None else Best(owner, best, mode)

    def on_fit_begin(self, trainer: Trainer) -> None:
        if self._best is not None:
            self._best.value = None
        if trainer.rank != 0:
            return
        present = checkpoints(self.folder)
        if present and not trainer.resumed_from:
            if not self.overwrite:
                raise FileExistsError(
                    f"Checkpoint: expected a folder without checkpoints, got {str(self.folder)!r} with "
                    f"{present[-1].name}. Pass resume= to fit to go on, or overwrite=True to start anew"
                )
            for path in present:
                path.unlink()
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)

    def on_step_end(self, trainer: Trainer) -> None:
        if self.every_steps and trainer.step % self.every_steps == 0:
            self.write(trainer)

    def on_epoch_end(self, trainer: Trainer) -> None:
        if self._best is not None and self._best.improves(trainer.logs) and trainer.rank == 0:
            save(trainer.model, self.folder / "best.safetensors")
        last = trainer.epoch >= trainer.epochs or trainer.stopped is not None
        if self.every_epochs and (last or trainer.epoch % self.every_epochs == 0):
            self.write(trainer)

    def on_interrupt(self, trainer: Trainer) -> None:
        self.write(trainer)

    def write(self, trainer: Trainer) -> None:
        """Write a checkpoint now, then delete those that are too many."""
        trainer.save_checkpoint(self.folder / f"checkpoint-{trainer.step:09d}.safetensors")
        if self.keep is not None and trainer.rank == 0:
            for path in checkpoints(self.folder)[: -self.keep]:
                path.unlink()

    def state_dict(self) -> dict[str, Any]:
        return {} if self._best is None else {"best": self._best.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._best is not None:
            self._best.value = state.get("best")


def _optional(owner: str, name: str, value: int | None) -> int | None:
    return None if value is None else _check.integer(owner, name, value, 1)


def checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints in `folder`, oldest first; none if there is no such folder."""
    if not os.path.isdir(folder):
        return []
    found = [(int(m[1]), p) for p in Path(folder).iterdir() if (m := _NAME.fullmatch(p.name))]
    return [path for _, path in sorted(found)]


def latest_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """The newest checkpoint in `folder`, or None."""
    return max(checkpoints(folder), key=lambda p: int(_NAME.fullmatch(p.name)[1]), default=None)  # type: ignore[index]


# -- the file --------------------------------------------------------------------------------------


def write_checkpoint(path: str | os.PathLike[str], tree: Any) -> None:
    """Write nested dicts, lists, arrays, numbers and strings to one file, in one step."""
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps({"version": _VERSION, "tree": pack(tree, "", arrays)})
    save(arrays, path, {"nnx-checkpoint": text, "sha256": _digest(text, arrays)})


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """Read what `write_checkpoint` wrote; ValueError, naming the file, for anything else."""
    arrays, metadata = load_with_metadata(path)
    name = os.fspath(path)
    text = metadata.get("nnx-checkpoint")
    if text is None:
        raise ValueError(f"load_checkpoint: expected {name!r} to be a checkpoint, got a file of arrays only")
    if _digest(text, arrays) != metadata.get("sha256"):
        raise ValueError(
            f"load_checkpoint: expected the content of {name!r} to match its checksum, got other bytes. "
            "The file is damaged; an older checkpoint may be sound"
        )
    content = json.loads(text)
    if content["version"] != _VERSION:
        raise ValueError(
            f"load_checkpoint: expected version {_VERSION} in {name!r}, got {content['version']}. "
            "It was written by another version of nnx"
        )
    return unpack(content["tree"], arrays)


def _digest(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        a = arrays[name]
        digest.update(f"{name} {a.dtype.str} {a.shape}".encode())
        digest.update(a.tobytes())
    return digest.hexdigest()


def pack(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """`value` as JSON can hold it, with its arrays moved to `arrays`."""
    if is_array(value):
        name = path
        while name in arrays:
            name += "'"
        arrays[name] = to_host(value)
        return {"$array": name}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        packed = {k: pack(v, f"{path}/{k}" if path else str(k), arrays) for k, v in value.items()}
        if all(isinstance(k, str) and not k.startswith("$") for k in packed):
            return packed
        return {"$dict": [[pack(k, path, arrays), v] for k, v in packed.items()]}
    if isinstance(value, (list, tuple)):
        items = [pack(v, f"{path}/{i}", arrays) for i, v in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    raise TypeError(
        f"save_checkpoint: expected plain data and arrays in the state, got {type(value).__name__} at {path!r}"
    )


def unpack(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [unpack(v, arrays) for v in value]
    if not isinstance(value, dict):
        return value
    if "$array" in value:
        return arrays[value["$array"]]
    if "$tuple" in value:
        return tuple(unpack(v, arrays) for v in value["$tuple"])
    if "$dict" in value:
        return {unpack(k, arrays): unpack(v, arrays) for k, v in value["$dict"]}
    return {k: unpack(v, arrays) for k, v in value.items()}
