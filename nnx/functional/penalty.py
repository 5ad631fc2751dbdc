"""Penalties on weights, to be added to a loss: they prefer simple models among those that fit.

Authors write the factor before the sum in four ways; `convention` chooses one:

=============  ==================  =========================================================
"sum"          ``lambda``          S2
"half"         ``lambda / 2``      whose gradient for L2 is ``lambda w``; `weight_decay` of the optimizers
"mean"         ``lambda / n``      S4's L1; n is the number of samples
"half-mean"    ``lambda / (2 n)``  S4's L2, and S1's L1 and L2
=============  ==================  =========================================================
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx import _check
from nnx._device import is_array, is_device_array, same_device
from nnx.autograd import Tensor, record
from nnx.functional._floats import floats

__all__ = ["elastic_net_penalty", "l1_penalty", "l2_penalty"]

_CONVENTIONS = ("sum", "half", "mean", "half-mean")


def l1_penalty(weights: Any, strength: float = 1.0, convention: str = "sum", n: int | None = None) -> Tensor:
    """``strength * sum(|w|)``; the gradient at 0 is 0.

    weights:     a Tensor or array, or several of them
    strength:    lambda
    convention:  "sum", "half", "mean" or "half-mean": the factor, see the module
    n:           number of samples, for the last two

    >>> l1_penalty([1.0, -2.0], 0.5).item()
    1.5
    """
    owner = "l1_penalty"
    factor = _factor(owner, strength, convention, n)
    return _total(owner, weights, factor, 0.0)


def l2_penalty(weights: Any, strength: float = 1.0, convention: str = "sum", n: int | None = None) -> Tensor:
    """``strength * sum(w^2)``; arguments as for `l1_penalty`.

    >>> l2_penalty([1.0, -2.0], 0.5).item(), l2_penalty([1.0, -2.0], 0.5, "half").item()
    (2.5, 1.25)
    """
    owner = "l2_penalty"
    factor = _factor(owner, strength, convention, n)
    return _total(owner, weights, 0.0, factor)


def elastic_net_penalty(
    weights: Any, strength: float = 1.0, beta: float = 1.0, convention: str = "sum", n: int | None = None
) -> Tensor:
    """``strength * sum(beta w^2 + |w|)``: Zou & Hastie (2005); other arguments as for `l1_penalty`.

    >>> elastic_net_penalty([1.0, -2.0], beta=0.5).item()
    5.5
    """
    owner = "elastic_net_penalty"
    factor = _factor(owner, strength, convention, n)
    return _total(owner, weights, factor, factor * _check.real(owner, "beta", beta, 0))


def _factor(owner: str, strength: Any, convention: str, n: int | None) -> float:
    factor = _check.real(owner, "strength", strength, 0)
    _check.choice(owner, "convention", convention, _CONVENTIONS)
    if convention in ("half", "half-mean"):
        factor /= 2
    if convention in ("mean", "half-mean"):
        if n is None:
            raise ValueError(f"{owner}: expected n, the number of samples, for convention {convention!r}, got None")
        factor /= _check.integer(owner, "n", n, 1)
    return factor


def _total(owner: str, weights: Any, absolute: float, square: float) -> Tensor:
    """``absolute * sum(|w|) + square * sum(w^2)`` over one or several arrays."""
    parts: list[Any] = [weights]
    if not isinstance(weights, (Tensor, float, int)) and not is_array(weights):
        parts = list(weights)
        if not parts:
            raise ValueError(f"{owner}: expected at least one array of weights, got none")
        if not all(isinstance(part, Tensor) or is_array(part) for part in parts):
            parts = [parts]  # one array, as nested lists
    tensors = [floats(owner, part) for part in parts]
    same_device(owner, **{f"weights number {i}": t.data for i, t in enumerate(tensors)})
    value: Any = sum(absolute * np.abs(t.data).sum() + square * (t.data * t.data).sum() for t in tensors)
    arrays = tuple(t.data for t in tensors)
    dtype = tensors[0].data.dtype
    value = value.astype(dtype) if is_device_array(value) else dtype.type(value)
    return record(value, _penalty_grad, tuple(tensors), arrays, absolute, square)


def _penalty_grad(needs, gy, arrays, absolute, square):
    return tuple(
        (gy * (absolute * np.sign(w) + 2 * square * w)).astype(w.dtype, copy=False) if need else None
        for need, w in zip(needs, arrays, strict=True)
    )
