"""SciPy's minimizers over a model's parameters."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from nnx._ext.threads import get_num_threads, set_num_threads
from nnx.optim._params import Flat, call_closure, check_quiet, loss_value, trainable

_SHORT = 0.02  # seconds that an evaluation takes, up to which nnx keeps to one thread

# scipy.optimize.minimize's methods that compare losses only; all others are given the gradient.
_WITHOUT_GRADIENT = ("nelder-mead", "powell", "cobyla", "cobyqa")


def minimize(
    model_or_params: Any,
    closure: Callable[[], Any],
    method: str = "L-BFGS-B",
    *,
    hess: Any = None,
    hessp: Any = None,
    bounds: Any = None,
    constraints: Any = (),
    tol: float | None = None,
    callback: Callable[..., Any] | None = None,
    options: dict[str, Any] | None = None,
) -> Any:
    """Minimize the closure's loss over the parameters with a method of `scipy.optimize.minimize`.

    The parameters that require gradients are joined into one float64 vector. Before each evaluation
    the vector is written to them and their gradients are cleared. The best parameters found stay in
    the model, without gradients; if anything raises, the parameters are put back as they were.

    model_or_params:  a Module, or an iterable of Parameters
    closure:          computes the loss over the whole set, calls backward() and returns the loss.
                      It must be free of noise (no dropout, no random batch): ValueError if a layer
                      of the model draws random numbers, or two calls at the start differ.
    method:           "L-BFGS-B", "BFGS", "CG", "Newton-CG", "TNC", "SLSQP", "trust-constr", ...;
                      "Nelder-Mead", "Powell" and "COBYLA" use no gradient. The rest is passed on to
                      SciPy; `hess`, `hessp`, `bounds` and `constraints` speak of the vector.

    Returns SciPy's OptimizeResult; its `x` is what was written to the parameters, before rounding
    to their type.

    Where an evaluation takes less than 20 ms, nnx computes with one thread meanwhile: its waiting threads and those of
    SciPy's BLAS, called in turn, keep each other off the processors. The bits of a result do not depend on it.

    >>> import nnx
    >>> x = nnx.Parameter(np.array([3.0, -2.0]))
    >>> def closure():
    ...     loss = (x * x).sum()
    ...     loss.backward()
    ...     return loss
    >>> bool(nnx.optim.minimize([x], closure).fun < 1e-9)
    True
    """
    import scipy.optimize

    owner = "minimize"
    flat = Flat(owner, trainable(owner, model_or_params))
    flat.check_writeable()
    check_quiet(owner, model_or_params)
    with_gradient = str(method).lower() not in _WITHOUT_GRADIENT
    start = flat.values(np.float64)
    best = _Best()

    def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
        flat.assign(x)
        for p in flat.params:
            p.grad = None
        loss = loss_value(owner, call_closure(owner, closure))
        if with_gradient and all(p.grad is None for p in flat.params):
            raise ValueError(
                f"minimize: expected closure to leave gradients for method {method!r}, got none. "
                "Call loss.backward() in it"
            )
        gradient = flat.gradient(np.float64)
        best.offer(x, loss, gradient)
        return loss, gradient

    try:
        first = evaluate(start)[0]
        began = time.perf_counter()
        _check_noise(first, evaluate(start)[0])
        with _one_thread(time.perf_counter() - began < _SHORT):
            result = scipy.optimize.minimize(
                evaluate if with_gradient else lambda x: evaluate(x)[0],
                start.copy(),
                method=method,
                jac=with_gradient or None,
                hess=hess,
                hessp=hessp,
                bounds=bounds,
                constraints=constraints,
                tol=tol,
                callback=callback,
                options=options,
            )
        # Under bounds and constraints, a lower loss may have been seen at a point that is not
        # allowed.
        if bounds is None and not constraints:
            best.improve(result)
        flat.assign(result.x)
    except BaseException:
        flat.assign(start)
        raise
    finally:
        for p in flat.params:
            p.grad = None
    return result


@contextmanager
def _one_thread(wanted: bool) -> Iterator[None]:
    threads = get_num_threads()
    if wanted:
        set_num_threads(1)
    try:
        yield
    finally:
        if wanted:
            set_num_threads(threads)


class _Best:
    """The evaluation with the lowest loss."""

    def __init__(self) -> None:
        self.x: np.ndarray | None = None
        self.loss = np.inf
        self.gradient: np.ndarray | None = None

    def offer(self, x: np.ndarray, loss: float, gradient: np.ndarray) -> None:
        if loss < self.loss:
            self.x, self.loss, self.gradient = x.copy(), loss, gradient

    def improve(self, result: Any) -> None:
        """Put the best evaluation in the place of a worse result (a line search that failed, say)."""
        if self.x is not None and not result.fun <= self.loss:
            result.x, result.fun = self.x, self.loss
            if "jac" in result:
                result.jac = self.gradient


def _check_noise(first: float, second: float) -> None:
    """The methods compare losses to many digits: noise would send them astray without a word."""
    if first != second and not (math.isnan(first) and math.isnan(second)):
        raise ValueError(
            "minimize: expected closure to give one loss for the same parameters, got "
            f"{first!r} and {second!r}. Switch dropout off (model.eval()) and use all data in "
            "every call"
        )
