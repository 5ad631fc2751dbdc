"""The first check of a function that has no parameters to go by."""

from __future__ import annotations

from typing import Any

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
