"""What data-parallel training costs: ``mpiexec -n 2 python -m benchmarks.distributed [--write FILE]``.

Per model, medians over steps on rank 0: forward and backward of one rank's batch, packing and unpacking the gradients,
the allreduce itself (the ranks meet at a barrier first, so that waiting for the slower one is not in it), and the step
of the optimizer. The last column is the share of packing and allreduce in the step. ``--write`` keeps the numbers, with
the moment of the backward pass at which each bucket of gradients was complete, for ``benchmarks/scaling.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import nnx
from benchmarks.scaling import measured_table
from nnx import models
from nnx.distributed import Communicator, DataParallel, world

BATCH = 32  # samples per rank
BUCKET = 1 << 18  # bytes
WARM_UP, STEPS = 3, 15
CASES: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "mlp": (lambda: models.mlp([784, 512, 512, 10]), (784,)),
    "lenet": (lambda: models.lenet5(), (1, 28, 28)),
    "vgg8": (lambda: models.vgg8(num_classes=10), (3, 32, 32)),
    "resnet20": (lambda: models.resnet20(num_classes=10), (3, 32, 32)),
}


class Timed(Communicator):
    """Another communicator, with the seconds that its sums take."""

    def __init__(self, comm: Communicator) -> None:
        self._comm = comm
        self.rank, self.size = comm.rank, comm.size
        self.seconds = 0.0

    def allreduce(self, array: Any, op: str = "sum") -> None:
        self._comm.barrier()
        start = time.perf_counter()
        self._comm.allreduce(array, op)
        self.seconds += time.perf_counter() - start

    def broadcast(self, array: Any, root: int = 0) -> None:
        self._comm.broadcast(array, root)

    def allgather(self, array: Any) -> Any:
        return self._comm.allgather(array)

    def barrier(self) -> None:
        self._comm.barrier()

    def abort(self, message: str) -> NoReturn:
        self._comm.abort(message)

    def split_by_node(self) -> Communicator:
        return self._comm.split_by_node()


class Timeline(DataParallel):
    """Notes when a backward pass came to the model and when the gradients of this rank were complete."""

    def _reached(self, samples: int) -> None:
        self.began = time.perf_counter()
        super()._reached(samples)

    def _finish(self) -> None:
        self.complete = time.perf_counter()
        super()._finish()


class Rehearsal(Timeline):
    """Notes when each bucket would be sent, and sends nothing, so that the backward pass is not disturbed."""

    def _reached(self, samples: int) -> None:
        self.ready: list[float] = []
        super()._reached(samples)

    def _release(self, count: int) -> None:
        self.ready += [time.perf_counter()] * (count - len(self.ready))

    def _finish(self) -> None:
        self.complete = time.perf_counter()
        self._pass = None

    @property
    def shares(self) -> list[float]:
        """Per bucket, the share of the backward pass that is done when it is complete."""
        return [(t - self.began) / (self.complete - self.began) for t in self.ready]


def measure(build: Callable[[], Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """Milliseconds of the parts of a step, and the buckets as (bytes, share of the backward pass before them)."""
    comm = Timed(world())
    nnx.manual_seed(0)
    rng = np.random.default_rng(comm.rank)
    x, y = rng.standard_normal((BATCH, *shape)).astype(np.float32), rng.integers(0, 10, BATCH)
    net = Timeline(build(), comm)
    rehearsal = Rehearsal(net.module, world(), bucket_bytes=BUCKET)
    optimizer = nnx.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    taken: dict[str, list[float]] = {
        name: [] for name in ("forward", "backward", "pack", "allreduce", "update", "step")
    }
    buckets: list[list[float]] = []
    for step in range(WARM_UP + STEPS):
        comm.barrier()
        comm.seconds = 0.0
        times = [time.perf_counter()]
        optimizer.zero_grad()
        loss = nnx.functional.cross_entropy(net(x), y)
        times.append(time.perf_counter())
        loss.backward()
        times.append(time.perf_counter())
        optimizer.step()
        times.append(time.perf_counter())
        # packing is what lies behind the backward pass; waiting at the barrier is nobody's cost here
        start = time.perf_counter()
        for bucket in net._buckets:
            bucket.read_gradients(BATCH)
            bucket.write_gradients()
        pack = time.perf_counter() - start
        nnx.functional.cross_entropy(rehearsal(x), y).backward()
        if step < WARM_UP:
            continue
        forward, backward, update = times[1] - times[0], net.complete - times[1], times[3] - times[2]
        whole = forward + backward + pack + comm.seconds + update
        for name, value in zip(taken, (forward, backward, pack, comm.seconds, update, whole), strict=True):
            taken[name].append(1e3 * value)
        buckets.append(rehearsal.shares)
    found: dict[str, Any] = {f"{name}_ms": statistics.median(values) for name, values in taken.items()}
    found["bytes"] = sum(b.flat.nbytes for b in net._buckets)
    ready = [statistics.median(values) for values in zip(*buckets, strict=True)]
    found["buckets"] = [[b.flat.nbytes, round(min(t, 1.0), 3)] for b, t in zip(rehearsal._buckets, ready, strict=True)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="FILE", help="keep the numbers as JSON")
    arguments = parser.parse_args()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    comm = world()
    found = {name: measure(*case) for name, case in CASES.items()}
    if comm.rank:
        return
    threads = nnx.get_num_threads()
    conditions = (
        f"{comm.size} ranks with {threads} thread{'s' * (threads > 1)} each on {os.cpu_count()} cores "
        f"({platform.machine()}), {load:.1f} other processes running at the start, {BATCH} samples per rank, float32, "
        f"medians of {STEPS} steps in milliseconds, {date.today()}"
    )
    record = {"conditions": conditions, "models": found}
    print(measured_table(record))
    if arguments.write:
        arguments.write.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
