"""Penalties on weights: values in every convention, gradients, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
import nnx.functional as F
from nnx import nn
from nnx.testing import gradcheck

W = np.array([[1.0, -2.0, 0.0], [0.5, 3.0, -1.5]])
PENALTIES = {
    F.l1_penalty: lambda w: np.abs(w).sum(),
    F.l2_penalty: lambda w: (w * w).sum(),
    F.elastic_net_penalty: lambda w: (w * w + np.abs(w)).sum(),
}
each = pytest.mark.parametrize("penalty", PENALTIES, ids=lambda f: f.__name__)


@each
@pytest.mark.parametrize(
    ("convention", "factor"), [("sum", 1), ("half", 1 / 2), ("mean", 1 / 8), ("half-mean", 1 / 16)]
)
def test_values(penalty, convention, factor):
    value = penalty(W, 0.3, convention=convention, n=8)
    assert value.shape == () and value.dtype == np.float64
    assert value.item() == pytest.approx(0.3 * factor * PENALTIES[penalty](W), rel=1e-12)


@each
def test_several_arrays_are_added_up(penalty):
    parts = [W, W[0] + 1, np.array([[7.0]])]
    expected = sum(PENALTIES[penalty](part) for part in parts)
    assert penalty(parts).item() == pytest.approx(expected, rel=1e-12)
    assert penalty(part for part in parts).item() == pytest.approx(expected, rel=1e-12)
    model = nn.Linear(4, 3)
    total = sum(PENALTIES[penalty](p.data.astype(np.float64)) for p in model.parameters())
    assert penalty(model.parameters()).item() == pytest.approx(total, rel=1e-6)


@each
def test_nested_lists_are_one_array(penalty):
    assert penalty(W.tolist()).item() == pytest.approx(PENALTIES[penalty](W), rel=1e-6)
    assert penalty([1.0, -2.0]).item() == pytest.approx(PENALTIES[penalty](W[0]), rel=1e-6)
    assert penalty(-2.0).item() == pytest.approx(PENALTIES[penalty](np.array(-2.0)), rel=1e-6)


@each
@pytest.mark.parametrize("convention", ["sum", "half", "mean", "half-mean"])
def test_gradients(penalty, convention):
    away_from_the_kink = W + 0.25
    gradcheck(lambda w: penalty(w, 0.3, convention=convention, n=5), away_from_the_kink)
    gradcheck(lambda a, b: penalty([a, b], 0.3), (away_from_the_kink, away_from_the_kink[0]))


def test_the_gradient_of_l1_at_zero_is_zero():
    leaf = nnx.tensor(W, requires_grad=True)
    F.l1_penalty(leaf).backward()
    np.testing.assert_array_equal(leaf.grad, np.sign(W))


@each
def test_dtypes_stay_and_inputs_too(penalty):
    w = W.astype(np.float32)
    w.flags.writeable = False
    leaf = nnx.tensor(w, requires_grad=True)
    value = penalty(leaf, 0.5)
    value.backward()
    assert value.dtype == leaf.grad.dtype == np.float32
    double = nnx.tensor(W, requires_grad=True)
    penalty([leaf, double]).backward()
    assert double.grad.dtype == np.float64 and leaf.grad.dtype == np.float32
    np.testing.assert_array_equal(w, W.astype(np.float32))


@each
def test_nan_is_passed_on_and_nothing_is_zero(penalty):
    assert np.isnan(penalty(np.array([1.0, np.nan])).item())
    assert penalty(np.zeros((0, 3))).item() == 0


@each
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((W, -1.0), ValueError, r"expected strength to be a number in \[0, inf\), got -1.0"),
        ((W, "a"), TypeError, "expected strength to be a number"),
        (([],), ValueError, "expected at least one array of weights, got none"),
        ((nnx.tensor([1, 2]),), TypeError, "expected input of dtype float32 or float64"),
    ],
)
def test_refused(penalty, arguments, error, message):
    with pytest.raises(error, match=rf"{penalty.__name__}: {message}"):
        penalty(*arguments)


@each
def test_conventions_refused(penalty):
    with pytest.raises(
        ValueError, match="expected convention to be one of 'sum', 'half', 'mean', 'half-mean', got 'x'"
    ):
        penalty(W, convention="x")
    with pytest.raises(ValueError, match="expected n, the number of samples, for convention 'half-mean', got None"):
        penalty(W, convention="half-mean")
    with pytest.raises(ValueError, match="expected n to be an integer >= 1, got 0"):
        penalty(W, convention="mean", n=0)


def test_beta_refused():
    with pytest.raises(ValueError, match="elastic_net_penalty: expected beta"):
        F.elastic_net_penalty(W, beta=-1)
