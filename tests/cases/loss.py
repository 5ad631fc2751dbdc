"""Cases of losses."""

from __future__ import annotations

import numpy as np

from cases._case import Case, Draw, constant, integers, mixed, normal, positive, torch_f
from nnx import functional as F

REDUCTIONS = ("none", "sum", "mean")
_LONG = "a mean over thousands of float32 losses (the large draw), and their rounding"


def uniform(*shapes: tuple[int, ...]) -> Draw:
    """Probabilities, away from 0 and 1 where the loss has no bound."""
    return lambda rng: tuple(rng.uniform(0.05, 0.95, shape) for shape in shapes)


def log_probabilities(shape: tuple[int, ...]) -> Draw:
    return lambda rng: (np.log(rng.uniform(0.05, 0.95, shape)),)


def _elementwise(name: str, variant: str = "", draw: Draw | None = None, **kwargs) -> list[Case]:
    """A loss of input and target, which both have gradients, with every reduction."""
    return [
        Case(
            "-".join(part for part in (name, variant, reduction) if part),
            getattr(F, name),
            draw or normal((5, 3, 7), (5, 3, 7)),
            torch_f(name),
            {**kwargs, "reduction": reduction},
            grad=(0, 1),
            batch=(0, 1),
            nonfinite=() if draw else (0, 1),
            large=None if draw else normal((64, 1031), (64, 1031)),
            rtol32=1e-5 if draw else 3e-5,
            reason="" if draw else _LONG,
        )
        for reduction in REDUCTIONS
    ]


def _weighted(name: str, reduction: str, **kwargs) -> Case:
    """A loss with weights in the shape of the input."""

    def ours(x, t, w):
        return getattr(F, name)(x, t, weight=w, reduction=reduction, **kwargs)

    def theirs(x, t, w):
        return torch_f(name)(x, t, weight=w, reduction=reduction, **kwargs)

    draw = mixed(normal((5, 3), (5, 3)), positive((5, 3)))
    return Case(f"{name}-weight-{reduction}", ours, draw, theirs, grad=(0, 1), batch=(0, 1, 2), nonfinite=(0,))


def _bce_with_logits(x, t, weight, pos_weight, **options):
    return F.binary_cross_entropy_with_logits(x, t, weight, pos_weight=pos_weight, **options)


def _torch_bce_with_logits(x, t, weight, pos_weight, **options):
    f = torch_f("binary_cross_entropy_with_logits")
    return f(x, t, weight, pos_weight=pos_weight, **options)


def _labels(shape: tuple[int, ...], classes: int, ignored: bool = False) -> Draw:
    def draw(rng: np.random.Generator) -> tuple:
        labels = rng.integers(0, classes, shape)
        if ignored:
            labels[rng.random(shape) < 0.3] = -100
        return (labels,)

    return draw


def _scored(name: str, variant: str, scores: tuple, labels: tuple, **options) -> Case:
    """A loss of class scores (C = 4, labels as given); options of Case start with `case_`."""
    case = {k.removeprefix("case_"): v for k, v in options.items() if k.startswith("case_")}
    kwargs = {k: v for k, v in options.items() if not k.startswith("case_")}
    ignored = kwargs.pop("ignored", False)
    weighted = kwargs.pop("weighted", False)
    draw = [normal(scores), _labels(labels, 4, ignored), positive((4,)) if weighted else constant(None)]
    return Case(
        f"{name}-{variant}",
        getattr(F, name),
        mixed(*draw),
        torch_f(name),
        kwargs,
        **{"batch": (0, 1) if labels else (), **case},
    )


def _hinge(x, t, p, margin, weight, reduction):
    return F.multiclass_hinge_loss(x, t, p, margin, weight, reduction=reduction)


def _torch_hinge(x, t, p, margin, weight, reduction):
    """PyTorch divides by the number of classes."""
    loss = torch_f("multi_margin_loss")(x, t, p, margin, weight, reduction=reduction)
    return loss * x.shape[-1]


def _hinge_case(variant: str, *arguments, scores=(5, 4), labels=(5,), weight=False) -> Case:
    p, margin, reduction = arguments
    weights = positive((4,)) if weight else constant(None)
    draw = mixed(normal(scores), integers(4, labels), constant(p, margin), weights, constant(reduction))
    return Case(f"multiclass-hinge-{variant}", _hinge, draw, _torch_hinge, batch=(0, 1) if labels else ())


CASES = [
    # -- elementwise ---------------------------------------------------------------------------
    *_elementwise("mse_loss"),
    *_elementwise("l1_loss"),
    *_elementwise("huber_loss"),
    *_elementwise("huber_loss", "delta", delta=0.4),
    *_elementwise("smooth_l1_loss"),
    *_elementwise("smooth_l1_loss", "beta", beta=0.4),
    *_elementwise("smooth_l1_loss", "zero", beta=0.0),
    *[_weighted(name, r) for name in ("mse_loss", "l1_loss") for r in REDUCTIONS],
    *[_weighted("huber_loss", r, delta=0.5) for r in REDUCTIONS],
    *_elementwise("binary_cross_entropy", draw=uniform((5, 3), (5, 3))),
    Case(
        "binary_cross_entropy-weight",
        F.binary_cross_entropy,
        mixed(uniform((5, 3), (5, 3)), positive((3,))),
        torch_f("binary_cross_entropy"),
        grad=(0, 1),
        batch=(0, 1),
        nonfinite=(),
    ),
    *_elementwise("binary_cross_entropy_with_logits"),
    Case(
        "bce-with-logits-weights",
        _bce_with_logits,
        mixed(normal((5, 3)), uniform((5, 3)), positive((5, 1), (3,))),
        _torch_bce_with_logits,
        grad=(0, 1),
        batch=(0, 1, 2),
        nonfinite=(0, 1),
    ),
    Case(
        "bce-with-logits-pos-weight-sum",
        _bce_with_logits,
        mixed(normal((5, 3, 2)), uniform((5, 3, 2)), constant(None), positive((1,))),
        _torch_bce_with_logits,
        {"reduction": "sum"},
        grad=(0,),
        batch=(0, 1),
    ),
    *[
        Case(
            f"kl-div-{'log-' if log else ''}{reduction}",
            F.kl_div,
            mixed(log_probabilities((5, 3)), log_probabilities((5, 3)) if log else uniform((5, 3))),
            torch_f("kl_div"),
            {"reduction": reduction, "log_target": log},
            grad=(0, 1),
            batch=(0, 1),
        )
        for log in (False, True)
        for reduction in ("none", "sum", "batchmean")
    ],
    Case(
        "kl-div-mean",
        F.kl_div,
        mixed(log_probabilities((5, 3)), uniform((5, 3))),
        lambda x, t: torch_f("kl_div")(x, t, reduction="sum") / x.numel(),  # "mean" warns there
        grad=(0, 1),
        batch=(0, 1),
    ),
    # -- class scores --------------------------------------------------------------------------
    *[_scored("cross_entropy", r, (5, 4), (5,), reduction=r) for r in REDUCTIONS],
    Case(
        "cross_entropy-large",
        F.cross_entropy,
        mixed(normal((5, 3)), integers(3, (5,))),
        torch_f("cross_entropy"),
        batch=(0, 1),
        large=mixed(normal((1031, 67)), integers(67, (1031,))),
        rtol32=3e-5,
        reason=_LONG,
    ),
    _scored("cross_entropy", "one-sample", (4,), ()),
    _scored("cross_entropy", "one-sample-none", (4,), (), reduction="none", label_smoothing=0.2),
    _scored("cross_entropy", "sequence", (3, 4, 5), (3, 5), reduction="none"),
    _scored("cross_entropy", "image", (2, 4, 3, 2), (2, 3, 2), ignored=True),
    _scored("cross_entropy", "ignored", (9, 4), (9,), ignored=True, reduction="none"),
    _scored("cross_entropy", "ignore-2", (9, 4), (9,), ignore_index=2),
    _scored("cross_entropy", "smoothing", (9, 4), (9,), ignored=True, label_smoothing=0.3),
    *[
        _scored("cross_entropy", f"weight-{r}", (9, 4), (9,), ignored=True, weighted=True, reduction=r)
        for r in REDUCTIONS
    ],
    *[
        _scored(
            "cross_entropy",
            f"weight-smoothing-{r}",
            (3, 4, 5),
            (3, 5),
            ignored=True,
            weighted=True,
            label_smoothing=0.3,
            reduction=r,
        )
        for r in REDUCTIONS
    ],
    *[
        Case(
            f"cross_entropy-probabilities-{len(shape)}d-{r}",
            F.cross_entropy,
            mixed(normal(shape), uniform(shape), positive((4,))),
            torch_f("cross_entropy"),
            {"reduction": r, "label_smoothing": smoothing},
            grad=(0, 1),
            batch=(0, 1) if len(shape) > 1 else (),
            nonfinite=(0, 1),
        )
        for shape, r, smoothing in (
            ((5, 4), "mean", 0.0),
            ((3, 4, 2), "none", 0.1),
            ((3, 4, 2), "mean", 0.1),
            ((4,), "mean", 0.0),
            ((5, 4), "sum", 0.3),
        )
    ],
    *[_scored("nll_loss", r, (5, 4), (5,), reduction=r) for r in REDUCTIONS],
    _scored("nll_loss", "one-sample", (4,), ()),
    _scored("nll_loss", "image", (2, 4, 3, 2), (2, 3, 2), ignored=True, reduction="none"),
    _scored("nll_loss", "weight", (9, 4), (9,), ignored=True, weighted=True),
    _scored("nll_loss", "weight-sequence", (3, 4, 5), (3, 5), weighted=True, reduction="sum"),
    _hinge_case("mean", 1, 1.0, "mean"),
    _hinge_case("squared", 2, 1.0, "mean"),
    _hinge_case("none", 1, 0.7, "none"),
    _hinge_case("weight", 1, 1.0, "sum", weight=True),
    _hinge_case("squared-weight", 2, 1.3, "mean", weight=True),
    _hinge_case("one-sample", 1, 1.0, "mean", scores=(4,), labels=()),
]
