"""Batches of a data set: shuffled, augmented, prefetched, resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from nnx import _check
from nnx.data._prefetch import prefetch as _prefetch
from nnx.data.dataset import ArrayDataset, Subset, gather

# Handing a batch from thread to thread takes about as long as copying this many bytes in memory;
# for less, a thread only gets in the way (benchmarks/bench_data.py).
_LIGHT = 1 << 18

# Arguments of PyTorch's loader that have no meaning here, with what to do instead.
_ELSEWHERE = {
    "sampler": "Choose and order samples with Subset(dataset, indices).",
    "batch_sampler": "Choose and order samples with Subset(dataset, indices).",
    "num_workers": "One thread prepares whole batches; prefetch= says how many ahead.",
    "pin_memory": "Batches are NumPy arrays in ordinary memory.",
    "timeout": "There are no worker processes to wait for.",
    "worker_init_fn": "There are no worker processes.",
    "multiprocessing_context": "There are no worker processes.",
    "prefetch_factor": "Use prefetch=, the number of batches prepared ahead.",
    "persistent_workers": "There are no worker processes.",
    "pin_memory_device": "Batches are NumPy arrays in ordinary memory.",
    "in_order": "Batches always come in order.",
}


class DataLoader:
    """Iterate over a data set in batches: one iteration is one epoch, a batch is a tuple of arrays.

    `dataset`: an `ArrayDataset`, an array, a tuple of arrays, or anything with ``len()`` and
    ``dataset[i]``; with a method ``gather(indices)`` it builds whole batches itself.
    `batch_size`, `shuffle` (a new order in each epoch), `drop_last` (leave out a shorter last one).
    `seed`, or `generator` (a `numpy.random.Generator` that the seed is drawn from): with neither,
    the seed comes from the stream of `nnx.manual_seed`.
    `prefetch`: how many batches a background thread prepares ahead (a batch that is only a small
    copy is made without it); 0 works in the caller's thread.
    `transform`: called as ``transform(x, rng)`` on the first array of each batch, see `Compose`.
    `collate_fn`: builds a batch from a list of samples, as in PyTorch.

    The order depends on (seed, epoch) alone and the `rng` of a batch on (seed, epoch, batch
    number), so batches are the same with any `prefetch`. `state_dict()` says how far the consumer
    has come; after `load_state_dict()` the next iteration yields exactly the remaining batches.
    Every other iteration starts at the front: of a new epoch, if the one before has yielded
    anything.

    `shard(rank, ranks)` leaves to each of several processes its part of every batch.

    An exception of the data set or the transform reaches the consumer as it is.

    >>> loader = DataLoader((np.arange(10.0), np.arange(10)), batch_size=4)
    >>> [len(x) for x, y in loader]
    [4, 4, 2]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        drop_last: bool = False,
        seed: int | None = None,
        generator: np.random.Generator | None = None,
        prefetch: int = 2,
        transform: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        **unsupported: Any,
    ) -> None:
        for name in unsupported:
            hint = _ELSEWHERE.get(name, "There is no such argument.")
            raise TypeError(f"DataLoader: expected no argument {name!r}, got one. {hint}")
        if hasattr(dataset, "__array__"):
            dataset = ArrayDataset(dataset)
        elif isinstance(dataset, tuple):  # a list is a data set: of samples
            dataset = ArrayDataset(*dataset)
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise TypeError(
                "DataLoader: expected dataset to be arrays or to have len() and dataset[i], "
                f"got {type(dataset).__name__}"
            )
        for name, value in (("transform", transform), ("collate_fn", collate_fn)):
            if value is not None and not callable(value):
                raise TypeError(f"DataLoader: expected {name} to be callable, got {value!r}")
        self.dataset = dataset
        self.batch_size = _check.integer("DataLoader", "batch_size", batch_size, 1)
        self.shuffle = bool(shuffle)
        self.drop_last = bool(drop_last)
        self.prefetch = _check.integer("DataLoader", "prefetch", prefetch, 0)
        self.transform = transform
        self.collate_fn = collate_fn
        random = self.shuffle or transform is not None
        self.seed = _choose_seed(seed, generator, random)
        self._epoch = 0
        self._position = 0
        self._resumed = False
        self._run = 0
        self._rank, self._ranks = 0, 1

    def shard(self, rank: int, ranks: int) -> DataLoader:
        """From the next iteration on, yield only part `rank` of `ranks` of every batch; returns self.

        `batch_size`, ``len()``, order and state are those of whole batches, the same for any number of ranks: each
        sample goes to one rank per epoch, and a state that was saved with some number of ranks is the same place for
        another. Parts differ by one sample at most, and may be empty. With several ranks each has its own `rng` for the
        transform.

        >>> loader = DataLoader(np.arange(7), batch_size=4)
        >>> [[x.tolist() for x, in loader.shard(rank, 2)] for rank in (0, 1)]
        [[[0, 1], [4]], [[2, 3], [5, 6]]]
        """
        ranks = _check.integer("DataLoader.shard", "ranks", ranks, 1)
        rank = _check.integer("DataLoader.shard", "rank", rank, 0)
        if rank >= ranks:
            raise ValueError(f"DataLoader.shard: expected rank below ranks {ranks}, got {rank}")
        self._rank, self._ranks = rank, ranks
        return self

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    @property
    def epoch(self) -> int:
        """The number of the epoch that is being read, or is next, counted from 0."""
        return self._epoch

    @property
    def position(self) -> int:
        """The number of batches of this epoch that were handed out."""
        return self._position

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        if self._resumed:
            self._resumed = False
        elif self._position:
            self._epoch += 1
            self._position = 0
        self._run += 1
        return self._read(self._run, self._epoch, self._position)

    def _read(self, run: int, epoch: int, start: int) -> Iterator[tuple[np.ndarray, ...]]:
        # The background thread only ever sees (order, epoch, step): what it has done ahead of the
        # consumer is in no state of the loader. Of several iterations at a time, the latest one
        # (`run`) keeps the loader's position.
        order = _stream(self.seed, epoch, 0).permutation(len(self.dataset)) if self.shuffle else None
        produce = partial(self._batch, order, epoch, self._rank, self._ranks)
        steps = range(start, len(self))
        if self.prefetch and len(steps) > 1 and not self._is_light():
            batches = _prefetch(produce, steps, self.prefetch)
        else:
            batches = (produce(step) for step in steps)
        with closing(batches):
            for step, batch in zip(steps, batches, strict=True):
                if run == self._run:
                    self._position = step + 1
                yield batch
        if run == self._run:
            self._epoch = epoch + 1
            self._position = 0

    def _is_light(self) -> bool:
        """Whether a batch is a small copy in memory, which the consumer's thread had better do."""
        data = self.dataset
        while isinstance(data, Subset):
            data = data.dataset
        if self.transform is not None or self.collate_fn is not None or not len(data):
            return False
        if not isinstance(data, ArrayDataset) or not data.in_memory:
            return False
        row = sum(a.nbytes for a in data.arrays) // len(data)
        return row * self.batch_size <= _LIGHT

    def _batch(self, order: np.ndarray | None, epoch: int, rank: int, ranks: int, step: int) -> Any:
        low = step * self.batch_size
        count = min(self.batch_size, len(self.dataset) - low)
        low, high = low + count * rank // ranks, low + count * (rank + 1) // ranks
        if low == high:  # types and shapes of an empty part are those of one sample
            return _emptied(self._rows(np.array([0]) if order is None else order[:1], epoch, rank, ranks, step))
        return self._rows(np.arange(low, high) if order is None else order[low:high], epoch, rank, ranks, step)

    def _rows(self, indices: np.ndarray, epoch: int, rank: int, ranks: int, step: int) -> Any:
        """The batch of these samples, augmented."""
        if self.collate_fn is not None:
            batch = self.collate_fn([self.dataset[int(i)] for i in indices])
        else:
            batch = gather(self.dataset, indices)
        if isinstance(batch, list):
            batch = tuple(batch)
        elif isinstance(batch, np.ndarray):
            batch = (batch,)
        if self.transform is None:
            return batch
        if not isinstance(batch, tuple):
            raise TypeError(
                f"DataLoader: expected batches to be tuples of arrays for transform, got {type(batch).__name__}"
            )
        rng = _stream(self.seed, epoch, 1 + step, *((rank, ranks) if ranks > 1 else ()))
        return (self.transform(batch[0], rng), *batch[1:])

    def state_dict(self) -> dict[str, int | bool]:
        """Return the place of the consumer as plain numbers (they fit in JSON).

        While a batch is being worked on it counts as read: save after the step that used it.
        """
        return {
            "seed": self.seed,
            "epoch": self._epoch,
            "position": self._position,
            **self._layout(),
        }

    def load_state_dict(self, state: dict[str, int | bool]) -> None:
        """Go to the place `state`: the next iteration yields the batches that were left there.

        Errors: ValueError if a key is missing or the loader was built differently (number of
        samples, `batch_size`, `shuffle`, `drop_last`), for then there are no such batches. The
        loader is then as before.
        """
        layout = self._layout()
        missing = {"seed", "epoch", "position", *layout} - set(state)
        if missing:
            raise ValueError(f"DataLoader: expected state with {sorted(missing)}, got keys {sorted(state)}")
        for name, value in layout.items():
            if state[name] != value:
                raise ValueError(
                    f"DataLoader: expected state with {name} {value}, got {state[name]}. "
                    "Build the loader as it was when the state was saved."
                )
        seed, epoch, position = (
            _check.integer("DataLoader", name, state[name], 0) for name in ("seed", "epoch", "position")
        )
        if position > len(self):
            raise ValueError(f"DataLoader: expected position to be at most {len(self)} batches, got {position}")
        self.seed = seed
        self._epoch = epoch
        self._position = position
        self._resumed = True
        self._run += 1  # an iteration that is still open keeps its hands off

    def _layout(self) -> dict[str, int | bool]:
        return {
            "samples": len(self.dataset),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
        }

    def __repr__(self) -> str:
        return (
            f"DataLoader({self.dataset!r}, batch_size={self.batch_size}, shuffle={self.shuffle}, "
            f"drop_last={self.drop_last}, seed={self.seed}, prefetch={self.prefetch})"
        )


def _choose_seed(seed: Any, generator: Any, random: bool) -> int:
    if seed is not None and generator is not None:
        raise ValueError("DataLoader: expected seed or generator, got both")
    if seed is not None:
        return _check.integer("DataLoader", "seed", seed, 0)
    if generator is None:
        if not random:  # nothing is drawn, so the library's stream stays where it is
            return 0
        from nnx._random import generator as library_generator

        generator = library_generator()
    if not isinstance(generator, np.random.Generator):
        raise TypeError(
            f"DataLoader: expected generator to be a numpy.random.Generator, got {type(generator).__name__}"
        )
    return int(generator.integers(2**63))


def _emptied(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {name: a[:0] for name, a in batch.items()}
    return tuple(a[:0] for a in batch) if isinstance(batch, tuple) else batch[:0]


def _stream(seed: int, epoch: int, number: int, *part: int) -> np.random.Generator:
    """Return the independent random stream `number` of an epoch: 0 for the order, 1 + i for batch i or a part of it."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(epoch, number, *part))))
