"""The first checks of functions that have no parameters to go by: floats, and arrays on the device of others."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx._device import CPU, as_array, device_of, is_array, move, same_device
from nnx.autograd import Tensor, as_tensor


def floats(owner: str, input: Any) -> Tensor:
    """An array-like as a float Tensor; a Tensor of integers, which was made on purpose, is refused."""
    x = as_tensor(input)
    if x.data.dtype.kind != "f":
        raise TypeError(
            f"{owner}: expected input of dtype float32 or float64, got a Tensor of dtype {x.data.dtype}. "
            "Convert it with .float()"
        )
    return x


def beside(owner: str, name: str, value: Any, reference: Any, of: str = "input") -> Any:
    """`value` as an array on the device of the array `reference`, which is argument `of`.

    A Tensor or array has to be there already; a number or a list, which has no device, is brought there.
    """
    if isinstance(value, Tensor) or is_array(value):
        array = as_array(value.data if isinstance(value, Tensor) else value)
        if type(array) is not np.ndarray or type(reference) is not np.ndarray:
            same_device(owner, **{of: reference, name: array})
        return array
    array = np.asarray(value)
    device = device_of(reference)
    return array if device == CPU else move(array, device)
