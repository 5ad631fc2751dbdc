"""Trials of a search, here or in processes of their own, each with its share of the threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nnx import _check

Task = tuple[int, dict[str, Any], int]  # number, parameters, seed
Finished = Callable[[int, dict[str, Any]], None]

# read once, when the libraries are loaded: they must be there before the process starts
_THREAD_SETTINGS = ("NNX_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def share_of_threads(owner: str, workers: int | None, tasks: int) -> tuple[int, int]:
    """How many processes, and how many threads each of them gets: together no more than nnx uses here."""
    from nnx._ext.threads import get_num_threads

    budget = get_num_threads()
    wanted = budget if workers is None else _check.integer(owner, "workers", workers, 1)
    count = max(1, min(wanted, tasks))
    return count, max(1, budget // count)


def run_here(objective: Any, tasks: list[Task], finished: Finished) -> None:
    """One trial after the other, in this process."""
    from nnx.train.search import run_trial

    for number, parameters, seed in tasks:
        try:
            outcome = run_trial(objective, parameters, seed)
        except Exception as error:
            error.add_note(f"in trial {number} with {parameters}")
            raise
        finished(number, outcome)


def run_in_processes(
    owner: str, objective: Any, tasks: list[Task], finished: Finished, count: int, threads: int
) -> None:
    """All trials in `count` fresh processes; an exception in one of them ends the search, with what is done noted."""
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    from nnx.train.search import run_trial

    name = getattr(objective, "__qualname__", "")
    if "<" in name:
        raise TypeError(
            f"{owner}: expected objective to be a function at the top of a module, which other processes can import, "
            f"got {name}. workers=1 takes any function"
        )
    # never fork: the child of a process that has run threads may wait for ever for them
    pool = ProcessPoolExecutor(count, get_context("spawn"))
    try:
        with _environment({name: str(threads) for name in _THREAD_SETTINGS}):
            futures = {pool.submit(run_trial, objective, p, seed): (number, p) for number, p, seed in tasks}
        for future in as_completed(futures):
            number, parameters = futures[future]
            try:
                outcome = future.result()
            except BrokenProcessPool as error:
                raise RuntimeError(
                    f"{owner}: expected worker processes to live until the end, got one that died. A script that "
                    'searches needs `if __name__ == "__main__":` around its start; or was the memory used up?'
                ) from error
            except Exception as error:
                error.add_note(f"in trial {number} with {parameters}")
                raise
            finished(number, outcome)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Set environment variables while processes are started, then put back what was there."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
