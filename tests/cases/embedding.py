"""Cases of table look-ups.

`padding_idx` and `scale_grad_by_freq` change the gradient on purpose: see test_embedding.py.
"""

from __future__ import annotations

from cases._case import Case, integers, mixed, normal, torch_f
from nnx import functional as F

_DRAW = mixed(integers(4, (5, 3)), normal((6, 2)))  # rows 4 and 5 are never taken

CASES = [
    Case(
        "embedding",
        F.embedding,
        _DRAW,
        torch_f("embedding"),
        grad=(1,),
        nonfinite=(1,),
        large=mixed(integers(50, (700, 9)), normal((60, 33))),
        rtol32=1e-4,
        reason="float32 sums of over a hundred gradients (the large draw)",
    ),
    Case(
        "embedding-wide",
        F.embedding,
        mixed(integers(3, (5,)), normal((3, 41))),
        torch_f("embedding"),
        grad=(1,),
        nonfinite=(1,),
    ),
    Case(
        "one-hot",
        F.one_hot,
        integers(4, (5, 3)),
        torch_f("one_hot"),
        {"num_classes": 7},
        grad=(),
        nonfinite=(),
    ),
]
