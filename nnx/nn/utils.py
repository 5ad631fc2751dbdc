"""Gradient clipping, and parameters as one vector."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from nnx import _check
from nnx._device import as_array, device_of, is_array, is_device_array, is_writeable, move, same_device
from nnx.autograd import Tensor
from nnx.autograd.shape import cat
from nnx.backends import backend_of

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "parameters_to_vector",
    "vector_to_parameters",
]


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients, in place, so that their norm taken together is at most `max_norm`.

    ``g *= min(1, max_norm / (norm + 1e-6))`` with ``norm = (sum |g|^norm_type)^(1 / norm_type)``
    over all gradient entries, in float64.

    parameters:          a Parameter or an iterable of them; those without a gradient are left out
    norm_type:           > 0; ``math.inf`` for the largest entry
    error_if_nonfinite:  RuntimeError if the norm is NaN or infinite (the gradients stay as they
                         are), which waits for a CUDA device. Otherwise a NaN goes into every gradient.

    Returns the norm before clipping, a Tensor without dimensions.
    """
    owner = "clip_grad_norm_"
    _only_default(owner, foreach)
    max_norm = _check.real(owner, "max_norm", max_norm, 0)
    norm_type = _check.real(owner, "norm_type", norm_type, 0, open_low=True)
    params = _with_gradients(owner, parameters)
    if not params:
        return Tensor(np.zeros((), np.float32))
    grads = [as_array(p.grad) for p in params]
    same_device(owner, **{f"the gradient of parameter {i}": g for i, g in enumerate(grads)})
    backend = backend_of(grads[0])
    if is_device_array(grads[0]) and not error_if_nonfinite:
        norm = backend.clip_norm(grads, _own(params), max_norm, norm_type)
        return Tensor(norm.astype(np.result_type(*(g.dtype for g in grads))))
    norm = backend.total_norm(grads, norm_type)
    if error_if_nonfinite and not math.isfinite(norm):
        raise RuntimeError(
            f"{owner}: expected gradients with a finite norm of order {norm_type:g}, got {norm}. "
            "error_if_nonfinite=False scales them nonetheless"
        )
    factor = max_norm / (norm + 1e-6)
    if max_norm != math.inf and not factor >= 1:  # also if it is NaN
        backend.scale(_own(params), factor)
    with np.errstate(over="ignore"):
        return Tensor(np.asarray(norm, np.result_type(*grads)))


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Bring every gradient entry into ``[-clip_value, clip_value]``, in place; NaN stays.

    parameters:  a Parameter or an iterable of them; those without a gradient are left out
    """
    owner = "clip_grad_value_"
    _only_default(owner, foreach)
    clip_value = _check.real(owner, "clip_value", clip_value, 0)
    params = _with_gradients(owner, parameters)
    if params:
        backend_of(params[0].data).clamp(_own(params), -clip_value, clip_value)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """Join the elements of all parameters into one vector; gradients flow back through it.

    >>> import nnx
    >>> a, b = nnx.Parameter(np.zeros((2, 2))), nnx.Parameter(np.ones(3))
    >>> nnx.nn.utils.parameters_to_vector([a, b]).shape
    (7,)
    """
    params = _parameters("parameters_to_vector", parameters)
    if not params:
        raise ValueError("parameters_to_vector: expected at least one parameter, got none")
    return cat([p.reshape(-1) for p in params])


def vector_to_parameters(vec: Any, parameters: Iterable[Tensor]) -> None:
    """Copy the elements of the vector into the parameters' own storage, cast to their types.

    vec:  array or Tensor with one dimension and as many elements as all parameters together

    Unlike PyTorch, the parameters do not become views of `vec`.
    """
    owner = "vector_to_parameters"
    params = _parameters(owner, parameters)
    vector = vec.data if isinstance(vec, Tensor) else as_array(vec)
    total = sum(p.data.size for p in params)
    if vector.shape != (total,):
        raise ValueError(f"{owner}: expected vec of shape ({total},), got {vector.shape}")
    for i, p in enumerate(params):
        if not is_writeable(p.data):
            raise ValueError(f"{owner}: expected the array of parameter {i} to be writeable, got a read-only one")
    if any(np.may_share_memory(vector, p.data) for p in params):
        vector = vector.copy()
    offset = 0
    for p in params:
        p.data[...] = move(vector[offset : offset + p.data.size].reshape(p.data.shape), device_of(p.data))
        offset += p.data.size


def _only_default(owner: str, foreach: Any) -> None:
    if foreach is not None and foreach is not False:
        raise ValueError(
            f"{owner}: expected foreach to be left at its default, got {foreach!r}. There is one "
            "implementation here, which works on all gradients in one call"
        )


def _parameters(owner: str, parameters: Any) -> list[Tensor]:
    """The parameters as a list, each once."""
    if isinstance(parameters, Tensor):
        return [parameters]
    if isinstance(parameters, str) or is_array(parameters) or not isinstance(parameters, Iterable):
        raise TypeError(
            f"{owner}: expected parameters to be a Parameter or an iterable of them, got {type(parameters).__name__}"
        )
    params = list({id(p): p for p in parameters}.values())
    for p in params:
        if not isinstance(p, Tensor):
            raise TypeError(f"{owner}: expected parameters to be Parameters, got {type(p).__name__}")
    return params


def _with_gradients(owner: str, parameters: Any) -> list[Tensor]:
    params = [p for p in _parameters(owner, parameters) if p.grad is not None]
    for p in params:
        if not is_array(p.grad) and not isinstance(p.grad, np.generic):
            raise TypeError(f"{owner}: expected .grad to be an array or None, got {type(p.grad).__name__}")
    return params


def _own(params: list[Tensor]) -> list[np.ndarray]:
    """The gradients as arrays that can be changed in place and that no two parameters share.

    A read-only gradient, a NumPy scalar and one whose memory another parameter's gradient uses too
    are replaced by copies: changed in place, the last would be changed twice.
    """
    end = 0
    spans = []
    for i, p in enumerate(params):
        if is_device_array(p.grad):
            spans.append((p.grad.data.ptr, p.grad.data.ptr + p.grad.nbytes, i))
        elif not isinstance(p.grad, np.ndarray) or not p.grad.flags.writeable:
            p.grad = np.array(p.grad)
        elif p.grad.size:
            spans.append((*np.lib.array_utils.byte_bounds(p.grad), i))
    for low, high, i in sorted(spans):
        if low < end:
            params[i].grad = params[i].grad.copy()
        end = max(end, high)
    return [p.grad for p in params]
