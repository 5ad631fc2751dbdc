"""What training does differently when this process is one of several ranks; with one rank, nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from nnx import _random

Totals = dict[str, tuple[float, int]]  # name of what was measured -> sum over samples, number of samples


class Ranks:
    """The ranks that train a model together.

    model:        a `nnx.distributed.DataParallel`, or a model that becomes one when `wanted` is True, or None and this
                  process was started by mpiexec
    """

    def __init__(self, model: Any, wanted: bool | None) -> None:
        from nnx.distributed import DataParallel, SerialCommunicator, is_distributed

        self.parallel: Any = None
        if isinstance(model, DataParallel):
            self.parallel = model
        elif wanted or (wanted is None and is_distributed()):
            self.parallel = DataParallel(model)
        self.comm = SerialCommunicator() if self.parallel is None else self.parallel.comm
        self.rank, self.size = self.comm.rank, self.comm.size
        self.told = 0  # the signal that ends training, known to all ranks since the last step

    # -- state that all ranks share --------------------------------------------------------------

    def begin(self, optimizer: Any) -> None:
        """All ranks get the numbers of rank 0, and each a random stream of its own."""
        self.told = 0
        if self.size > 1:
            self.parallel.broadcast(optimizer)
            if self.rank:
                _random.set_state(_derived(_random.get_state(), self.rank))

    def set_step(self, step: int) -> None:
        if self.size > 1:
            self.comm.step = step

    def after_update(self) -> None:
        if self.parallel is not None and self.parallel.sync == "params":
            self.parallel.average()

    def average_buffers(self) -> None:
        if self.size > 1:
            self.parallel.average_buffers()

    @property
    def gradients_agree(self) -> bool:
        """Whether gradients have the same bits on all ranks."""
        return self.size == 1 or self.parallel.sync == "grad"

    def any(self, flag: bool) -> bool:
        return self.comm.any(flag) if self.size > 1 else flag

    # -- data ------------------------------------------------------------------------------------

    @contextmanager
    def shared(self, loader: Any) -> Iterator[Iterator[Any]]:
        """This rank's part of every batch of a loader: each sample goes to one rank."""
        from nnx.data import DataLoader

        if self.size == 1:
            yield iter(loader)
        elif isinstance(loader, DataLoader):
            before = loader._rank, loader._ranks
            loader.shard(self.rank, self.size)
            try:
                yield iter(loader)
            finally:
                loader.shard(*before)
        else:
            yield (self._part(batch) for batch in loader)

    def _part(self, batch: Any) -> Any:
        if not isinstance(batch, (tuple, list)) or not all(hasattr(a, "__getitem__") for a in batch):
            return batch  # the trainer will say what is wrong with it
        n = len(batch[0])
        return tuple(a[n * self.rank // self.size : n * (self.rank + 1) // self.size] for a in batch)

    def same_order(self, loader: Any) -> None:
        """Shuffle alike on all ranks, also where none was given a seed."""
        if self.size > 1 and isinstance(getattr(loader, "seed", None), int):
            loader.seed = int(self.comm.broadcast_text(str(loader.seed)))

    # -- numbers ---------------------------------------------------------------------------------

    def sum(self, totals: Totals, pending: int = 0) -> Totals:
        """Add what the ranks have measured, and learn whether one of them was told to stop."""
        if self.size == 1:
            self.told = pending
            return totals
        numbers = np.array([*(n for pair in totals.values() for n in pair), pending], np.float64)
        self.comm.allreduce(numbers)
        self.told = self.agreed(pending) if numbers[-1] else 0
        return {name: (float(numbers[2 * i]), int(numbers[2 * i + 1])) for i, name in enumerate(totals)}

    def agreed(self, pending: int) -> int:
        """The largest signal number that a rank was sent."""
        if self.size == 1:
            return pending
        number = np.array([pending], np.int64)
        self.comm.allreduce(number, "max")
        return int(number[0])

    def sum_found(self, totals: Totals) -> Totals:
        """Like `sum`, where a rank that had no samples does not know what is measured."""
        if self.size == 1:
            return totals
        first = np.array([self.rank if totals else self.size], np.int64)
        self.comm.allreduce(first, "min")
        if first[0] == self.size:
            return {}
        names = json.loads(self.comm.broadcast_text(json.dumps(list(totals)), int(first[0])))
        told = self.told
        summed = self.sum({name: totals.get(name, (0.0, 0)) for name in names})
        self.told = told
        return summed

    def blame(self, bad: bool, where: str) -> str:
        """`where` of the first rank on which it is `bad`."""
        if self.size == 1:
            return where
        first = np.array([self.rank if bad else self.size], np.int64)
        self.comm.allreduce(first, "min")
        if first[0] == self.size:
            return where
        return f"on rank {first[0]} {self.comm.broadcast_text(where, int(first[0]))}"

    # -- checkpoints -----------------------------------------------------------------------------

    def resume_path(self, find: Any) -> str | None:
        """What rank 0 finds."""
        if self.size == 1:
            return find()
        return json.loads(self.comm.broadcast_text(json.dumps(find()) if self.rank == 0 else None))

    def write(self, path: str | os.PathLike[str], state: dict[str, Any]) -> None:
        """Rank 0 writes the checkpoint; all ranks go on when it is on the disk."""
        from nnx.train.checkpoint import write_checkpoint

        state["random_of_ranks"] = self._random_of_others()
        if self.rank == 0:
            write_checkpoint(path, state)
        if self.size > 1:
            self.comm.barrier()

    def read(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """The checkpoint that rank 0 reads, with this rank's random state in it."""
        from nnx.train.checkpoint import read_checkpoint

        if self.size == 1:
            return read_checkpoint(path)
        from nnx.distributed._start import broadcast_tree

        state = dict(broadcast_tree(self.comm, read_checkpoint(path) if self.rank == 0 else None))
        others = state.get("random_of_ranks", [])
        if self.rank:  # the same bits again with as many ranks; otherwise streams that are independent
            same = len(others) == self.size - 1
            state["random"] = others[self.rank - 1] if same else _derived(state["random"], self.rank)
        return state

    def _random_of_others(self) -> list[dict]:
        if self.size == 1:
            return []
        words = self.comm.allgather(np.array(_words(_random.get_state()), np.uint64))
        return [_state_of(row.tolist()) for row in words[1:]]


def _words(state: dict) -> list[int]:
    """The state of a PCG64 as numbers of 64 bits."""
    mask = (1 << 64) - 1
    pair = (state["state"]["state"], state["state"]["inc"])
    return [*(word for n in pair for word in (n & mask, n >> 64)), int(state["has_uint32"]), int(state["uinteger"])]


def _state_of(words: list[int]) -> dict:
    state, increment = words[0] | words[1] << 64, words[2] | words[3] << 64
    return {
        "bit_generator": "PCG64",
        "state": {"state": state, "inc": increment},
        "has_uint32": words[4],
        "uinteger": words[5],
    }


def _derived(state: dict, rank: int) -> dict:
    """An independent stream for a rank, which follows from the one of rank 0."""
    return dict(np.random.default_rng([*_words(state), rank]).bit_generator.state)
