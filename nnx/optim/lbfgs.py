"""L-BFGS, with an optional line search that meets the strong Wolfe conditions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from nnx import _check
from nnx.autograd import Tensor
from nnx.optim._params import Flat, call_closure, loss_value
from nnx.optim.optimizer import Optimizer, check_real

_VECTORS = ("d", "prev_flat_grad")
_VECTOR_LISTS = ("old_dirs", "old_stps")
_NUMBERS = ("t", "H_diag", "prev_loss")
_COUNTS = ("func_evals", "n_iter")


class LBFGS(Optimizer):
    """Quasi-Newton steps from the last `history_size` changes of parameters and gradients.

    The direction is ``-H g`` with H the limited-memory estimate of the inverse Hessian. Without
    `line_search_fn` the step is `lr` times the direction (the first one shortened to
    ``lr min(1, 1 / sum|g|)``); with ``"strong_wolfe"`` its length is searched for, from there.

    One `step` makes up to `max_iter` iterations and `max_eval` calls of the closure (``max_iter * 5 // 4``
    if None), and ends early when no gradient entry exceeds `tolerance_grad`, or neither
    parameters nor loss change by more than `tolerance_change`. There is one parameter group, and
    the closure should be free of noise: full batch, no dropout. If the closure raises, parameters
    and state are put back.

    Liu, Nocedal, On the limited memory BFGS method for large scale optimization, 1989; line search:
    Nocedal, Wright, Numerical optimization, algorithms 3.5 and 3.6, with Schmidt's safeguards
    (minFunc).
    """

    _counts_steps = False

    def __init__(
        self,
        params: Any,
        lr: float = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        if max_eval is None:
            max_eval = _check.integer("LBFGS", "max_iter", max_iter, 1) * 5 // 4
        super().__init__(
            params,
            {
                "lr": lr,
                "max_iter": max_iter,
                "max_eval": max_eval,
                "tolerance_grad": tolerance_grad,
                "tolerance_change": tolerance_change,
                "history_size": history_size,
                "line_search_fn": line_search_fn,
            },
        )

    def _check_group(self, owner: str, group: dict[str, Any]) -> None:
        check_real(owner, group, "lr", "tolerance_grad", "tolerance_change", low=0)
        for name in ("max_iter", "max_eval", "history_size"):
            group[name] = _check.integer(owner, name, group[name], 1)
        _check.choice(owner, "line_search_fn", group["line_search_fn"], (None, "strong_wolfe"))

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        if self.param_groups:
            raise ValueError(
                "LBFGS: expected one parameter group, got a second one. The method sees all parameters as one vector"
            )
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make up to `max_iter` iterations and return what the closure returned at the start.

        closure:  zeroes the gradients, computes the loss, calls backward() and returns the loss; called several times
        """
        owner = "LBFGS.step"
        if closure is None:
            raise TypeError("LBFGS.step: expected closure, got None. L-BFGS evaluates the loss several times per step")
        group = dict(self.param_groups[0])
        self._check_group(owner, group)
        flat = Flat(owner, group["params"], self._label)
        flat.check_writeable()
        first = group["params"][0]
        memory = _Memory(self.state.get(first, {}), group["history_size"])
        start = flat.values()
        try:
            loss = self._iterate(owner, group, flat, memory, closure)
        except BaseException:
            flat.assign(start)
            raise
        self.state[first] = memory.state_dict()
        self._step_count += 1
        return loss

    def _iterate(
        self,
        owner: str,
        group: dict[str, Any],
        flat: Flat,
        memory: _Memory,
        closure: Callable[[], Any],
    ) -> Any:
        lr, tolerance_change = group["lr"], group["tolerance_change"]

        def evaluate() -> tuple[float, np.ndarray]:
            loss = loss_value(owner, call_closure(owner, closure))
            memory.func_evals += 1
            return loss, flat.gradient()

        limit = memory.func_evals + group["max_eval"]
        original = call_closure(owner, closure)
        loss, g = loss_value(owner, original), flat.gradient()
        memory.func_evals += 1
        if _largest(g) <= group["tolerance_grad"]:
            return original
        for iteration in range(1, group["max_iter"] + 1):
            memory.n_iter += 1
            d = memory.direction(g)
            previous_loss = loss
            memory.prev_flat_grad, memory.prev_loss, memory.d = g, loss, d
            t = memory.t = lr * min(1.0, 1.0 / _total(g)) if memory.n_iter == 1 else lr
            slope = _dot(g, d)
            if slope > -tolerance_change:
                break
            x = flat.values()
            if group["line_search_fn"] is not None:

                def along(t: float, x: np.ndarray = x, d: np.ndarray = d) -> _Point:
                    flat.assign(_along(x, t, d))
                    loss, g = evaluate()
                    return _Point(t, loss, g, _dot(g, d))

                end = _strong_wolfe(
                    along,
                    _Point(0.0, loss, g, slope),
                    t,
                    d,
                    tolerance_change,
                    limit - memory.func_evals,
                )
                memory.t, loss, g = end.t, end.loss, end.gradient
                flat.assign(_along(x, end.t, d))
            else:
                flat.assign(_along(x, t, d))
                if iteration < group["max_iter"]:  # after the last step nobody asks
                    loss, g = evaluate()
            if (
                memory.func_evals >= limit
                or _largest(g) <= group["tolerance_grad"]
                or _largest(d) * memory.t <= tolerance_change
                or abs(loss - previous_loss) < tolerance_change
            ):
                break
        return original

    # -- saving --------------------------------------------------------------------------------

    def _load_state(self, owner: str, p: Tensor, label: str, saved: dict[str, Any]) -> dict[str, Any]:
        """The state is one for all parameters and lies with the first, as in PyTorch."""
        saved = {name: value for name, value in saved.items() if name != "al"}  # PyTorch's scratch
        if not saved:
            return {}
        expected = {*_VECTORS, *_VECTOR_LISTS, *_NUMBERS, *_COUNTS, "ro"}
        if p is not self._all_params()[0] or not set(saved) <= expected:
            raise ValueError(
                f"{owner}: expected state of parameter 0 alone, with "
                f"{', '.join(sorted(expected))}, got state of {label} with "
                f"{', '.join(map(str, saved))}"
            )
        values = Flat(owner, self._all_params()).values()

        def vector(name: str, value: Any) -> np.ndarray:
            array = np.asarray(value).astype(values.dtype)
            if array.shape != values.shape:
                raise ValueError(f"{owner}: expected {name} to have shape {values.shape}, got {array.shape}")
            return array

        new: dict[str, Any] = {}
        for name, value in saved.items():
            if value is None:
                continue
            if name in _VECTORS:
                new[name] = vector(name, value)
            elif name in _VECTOR_LISTS:
                new[name] = [vector(name, item) for item in value]
            elif name == "ro":
                new[name] = [float(item) for item in value]
            else:
                new[name] = int(value) if name in _COUNTS else float(value)
        lengths = {len(new.get(name, ())) for name in (*_VECTOR_LISTS, "ro")}
        if len(lengths) != 1:
            raise ValueError(f"{owner}: expected old_dirs, old_stps and ro of one length, got {sorted(lengths)}")
        return new


class _Memory:
    """The state, under PyTorch's names: y are changes of the gradient, s of the parameters.

    old_dirs, old_stps, ro:   the last y, s and 1 / (y s)
    H_diag:                   the estimate's diagonal before they are applied
    d, t:                     the last direction and step length
    """

    def __init__(self, state: dict[str, Any], history_size: int) -> None:
        self.history_size = history_size
        self.func_evals: int = state.get("func_evals", 0)
        self.n_iter: int = state.get("n_iter", 0)
        self.d: np.ndarray | None = state.get("d")
        self.t: float | None = state.get("t")
        self.old_dirs: list[np.ndarray] = list(state.get("old_dirs", ()))
        self.old_stps: list[np.ndarray] = list(state.get("old_stps", ()))
        self.ro: list[float] = list(state.get("ro", ()))
        self.H_diag: float = state.get("H_diag", 1.0)
        self.prev_flat_grad: np.ndarray | None = state.get("prev_flat_grad")
        self.prev_loss: float | None = state.get("prev_loss")

    def state_dict(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "history_size" and v is not None}

    @np.errstate(all="ignore")
    def direction(self, g: np.ndarray) -> np.ndarray:
        """Remember the last step and return ``-H g`` (two loops over the memory)."""
        if self.d is None or self.t is None or self.prev_flat_grad is None:
            return -g
        y = g - self.prev_flat_grad
        s = self.d * self.t
        ys = _dot(y, s)
        if ys > 1e-10:  # positive curvature: H stays positive definite
            self.old_dirs = [*self.old_dirs, y][-self.history_size :]
            self.old_stps = [*self.old_stps, s][-self.history_size :]
            self.ro = [*self.ro, 1.0 / ys][-self.history_size :]
            self.H_diag = ys / _dot(y, y)
        q = -g
        weights = []
        for y, s, ro in reversed(list(zip(self.old_dirs, self.old_stps, self.ro, strict=True))):
            weights.append(_dot(s, q) * ro)
            q -= weights[-1] * y
        q *= self.H_diag
        for y, s, ro in zip(self.old_dirs, self.old_stps, self.ro, strict=True):
            q += (weights.pop() - _dot(y, q) * ro) * s
        return q


# -- line search -----------------------------------------------------------------------------------


class _Point(NamedTuple):
    """A point on the line: step length, loss, gradient there, and slope along the line."""

    t: float
    loss: float
    gradient: np.ndarray
    slope: float


def _strong_wolfe(
    along: Callable[[float], _Point],
    start: _Point,
    t: float,
    d: np.ndarray,
    tolerance_change: float,
    max_evaluations: int,
    c1: float = 1e-4,
    c2: float = 0.9,
) -> _Point:
    """Search a step length with a loss that is low enough (c1) and a slope that is flat enough (c2).

    along:    evaluates a step length
    start:    the point at length 0, with a negative slope
    t:        the length to begin with

    First the step is lengthened until a good point lies in between (or at the point itself); then
    the bracket is narrowed by cubic interpolation. At least one evaluation is made; the best point
    is returned when they run out.
    """

    def too_high(point: _Point) -> bool:
        # A loss that is not a number is as good as infinite: the step was too long.
        return not point.loss <= start.loss + c1 * point.t * start.slope

    def flat_enough(point: _Point) -> bool:
        return abs(point.slope) <= -c2 * start.slope

    previous, point = start, along(t)
    evaluations = 1
    bracket = None
    while evaluations <= max_evaluations:
        if too_high(point) or (evaluations > 2 and point.loss >= previous.loss):
            bracket = [previous, point]
            break
        if flat_enough(point):
            return point
        if point.slope >= 0:
            bracket = [previous, point]
            break
        t = _minimum_of_cubic(previous, point, point.t + 0.01 * (point.t - previous.t), 10 * point.t)
        previous, point = point, along(t)
        evaluations += 1
    if bracket is None:
        return point if point.loss < start.loss else start

    longest = _largest(d)
    low = _lower(bracket)
    stalled = False
    while evaluations <= max_evaluations:
        left, right = sorted((bracket[0].t, bracket[1].t))
        if (right - left) * longest < tolerance_change:
            break
        t = _minimum_of_cubic(bracket[0], bracket[1], left, right)
        # Twice in a row close to an end, or beyond it: interpolation does not get on, step inside.
        margin = 0.1 * (right - left)
        close = min(right - t, t - left) < margin
        if close and (stalled or t >= right or t <= left):
            t = right - margin if abs(t - right) < abs(t - left) else left + margin
            stalled = False
        else:
            stalled = close
        point = along(t)
        evaluations += 1
        high = 1 - low
        if too_high(point) or point.loss >= bracket[low].loss:
            bracket[high] = point
            low = _lower(bracket)
            continue
        done = flat_enough(point)
        if not done and point.slope * (bracket[high].t - bracket[low].t) >= 0:
            bracket[high] = bracket[low]
        bracket[low] = point
        if done:
            break
    return bracket[low]


def _lower(bracket: list[_Point]) -> int:
    return 1 if bracket[1].loss < bracket[0].loss or math.isnan(bracket[0].loss) else 0


def _minimum_of_cubic(a: _Point, b: _Point, low: float, high: float) -> float:
    """Where the cubic through two points and their slopes is lowest, clipped to the interval; else its middle."""
    if a.t > b.t:
        a, b = b, a
    if a.t < b.t:
        d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
        square = d1 * d1 - a.slope * b.slope
        if square >= 0:
            d2 = math.sqrt(square)
            divisor = b.slope - a.slope + 2 * d2
            if divisor != 0:
                t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / divisor)
                if not math.isnan(t):
                    return min(max(t, low), high)
    return (low + high) / 2


# Vector arithmetic without BLAS, whose idle threads would spin beside the kernels'; NaN and
# infinity pass without a warning.

_quiet = np.errstate(all="ignore")


@_quiet
def _dot(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum())


@_quiet
def _along(x: np.ndarray, t: float, d: np.ndarray) -> np.ndarray:
    return x + t * d


@_quiet
def _total(a: np.ndarray) -> float:
    return float(np.abs(a).sum())


def _largest(a: np.ndarray) -> float:
    return float(np.abs(a).max()) if a.size else 0.0
