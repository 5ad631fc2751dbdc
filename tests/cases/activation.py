"""Cases of activations. relu, sigmoid and tanh are among those of Tensors (`tensor.py`)."""

from __future__ import annotations

import numpy as np

from cases._case import Case, Draw, distinct, mixed, normal, torch_f
from nnx import functional as F

_KINKED = distinct((5, 5, 7))  # from -8.7 to 8.7, beside the kinks at 0, 1, 3 and 6


def _elementwise(name: str, variant: str = "", draw: Draw = _KINKED, **kwargs) -> Case:
    """A function of one array; torch's function has the same name and arguments."""
    return Case(
        f"{name}-{variant}" if variant else name,
        getattr(F, name),
        draw,
        torch_f(name),
        kwargs,
        large=normal((64, 1031)),
    )


def _over_dim(name: str, dim: int, shape: tuple[int, ...], large: tuple[int, ...] | None) -> Case:
    return Case(
        f"{name}-dim{dim}-of-{len(shape)}",
        getattr(F, name),
        normal(shape),
        torch_f(name),
        {"dim": dim},
        batch=(0,) if dim % len(shape) else (),
        large=None if large is None else normal(large),
        rtol32=1e-5 if large is None else 3e-5,
        reason="" if large is None else "float32 sums over a thousand elements (the large draw)",
    )


_WIDE = mixed(lambda rng: (rng.standard_normal((5, 3, 7)) * 5,))
_NO_MAXOUT = "PyTorch has no maxout"


def _maxout_torch(x, num_pieces, dim=-1):
    """Maxout in PyTorch's words: the largest of neighbours."""
    return x.unflatten(dim, (-1, num_pieces)).amax(dim if dim < 0 else dim + 1)


CASES = [
    # -- piecewise linear ----------------------------------------------------------------------
    Case("relu-inplace", F.relu, _KINKED, torch_f("relu"), {"inplace": False}),
    _elementwise("leaky_relu"),
    _elementwise("leaky_relu", "slope", negative_slope=0.3),
    _elementwise("leaky_relu", "negative-slope", negative_slope=-0.3),
    Case(
        "prelu",
        F.prelu,
        mixed(distinct((5, 3, 7)), normal((3,))),
        torch_f("prelu"),
        grad=(0, 1),
        nonfinite=(0, 1),
    ),
    Case(
        "prelu-one-weight",
        F.prelu,
        mixed(distinct((5, 3)), normal((1,))),
        torch_f("prelu"),
        grad=(0, 1),
    ),
    _elementwise("hardtanh"),
    _elementwise("hardtanh", "limits", min_val=-0.52, max_val=2.11),
    _elementwise("relu6"),
    Case(
        "hardsigmoid",
        F.hardsigmoid,
        _KINKED,
        torch_f("hardsigmoid"),
        large=normal((64, 1031)),
        rtol64=1e-7,
        reason="PyTorch's gradient has 1/6 in float32",
    ),
    _elementwise("hardswish"),
    # -- built on exp --------------------------------------------------------------------------
    _elementwise("elu"),
    _elementwise("elu", "alpha", alpha=0.7),
    _elementwise("elu", "negative-alpha", alpha=-0.7),
    _elementwise("selu"),
    _elementwise("celu", draw=_WIDE),
    _elementwise("celu", "alpha", alpha=0.5),  # PyTorch rounds 1 / alpha to float32
    _elementwise("softplus", draw=_WIDE),
    _elementwise("softplus", "beta", beta=2.5),
    _elementwise("softplus", "negative-beta", beta=-1.5, threshold=50),
    _elementwise("softplus", "threshold", threshold=3.02, beta=2),
    _elementwise("logsigmoid", draw=_WIDE),
    _elementwise("gelu", draw=_WIDE),
    _elementwise("gelu", "tanh", draw=_WIDE, approximate="tanh"),
    _elementwise("silu", draw=_WIDE),
    _elementwise("mish", draw=_WIDE),
    _elementwise("softsign"),
    # -- over a dimension ----------------------------------------------------------------------
    _over_dim("softmax", 1, (5, 3), (67, 1031)),
    _over_dim("softmax", -1, (5, 3, 7), (1031, 3, 33)),
    _over_dim("softmax", 1, (5, 3, 7), (9, 130, 61)),
    _over_dim("softmax", 0, (5, 3, 7), None),
    _over_dim("softmax", 0, (17,), None),
    _over_dim("softmin", 1, (5, 3, 2, 2), None),
    _over_dim("log_softmax", 1, (5, 3), (67, 1031)),
    _over_dim("log_softmax", -1, (5, 3, 7), (1031, 3, 33)),
    _over_dim("log_softmax", 1, (5, 3, 2, 2), (9, 130, 61)),
    _over_dim("log_softmax", 0, (5, 3), None),
    _over_dim("glu", -1, (5, 3, 4), None),
    _over_dim("glu", 1, (5, 4, 3), None),
    Case("maxout", F.maxout, distinct((5, 12)), _maxout_torch, {"num_pieces": 3}),
    Case("maxout-channels", F.maxout, distinct((5, 6, 3)), _maxout_torch, {"num_pieces": 2, "dim": 1}),
    Case("maxout-one-piece", F.maxout, distinct((5, 3)), _maxout_torch, {"num_pieces": 1}),
    Case(
        "maxout-many-pieces",
        F.maxout,
        lambda rng: (rng.permutation(2 * 300).reshape(2, 300) * 0.1,),
        _maxout_torch,
        {"num_pieces": 300},
        grad=(),
    ),
]

assert all(np.diff(sorted(_KINKED(np.random.default_rng(0))[0].ravel())) > 0.09)
