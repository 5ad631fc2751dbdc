"""What losses demand of their arguments. Nothing is computed before these checks have passed."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx import _check
from nnx._device import device_of, is_array, is_device_array, move, same_device
from nnx.autograd import Tensor, as_tensor
from nnx.backends import backend_of
from nnx.functional._floats import beside, floats

REDUCTIONS = ("none", "mean", "sum")


def refuse_deprecated(owner: str, size_average: Any, reduce: Any) -> None:
    """PyTorch's deprecated arguments exist only to say what replaces them."""
    for name, value in (("size_average", size_average), ("reduce", reduce)):
        if value is not None:
            raise TypeError(
                f"{owner}: expected no argument {name}, which is deprecated, got {value!r}. "
                "Use reduction='none', 'mean' or 'sum'"
            )


def same_shape(
    owner: str, input: Any, target: Any, reduction: str, reductions: tuple = REDUCTIONS
) -> tuple[Tensor, Tensor, Any]:
    """Input and target of an elementwise loss, and the backend for them."""
    _check.choice(owner, "reduction", reduction, reductions)
    x = floats(owner, input)
    return x, target_like(owner, target, x), backend_of(x.data)


def target_like(owner: str, target: Any, x: Tensor) -> Tensor:
    """A target of the shape and dtype of x: arrays and integers are cast, other float Tensors refused."""
    if not isinstance(target, Tensor):
        t = as_tensor(target, x.dtype)
        if not is_array(target) and is_device_array(x.data):  # numbers have no device
            t = as_tensor(move(t.data, device_of(x.data)))
    elif target.dtype.kind in "iub":
        t = as_tensor(target.data.astype(x.dtype))
    elif target.dtype != x.dtype:
        raise TypeError(
            f"{owner}: expected target of dtype {x.dtype} like input, got a Tensor of dtype "
            f"{target.dtype}. Convert one with .float() or .double()"
        )
    else:
        t = target
    if t.shape != x.shape:
        raise ValueError(
            f"{owner}: expected target of shape {x.shape} like input, got {t.shape}. "
            "Nothing is broadcast here: reshape or expand one of them"
        )
    same_device(owner, input=x.data, target=t.data)
    return t


def _constant(owner: str, name: str, value: Any, x: Tensor) -> Any:
    """An array in the dtype of x; a Tensor whose gradient would be lost is refused."""
    if isinstance(value, Tensor) and value.requires_grad:
        raise ValueError(
            f"{owner}: expected {name} to be a constant, got a Tensor that needs a gradient. "
            "Use its .detach(), or reduction='none' and multiply"
        )
    array = beside(owner, name, value, x.data)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{owner}: expected {name} to be an array of numbers, got {array.dtype}")
    return array.astype(x.dtype, copy=False)


def factors_for(owner: str, value: Any, x: Tensor, name: str = "weight", exact: bool = False) -> Any:
    """Weights of elements: arrays that broadcast to x, or (`exact`) have its shape."""
    if value is None:
        return None
    w = _constant(owner, name, value, x)
    if exact and w.shape != x.shape:
        raise ValueError(f"{owner}: expected {name} of shape {x.shape} like input, got {w.shape}")
    try:
        fits = np.broadcast_shapes(w.shape, x.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{owner}: expected {name} that broadcasts to the shape of input, {x.shape}, got {w.shape}")
    return w


def class_weight(owner: str, value: Any, classes: int, x: Tensor) -> Any:
    """Weights of classes, (classes,)."""
    if value is None:
        return None
    w = _constant(owner, "weight", value, x)
    if w.shape != (classes,):
        raise ValueError(f"{owner}: expected weight of shape ({classes},), one for each class, got {w.shape}")
    return w


def scores(owner: str, input: Any, reduction: str) -> Tensor:
    """Class scores (N, C, ...) or (C,)."""
    _check.choice(owner, "reduction", reduction, REDUCTIONS)
    x = floats(owner, input)
    if x.ndim == 0:
        raise ValueError(f"{owner}: expected input of shape (N, C, ...) or (C,), got shape ()")
    return x


def class_labels(owner: str, target: Any, x: Tensor, ignore_index: int | None) -> Any:
    """Class labels as int64, with -1 for those to ignore, in the shape of the scores x without C.

    IndexError for other labels out of range. On a CUDA device they become the number of classes, which losses make NaN:
    to look at them would wait for the device.
    """
    shape = x.shape
    t = beside(owner, "target", target, x.data)
    axis = min(len(shape) - 1, 1)
    classes = shape[axis]
    expected = shape[:axis] + shape[axis + 1 :]
    if t.dtype.kind not in "iu":
        raise TypeError(
            f"{owner}: expected target to be integer class labels of shape {expected}, "
            f"got dtype {t.dtype} and shape {t.shape}"
        )
    if t.shape != expected:
        hint = ". Of one-hot targets take argmax(1)" if t.shape == shape else ""
        raise ValueError(
            f"{owner}: expected target of shape {expected} for input of shape {shape}, got {t.shape}{hint}"
        )
    ignored = None if ignore_index is None else _check.integer(owner, "ignore_index", ignore_index)
    if is_device_array(t):
        return backend_of(t).class_labels(t, classes, ignored)
    t = t.astype(np.int64, copy=False)
    kept = True
    if ignored is not None:
        kept = t != ignored
    wrong = kept & ((t < 0) | (t >= classes))
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        place = f" at index {index}" if index else ""
        raise IndexError(
            f"{owner}: expected target in [0, {classes - 1}]"
            f"{'' if ignore_index is None else f' (or ignore_index {ignore_index})'}, "
            f"got {int(t[index])}{place}"
        )
    return t if ignore_index is None else np.where(kept, t, -1)


def probabilities(owner: str, name: str, array: Any, hint: str = "") -> None:
    """Refuse numbers outside of [0, 1]; NaN passes, and so does what is on a CUDA device: looking would wait for it."""
    if is_device_array(array):
        return
    wrong = (array < 0) | (array > 1)
    if wrong.any():
        raise ValueError(f"{owner}: expected {name} in [0, 1], got {array[wrong].reshape(-1)[0]:g}{hint}")
