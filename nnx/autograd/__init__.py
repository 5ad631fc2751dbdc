"""Tensors that record how they were made, and the backward pass over the record.

`_tensor.py` has the Tensor, `_later.py` those whose data is computed when read, `engine.py` the pass; `arithmetic.py`,
`reduction.py` and `shape.py` have the operations behind a Tensor's operators and methods, each with its gradient next
to it.
"""

from nnx.autograd._tensor import (
    Parameter,
    Tensor,
    as_tensor,
    cast_input,
    enable_grad,
    from_dlpack,
    is_grad_enabled,
    no_grad,
    record,
    set_grad_enabled,
    tensor,
    unbroadcast,
)

__all__ = [
    "Parameter",
    "Tensor",
    "as_tensor",
    "cast_input",
    "enable_grad",
    "from_dlpack",
    "is_grad_enabled",
    "no_grad",
    "record",
    "set_grad_enabled",
    "tensor",
    "unbroadcast",
]
