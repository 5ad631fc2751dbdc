"""Cases of convolution with the filter turned round."""

from __future__ import annotations

from typing import Any

from cases._case import Case, normal, torch_f
from nnx import functional as F


def _torch_flipped(n: int) -> Any:
    def call(x, w, b, **options):
        return torch_f(f"conv{n}d")(x, w.flip(tuple(range(2, 2 + n))), b, **options)

    return call


def _case(n: int, id: str, x: tuple, w: tuple, **options: Any) -> Case:
    return Case(
        f"true_conv{n}d{id}",
        getattr(F, f"true_conv{n}d"),
        normal(x, w, w[:1]),
        _torch_flipped(n),
        options,
        grad=(0, 1, 2),
        nonfinite=(),
    )


CASES = [
    _case(1, "", (2, 3, 9), (4, 3, 3), padding=2),
    _case(2, "", (2, 3, 5, 6), (4, 3, 3, 2)),
    _case(2, "-all", (2, 4, 7, 8), (6, 2, 3, 3), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
    _case(3, "", (2, 2, 3, 4, 5), (3, 2, 2, 3, 2)),
]
