"""Losses as layers: what they hand to the functions, their weights, what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
import nnx.functional as F
from nnx import nn

X = np.random.default_rng(0).uniform(0.1, 0.9, (5, 3))
T = np.random.default_rng(1).uniform(0.1, 0.9, (5, 3))
LABELS = np.array([0, 2, 1, 1, 2])
W = np.array([0.5, 2.0, 1.0])

LAYERS = [
    (nn.MSELoss(), F.mse_loss, T, {}),
    (nn.MSELoss(reduction="sum"), F.mse_loss, T, {"reduction": "sum"}),
    (nn.L1Loss(reduction="none"), F.l1_loss, T, {"reduction": "none"}),
    (nn.HuberLoss(delta=0.1), F.huber_loss, T, {"delta": 0.1}),
    (nn.HuberLoss("sum"), F.huber_loss, T, {"reduction": "sum"}),
    (nn.SmoothL1Loss(beta=0.1), F.smooth_l1_loss, T, {"beta": 0.1}),
    (nn.BCELoss(W), F.binary_cross_entropy, T, {"weight": W}),
    (
        nn.BCEWithLogitsLoss(W, pos_weight=W + 1),
        F.binary_cross_entropy_with_logits,
        T,
        {"weight": W, "pos_weight": W + 1},
    ),
    (nn.KLDivLoss(reduction="batchmean"), F.kl_div, T, {"reduction": "batchmean"}),
    (nn.KLDivLoss(log_target=True), F.kl_div, T, {"log_target": True}),
    (nn.CrossEntropyLoss(), F.cross_entropy, LABELS, {}),
    (nn.CrossEntropyLoss(), F.cross_entropy, T, {}),
    (
        nn.CrossEntropyLoss(W, ignore_index=1, reduction="sum", label_smoothing=0.1),
        F.cross_entropy,
        LABELS,
        {"weight": W, "ignore_index": 1, "reduction": "sum", "label_smoothing": 0.1},
    ),
    (nn.NLLLoss(W, ignore_index=2), F.nll_loss, LABELS, {"weight": W, "ignore_index": 2}),
    (
        nn.MulticlassHingeLoss(2, 0.5, W, reduction="none"),
        F.multiclass_hinge_loss,
        LABELS,
        {"p": 2, "margin": 0.5, "weight": W, "reduction": "none"},
    ),
]


@pytest.mark.parametrize(("layer", "function", "target", "kwargs"), LAYERS, ids=lambda v: repr(v)[:30])
def test_layer(layer, function, target, kwargs):
    np.testing.assert_array_equal(layer(X, target).data, function(X, target, **kwargs).data)
    assert repr(layer) == f"{type(layer).__name__}(reduction={layer.reduction!r})"
    assert not list(layer.parameters())


def test_every_layer_is_tested():
    from nnx.nn import loss

    assert {type(row[0]).__name__ for row in LAYERS} == set(loss.__all__)


def test_weights_are_buffers():
    """They are saved with the model, and need not have the type of the scores."""
    layer = nn.CrossEntropyLoss(weight=[1, 2, 3])
    assert layer.state_dict()["weight"].tolist() == [1, 2, 3]
    assert layer(X.astype(np.float32), LABELS).dtype == np.float32
    assert list(nn.BCEWithLogitsLoss(pos_weight=W).state_dict()) == ["pos_weight"]
    assert not nn.CrossEntropyLoss().state_dict()
    other = nn.CrossEntropyLoss(weight=np.zeros(3))
    other.load_state_dict({"weight": W})
    assert other(X, LABELS).item() == nn.CrossEntropyLoss(W)(X, LABELS).item()


NAMES = sorted(nn.loss.__all__)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("argument", ["size_average", "reduce"])
def test_deprecated_arguments(name, argument):
    message = "unexpected keyword" if name == "HuberLoss" else f"{name}: expected no argument {argument}"
    with pytest.raises(TypeError, match=message):
        getattr(nn, name)(**{argument: True})


@pytest.mark.parametrize("name", NAMES)
def test_unknown_reduction(name):
    with pytest.raises(ValueError, match=f"{name}: expected reduction to be one of 'none', 'mean', 'sum'"):
        getattr(nn, name)(reduction="average")


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda: nn.CrossEntropyLoss()(X, LABELS + 1), IndexError,
         r"CrossEntropyLoss: expected target in \[0, 2\] \(or ignore_index -100\), got 3 at index \(1,\)"),
        (lambda: nn.NLLLoss()(X, LABELS[:4]), ValueError, r"NLLLoss: expected target of shape \(5,\)"),
        (lambda: nn.MulticlassHingeLoss()(X, LABELS - 1), IndexError,
         r"MulticlassHingeLoss: expected target in \[0, 2\], got -1 at index \(0,\)"),
        (lambda: nn.CrossEntropyLoss(weight=[1.0])(X, LABELS), ValueError,
         r"CrossEntropyLoss: expected weight of shape \(3,\)"),
        (lambda: nn.CrossEntropyLoss(ignore_index=None), TypeError, "CrossEntropyLoss: expected ignore_index to be"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=-1), ValueError,
         "CrossEntropyLoss: expected label_smoothing to be a number"),
        (lambda: nn.NLLLoss(ignore_index=1.5), TypeError, "NLLLoss: expected ignore_index to be an integer"),
        (lambda: nn.MulticlassHingeLoss(p=0), ValueError, "MulticlassHingeLoss: expected p to be one of 1, 2, got 0"),
        (lambda: nn.MulticlassHingeLoss(margin=None), TypeError, "MulticlassHingeLoss: expected margin to be"),
        (lambda: nn.HuberLoss(delta=-1), ValueError, r"HuberLoss: expected delta to be a number in \(0, inf\)"),
        (lambda: nn.SmoothL1Loss(beta=-1), ValueError, r"SmoothL1Loss: expected beta to be a number in \[0, inf\)"),
        (lambda: nn.MSELoss()(X, T[:1]), ValueError, r"MSELoss: expected target of shape \(5, 3\) like input"),
        (lambda: nn.L1Loss()(X, T.T), ValueError, r"L1Loss: expected target of shape \(5, 3\) like input"),
        (lambda: nn.BCELoss()(X + 1, T), ValueError, r"BCELoss: expected input in \[0, 1\]"),
        (lambda: nn.BCEWithLogitsLoss()(X, nnx.Tensor(T.astype("f4"))), TypeError,
         "BCEWithLogitsLoss: expected target of dtype float64 like input"),
        (lambda: nn.KLDivLoss(reduction="batch"), ValueError, "KLDivLoss: expected reduction .*'batchmean', got"),
    ],
)  # fmt: skip
def test_errors(action, error, message):
    with pytest.raises(error, match=message):
        action()
