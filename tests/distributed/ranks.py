"""What the ranks do: ``mpiexec -n P python ranks.py JOB FOLDER ...`` runs the function JOB on each of them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import rank_problems as problems

import nnx
from nnx import nn
from nnx.distributed import DataParallel, SyncBatchNorm, is_distributed, set_threads_of_rank, world
from nnx.train import Callback, Checkpoint, EarlyStopping, StopOnNaN, Trainer

FOLDER = Path()


def save(arrays: dict[str, Any]) -> None:
    nnx.save({k: np.asarray(v) for k, v in arrays.items()}, FOLDER / f"rank{world().rank}.safetensors")


# -- equality --------------------------------------------------------------------------------------


def equality() -> None:
    """Fifty steps in several ways; the weights of each."""
    comm = world()
    found: dict[str, Any] = {}

    def run(name: str, dtype: Any, size: int, steps: int = 50, norm: bool = False, **options: Any) -> None:
        net = problems.model(dtype, norm)
        if comm.rank:  # the ranks begin with the numbers of rank 0, not with their own
            for p in net.parameters():
                p.data[...] = comm.rank
        parallel = DataParallel(net, **options)
        problems.train(parallel, problems.batches(dtype, steps, size), comm.rank, comm.size)
        parallel.average_buffers()
        found.update(problems.weights(net, name))

    run("float32", np.float32, 16)
    run("float64", np.float64, 16)
    run("unequal", np.float64, 11)
    run("ordered", np.float64, 11, ordered=True)
    run("buckets", np.float64, 11, ordered=True, bucket_bytes=64)
    run("few", np.float64, 3, steps=10)
    run("norm", np.float64, 11, steps=10, norm=True, sync_batch_norm=True)
    run("norm few", np.float64, 3, steps=5, norm=True, sync_batch_norm=True)
    run("local norm", np.float64, 16, steps=3, norm=True)

    x, y = problems.whole_numbers()
    mine = problems.part(len(x), comm.rank, comm.size)
    net = DataParallel(problems.regression(), ordered=True)
    problems.fit_regression(net, x[mine], y[mine])
    found.update(problems.weights(net, "exact"))
    save(found)


def parameters() -> None:
    """Ranks that make steps of their own, averaged after each one or after each third."""
    comm = world()
    found: dict[str, Any] = {}
    for every in (1, 3):
        for size in (16, 11, 3):
            net = DataParallel(problems.model(np.float64), sync="params", every=every, ordered=True)
            optimizer = nnx.optim.SGD(net.parameters(), lr=0.1)
            for x, y in problems.batches(np.float64, 6, size):
                mine = problems.part(size, comm.rank, comm.size)
                optimizer.zero_grad()
                nnx.functional.cross_entropy(net(x[mine]), y[mine]).backward()
                optimizer.step()
                net.average()
            found.update(problems.weights(net, f"{every} {size}"))
    save(found)


def autograd() -> None:
    """Graphs other than one model, one output, one pass."""
    comm = world()
    found: dict[str, Any] = {}
    rng = np.random.default_rng(2)
    x = rng.standard_normal((8, 4))
    mine = problems.part(8, comm.rank, comm.size)

    for buckets in (None, 1):
        nnx.manual_seed(0)
        shared = DataParallel(nn.Linear(4, 4).to(np.float64), bucket_bytes=buckets)
        # the model twice in one graph, and its parameters once more outside of it
        loss = (shared(shared(x[mine])) ** 2).mean() + (shared.module.weight**2).sum()
        loss.backward()
        found[f"twice {buckets}"] = shared.module.weight.grad.copy()
        ((shared(x[mine]) - 1) ** 2).mean().backward()  # added to what is there
        found[f"added {buckets}"] = shared.module.weight.grad.copy()

        nnx.manual_seed(0)
        branches = nn.ModuleList([nn.Linear(4, 1) for _ in range(3)]).to(np.float64)

        class Branch(nn.Module):
            def __init__(self, parts: Any) -> None:
                super().__init__()
                self.parts = parts

            def forward(self, x: Any) -> Any:
                return self.parts[min(comm.rank, 1)](x)  # rank 0 takes one branch, the others another

        net = DataParallel(Branch(branches), bucket_bytes=buckets)
        net(x[mine]).mean().backward()
        found[f"branch 0 {buckets}"] = branches[0].weight.grad
        found[f"branch 1 {buckets}"] = branches[1].weight.grad
        found[f"unused {buckets}"] = branches[2].weight.grad is None

    frozen = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)).to(np.float64)
    frozen[0].requires_grad_(False)
    net = DataParallel(frozen)
    net(x[mine]).mean().backward()
    found["frozen"] = frozen[0].weight.grad is None
    frozen[0].requires_grad_(True)  # from now on its gradient is averaged too
    net(x[mine]).mean().backward()
    found["freed"] = frozen[0].weight.grad
    with nnx.no_grad():
        net(x[: comm.rank])  # evaluation talks to nobody
    save(found)


def communicator() -> None:
    """Every method of the communicator."""
    comm = world()
    found: dict[str, Any] = {"distributed": is_distributed(), "size": comm.size, "node": comm.split_by_node().size}
    for op in ("sum", "max", "min"):
        a = np.arange(3.0) * (comm.rank + 1)
        comm.allreduce(a, op)
        found[op] = a
    a = np.full((2, 2), comm.rank, np.int64)
    comm.broadcast(a, 1)
    found["broadcast"] = a
    found["allgather"] = comm.allgather(np.array([comm.rank], np.float32))
    found["text"] = np.frombuffer(comm.broadcast_text(f"größer {comm.rank}", 2).encode(), np.uint8)
    found["any"] = comm.any(comm.rank == 2)
    found["none"] = comm.any(False)
    values = np.array([0.1, 0.2, 0.3]) * 10.0 ** (3 * comm.rank)
    ordered = values.copy()
    comm.sum_in_order(ordered)
    found["ordered"], found["parts"] = ordered, comm.allgather(values)
    comm.barrier()
    del os.environ["NNX_NUM_THREADS"]
    found["threads"] = set_threads_of_rank(comm)
    os.environ["NNX_NUM_THREADS"] = "64"
    nnx.set_num_threads(64)
    found["own threads"] = set_threads_of_rank(comm)
    save(found)


# -- Trainer ---------------------------------------------------------------------------------------


def trainer(**options: Any) -> Trainer:
    nnx.manual_seed(1)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 3)
    )
    return Trainer(net, nn.CrossEntropyLoss(), problems.sgd(net), **options)


def plain(**options: Any) -> Trainer:
    """Without anything that depends on how a batch is shared out."""
    net = problems.model(np.float64)
    return Trainer(net, nn.CrossEntropyLoss(), problems.sgd(net), **options)


class Quit(Callback):
    """End after a step, as a batch system would."""

    def __init__(self, step: int, rank: int, number: int) -> None:
        self.step, self.rank, self.number = step, rank, number

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == self.step and trainer.rank == self.rank:
            os.kill(os.getpid(), self.number)


def fit() -> None:
    """Whole runs: history, weights, and a run that is interrupted and resumed with as many ranks."""
    x, y = problems.images()
    found: dict[str, Any] = {}
    one = plain(clip_grad_norm=0.5)
    history = one.fit(x, y, epochs=3, batch_size=9, validation=(x[:7], y[:7]), seed=1, verbose=False,
                      callbacks=[EarlyStopping(), StopOnNaN()])  # fmt: skip
    found |= problems.weights(one.model, "plain")
    found |= {f"history/{name}": values for name, values in history.items() if name != "seconds"}
    found["samples"], found["step"] = one.samples_total, one.step
    one.fit(x, y, batch_size=46, seed=2, verbose=False)  # goes on with the optimizer's momentum
    found |= problems.weights(one.model, "further")

    # from an iterable that knows nothing of ranks, by an optimizer that looks at the loss several times in a step
    net = problems.model(np.float64)
    two = Trainer(
        net, nn.CrossEntropyLoss(), nnx.optim.LBFGS(net.parameters(), max_iter=4, line_search_fn="strong_wolfe")
    )
    two.fit(Pairs(x, y), epochs=2, verbose=False)
    found |= problems.weights(net, "lbfgs")

    net = problems.model(np.float64)
    three = Trainer(DataParallel(net, sync="params", every=2), nn.CrossEntropyLoss(), problems.sgd(net))
    three.fit(x, y, epochs=3, batch_size=9, seed=1, verbose=False, callbacks=[StopOnNaN()])
    found |= problems.weights(three.model, "params")

    # the last batch would leave one sample to each rank, and batch norm after Flatten needs two
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 9, "seed": 1, "verbose": False, "drop_last": True}
    whole = trainer()
    whole.fit(x, y, callbacks=[Checkpoint(FOLDER / "whole", every_steps=3)], **settings)
    found |= problems.weights(whole.model, "whole")
    broken = trainer()
    try:
        broken.fit(
            x, y, callbacks=[Checkpoint(FOLDER / "broken", every_steps=3), Quit(8, 1, signal.SIGINT)], **settings
        )
    except KeyboardInterrupt:
        found["stopped at"] = broken.step
    again = trainer()
    again.fit(x, y, callbacks=[Checkpoint(FOLDER / "broken", every_steps=3)], resume=True, **settings)
    found |= problems.weights(again.model, "again")
    save(found)


class Pairs:
    """An iterable of batches that is no DataLoader."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y

    def __iter__(self) -> Any:
        return ((self.x[i : i + 20], self.y[i : i + 20]) for i in range(0, 40, 20))


def long_fit(limit: int, resume: str = "") -> None:
    """Train to the end, or as far as it is let; `Quit` ends it with SIGTERM."""
    x, y = problems.images()
    run = plain()
    callbacks: list[Callback] = [Checkpoint(resume or FOLDER / "checkpoints", every_steps=5)]
    if limit:
        callbacks.append(Quit(limit, 1, signal.SIGTERM))
    run.fit(x, y, epochs=4, batch_size=9, seed=1, verbose=False, callbacks=callbacks, resume=bool(resume))
    save(problems.weights(run.model, "end") | {"samples": run.samples, "step": run.step})


def nan() -> None:
    """A weight that is NaN on one rank: all say the same."""
    x, y = problems.images()
    run = plain()

    class Plant(Callback):
        def on_step_begin(self, trainer: Trainer) -> None:
            if trainer.step == 2 and trainer.rank == 1:
                trainer.model[0].bias.data[0] = np.nan

    try:
        run.fit(x, y, batch_size=9, seed=1, verbose=False, callbacks=[StopOnNaN(), Plant()])
    except FloatingPointError as error:
        (FOLDER / f"error{run.rank}").write_text(str(error))


# -- failures --------------------------------------------------------------------------------------


def trouble(kind: str) -> None:
    """Rank 1 does something bad after step 7."""
    x, y = problems.images()
    run = plain()

    class Trouble(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            if trainer.step != 7 or trainer.rank != 1:
                return
            (FOLDER / "time").write_text(str(time.time()))
            if kind == "exception":
                raise ValueError("planted")
            if kind == "thread":
                threading.Thread(target=lambda: 1 / 0).start()
                time.sleep(60)
            if kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            if kind == "busy":
                time.sleep(60)

    run.fit(
        x, y, epochs=4, batch_size=9, seed=1, verbose=False, callbacks=[Trouble(), Checkpoint(FOLDER / "checkpoints")]
    )


def differ(kind: str) -> None:
    """Rank 2 has something else than the others."""
    odd = world().rank == 2
    if kind == "shape":
        DataParallel(nn.Linear(4, 3 if odd else 2))
    elif kind == "name":
        DataParallel(nn.Sequential(nn.Linear(4, 2)) if odd else nn.Linear(4, 2))
    elif kind == "type":
        DataParallel(nn.Linear(4, 2).to(np.float64 if odd else np.float32))
    elif kind == "more":
        DataParallel(nn.Sequential(nn.Linear(4, 2), *([nn.Linear(2, 2)] if odd else [])))
    elif kind == "version":
        nnx.__version__ = "9.9" if odd else nnx.__version__
        DataParallel(nn.Linear(4, 2))
    elif kind == "norm":
        SyncBatchNorm.convert(nn.BatchNorm1d(3), world())(np.ones((1 if odd else 0, 3), np.float32))


if __name__ == "__main__":
    FOLDER = Path(sys.argv[2])
    globals()[sys.argv[1]](*(int(a) if a.isdecimal() else a for a in sys.argv[3:]))
