"""DataParallel: one model on many ranks, each with its share of the batch."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from nnx import _check
from nnx.autograd import Tensor, engine, is_grad_enabled, record
from nnx.distributed._buckets import Bucket, make_buckets
from nnx.distributed._start import broadcast_arrays, broadcast_tree, compare
from nnx.distributed._world import world
from nnx.distributed.communicator import Communicator
from nnx.distributed.norm import SyncBatchNorm
from nnx.nn import Module


class DataParallel(Module):
    """A model whose gradients are those of the whole batch, however it is shared out over the ranks.

    ``grad = sum_r n_r grad_r / sum_r n_r``, where rank r had n_r samples (the first dimension of its input) and its
    loss was their mean. The average is in ``.grad`` when ``backward()`` returns; nothing else is to be called. A rank
    without samples runs an empty batch. Names in `state_dict` are the model's own; with one rank all is as without it,
    bit by bit.

    module:           the model; its parameters and buffers become those of rank 0
    comm:             None takes the job's ranks (`world`)
    sync:             "grad"; or "params": ranks make steps of their own, and `average`, called after each step of the
                      optimizer, replaces the parameters after `every` steps by their averages (weights as above)
    ordered:          add in rank order, so that the bits do not depend on the MPI library; needs memory for all ranks'
                      gradients
    bucket_bytes:     send gradients in pieces of about this size, the last layers' first, from a thread of their own
                      while the backward pass is still running; None sends them in one piece at its end
    sync_batch_norm:  batch norms inside use the statistics of all ranks (`SyncBatchNorm`, in place)

    RuntimeError, naming the rank, where version, instruction-set level, names, shapes or types differ from rank 0's.
    """

    def __init__(
        self,
        module: Module,
        comm: Communicator | None = None,
        *,
        sync: str = "grad",
        every: int = 1,
        ordered: bool = False,
        bucket_bytes: int | None = None,
        sync_batch_norm: bool = False,
    ) -> None:
        super().__init__()
        owner = "DataParallel"
        if not isinstance(module, Module):
            raise TypeError(f"{owner}: expected module to be a Module, got {type(module).__name__}")
        if isinstance(module, DataParallel):
            raise TypeError(f"{owner}: expected a model that is not data-parallel yet, got a DataParallel")
        if comm is not None and not isinstance(comm, Communicator):
            raise TypeError(f"{owner}: expected comm to be a Communicator or None, got {type(comm).__name__}")
        self.sync = _check.choice(owner, "sync", sync, ("grad", "params"))
        self.every = _check.integer(owner, "every", every, 1)
        if self.every > 1 and sync == "grad":
            raise ValueError(f'{owner}: expected every=1 with sync="grad", got {every}. sync="params" takes more steps')
        self.ordered = bool(ordered)
        self.bucket_bytes = None if bucket_bytes is None else _check.integer(owner, "bucket_bytes", bucket_bytes, 1)
        synchronised = sync_batch_norm or any(isinstance(m, SyncBatchNorm) for m in module.modules())
        if synchronised and bucket_bytes is not None:
            raise ValueError(
                f"{owner}: expected bucket_bytes=None with synchronised batch norm, got {bucket_bytes}. Both talk to "
                "the other ranks during the backward pass, and ranks must do that in one order"
            )
        self.comm = world() if comm is None else comm
        self._buckets: list[Bucket] = []
        self._key: tuple = ()
        self._pass: Any = None
        self._samples = 0
        self._sent: list[Future] = []
        self._thread: ThreadPoolExecutor | None = None
        self._steps = 0  # since the last average, with sync="params"
        self._seen = 0  # samples in them
        if self.comm.size > 1:
            compare(self.comm, module)
        if sync_batch_norm:
            module = SyncBatchNorm.convert(module, self.comm)
        self.module = module
        self.broadcast()

    # -- the model, under its own names --------------------------------------------------------

    def named_modules(self, prefix: str = "", memo: set | None = None) -> Iterator[tuple[str, Module]]:
        return self.module.named_modules(prefix, memo)

    def _state(self) -> Iterator[tuple[str, Any]]:
        return self.module._state()

    @property
    def training(self) -> bool:
        return self.module.training

    @training.setter
    def training(self, mode: bool) -> None:
        self.module.training = mode

    def extra_repr(self) -> str:
        return f"{self.comm!r}, sync={self.sync!r}"

    # -- forward and backward ------------------------------------------------------------------

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        if self.comm.size == 1 or not is_grad_enabled():
            return self.module(*inputs, **kwargs)
        samples = _first_dimension(inputs)
        output = self.module(*inputs, **kwargs)
        return _map_tensors(output, lambda y: record(y.data, _data_parallel_grad, (y,), self, samples))

    def _reached(self, samples: int) -> None:
        """The backward pass comes through an output of this model."""
        running = engine.mode.running
        overlaps = self.sync == "grad" and self.bucket_bytes is not None
        if self._pass is running:  # the model's second output, or its second call
            if not overlaps:  # which has counted them all
                self._samples += samples
            return
        self._pass, self._samples, self._sent = running, samples, []
        if overlaps:
            self._schedule()
        engine.call_after(0, self._finish)

    def _finish(self) -> None:
        """The gradients of this rank are complete."""
        samples, self._pass = self._samples, None
        self.comm.step += 1
        parameters = self._trainable()
        if self.sync == "params":
            self._seen += samples
            if samples == 0:
                for p in parameters:
                    p.grad = None  # the mean over no samples is NaN
            return
        if self.bucket_bytes is None:
            for bucket in self._current_buckets(parameters):
                self._reduce(bucket, samples)
        else:
            self._release(len(self._buckets))
            for sent in self._sent:
                sent.result()
        for bucket in self._buckets:
            bucket.write_gradients()

    def _reduce(self, bucket: Bucket, samples: int) -> None:
        bucket.read_gradients(samples)
        self._sum(bucket.flat)

    def _sum(self, flat: Any) -> None:
        if self.ordered:
            self.comm.sum_in_order(flat)
        else:
            self.comm.allreduce(flat)

    def _trainable(self) -> list[Any]:
        return [p for p in self.parameters() if p.requires_grad]

    def _current_buckets(self, parameters: list[Any]) -> list[Bucket]:
        """The staging memory for these parameters, made anew when others are trained than before."""
        key = tuple((id(p), p.data.dtype, p.data.shape) for p in parameters)
        if key != self._key:
            self._buckets, self._key = make_buckets(parameters, self.bucket_bytes), key
        return self._buckets

    # -- overlapping communication and backward ------------------------------------------------

    def _schedule(self) -> None:
        """Have each bucket sent as soon as the last node that adds to one of its gradients is done.

        Buckets go in their own order on every rank, so that messages meet even where ranks took different branches.
        """
        buckets = self._current_buckets(self._trainable())
        root = engine.running_root()
        last, self._samples = _survey(root, self, {id(p) for p in self.parameters()})
        place = root.number
        for i, bucket in enumerate(buckets):
            place = min([place, *(last[id(p)] for p in bucket.parameters if id(p) in last)])
            engine.call_after(place, partial(self._release, i + 1))
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "nnx communication")

    def _release(self, count: int) -> None:
        """Hand the first `count` buckets, where that has not happened yet, to the communication thread."""
        assert self._thread is not None
        for bucket in self._buckets[len(self._sent) : count]:
            self._sent.append(self._thread.submit(self._reduce, bucket, self._samples))

    # -- parameters ----------------------------------------------------------------------------

    def average(self) -> bool:
        """With sync="params": call it after each step of the optimizer. Whether it was the turn of an average.

        Every `every`-th call replaces the parameters by ``sum_r n_r p_r / sum_r n_r``, where n_r counts the samples of
        rank r since the last time.
        """
        if self.sync != "params":
            raise RuntimeError('DataParallel.average: expected sync="params", got "grad", which averages gradients')
        self._steps += 1
        if self._steps < self.every:
            return False
        seen, self._steps, self._seen = self._seen, 0, 0
        if self.comm.size > 1:
            for bucket in self._current_buckets(self._trainable()):
                bucket.read_parameters(seen)
                self._sum(bucket.flat)
                bucket.write_parameters()
        return True

    def broadcast(self, optimizer: Any = None) -> None:
        """Give every rank the parameters and buffers of rank 0, and its state of `optimizer`, if there is one."""
        if self.comm.size == 1:
            return
        broadcast_arrays(self.comm, (*(p.data for p in self.parameters()), *self.buffers()))
        if optimizer is not None:
            state = broadcast_tree(self.comm, optimizer.state_dict() if self.comm.rank == 0 else None)
            if self.comm.rank != 0:
                optimizer.load_state_dict(state)

    def average_buffers(self) -> None:
        """Replace running statistics, which every rank moves by its own batches, by their averages over the ranks.

        To be called where all ranks should measure or save the same model; `nnx.train.Trainer` does it before both.
        Whole numbers become those of rank 0.
        """
        if self.comm.size == 1:
            return
        floats = [b for b in self.buffers() if b.dtype.kind == "f" and b.size]
        if floats:
            flat = np.concatenate([np.ravel(b) for b in floats], dtype=np.float64)
            self._sum(flat)
            flat /= self.comm.size
            start = 0
            for b in floats:
                b[...] = flat[start : start + b.size].reshape(b.shape)
                start += b.size
        broadcast_arrays(self.comm, [b for b in self.buffers() if b.dtype.kind != "f"])


def _data_parallel_grad(needs: tuple, gy: Any, parallel: DataParallel, samples: int) -> tuple:
    """The identity; it tells the model that a backward pass goes through it."""
    parallel._reached(samples)
    return (gy,)


def _survey(root: Any, parallel: DataParallel, wanted: set[int]) -> tuple[dict[int, int], int]:
    """Of a graph: which node adds to each wanted parameter last (its number), and the samples of `parallel`."""
    last: dict[int, int] = {}
    samples = 0
    seen = {root}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.grad is _data_parallel_grad and node.saved and node.saved[0] is parallel:
            samples += node.saved[1]
        for parent in node.parents:
            if type(parent) is engine.Node:
                if parent not in seen:
                    seen.add(parent)
                    waiting.append(parent)
            elif id(parent) in wanted:
                last[id(parent)] = min(node.number, last.get(id(parent), node.number))
    return last, samples


def _first_dimension(inputs: tuple) -> int:
    shape = getattr(inputs[0], "shape", None) if inputs else None
    if not shape:
        got = "nothing" if not inputs else f"shape {shape}" if shape is not None else type(inputs[0]).__name__
        raise ValueError(f"DataParallel: expected a first input of shape (N, ...), got {got}")
    return shape[0]


def _map_tensors(output: Any, function: Any) -> Any:
    """`output` with `function` applied to every Tensor in it."""
    if isinstance(output, Tensor):
        return function(output)
    if isinstance(output, dict):
        return {key: _map_tensors(value, function) for key, value in output.items()}
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(_map_tensors(value, function) for value in output))
    if isinstance(output, (tuple, list)):
        return type(output)(_map_tensors(value, function) for value in output)
    return output
