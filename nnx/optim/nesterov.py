"""Nesterov's momentum as it is drawn: look ahead first, then take the gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nnx.backends import backend_of
from nnx.optim._params import call_closure, writeable
from nnx.optim.optimizer import check_real
from nnx.optim.sgd import SGD


class Nesterov(SGD):
    """Nesterov's momentum in the look-ahead form, which needs a closure.

    ``v = momentum v - lr grad(p + momentum v);  p += v``, with ``v = -lr b`` kept as b like in SGD.

    The gradient is taken where the momentum alone would carry the parameters. ``SGD(nesterov=True)`` keeps the point
    looked at, ``p + momentum v``, in the parameters instead, so that it can use the gradient at hand: both walk the
    same way, and their parameters differ by ``momentum v``.

    params:  Parameters, ``(name, Parameter)`` pairs or dicts of groups

    Sutskever et al., On the importance of initialization and momentum in deep learning, 2013.

    >>> import nnx
    >>> p = nnx.Parameter(np.array([1.0]))
    >>> def closure():
    ...     loss = 5 * (p * p).sum()
    ...     loss.backward()
    ...     return loss
    >>> optimizer = Nesterov([p], lr=0.01, momentum=0.9)
    >>> for _ in range(2):
    ...     optimizer.zero_grad()
    ...     loss = optimizer.step(closure)
    >>> p.data.round(6)
    array([0.729])
    """

    def __init__(self, params: Any, lr: float = 1e-3, momentum: float = 0.9) -> None:
        super().__init__(params, lr, momentum)

    def _check_group(self, owner: str, group: dict[str, Any]) -> None:
        super()._check_group(owner, group)
        check_real(owner, group, "momentum", low=0, high=1)
        for name in ("dampening", "weight_decay", "nesterov", "maximize"):
            if group[name] != 0:
                raise ValueError(f"{owner}: expected {name} to be left at its default, got {group[name]!r}. Use SGD")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Look ahead, let the closure compute the gradient there, go back and make the step.

        closure:  computes the loss, calls backward() and returns the loss, which is that of the looked-at point

        If the closure raises, the parameters are put back.
        """
        owner = "Nesterov.step"
        if closure is None:
            raise TypeError(
                f"{owner}: expected a closure, got None. The gradient is taken at another point; "
                "SGD(nesterov=True) works without"
            )
        for i, p in enumerate(self._all_params()):
            writeable(owner, p, i, self._label)
            if backend_of(p.data).is_capturing():
                raise RuntimeError(
                    f"{owner}: expected no CUDA graph to be captured, got one: the host looks ahead. "
                    "Use SGD(nesterov=True)"
                )
        kept: list[tuple[np.ndarray, np.ndarray]] = []
        try:
            for group in self.param_groups:
                for p in group["params"]:
                    b = self.state.get(p, {}).get("momentum_buffer")
                    if b is not None:
                        kept.append((p.data, p.data.copy(order="K")))
                        p.data[...] -= group["lr"] * group["momentum"] * b
            loss = call_closure(owner, closure)
        finally:
            for data, before in reversed(kept):  # two parameters may share an array
                data[...] = before
        super().step()
        return loss
