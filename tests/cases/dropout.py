"""Cases of dropout, every call with the same random numbers."""

from __future__ import annotations

import numpy as np

from cases._case import Case, normal
from nnx import functional as F

_OTHER_NUMBERS = "PyTorch draws other random numbers"


def _dropout(name: str, shape: tuple[int, ...], large: tuple[int, ...] | None = None) -> Case:
    def call(x, **options):
        rng = np.random.default_rng(0)
        return getattr(F, name)(x, 0.4, True, generator=rng, **options)

    return Case(
        f"{name}-{len(shape)}d",
        call,
        normal(shape),
        _OTHER_NUMBERS,
        large=None if large is None else normal(large),
    )


CASES = [
    _dropout("dropout", (5, 7), (64, 1031)),
    _dropout("dropout", (5, 3, 7, 2)),
    _dropout("dropout1d", (5, 3, 4)),
    _dropout("dropout2d", (5, 3, 4, 2), (16, 9, 17, 33)),
    _dropout("dropout3d", (5, 3, 2, 2, 3)),
    _dropout("alpha_dropout", (5, 7), (64, 1031)),
    _dropout("plain_dropout", (5, 7), (64, 1031)),
    Case(
        "plain_dropout-evaluation", lambda x: F.plain_dropout(x, 0.4, False), normal((5, 7)), "PyTorch has no such form"
    ),
]
