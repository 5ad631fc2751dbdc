"""Callbacks: what happens around the steps of `Trainer.fit`."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from nnx import _check, _random
from nnx._device import is_array

if TYPE_CHECKING:
    from nnx.train.trainer import Trainer


class Callback:
    """Base class: override what you need; each method gets the trainer.

    Useful there: `trainer.model`, `optimizer`, `epoch` (finished epochs), `batch` (finished batches of this epoch),
    `step` (finished steps), `logs` (the newest numbers), `history`, and ``trainer.stop(reason)``.

    A callback with memory returns it from `state_dict` as plain data and arrays: checkpoints keep it, and resuming
    gives it back to `load_state_dict` after `on_fit_begin`. Callbacks run in the order of `order`, then as listed.
    """

    order = 0

    def on_fit_begin(self, trainer: Trainer) -> None: ...
    def on_epoch_begin(self, trainer: Trainer) -> None: ...
    def on_step_begin(self, trainer: Trainer) -> None: ...

    def before_update(self, trainer: Trainer) -> None:
        """Gradients are there, the optimizer has not used them yet; raising leaves the weights as they are."""

    def on_step_end(self, trainer: Trainer) -> None: ...
    def on_epoch_end(self, trainer: Trainer) -> None: ...

    def on_interrupt(self, trainer: Trainer) -> None:
        """Ctrl-C, between two steps; KeyboardInterrupt follows."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """All epochs are done, or `trainer.stop` was called."""

    def on_exit(self, trainer: Trainer) -> None:
        """`fit` is being left, whatever the reason."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Best:
    """The best value so far of a number in the logs.

    monitor:  its name, such as "val_loss"
    mode:     "min" or "max"; None takes "max" for names with "accuracy" in them
    """

    def __init__(self, owner: str, monitor: str, mode: str | None, min_delta: float = 0.0) -> None:
        _check.choice(owner, "mode", mode, (None, "min", "max"))
        self.owner = owner
        self.monitor = monitor
        self.mode = mode or ("max" if "accuracy" in monitor else "min")
        self.min_delta = _check.real(owner, "min_delta", min_delta, 0)
        self.value: float | None = None

    def improves(self, logs: dict[str, Any]) -> bool:
        """Take the value from `logs`; whether it is the best so far. NaN never is."""
        if self.monitor not in logs:
            raise ValueError(
                f"{self.owner}: expected monitor to be one of {', '.join(logs)}, got {self.monitor!r}."
                + (" Pass validation=(x, y) to fit" if self.monitor.startswith("val_") else "")
            )
        value = float(logs[self.monitor])
        gain = math.inf
        if self.value is not None:
            gain = value - self.value if self.mode == "max" else self.value - value
        better = not math.isnan(value) and gain > self.min_delta
        if better:
            self.value = value
        return better


class EarlyStopping(Callback):
    """Stop when a number has not improved for some epochs, and go back to the best weights.

    monitor:       name in the logs: "val_loss", "val_accuracy", "loss", ...
    patience:      how many epochs without an improvement are waited for
    min_delta:     what counts as an improvement
    mode:          "min" or "max"; None takes "max" for accuracies
    restore_best:  load the weights (and buffers) of the best epoch when `fit` ends

    After `fit`: `best` and `best_epoch` (counted from 1).
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 5,
        min_delta: float = 0.0,
        mode: str | None = None,
        restore_best: bool = True,
    ) -> None:
        self.patience = _check.integer("EarlyStopping", "patience", patience, 1)
        self.restore_best = bool(restore_best)
        self._best = Best("EarlyStopping", monitor, mode, min_delta)
        self._waited = 0
        self._weights: dict[str, np.ndarray] | None = None
        self.best_epoch: int | None = None

    @property
    def best(self) -> float | None:
        """The best value of the monitored number."""
        return self._best.value

    def on_fit_begin(self, trainer: Trainer) -> None:
        self._best.value = self.best_epoch = self._weights = None
        self._waited = 0

    def on_epoch_end(self, trainer: Trainer) -> None:
        if self._best.improves(trainer.logs):
            self._waited = 0
            self.best_epoch = trainer.epoch
            if self.restore_best:
                self._weights = {k: a.copy() for k, a in trainer.model.state_dict().items()}
            return
        self._waited += 1
        if self._waited >= self.patience:
            trainer.stop(f"{self._best.monitor} has not improved for {self._waited} epochs")

    def on_fit_end(self, trainer: Trainer) -> None:
        if self._weights is not None:
            trainer.model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self._best.value,
            "best_epoch": self.best_epoch,
            "waited": self._waited,
            "weights": self._weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best.value = state["best"]
        self.best_epoch = state["best_epoch"]
        self._waited = state["waited"]
        self._weights = state["weights"]


class LRSchedule(Callback):
    """Step a scheduler of `nnx.optim.lr_scheduler` after each epoch or each optimizer step.

    every:  "epoch" or "step"; None takes "step" for OneCycleLR, whose length is counted in steps, else "epoch"
    """

    order = -10

    def __init__(self, scheduler: Any, every: str | None = None) -> None:
        if not callable(getattr(scheduler, "step", None)):
            raise TypeError(
                f"LRSchedule: expected scheduler to be one of nnx.optim.lr_scheduler, got {type(scheduler).__name__}"
            )
        _check.choice("LRSchedule", "every", every, (None, "epoch", "step"))
        from nnx.optim.lr_scheduler import OneCycleLR

        self.scheduler = scheduler
        self.every = every or ("step" if isinstance(scheduler, OneCycleLR) else "epoch")

    def on_step_end(self, trainer: Trainer) -> None:
        if self.every == "step":
            self.scheduler.step()

    def on_epoch_end(self, trainer: Trainer) -> None:
        if self.every == "epoch":
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(state)


class StopOnNaN(Callback):
    """Stop before a NaN or an infinity reaches the weights, and say where it came from.

    Raises FloatingPointError that names the step and the first layer whose output is not finite, or the parameter
    whose gradient is not. Weights and buffers are then those before the step.
    """

    order = -20

    def __init__(self) -> None:
        self._buffers: dict[str, np.ndarray] = {}
        self._random: dict = {}

    def on_step_begin(self, trainer: Trainer) -> None:
        self._random = _random.get_state()  # dropout must draw the same masks when the step is replayed
        self._buffers = {name: b.copy() for name, b in trainer.model.named_buffers()}

    def before_update(self, trainer: Trainer) -> None:
        ranks = trainer._ranks
        if not math.isfinite(trainer.loss_value):
            what = f"loss is {trainer.loss_value}"
            where = ranks.blame(*self._replay(trainer))
        else:
            bad = [name for name, p in trainer.model.named_parameters() if not _finite(p.grad)]
            if not (bad if ranks.gradients_agree else ranks.any(bool(bad))):
                return
            # the last one in the model is the first one that the backward pass reaches
            what = f"the gradient of {bad[-1]!r} is not finite" if bad else "a gradient on another rank is not finite"
            where = f"it is the first of {len(bad)} in the backward pass"
        self._restore_buffers(trainer)
        total = f" of {trainer.batches}" if trainer.batches else ""
        raise FloatingPointError(
            f"StopOnNaN: expected finite numbers, got a step where {what}: step {trainer.step + 1} "
            f"(epoch {trainer.epoch + 1}, batch {trainer.batch + 1}{total}); {where}. "
            "The weights are those before this step"
        )

    def _restore_buffers(self, trainer: Trainer) -> None:
        for name, buffer in trainer.model.named_buffers():
            buffer[...] = self._buffers[name]

    def _replay(self, trainer: Trainer) -> tuple[bool, str]:
        """Run the batch again with a hook on every layer: whether one is bad here, and what the first one is called.

        All ranks do it, for layers may talk to the other ranks.
        """
        from nnx.autograd import no_grad

        found: list[str] = []
        if not all(_finite(x) for x in trainer.inputs):
            found.append("the input batch itself is not finite")

        def watch(name: str) -> Any:
            def look(module: Any, inputs: Any, output: Any) -> None:
                if found or all(_finite(x) for x in (*inputs, *_several(output))):
                    return
                kind = type(module).__name__
                layer = f"layer {name!r} ({kind})" if name else f"the model itself ({kind})"
                weights = [n for n, p in module.named_parameters() if not _finite(p)]
                if weights:
                    found.append(f"{weights[0]!r} of {layer} is not finite")
                elif all(_finite(x) for x in inputs):
                    found.append(f"the first output that is not finite is that of {layer}")
                else:
                    found.append(f"the input of {layer} is not finite, all layers before it gave finite output")

            return look

        after = _random.get_state()
        handles = [
            module.register_forward_hook(watch(name))
            for name, module in trainer.model.named_modules()  # inner ones run before outer ones
        ]
        _random.set_state(self._random)
        self._restore_buffers(trainer)
        try:
            with no_grad():
                trainer.model(*trainer.inputs)
        finally:
            for handle in handles:
                handle.remove()
            _random.set_state(after)
        if found:
            return True, found[0]
        bad = not math.isfinite(trainer.loss_of_rank)
        return bad, "the output of every layer is finite, so it is the loss itself"


class StopOnExplosion(Callback):
    """Stop a run whose loss passes a multiple of the first one, or is not finite: the learning rate is too large.

    factor:  how many times the loss of the first step

    Raises FloatingPointError that names the step; the weights are then those before it. A search
    (`nnx.train.search`) takes such a run for stopped and goes on with the next.

    After the stop: `step` (counted from 1) and `loss`; `initial` is the first step's loss.

    Course document S2: end a run whose cost exceeds three times its initial value.
    """

    order = -15

    def __init__(self, factor: float = 3.0) -> None:
        self.factor = _check.real("StopOnExplosion", "factor", factor, 1, open_low=True)
        self.initial: float | None = None
        self.step: int | None = None
        self.loss: float | None = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        self.initial = self.step = self.loss = None

    def before_update(self, trainer: Trainer) -> None:
        loss = trainer.loss_value
        if self.initial is None and math.isfinite(loss):
            self.initial = loss
        if self.initial is not None:
            limit = self.factor * self.initial if self.initial > 0 else math.inf  # a multiple of 0 bounds nothing
            if math.isfinite(loss) and loss <= limit:
                return
        self.step, self.loss = trainer.step + 1, loss
        start = "the first one" if self.initial is None else f"the first one, {self.initial:.6g}"
        raise FloatingPointError(
            f"StopOnExplosion: expected a loss of at most {self.factor:g} times {start}, got {loss:.6g} in step "
            f"{self.step} (epoch {trainer.epoch + 1}, batch {trainer.batch + 1}). The weights are those before this "
            "step; try a smaller learning rate"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"initial": self.initial}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.initial = state["initial"]


def _several(output: Any) -> tuple:
    return tuple(output) if isinstance(output, (tuple, list)) else (output,)


def _finite(x: Any) -> bool:
    """Whether all numbers in a Tensor or array are finite; True for None and for other things."""
    array = x if is_array(x) else getattr(x, "data", x)
    if not is_array(array) or array.dtype.kind != "f":
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        # a finite sum proves it without a second array; a sum of finite numbers may still overflow
        return bool(np.isfinite(array.sum())) or bool(np.isfinite(array).all())


class ProgressBar(Callback):
    """One line per epoch on standard error: loss, metrics, samples per second, time left.

    force:  draw also where standard error is no terminal
    """

    order = 50

    def __init__(self, force: bool = False) -> None:
        self.force = bool(force)
        self._bar: Any = None
        self._epochs = 0

    def on_epoch_begin(self, trainer: Trainer) -> None:
        if not self.force and not sys.stderr.isatty():
            return
        from tqdm import tqdm

        self._bar = tqdm(
            total=trainer.samples_total,
            initial=trainer.samples,
            desc=f"epoch {trainer.epoch + 1}/{trainer.epochs}",
            unit=" samples",
            unit_scale=True,
            file=sys.stderr,
            dynamic_ncols=True,
        )

    def on_step_end(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self._bar.set_postfix(_short(trainer.logs), refresh=False)
            self._bar.update(trainer.samples - self._bar.n)

    def on_epoch_end(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self._bar.set_postfix(_short(trainer.logs), refresh=True)
            self._close()

    def on_exit(self, trainer: Trainer) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _short(logs: dict[str, Any]) -> dict[str, str]:
    return {k: f"{v:.4g}" for k, v in logs.items() if k != "seconds" and isinstance(v, float)}
