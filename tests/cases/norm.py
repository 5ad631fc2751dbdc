"""Cases of normalisation."""

from __future__ import annotations

from cases._case import Case, constant, distinct, mixed, normal, positive, torch_f
from nnx import functional as F

_TORCH_HAS_NO_RENORM = "PyTorch has no batch renormalisation"
_LONG = "float32 values are normalised by statistics over some thousand others (the large draw)"


def _training(x, weight, bias, **options):
    return F.batch_norm(x, None, None, weight, bias, training=True, **options)


def _torch_training(x, weight, bias, **options):
    return torch_f("batch_norm")(x, None, None, weight, bias, training=True, **options)


def _renorm(x, mean, var, weight, bias, **options):
    """`batch_renorm`, which moves the running arrays, on copies of them."""
    return F.batch_renorm(x, mean.copy(), var.copy(), weight, bias, training=True, **options)


def _batch_norm(id, shape, large=None):
    """Training with all parameters, for one number of dimensions."""
    channels = ((shape[1],),) * 2
    return Case(
        id,
        _training,
        normal(shape, *channels),
        _torch_training,
        grad=(0, 1, 2),
        nonfinite=(0, 1, 2),
        large=None if large is None else normal(large, (large[1],), (large[1],)),
        **({} if large is None else {"rtol32": 1e-4, "reason": _LONG}),
    )


CASES = [
    # -- batch norm ----------------------------------------------------------------------------
    _batch_norm("batch-norm-2d", (5, 3), (515, 37)),
    _batch_norm("batch-norm-3d", (3, 3, 5)),
    _batch_norm("batch-norm-4d", (2, 3, 3, 5), (4, 35, 19, 23)),
    _batch_norm("batch-norm-5d", (2, 3, 2, 3, 2)),
    _batch_norm("batch-norm-one-channel", (3, 1, 4, 3), (3, 1, 61, 67)),
    _batch_norm("batch-norm-wide", (3, 41, 2), (9, 1037, 3)),
    Case(
        "batch-norm-eps",
        _training,
        mixed(normal((5, 3)), constant(None, None)),
        _torch_training,
        {"eps": 0.3},
    ),
    Case(
        "batch-norm-no-weight",
        _training,
        mixed(normal((2, 3, 5)), constant(None), normal((3,))),
        _torch_training,
        grad=(0, 2),
    ),
    Case(
        "batch-norm-no-bias",
        _training,
        mixed(normal((2, 3, 5), (3,)), constant(None)),
        _torch_training,
        grad=(0, 1),
    ),
    Case(
        "batch-norm-infer",
        F.batch_norm,
        mixed(normal((2, 3, 4, 5), (3,)), positive((3,)), normal((3,), (3,))),
        torch_f("batch_norm"),
        grad=(0, 3, 4),
        nonfinite=(0, 1, 3),
        large=mixed(normal((4, 35, 19, 23), (35,)), positive((35,)), normal((35,), (35,))),
    ),
    Case(
        "batch-norm-infer-plain",
        F.batch_norm,
        mixed(normal((5, 3), (3,)), positive((3,))),
        torch_f("batch_norm"),
        {"eps": 0.01},
    ),
    # -- batch renorm --------------------------------------------------------------------------
    Case(
        "batch-renorm-within-limits",
        _renorm,
        mixed(normal((5, 3), (3,)), positive((3,)), normal((3,), (3,))),
        _TORCH_HAS_NO_RENORM,
        {"rmax": 1.0, "dmax": 0.0},
        grad=(0, 3, 4),
        nonfinite=(0,),
    ),
    Case(
        "batch-renorm-infer",
        F.batch_renorm,
        mixed(normal((2, 3, 4), (3,)), positive((3,)), normal((3,), (3,))),
        _TORCH_HAS_NO_RENORM,
        grad=(0, 3, 4),
    ),
    # -- layer norm ----------------------------------------------------------------------------
    Case(
        "layer-norm",
        lambda x, w, b: F.layer_norm(x, 7, w, b),
        normal((5, 3, 7), (7,), (7,)),
        lambda x, w, b: torch_f("layer_norm")(x, (7,), w, b),
        grad=(0, 1, 2),
        nonfinite=(0, 1, 2),
        large=None,
    ),
    Case(
        "layer-norm-long-rows",
        lambda x, w, b: F.layer_norm(x, x.shape[-1], w, b),
        normal((5, 131), (131,), (131,)),
        lambda x, w, b: torch_f("layer_norm")(x, x.shape[-1:], w, b),
        grad=(0, 1, 2),
        large=normal((517, 131), (131,), (131,)),
        rtol32=1e-4,
        reason=_LONG,
    ),
    Case(
        "layer-norm-2d",
        F.layer_norm,
        mixed(normal((5, 3, 4)), constant((3, 4)), normal((3, 4))),
        torch_f("layer_norm"),
        {"eps": 0.1},
        grad=(0, 2),
    ),
    Case(
        "layer-norm-bias",
        F.layer_norm,
        mixed(normal((5, 4)), constant((4,), None), normal((4,))),
        torch_f("layer_norm"),
        grad=(0, 3),
    ),
    # -- group norm, instance norm -------------------------------------------------------------
    Case(
        "group-norm",
        F.group_norm,
        mixed(normal((2, 6, 3, 5)), constant(3), normal((6,), (6,))),
        torch_f("group_norm"),
        grad=(0, 2, 3),
        nonfinite=(0, 2),
        large=mixed(normal((9, 12, 11, 13)), constant(3), normal((12,), (12,))),
        rtol32=1e-4,
        reason=_LONG,
    ),
    Case("group-norm-plain", F.group_norm, mixed(normal((5, 6)), constant(2)), torch_f("group_norm")),
    Case(
        "group-norm-one-group",
        F.group_norm,
        mixed(normal((5, 4, 3)), constant(1), normal((4,))),
        torch_f("group_norm"),
        {"eps": 0.1},
        grad=(0, 2),
    ),
    Case(
        "instance-norm",
        lambda x, w, b: F.instance_norm(x, None, None, w, b),
        normal((2, 3, 4, 5), (3,), (3,)),
        lambda x, w, b: torch_f("instance_norm")(x, None, None, w, b),
        grad=(0, 1, 2),
        nonfinite=(0, 1),
    ),
    Case("instance-norm-plain", F.instance_norm, normal((2, 3, 7)), torch_f("instance_norm")),
    Case(
        "instance-norm-running",
        F.instance_norm,
        mixed(normal((2, 3, 4), (3,)), positive((3,)), normal((3,), (3,))),
        torch_f("instance_norm"),
        {"use_input_stats": False},
        grad=(0, 3, 4),
    ),
    # -- local response norm -------------------------------------------------------------------
    Case(
        "local-response-norm",
        F.local_response_norm,
        normal((2, 7, 3, 2)),
        torch_f("local_response_norm"),
        {"size": 5, "alpha": 0.3},
        large=normal((3, 37, 17, 19)),
    ),
    Case(
        "local-response-norm-even",
        F.local_response_norm,
        normal((2, 7, 3)),
        torch_f("local_response_norm"),
        {"size": 4, "alpha": 0.5, "beta": 0.6, "k": 2.0},
    ),
    Case(
        "local-response-norm-few-channels",
        F.local_response_norm,
        normal((2, 3, 4)),
        torch_f("local_response_norm"),
        {"size": 9, "alpha": 0.5},
    ),
    # -- normalize -----------------------------------------------------------------------------
    Case("normalize", F.normalize, normal((5, 3)), torch_f("normalize")),
    Case("normalize-1", F.normalize, distinct((5, 3)), torch_f("normalize"), {"p": 1.0, "dim": 0}),
    Case("normalize-dims", F.normalize, normal((5, 3, 4)), torch_f("normalize"), {"dim": (1, 2)}),
    Case("normalize-eps", F.normalize, normal((5, 3)), torch_f("normalize"), {"eps": 100.0}),
]
