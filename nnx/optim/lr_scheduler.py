"""Learning-rate schedules.

A scheduler sets the learning rate of its optimizer's groups: the first when it is made, the next at
every `step`, which comes after the optimizer's. The schedules that go from one rate to the next by
a factor (step, exponential, cosine) start from what the group holds, so that two of them, or a
scheduler and a hand, can act on the same group.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from nnx import _check
from nnx.optim.optimizer import Optimizer


class LRScheduler:
    """Base class: counts steps, and sets the learning rates that `get_lr` returns.

    optimizer:   the optimizer whose ``param_groups`` are set
    last_epoch:  the number of steps made before; -1 for a new schedule. Otherwise every group must
                 hold ``initial_lr``, as it does after `Optimizer.load_state_dict`.

    Attributes: `last_epoch` (steps made), `base_lrs` (the groups' initial rates).
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        owner = type(self).__name__
        groups = _groups(owner, optimizer)
        self.optimizer = optimizer
        self.last_epoch = _check.integer(owner, "last_epoch", last_epoch, -1)
        for i, group in enumerate(groups):
            if self.last_epoch != -1 and "initial_lr" not in group:
                raise KeyError(
                    f"{owner}: expected 'initial_lr' in parameter group {i} for last_epoch "
                    f"{last_epoch}, got {', '.join(group)}. Load the optimizer's state first"
                )
        self.base_lrs = [float(group.get("initial_lr", group["lr"])) for group in groups]
        self._step_count = 0
        self._optimizer_steps = optimizer._step_count
        self._first = True  # `get_lr` is asked for the rate to start with
        self._advance()
        self._first = False
        for group, lr in zip(groups, self.base_lrs, strict=True):
            group.setdefault("initial_lr", lr)

    def get_lr(self) -> list[float]:
        """The groups' learning rates at `last_epoch`, which `step` has just moved."""
        raise NotImplementedError(f"{type(self).__name__}: expected a subclass that defines get_lr")

    def get_last_lr(self) -> list[float]:
        """The learning rates that were set last."""
        return list(self._last_lr)

    def step(self, epoch: None = None) -> None:
        """Go to the next learning rate. Call it after the optimizer's step (or epoch)."""
        owner = f"{type(self).__name__}.step"
        if epoch is not None:
            raise ValueError(f"{owner}: expected no epoch, got {epoch!r}. Set last_epoch when the scheduler is made")
        if self._step_count == 1 and self.optimizer._step_count == self._optimizer_steps:
            warnings.warn(
                f"{owner}: expected a step of the optimizer before, or the first learning rate is "
                "never used. Call optimizer.step(), then scheduler.step()",
                UserWarning,
                stacklevel=2,
            )
        self._advance()

    def _advance(self) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.base_lrs):
            raise ValueError(
                f"{type(self).__name__}: expected the {len(self.base_lrs)} parameter groups that "
                f"the optimizer had when the scheduler was made, got {len(groups)}. Make the "
                "scheduler after add_param_group"
            )
        self.last_epoch += 1
        try:
            rates = [float(lr) for lr in self.get_lr()]
        except BaseException:
            self.last_epoch -= 1
            raise
        self._step_count += 1
        for group, lr in zip(groups, rates, strict=True):
            group["lr"] = lr
        self._last_lr = rates

    def _current(self) -> list[float]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    # -- saving --------------------------------------------------------------------------------

    _not_saved: tuple[str, ...] = ("optimizer", "_optimizer_steps", "_first")

    def state_dict(self) -> dict[str, Any]:
        """Position and settings as numbers, strings and lists (JSON can hold them)."""
        return {
            name: list(value) if isinstance(value, list) else value
            for name, value in vars(self).items()
            if name not in self._not_saved
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned, all of it or nothing.

        The learning rates themselves are in the optimizer's state dict; load that one too.
        """
        owner = f"{type(self).__name__}.load_state_dict"
        own = self.state_dict()
        if not isinstance(state_dict, Mapping) or set(state_dict) != set(own):
            got = ", ".join(map(str, state_dict)) if isinstance(state_dict, Mapping) else state_dict
            raise ValueError(f"{owner}: expected a dict with {', '.join(own)}, got {got}")
        if len(state_dict["_last_lr"]) != len(own["_last_lr"]):
            raise ValueError(
                f"{owner}: expected learning rates of {len(own['_last_lr'])} parameter groups, "
                f"got {len(state_dict['_last_lr'])}"
            )
        vars(self).update({k: list(v) if isinstance(v, (list, tuple)) else v for k, v in state_dict.items()})
        self._optimizer_steps = -1  # the optimizer may have stepped before the state was saved: nothing to warn about


class StepLR(LRScheduler):
    """``lr *= gamma`` every `step_size` steps.

    >>> import numpy as np
    >>> import nnx
    >>> optimizer = nnx.optim.SGD([nnx.Parameter(np.zeros(2))], lr=0.5)
    >>> scheduler = nnx.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    >>> rates = []
    >>> for epoch in range(5):
    ...     rates.append(scheduler.get_last_lr()[0])
    ...     optimizer.step()
    ...     scheduler.step()
    >>> rates
    [0.5, 0.5, 0.25, 0.25, 0.125]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size = _check.integer("StepLR", "step_size", step_size, 1)
        self.gamma = _check.real("StepLR", "gamma", gamma, 0)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0 or self.last_epoch % self.step_size != 0:
            return self._current()
        return [lr * self.gamma for lr in self._current()]


class MultiStepLR(LRScheduler):
    """``lr *= gamma`` after each of the `milestones` (numbers of steps; one that is named twice counts twice)."""

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        owner = "MultiStepLR"
        if not isinstance(milestones, Iterable):
            raise TypeError(f"{owner}: expected milestones to be integers, got {milestones!r}")
        self.milestones = sorted(_check.integer(owner, "milestones", m, 0) for m in milestones)
        self.gamma = _check.real(owner, "gamma", gamma, 0)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        factor = self.gamma ** self.milestones.count(self.last_epoch)
        return [lr * factor for lr in self._current()]


class ExponentialLR(LRScheduler):
    """``lr = base_lr gamma^t`` at step t. (For ``base_lr exp(-k t)`` take ``gamma = exp(-k)``.)"""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = _check.real("ExponentialLR", "gamma", gamma, 0)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [lr if self._first else lr * self.gamma for lr in self._current()]


class InverseTimeLR(LRScheduler):
    """``lr = base_lr / (1 + decay t)`` at step t: the 1/t schedule (not in PyTorch).

    >>> import numpy as np
    >>> import nnx
    >>> optimizer = nnx.optim.SGD([nnx.Parameter(np.zeros(2))], lr=0.1)
    >>> scheduler = nnx.optim.lr_scheduler.InverseTimeLR(optimizer, decay=0.1)
    >>> for epoch in range(10):
    ...     optimizer.step()
    ...     scheduler.step()
    >>> scheduler.get_last_lr()
    [0.05]
    """

    def __init__(self, optimizer: Optimizer, decay: float, last_epoch: int = -1) -> None:
        self.decay = _check.real("InverseTimeLR", "decay", decay, 0)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [lr / (1 + self.decay * self.last_epoch) for lr in self.base_lrs]


class CosineAnnealingLR(LRScheduler):
    """From the base rate down to `eta_min` in `T_max` steps, along half a cosine, and up again
    behind it.

    ``lr = eta_min + (base_lr - eta_min) (1 + cos(pi t / T_max)) / 2``, reached from the group's
    rate by a factor.

    Loshchilov, Hutter, SGDR: stochastic gradient descent with warm restarts, 2017 (without the
    restarts).
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max = _check.integer("CosineAnnealingLR", "T_max", T_max, 1)
        self.eta_min = _check.real("CosineAnnealingLR", "eta_min", eta_min)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        t, low = self.last_epoch, self.eta_min
        if self._first:
            return self._current()
        if (t - 1 - self.T_max) % (2 * self.T_max) == 0:
            # The step before was the bottom, where no factor leads up from.
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            return [lr + (base - low) * rise for lr, base in zip(self._current(), self.base_lrs, strict=True)]
        before = 1 + math.cos(math.pi * (t - 1) / self.T_max)
        factor = (1 + math.cos(math.pi * t / self.T_max)) / before
        return [factor * (lr - low) + low for lr in self._current()]


class OneCycleLR(LRScheduler):
    """Up to `max_lr` and down far below the start, in one cycle of a fixed length; momentum goes
    the other way.

    The rate starts at ``max_lr / div_factor``, reaches `max_lr` after the fraction `pct_start` of
    the steps and ends at the start's ``1 / final_div_factor``. With `three_phase` it comes back to
    the start as slowly as it rose before it falls. Momentum (or the first of Adam's betas) goes
    from `max_momentum` to `base_momentum` and back, if `cycle_momentum`.

    max_lr, base_momentum, max_momentum:  a number, or one per parameter group
    total_steps:                          length of the cycle; or give `epochs` and
                                          `steps_per_epoch`. A step beyond it is a ValueError.
    anneal_strategy:                      "cos" or "linear"

    Smith, Topin, Super-convergence: very fast training of neural networks using large learning
    rates, 2019.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        owner = "OneCycleLR"
        groups = _groups(owner, optimizer)
        if total_steps is not None:
            self.total_steps = _check.integer(owner, "total_steps", total_steps, 1)
        elif epochs is not None and steps_per_epoch is not None:
            self.total_steps = _check.integer(owner, "epochs", epochs, 1) * _check.integer(
                owner, "steps_per_epoch", steps_per_epoch, 1
            )
        else:
            raise ValueError(
                f"{owner}: expected total_steps, or epochs and steps_per_epoch, got total_steps "
                f"{total_steps}, epochs {epochs} and steps_per_epoch {steps_per_epoch}"
            )
        self.pct_start = _check.real(owner, "pct_start", pct_start, 0, 1)
        self.anneal_strategy = _check.choice(owner, "anneal_strategy", anneal_strategy, ("cos", "linear"))
        self.cycle_momentum = bool(cycle_momentum)
        self.three_phase = bool(three_phase)
        self._momentum_name = "betas" if "betas" in optimizer.defaults else "momentum"
        if self.cycle_momentum and self._momentum_name not in optimizer.defaults:
            raise ValueError(
                f"{owner}: expected an optimizer with momentum or betas for cycle_momentum=True, "
                f"got {type(optimizer).__name__}"
            )
        last_epoch = _check.integer(owner, "last_epoch", last_epoch, -1)
        max_lrs = _per_group(owner, "max_lr", max_lr, groups)
        div_factor = _check.real(owner, "div_factor", div_factor, 0, open_low=True)
        final_div_factor = _check.real(owner, "final_div_factor", final_div_factor, 0, open_low=True)
        base_momenta = _per_group(owner, "base_momentum", base_momentum, groups)
        max_momenta = _per_group(owner, "max_momentum", max_momentum, groups)
        if last_epoch == -1:
            for i, group in enumerate(groups):
                group["initial_lr"] = max_lrs[i] / div_factor
                group["max_lr"] = max_lrs[i]
                group["min_lr"] = group["initial_lr"] / final_div_factor
                if self.cycle_momentum:
                    group["max_momentum"] = max_momenta[i]
                    group["base_momentum"] = base_momenta[i]
        super().__init__(optimizer, last_epoch)

    def _phases(self) -> list[tuple[float, str, str, str, str]]:
        """Per phase: its last step, and where rate and momentum start and end."""
        rise = self.pct_start * self.total_steps
        up = (rise - 1, "initial_lr", "max_lr", "max_momentum", "base_momentum")
        end = float(self.total_steps - 1)
        if not self.three_phase:
            return [up, (end, "max_lr", "min_lr", "base_momentum", "max_momentum")]
        return [
            up,
            (2 * rise - 2, "max_lr", "initial_lr", "base_momentum", "max_momentum"),
            (end, "initial_lr", "min_lr", "max_momentum", "max_momentum"),
        ]

    def get_lr(self) -> list[float]:
        t = self.last_epoch
        if t > self.total_steps:
            raise ValueError(f"OneCycleLR: expected at most total_steps = {self.total_steps} steps, got step {t}")
        start = 0.0
        phases = self._phases()
        for phase in phases:
            end = phase[0]
            if t <= end or phase is phases[-1]:
                break
            start = end
        done = (t - start) / (end - start) if end != start else 1.0
        _, low_lr, high_lr, low_momentum, high_momentum = phase
        for group in self.optimizer.param_groups if self.cycle_momentum else ():
            momentum = self._anneal(group[low_momentum], group[high_momentum], done)
            if self._momentum_name == "betas":
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum
        return [self._anneal(group[low_lr], group[high_lr], done) for group in self.optimizer.param_groups]

    def _anneal(self, start: float, end: float, done: float) -> float:
        """Between two values when the fraction `done` of the way is made."""
        if self.anneal_strategy == "linear":
            return (end - start) * done + start
        return end + (start - end) / 2.0 * (math.cos(math.pi * done) + 1)


class LambdaLR(LRScheduler):
    """``lr = base_lr lr_lambda(t)`` at step t.

    lr_lambda:  a function of the number of steps, or one per parameter group. Functions are not
                part of `state_dict`.
    """

    _not_saved = (*LRScheduler._not_saved, "lr_lambdas")

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        groups = _groups("LambdaLR", optimizer)
        functions: list[Any]
        if isinstance(lr_lambda, Sequence):
            functions = list(lr_lambda)
        else:
            functions = [lr_lambda] * len(groups)
        if len(functions) != len(groups):
            raise ValueError(
                f"LambdaLR: expected lr_lambda to be one function or {len(groups)}, one per "
                f"parameter group, got {len(functions)}"
            )
        for function in functions:
            if not callable(function):
                raise TypeError(f"LambdaLR: expected lr_lambda to be callable, got {function!r}")
        self.lr_lambdas = functions
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [
            base * float(function(self.last_epoch))
            for base, function in zip(self.base_lrs, self.lr_lambdas, strict=True)
        ]


class ReduceLROnPlateau(LRScheduler):
    """``lr = max(factor lr, min_lr)`` when a metric has not improved for more than `patience`
    steps.

    mode:                       "min" if lower is better, "max" if higher is
    threshold, threshold_mode:  by how much a value must beat the best to count: a fraction of it
                                ("rel") or absolute ("abs")
    cooldown:                   steps after a reduction in which nothing is counted
    min_lr:                     a number, or one per parameter group
    eps:                        a reduction by no more than this is not made

    `step` takes the metric.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        owner = "ReduceLROnPlateau"
        groups = _groups(owner, optimizer)
        self.mode = _check.choice(owner, "mode", mode, ("min", "max"))
        self.factor = _check.real(owner, "factor", factor, 0, 1, open_high=True)
        self.patience = _check.integer(owner, "patience", patience, 0)
        self.threshold = _check.real(owner, "threshold", threshold, 0)
        self.threshold_mode = _check.choice(owner, "threshold_mode", threshold_mode, ("rel", "abs"))
        self.cooldown = _check.integer(owner, "cooldown", cooldown, 0)
        self.min_lrs = _per_group(owner, "min_lr", min_lr, groups)
        self.eps = _check.real(owner, "eps", eps, 0)
        self.best = math.inf if mode == "min" else -math.inf
        self.cooldown_counter = 0
        self.num_bad_epochs = 0
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        return self._current()

    def step(self, metrics: Any, epoch: None = None) -> None:  # type: ignore[override]
        """Count the metric (a number, or a Tensor with one element) and reduce the rates if it is time."""
        if epoch is not None:
            raise ValueError(f"ReduceLROnPlateau.step: expected no epoch, got {epoch!r}")
        value = float(metrics)
        if len(self.optimizer.param_groups) != len(self.min_lrs):
            raise ValueError(
                f"ReduceLROnPlateau: expected the {len(self.min_lrs)} parameter groups that the "
                "optimizer had when the scheduler was made, got "
                f"{len(self.optimizer.param_groups)}"
            )
        self.last_epoch += 1
        self._step_count += 1
        if self._is_better(value):
            self.best = value
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, min_lr in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
                lr = max(group["lr"] * self.factor, min_lr)
                if group["lr"] - lr > self.eps:
                    group["lr"] = lr
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = self._current()

    def _is_better(self, value: float) -> bool:
        margin = self.threshold
        if self.mode == "min":
            bound = self.best * (1.0 - margin) if self.threshold_mode == "rel" else self.best - margin
            return value < bound
        bound = self.best * (1.0 + margin) if self.threshold_mode == "rel" else self.best + margin
        return value > bound


def _groups(owner: str, optimizer: Any) -> list[dict[str, Any]]:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{owner}: expected an Optimizer, got {type(optimizer).__name__}")
    return optimizer.param_groups


def _per_group(owner: str, name: str, value: Any, groups: Sequence[Any]) -> list[float]:
    """One number per parameter group, from one number or a sequence of them."""
    if isinstance(value, (list, tuple)):
        if len(value) != len(groups):
            raise ValueError(
                f"{owner}: expected {name} to be one number or {len(groups)}, one per parameter group, got {len(value)}"
            )
        return [_check.real(owner, name, v) for v in value]
    return [_check.real(owner, name, value)] * len(groups)
