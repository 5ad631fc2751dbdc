"""Cases of the fully connected and bilinear layers; matrix products are in tensor.py."""

from __future__ import annotations

from cases._case import Case, constant, mixed, normal, torch_f
from nnx import functional as F

_SUMS = "float32 sums of up to 301 products (the large draw), errors grow with the length"

CASES = [
    Case(
        "linear",
        F.linear,
        normal((5, 3), (7, 3), (7,)),
        torch_f("linear"),
        grad=(0, 1, 2),
        nonfinite=(0, 1, 2),
        large=normal((257, 301), (130, 301), (130,)),
        rtol32=1e-4,
        reason=_SUMS,
    ),
    Case(
        "linear-no-bias",
        F.linear,
        mixed(normal((5, 3), (7, 3)), constant(None)),
        torch_f("linear"),
        grad=(0, 1),
    ),
    Case("linear-vector", F.linear, normal((3,), (7, 3), (7,)), torch_f("linear"), {}, (0, 1, 2), ()),
    Case("linear-4d", F.linear, normal((5, 2, 4, 3), (7, 3), (7,)), torch_f("linear"), {}, (0, 1, 2)),
    Case("linear-one-output", F.linear, normal((5, 3), (1, 3), (1,)), torch_f("linear"), {}, (0, 1)),
    Case("linear-one-input", F.linear, normal((5, 1), (4, 1), (4,)), torch_f("linear"), {}, (0, 1)),
    Case(
        "bilinear",
        F.bilinear,
        normal((5, 3), (5, 4), (2, 3, 4), (2,)),
        torch_f("bilinear"),
        grad=(0, 1, 2, 3),
        batch=(0, 1),
        nonfinite=(0, 1),
    ),
    Case(
        "bilinear-3d",
        F.bilinear,
        mixed(normal((5, 2, 3), (5, 2, 4), (2, 3, 4)), constant(None)),
        torch_f("bilinear"),
        grad=(0, 1, 2),
        batch=(0, 1),
    ),
]
