"""Losses against PyTorch's of the same name: signatures, values, gradients, with every argument."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnx
import nnx.functional as F
from nnx import nn
from nnx.functional import loss

torch = pytest.importorskip("torch")

SHAPE = (6, 4, 5)
W = [0.5, 2.0, 1.0, 0.25]  # exact in float32


def elementwise(rng):
    return rng.uniform(0.05, 0.95, SHAPE), rng.uniform(0.05, 0.95, SHAPE)


def labelled(rng):
    return rng.standard_normal(SHAPE) * 3, rng.integers(0, 4, (6, 5))


def one_rank(rng):
    return rng.standard_normal((6, 4)) * 3, rng.integers(0, 4, 6)


LAYERS = [
    ("MSELoss", elementwise, {}),
    ("L1Loss", elementwise, {}),
    ("HuberLoss", elementwise, {"delta": 0.25}),
    ("SmoothL1Loss", elementwise, {}),
    ("SmoothL1Loss", elementwise, {"beta": 0.25}),
    ("BCELoss", elementwise, {}),
    ("BCELoss", elementwise, {"weight": [[v] for v in W]}),
    ("BCEWithLogitsLoss", elementwise, {}),
    ("BCEWithLogitsLoss", elementwise, {"weight": [[v] for v in W], "pos_weight": [[v] for v in W]}),
    ("CrossEntropyLoss", labelled, {}),
    ("CrossEntropyLoss", labelled, {"weight": W, "ignore_index": 2, "label_smoothing": 0.25}),
    ("CrossEntropyLoss", elementwise, {"weight": W, "label_smoothing": 0.25}),
    ("CrossEntropyLoss", elementwise, {}),
    ("NLLLoss", labelled, {}),
    ("NLLLoss", labelled, {"weight": W, "ignore_index": 1}),
    ("KLDivLoss", elementwise, {}),
    ("KLDivLoss", elementwise, {"log_target": True}),
    ("MulticlassHingeLoss", one_rank, {}),
    ("MulticlassHingeLoss", one_rank, {"p": 2, "margin": 0.5, "weight": W}),
]


def theirs(name):
    return torch.nn.MultiMarginLoss if name == "MulticlassHingeLoss" else getattr(torch.nn, name)


ROWS = [  # PyTorch's "mean" of the divergence warns that it is not the divergence
    (name, draw, {**kwargs, "reduction": reduction})
    for name, draw, kwargs in LAYERS
    for reduction in ("none", "sum", "batchmean" if name == "KLDivLoss" else "mean")
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "draw", "kwargs"), ROWS, ids=lambda v: v if isinstance(v, str) else None)
def test_layer(name, draw, kwargs, dtype, rng):
    x, t = (v.astype(dtype) if v.dtype.kind == "f" else v for v in draw(rng))
    constants = {k: torch.tensor(v, dtype=torch.from_numpy(x).dtype) for k, v in kwargs.items() if isinstance(v, list)}
    a, b = nnx.Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    c, d = nnx.Tensor(t, t.dtype.kind == "f"), torch.tensor(t)
    if t.dtype.kind == "f":
        d.requires_grad_()
    y = getattr(nn, name)(**kwargs)(a, c)
    expected = theirs(name)(**{**kwargs, **constants})(b, d)
    if name == "MulticlassHingeLoss":
        expected = expected * 4
    gy = np.asarray(rng.standard_normal(y.shape), dtype)
    y.backward(gy)
    expected.backward(torch.from_numpy(gy))
    rtol = 1e-5 if dtype == np.float32 else 1e-10
    nnx.testing.assert_close(y.data, expected.detach().numpy(), rtol)
    nnx.testing.assert_close(a.grad, b.grad.numpy(), rtol)
    if c.requires_grad:
        nnx.testing.assert_close(c.grad, d.grad.numpy(), rtol)


@pytest.mark.parametrize("name", sorted(set(nn.loss.__all__)))
def test_constructor_has_the_same_arguments(name):
    ours = inspect.signature(getattr(nn, name)).parameters
    expected = inspect.signature(theirs(name)).parameters
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in expected.values()]


@pytest.mark.parametrize("name", sorted(loss.__all__))
def test_function_has_the_same_arguments(name):
    other = "multi_margin_loss" if name == "multiclass_hinge_loss" else name
    expected = inspect.signature(getattr(torch.nn.functional, other)).parameters
    ours = inspect.signature(getattr(F, name)).parameters
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in expected.values()]


@given(
    shape=st.lists(st.integers(0, 4), min_size=2, max_size=4),
    seed=st.integers(0, 2**32 - 1),
    reduction=st.sampled_from(["none", "sum", "mean"]),
    smoothing=st.sampled_from([0.0, 0.3]),
    weighted=st.booleans(),
)
def test_cross_entropy_of_any_shape(shape, seed, reduction, smoothing, weighted):
    shape[1] += 1  # there is at least one class
    rng = np.random.default_rng(seed)
    x, labels = rng.standard_normal(shape) * 10, rng.integers(0, shape[1], (shape[0], *shape[2:]))
    labels[rng.random(labels.shape) < 0.2] = -100
    weight = rng.random(shape[1]) if weighted else None
    a, b = nnx.Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y = F.cross_entropy(a, labels, weight, reduction=reduction, label_smoothing=smoothing)
    expected = torch.nn.functional.cross_entropy(
        b,
        torch.from_numpy(labels),
        None if weight is None else torch.from_numpy(weight),
        reduction=reduction,
        label_smoothing=smoothing,
    )
    nnx.testing.assert_close(y.data, expected.detach().numpy(), 1e-10)
    if np.isfinite(y.data).all():  # the mean of nothing is NaN, and so is PyTorch's gradient then
        y.backward(np.ones_like(y.data))
        expected.backward(torch.ones_like(expected))
        nnx.testing.assert_close(a.grad, b.grad.numpy(), 1e-10)
