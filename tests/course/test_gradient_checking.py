"""Rows of nnx.course.gradient_checking."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import nn
from nnx.course import gradient_checking as topic
from nnx.testing import eval_numerical_gradient


def test_F061_printed_table_and_order_of_the_walk():
    np.testing.assert_allclose(topic.printed_table(), topic.PRINTED_SLOPES, rtol=0, atol=1e-9)
    seen = []

    def f(x):
        seen.append([tuple(map(int, i)) for i in np.argwhere(x != 0)])
        return x.sum()

    x = np.zeros((2, 3))
    eval_numerical_gradient(f, x)
    expected = [[]]
    it = np.nditer(x, flags=["multi_index"])
    while not it.finished:
        expected.append([it.multi_index])
        it.iternext()
    assert seen == expected


def test_F061_the_documents_loop_gives_the_same():
    def literal(f, x):
        """S2's code with h as it stands there."""
        fx = f(x)
        grad = np.zeros(x.shape)
        h = 0.00001
        it = np.nditer(x, flags=["multi_index"], op_flags=["readwrite"])
        while not it.finished:
            ix = it.multi_index
            old_value = x[ix]
            x[ix] += h
            fxh = f(x)
            x[ix] = old_value
            grad[ix] = (fxh - fx) / h
            it.iternext()
        return grad

    rng = np.random.default_rng(0)
    w, a = rng.standard_normal((3, 4)), rng.standard_normal((3, 4))

    def f(x):
        return float(np.sum(np.tanh(x * a)))

    np.testing.assert_array_equal(eval_numerical_gradient(f, w), literal(f, w.copy()))
    integers = np.array([1, 2, 3])
    assert not literal(np.sum, integers).any()  # the trap: the step is cut off
    np.testing.assert_allclose(eval_numerical_gradient(np.sum, integers), 1, rtol=1e-5)


def test_F062_every_layer_and_loss_below_1e_7():
    errors = topic.check_all()
    assert len(errors) == len(topic.layers()) + len(topic.losses()) >= 30
    assert max(errors.values()) < 1e-7, errors


def test_F062_a_planted_mistake_is_found():
    class Wrong(nn.Module):
        def forward(self, x):
            y = nnx.tanh(x)
            return y + 0.001 * (x - x.detach())  # the value of tanh, a slope that is 0.001 too large

    x = topic.spread_out(np.random.default_rng(0), (4, 6))
    assert topic.check(Wrong(), x, [], np.ones((4, 6))) > 1e-4


def test_F062_forward_error_falls_like_h_and_centred_like_its_square():
    errors = topic.step_errors([-3, -2])
    assert errors["forward"][1] / errors["forward"][0] == pytest.approx(10, rel=0.05)
    assert errors["centred"][1] / errors["centred"][0] == pytest.approx(100, rel=0.05)
