"""Trainer: the loop over epochs and batches."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import numpy as np

from nnx import _check, _random
from nnx._device import CPU, is_array, move, to_host
from nnx._device import parse as parse_device
from nnx.autograd import Tensor, no_grad
from nnx.train._interrupt import Interrupts, interruption
from nnx.train._ranks import Ranks, Totals
from nnx.train.callbacks import Callback, LRSchedule, ProgressBar
from nnx.train.checkpoint import Checkpoint, latest_checkpoint
from nnx.train.history import History
from nnx.train.metrics import Means, Metric, fitting_metrics, named_metrics, total_of


class Trainer:
    """Train a model, measure it, and keep what was measured.

    model:      a Module
    loss:       function of (output, target) that returns one number, such as ``nnx.nn.CrossEntropyLoss()``
    optimizer:  of `nnx.optim`, over the model's parameters; may be left out to evaluate only
    scheduler:  of `nnx.optim.lr_scheduler`: stepped after each epoch, a OneCycleLR after each step (`LRSchedule` can
                say otherwise)
    metrics:    names ("accuracy") or functions of (output, target) arrays that return a value per sample or the mean;
                "auto" is accuracy where the targets are class indices
    clip_grad_norm:  scale gradients down to this total norm before each update
    device:     where to move the model before anything else: "cpu", "cuda", "cuda:0"; None leaves it where it is.
                Batches are moved to where the model is; metrics get arrays on the CPU
    distributed:  whether the ranks that ``mpiexec`` has started train together; None: if there are several. Batches are
                then shared out, so that `batch_size` is that of all ranks together, and every rank must make and call
                the Trainer alike; a `nnx.distributed.DataParallel` as `model` chooses how they work together

    >>> from nnx import nn, optim
    >>> model = nn.Linear(2, 2)
    >>> trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))
    >>> x, y = np.eye(2, dtype=np.float32), np.array([0, 1])
    >>> len(trainer.fit(x, y, epochs=3, batch_size=2).loss)
    3
    """

    def __init__(
        self,
        model: Any,
        loss: Callable[[Any, Any], Tensor],
        optimizer: Any = None,
        *,
        scheduler: Any = None,
        metrics: str | Sequence[str | Metric] = "auto",
        clip_grad_norm: float | None = None,
        device: Any = None,
        distributed: bool | None = None,
    ) -> None:
        if not callable(model) or not hasattr(model, "state_dict"):
            raise TypeError(f"Trainer: expected model to be a Module, got {type(model).__name__}")
        if not callable(loss):
            raise TypeError(f"Trainer: expected loss to be a function, got {type(loss).__name__}")
        if optimizer is not None and not hasattr(optimizer, "param_groups"):
            raise TypeError(f"Trainer: expected optimizer to be one of nnx.optim, got {type(optimizer).__name__}")
        if device is not None:
            model.to(parse_device("Trainer", device))
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.metrics = named_metrics("Trainer", metrics)
        self.clip_grad_norm = (
            None
            if clip_grad_norm is None
            else _check.real("Trainer", "clip_grad_norm", clip_grad_norm, 0, open_low=True)
        )
        self._schedule = scheduler if scheduler is None or isinstance(scheduler, LRSchedule) else LRSchedule(scheduler)
        self.history = History()
        self.epochs = 0  # wanted
        self.epoch = 0  # finished
        self.batches: int | None = None  # of an epoch, if that is known
        self.batch = 0  # finished in this epoch
        self.samples_total: int | None = None
        self.samples = 0
        self.step = 0  # finished
        self.logs: dict[str, Any] = {}
        self.stopped: str | None = None
        self.resumed_from: str | None = None
        self.inputs: tuple = ()
        self.targets: Any = None
        self.loss_value = float("nan")
        self.loss_of_rank = 0.0  # the loss of this rank's share of the batch; 0 where that is empty
        self._callbacks: list[Callback] = [] if self._schedule is None else [self._schedule]
        self._loader: Any = None
        self._means = Means()
        self._seconds = 0.0
        self._trained = False  # all batches of the epoch are done, validation is not
        self._interrupts = Interrupts()
        self._ranks = Ranks(model, distributed)

    @property
    def rank(self) -> int:
        """This process's number among the `ranks` that train together; 0 alone prints and writes."""
        return self._ranks.rank

    @property
    def ranks(self) -> int:
        """How many processes train together."""
        return self._ranks.size

    # -- training ------------------------------------------------------------------------------

    def fit(
        self,
        x: Any,
        y: Any = None,
        epochs: int = 1,
        batch_size: int = 32,
        *,
        validation: Any = None,
        callbacks: Iterable[Callback] = (),
        shuffle: bool = True,
        drop_last: bool = False,
        seed: int | None = None,
        transform: Callable[..., Any] | None = None,
        verbose: bool | None = None,
        resume: str | os.PathLike[str] | bool | None = None,
    ) -> History:
        """Train for `epochs` epochs and return the history.

        x, y:        arrays; or x is a data set, or an iterable of batches such as `nnx.data.DataLoader` (then
                     batch_size, shuffle, drop_last, seed and transform are its own affair)
        validation:  (x, y) or a loader, evaluated after each epoch
        seed:        of the order and the augmentation; None draws it from `nnx.manual_seed`'s stream
        transform:   augmentation of the inputs, ``transform(batch, rng)``, see `nnx.data`
        verbose:     progress bar; None draws it where standard error is a terminal
        resume:      a checkpoint, or a folder of them (its newest is used); True: the newest of the Checkpoint
                     callback, or from the start if there is none. With the same arguments otherwise, the result has
                     the same bits as without the interruption

        Ctrl-C ends the running step, lets Checkpoint callbacks write, and raises KeyboardInterrupt; the model is usable
        and `trainer.history` has the finished epochs. A second Ctrl-C does not wait. SIGTERM does the same with
        SystemExit(143). The model's training flags are afterwards what they were before.
        """
        owner = "Trainer.fit"
        if self.optimizer is None:
            raise ValueError(f"{owner}: expected Trainer to be given an optimizer, got None")
        self.epochs = _check.integer(owner, "epochs", epochs, 0)
        loader = self._training_loader(x, y, batch_size, shuffle, drop_last, seed, transform)
        self._callbacks = self._arrange(owner, callbacks, verbose)
        start = self._ranks.resume_path(lambda: self._resume_path(owner, resume))
        self._begin(owner, loader)
        self.resumed_from = start
        with Interrupts() as self._interrupts, _mode(self.model, True, self.model.training):
            try:
                self._call("on_fit_begin")
                if start is not None:
                    self.load_checkpoint(start)
                while self.epoch < self.epochs and self.stopped is None:
                    self._epoch(loader, validation, batch_size)
                self._ranks.average_buffers()
                self._call("on_fit_end")
            finally:
                self._call("on_exit")
                self.inputs, self.targets, self._loader = (), None, None
        number = self._ranks.agreed(self._interrupts.pending)
        if number:  # it came after the last step
            raise interruption(number)
        return self.history

    def stop(self, reason: str = "stop() was called") -> None:
        """End training after this epoch; `trainer.stopped` holds the reason."""
        self.stopped = reason

    def _training_loader(
        self, x: Any, y: Any, batch_size: int, shuffle: bool, drop_last: bool, seed: Any, transform: Any
    ) -> Any:
        from nnx.data import ArrayDataset, DataLoader

        owner = "Trainer.fit"
        if y is None and _is_loader(x):
            for name, value in (("seed", seed), ("transform", transform)):
                if value is not None:
                    raise ValueError(f"{owner}: expected {name} to be an argument of the loader, got it here")
            return x
        if y is not None:
            dataset = ArrayDataset(x, y)
        elif isinstance(x, Tensor) or is_array(x):
            raise TypeError(f"{owner}: expected targets y beside an array x, got None")
        else:
            dataset = x
        return DataLoader(dataset, batch_size, shuffle, drop_last=drop_last, seed=seed, transform=transform)

    def _arrange(self, owner: str, callbacks: Iterable[Callback], verbose: bool | None) -> list[Callback]:
        own = list(callbacks)
        if self.rank != 0:  # one progress bar for all
            own, verbose = [c for c in own if not isinstance(c, ProgressBar)], False
        for callback in own:
            if not isinstance(callback, Callback):
                raise TypeError(f"{owner}: expected callbacks to be nnx.train.Callback objects, got {callback!r}")
        if self._schedule is not None:
            own.append(self._schedule)
        if verbose is not False and not any(isinstance(c, ProgressBar) for c in own):
            own.append(ProgressBar(force=verbose is True))
        return sorted(own, key=lambda c: c.order)

    def _resume_path(self, owner: str, resume: Any) -> str | None:
        if resume is None or resume is False:
            return None
        if resume is True:
            folders = [c.folder for c in self._callbacks if isinstance(c, Checkpoint)]
            if not folders:
                raise ValueError(f"{owner}: expected a Checkpoint callback for resume=True, got none")
            path = latest_checkpoint(folders[0])
            return None if path is None else str(path)
        if os.path.isdir(resume):
            path = latest_checkpoint(resume)
            if path is None:
                raise FileNotFoundError(
                    f"{owner}: expected resume to be a folder with checkpoints, got {os.fspath(resume)!r}, "
                    "which has none"
                )
            return str(path)
        if not os.path.exists(resume):
            raise FileNotFoundError(f"{owner}: expected resume to be a checkpoint, got {os.fspath(resume)!r}")
        return os.fspath(resume)

    def _begin(self, owner: str, loader: Any) -> None:
        """Set the state of a run that has not started."""
        self.batches = len(loader) if hasattr(loader, "__len__") else None
        if self.batches == 0:
            raise ValueError(f"{owner}: expected at least one batch, got none. Is drop_last on?")
        self._loader = loader
        self._ranks.same_order(loader)
        self._ranks.begin(self.optimizer)
        self.samples_total = None
        if self.batches and hasattr(loader, "dataset") and hasattr(loader, "batch_size"):
            everything = len(loader.dataset)
            self.samples_total = min(everything, self.batches * loader.batch_size)
        self.history = History()
        self.epoch = self.batch = self.samples = self.step = 0
        self.logs, self.stopped = {}, None
        self._means, self._seconds, self._trained = Means(), 0.0, False

    def _epoch(self, loader: Any, validation: Any, batch_size: int) -> None:
        start = time.perf_counter() - self._seconds
        self._call("on_epoch_begin")
        if not self._trained:
            with closing(self._remaining(loader)) as batches:
                for batch in batches:
                    self._step(batch)
                    self._seconds = time.perf_counter() - start
                    self._call("on_step_end")
                    self._safe_point()
            self._trained = True
        if self.step == 0:
            raise ValueError("Trainer.fit: expected at least one batch, got none")
        logs = {**self._means.values(), "lr": self.logs["lr"]}
        if validation is not None:
            size = max(batch_size, 256)
            measured = self._measure("Trainer.fit", *_pair(validation), size, self._safe_point)
            logs.update({f"val_{name}": value for name, value in measured.items()})
        self._seconds = logs["seconds"] = time.perf_counter() - start
        self.logs = logs
        self.history.append(logs)
        self.epoch += 1
        self.batch = self.samples = 0
        self._means, self._seconds, self._trained = Means(), 0.0, False
        self._call("on_epoch_end")
        self._safe_point()

    def _remaining(self, loader: Any) -> Generator[tuple, None, None]:
        """The batches of this epoch that are left; a loader without a state of its own is wound forward."""
        skip = 0 if hasattr(loader, "load_state_dict") else self.batch
        with self._ranks.shared(loader) as batches:
            try:
                for i, batch in enumerate(batches):
                    if i >= skip:
                        yield _checked("Trainer.fit", batch)
            finally:
                if hasattr(batches, "close"):
                    batches.close()  # a thread that works ahead ends now, not when the memory is collected

    def _step(self, batch: tuple) -> None:
        *inputs, self.targets = self._beside_model(batch)
        self.inputs = tuple(inputs)
        self._call("on_step_begin")
        count = len(self.inputs[0])
        measured: list[Totals] = []

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            output = self._forward(*self.inputs)
            loss = self._loss(output, self.targets)
            self.loss_value = float(loss.item())
            self.loss_of_rank = self.loss_value if count else 0.0
            totals = self._totals(output, self.targets, self.loss_value, count, not measured)
            loss.backward()  # with several ranks it leaves the gradients of the whole batch
            if self.ranks > 1:  # its loss too: who looks at it decides alike everywhere
                totals = self._ranks.sum(totals, self._interrupts.pending)
                self.loss_value = totals["loss"][0] / totals["loss"][1]
                loss = Tensor(np.asarray(self.loss_value, loss.dtype))
            measured.append(totals)
            self._call("before_update")
            if self.clip_grad_norm is not None:
                from nnx.nn.utils import clip_grad_norm_

                clip_grad_norm_(self.model.parameters(), self.clip_grad_norm)
            return loss

        lr = self.optimizer.param_groups[0].get("lr")
        self.optimizer.step(closure)
        self._ranks.after_update()
        self.batch += 1
        self.step += 1
        self._ranks.set_step(self.step)
        totals = measured[0]  # an optimizer that tries several points begins where the step began
        self.samples += totals["loss"][1]
        self._means.add_totals(totals)
        self.logs = {**self._means.values(), "lr": lr}

    def _beside_model(self, batch: tuple) -> tuple:
        """The arrays of a batch on the model's device."""
        device = next((p.device for p in self.model.parameters()), CPU)
        return tuple(x.to(device) if isinstance(x, Tensor) else move(x, device) if is_array(x) else x for x in batch)

    def _forward(self, *inputs: Any) -> Any:
        model = self.model if self._ranks.parallel is None else self._ranks.parallel
        return model(*inputs)

    def _loss(self, output: Any, target: Any) -> Tensor:
        loss = self.loss(output, target)
        if not isinstance(loss, Tensor) or loss.size != 1:
            got = f"shape {loss.shape}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"Trainer: expected loss to return a Tensor of one number, got {got}")
        return loss

    def _totals(self, output: Any, target: Any, loss: float, count: int, metrics: bool = True) -> Totals:
        """The loss, and the metrics if they are wanted, summed over the samples of a batch."""
        totals: Totals = {"loss": (loss * count if count else 0.0, count)}
        if metrics:
            y = output.numpy() if isinstance(output, Tensor) else output
            t = target.numpy() if isinstance(target, Tensor) else to_host(target)
            for name, metric in (fitting_metrics(y, t) if self.metrics is None else self.metrics).items():
                totals[name] = total_of(metric(y, t), count) if count else (0.0, 0)
        return totals

    def _call(self, event: str) -> None:
        for callback in self._callbacks:
            try:
                getattr(callback, event)(self)
            except KeyboardInterrupt:
                if event not in ("on_step_end", "on_epoch_end"):
                    raise
                self._interrupts.pending = signal.SIGINT  # the step is whole: let the others see it, then stop

    def _safe_point(self) -> None:
        """Between two steps: weights, buffers, optimizer and random stream fit together."""
        number = self._interrupts.pending if self.ranks == 1 else self._ranks.told
        if number:
            self._interrupts.pending = self._ranks.told = 0
            self._call("on_interrupt")
            raise interruption(number)

    # -- measuring -----------------------------------------------------------------------------

    def evaluate(self, x: Any, y: Any = None, batch_size: int = 256) -> dict[str, float]:
        """Loss and metrics on arrays or on a loader, in evaluation mode, as ``{"loss": ..., "accuracy": ...}``.

        The model is not changed. With several ranks each measures its share, and gets the numbers of all.
        """
        size = _check.integer("Trainer.evaluate", "batch_size", batch_size, 1)
        return self._measure("Trainer.evaluate", x, y, size, lambda: None)

    def _measure(self, owner: str, x: Any, y: Any, batch_size: int, pause: Callable[[], None]) -> dict[str, float]:
        from nnx.data import ArrayDataset, DataLoader

        if y is not None:
            x = DataLoader(ArrayDataset(x, y), batch_size)
        elif isinstance(x, Tensor) or is_array(x):
            raise TypeError(f"{owner}: expected targets y beside an array x, got None")
        elif not _is_loader(x):
            x = DataLoader(x, batch_size)
        self._ranks.average_buffers()
        means = Means()
        with _mode(self.model, False), no_grad(), self._ranks.shared(x) as batches:
            for batch in batches:
                *inputs, target = self._beside_model(_checked(owner, batch))
                if self.ranks == 1 or len(inputs[0]):
                    output = self._forward(*inputs)
                    loss = self._loss(output, target)
                    means.add_totals(self._totals(output, target, float(loss.item()), len(inputs[0])))
                if self.ranks == 1:
                    pause()
        means = Means.of(self._ranks.sum_found(means.totals()))
        values = means.values()
        if not values:
            raise ValueError(f"{owner}: expected at least one sample, got none")
        return values

    # -- checkpoints ---------------------------------------------------------------------------

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Write weights, optimizer, schedule, callbacks, place in the data, random state and history to one file.

        The file is replaced in one step. During `fit`, call it from ``on_step_end`` or ``on_epoch_end``; with several
        ranks on each of them: rank 0 writes, and the others wait until it has.
        """
        self._ranks.average_buffers()
        self._ranks.write(path, self._state())

    def load_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Take over everything that a checkpoint holds, or nothing if it does not fit.

        ValueError (or KeyError for names) for a file that is no checkpoint, or one of another model, optimizer, data
        set or set of callbacks. `fit(resume=path)` calls it at the right moment. With several ranks rank 0 reads the
        file; their number may be another than it was.
        """
        state = self._ranks.read(path)
        before = self._state()
        before["model"] = {name: a.copy() for name, a in before["model"].items()}
        try:
            self._restore(state, os.fspath(path))
        except BaseException:
            self._restore(before, "")
            raise

    def _state(self) -> dict[str, Any]:
        loader = self._loader
        return {
            "model": self.model.state_dict(),
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
            "callbacks": {key: s for key, c in self._named_callbacks() if (s := c.state_dict())},
            "loader": loader.state_dict() if hasattr(loader, "state_dict") else None,
            "random": _random.get_state(),
            "history": dict(self.history),
            "logs": self.logs,
            "progress": {
                "epoch": self.epoch,
                "batch": self.batch,
                "samples": self.samples,
                "step": self.step,
                "batches": self.batches,
                "trained": self._trained,
                "stopped": self.stopped,
                "seconds": self._seconds,
                "means": self._means.state_dict(),
            },
        }

    def _restore(self, state: dict[str, Any], path: str) -> None:
        progress = state["progress"]
        if self.batches is not None and progress["batches"] != self.batches and self._loader is not None:
            raise ValueError(
                f"Trainer.load_checkpoint: expected a run with {self.batches} batches per epoch, "
                f"got {progress['batches']} in {path!r}. Resume with the data and batch_size of that run"
            )
        callbacks = dict(self._named_callbacks())
        unknown = [key for key in state["callbacks"] if key not in callbacks]
        if unknown and self._loader is not None:
            raise ValueError(
                f"Trainer.load_checkpoint: expected callbacks for the saved state of {', '.join(unknown)}, "
                f"got {', '.join(callbacks) or 'none'}. Resume with the callbacks of that run"
            )
        self.model.load_state_dict(state["model"])
        if self.optimizer is not None and state["optimizer"] is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        for key, saved in state["callbacks"].items():
            if key in callbacks:
                callbacks[key].load_state_dict(saved)
        if self._loader is not None and state["loader"] is not None:
            if hasattr(self._loader, "load_state_dict"):
                self._loader.load_state_dict(state["loader"])
        _random.set_state(state["random"])
        self.history = History(state["history"])
        self.logs = state["logs"]
        self.epoch, self.batch = progress["epoch"], progress["batch"]
        self.samples, self.step = progress["samples"], progress["step"]
        self.stopped, self._trained = progress["stopped"], progress["trained"]
        self._ranks.set_step(self.step)
        self._seconds = progress["seconds"]
        self._means = Means()
        self._means.load_state_dict(progress["means"])

    def _named_callbacks(self) -> Iterator[tuple[str, Callback]]:
        """Each callback with the name under which checkpoints keep its state: its class, numbered if repeated."""
        seen: dict[str, int] = {}
        for callback in self._callbacks:
            kind = type(callback).__name__
            seen[kind] = seen.get(kind, 0) + 1
            yield (kind if seen[kind] == 1 else f"{kind}-{seen[kind]}"), callback


def _is_loader(x: Any) -> bool:
    """Whether iterating over `x` gives batches; what can be indexed is a data set of samples."""
    from nnx.data import DataLoader

    return isinstance(x, DataLoader) or (hasattr(x, "__iter__") and not hasattr(x, "__getitem__"))


def _pair(validation: Any) -> tuple[Any, Any]:
    if isinstance(validation, (tuple, list)):
        if len(validation) != 2:
            raise ValueError(f"Trainer.fit: expected validation to be (x, y) or a loader, got {len(validation)} items")
        return validation[0], validation[1]
    return validation, None


def _checked(owner: str, batch: Any) -> tuple:
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        raise ValueError(
            f"{owner}: expected batches of inputs and targets, got {type(batch).__name__}"
            + (f" of {len(batch)}" if isinstance(batch, (tuple, list)) else "")
        )
    return tuple(batch)


@contextmanager
def _mode(model: Any, training: bool, as_it_is: bool = False) -> Iterator[None]:
    """Put every module into a mode for a while (or leave it), then each back into its own."""
    before = [(module, module.training) for module in model.modules()]
    if not as_it_is:
        model.train(training)
    try:
        yield
    finally:
        for module, flag in before:
            module.training = flag
