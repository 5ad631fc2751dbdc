"""Newton's method, and the Hessian it needs: for small models, where every number of it can be afforded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nnx import _check
from nnx.autograd import Tensor
from nnx.optim._params import Flat, call_closure, loss_value, trainable
from nnx.optim.optimizer import Optimizer, check_real


def hessian(model_or_params: Any, closure: Callable[[], Any], step: float = 1e-4) -> np.ndarray:
    """All second derivatives of the closure's loss, by central differences of its gradients.

    ``H[:, j] = (g(x + h_j e_j) - g(x - h_j e_j)) / 2 h_j`` with ``h_j = step max(1, |x_j|)``, then ``(H + H^T) / 2``.

    model_or_params:  a Module or an iterable of Parameters of float64, n numbers in all that require a gradient
    closure:          computes the loss without noise, calls backward() and returns the loss; it is called 2 n times

    Returns a symmetric (n, n) float64 array over the parameters joined in their order; its eigenvalues tell a minimum
    (all > 0) from a saddle point. Parameters and gradients are put back. On a quadratic the result is exact but for
    rounding (about 1e-12).

    >>> import nnx
    >>> p = nnx.Parameter(np.array([1.0, 1.0]))
    >>> def closure():
    ...     loss = 5 * p[0] ** 2 + p[1] ** 2 / 2
    ...     loss.backward()
    ...     return loss
    >>> hessian([p], closure).round(6).tolist()
    [[10.0, 0.0], [0.0, 1.0]]
    """
    owner = "hessian"
    flat = _flat64(owner, trainable(owner, model_or_params))
    return _hessian(owner, flat, closure, _check.real(owner, "step", step, 0, open_low=True))


def _flat64(owner: str, params: list[Tensor]) -> Flat:
    """The parameters as one vector; differences of shorter types would be mostly rounding error."""
    flat = Flat(owner, params)
    for i, p in enumerate(params):
        if p.dtype != np.float64:
            raise TypeError(
                f"{owner}: expected parameters of float64, got {p.dtype} as {flat.label(i)}. "
                "Call .double() on the model"
            )
    flat.check_writeable()
    return flat


def _hessian(owner: str, flat: Flat, closure: Callable[[], Any], step: float) -> np.ndarray:
    x = flat.values()
    kept = [p.grad for p in flat.params]

    def gradient(j: int, h: float) -> np.ndarray:
        point = x.copy()
        point[j] += h
        flat.assign(point)
        for p in flat.params:
            p.grad = None
        call_closure(owner, closure)
        if all(p.grad is None for p in flat.params):
            raise ValueError(f"{owner}: expected closure to leave gradients, got none. Call loss.backward() in it")
        return flat.gradient()

    columns = np.empty((x.size, x.size))
    try:
        for j, h in enumerate(step * np.maximum(1, np.abs(x))):
            with np.errstate(over="ignore", invalid="ignore"):
                columns[:, j] = (gradient(j, h) - gradient(j, -h)) / (2 * h)
    finally:
        flat.assign(x)
        for p, grad in zip(flat.params, kept, strict=True):
            p.grad = grad
    return (columns + columns.T) / 2


class Newton(Optimizer):
    """Newton's method: ``p -= lr (H + damping I)^-1 g`` with the Hessian H of all parameters.

    With ``lr=1`` and ``damping=0`` there is nothing to choose, and one step finds the minimum of a quadratic. But H has
    n^2 numbers, costs 2 n gradients here (`hessian`) and n^3 operations to solve with, and where it is not positive
    definite the step may lead to a saddle point or a maximum: a positive `damping`, larger than the most negative
    eigenvalue, turns the step downhill. For parameters of float64, in one group.

    Raises ValueError, with the parameters as they were, if ``H + damping I`` is singular.
    """

    _counts_steps = False

    def __init__(self, params: Any, lr: float = 1.0, damping: float = 0.0, step: float = 1e-4) -> None:
        super().__init__(params, {"lr": lr, "damping": damping, "step": step})
        if len(self.param_groups) > 1:
            raise ValueError(
                f"Newton: expected one parameter group, got {len(self.param_groups)}. "
                "The method sees all parameters as one vector"
            )

    def _check_group(self, owner: str, group: dict[str, Any]) -> None:
        check_real(owner, group, "lr", "damping", low=0)
        group["step"] = _check.real(owner, "step", group["step"], 0, open_low=True)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one Newton step; returns the loss before it.

        closure:  computes the loss without noise, calls backward() and returns the loss; called 2 n + 1 times
        """
        owner = "Newton.step"
        if closure is None:
            raise TypeError(f"{owner}: expected a closure, got None. The Hessian needs gradients at other points")
        group = dict(self.param_groups[0])
        self._check_group(owner, group)
        free = [p for p in group["params"] if p.requires_grad]
        if not free:
            raise ValueError(f"{owner}: expected at least one parameter that requires a gradient, got none")
        flat = _flat64(owner, free)
        for p in flat.params:
            p.grad = None
        loss = call_closure(owner, closure)
        loss_value(owner, loss)
        g = flat.gradient()
        h = _hessian(owner, flat, closure, group["step"])
        h[np.diag_indices_from(h)] += group["damping"]
        if not (np.isfinite(h).all() and np.isfinite(g).all()):
            raise ValueError(f"{owner}: expected finite gradients, got NaN or infinity")
        if np.linalg.matrix_rank(h, hermitian=True) < len(h):
            raise ValueError(
                f"{owner}: expected an invertible Hessian, got one of {len(h)} rows with eigenvalue 0. "
                "Pass a positive damping"
            )
        flat.assign(flat.values() - group["lr"] * np.linalg.solve(h, g))
        self._step_count += 1
        return loss
