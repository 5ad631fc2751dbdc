"""Recurrent layers: lengths, states, errors. Values and gradients are in cases/recurrent.py."""

from __future__ import annotations

import numpy as np
import pytest

import nnx.functional as F
from nnx.autograd import Tensor

GATES = {"rnn_tanh": 1, "rnn_relu": 1, "gru": 3, "lstm": 4}
each = pytest.mark.parametrize("name", list(GATES))


def parameters(name, rng, features=2, hidden=3, runs=1):
    rows = GATES[name] * hidden
    shapes = [(rows, features), (rows, hidden), (rows,), (rows,)] * runs
    return [rng.standard_normal(shape) * 0.5 for shape in shapes]


def run(name, x, hx, params, bidirectional=False, batch_first=False, **kwargs):
    y, *states = getattr(F, name)(x, hx, params, True, 1, 0.0, False, bidirectional, batch_first, **kwargs)
    return [y, *states]


def test_lstm_by_hand():
    """One unit whose gates have the sums 0 and whose candidate is tanh(1): c = 1/2 tanh(1), h = 1/2 tanh(c)."""
    w_ih = np.array([[0.0], [0.0], [1.0], [0.0]])
    y, h, c = run("lstm", np.ones((1, 1, 1)), None, [w_ih, np.zeros((4, 1)), np.zeros(4), np.zeros(4)])
    assert c.item() == pytest.approx(0.5 * np.tanh(1), rel=1e-15)
    assert y.item() == h.item() == pytest.approx(0.5 * np.tanh(c.item()), rel=1e-15)


def test_gru_keeps_its_state_where_z_is_1(rng):
    params = parameters("gru", rng)
    params[2][3:6] = 50  # z
    h = rng.standard_normal((1, 4, 3))
    _, last = run("gru", rng.standard_normal((5, 4, 2)), h, params)
    np.testing.assert_allclose(last.data, h, rtol=1e-14)


@each
@pytest.mark.parametrize("bidirectional", [False, True])
def test_lengths_are_as_if_each_sequence_came_alone(name, bidirectional, rng):
    x = rng.standard_normal((5, 3, 2))
    params = parameters(name, rng, runs=1 + bidirectional)
    lengths = [3, 5, 1]
    padded = x.copy()
    for n, length in enumerate(lengths):
        padded[length:, n] = np.nan  # whatever is there is not read
    leaf, weights = Tensor(padded, requires_grad=True), [Tensor(p, requires_grad=True) for p in params]
    y, *states = run(name, leaf, None, weights, bidirectional, lengths=lengths)
    (y.sum() + sum(s.square().sum() for s in states)).backward()
    total = [np.zeros_like(p) for p in params]
    for n, length in enumerate(lengths):
        alone, own = Tensor(x[:length, n : n + 1], requires_grad=True), [Tensor(p, requires_grad=True) for p in params]
        z, *last = run(name, alone, None, own, bidirectional)
        np.testing.assert_allclose(y.data[:length, n], z.data[:, 0], rtol=1e-13)
        assert not y.data[length:, n].any()
        for s, t in zip(states, last, strict=True):
            np.testing.assert_allclose(s.data[:, n], t.data[:, 0], rtol=1e-13)
        (z.sum() + sum(s.square().sum() for s in last)).backward()
        np.testing.assert_allclose(leaf.grad[:length, n], alone.grad[:, 0], rtol=1e-11, atol=1e-14)
        assert not leaf.grad[length:, n].any()
        for t, w in zip(total, own, strict=True):
            t += w.grad
    for t, w in zip(total, weights, strict=True):
        np.testing.assert_allclose(w.grad, t, rtol=1e-11, atol=1e-13)


@each
def test_one_sequence_without_a_batch(name, rng):
    x, params = rng.standard_normal((5, 2)), parameters(name, rng)
    y, *states = run(name, x, None, params, batch_first=True)
    z, *others = run(name, x[:, None], None, params)
    np.testing.assert_array_equal(y.data, z.data[:, 0])
    for s, t in zip(states, others, strict=True):
        np.testing.assert_array_equal(s.data, t.data[:, 0])


@each
def test_going_on_with_the_last_state_is_one_long_run(name, rng):
    x, params = rng.standard_normal((6, 2, 2)), parameters(name, rng)
    y, *last = run(name, x, None, params)
    first, *between = run(name, x[:4], None, params)
    second, *states = run(name, x[4:], tuple(between) if name == "lstm" else between[0], params)
    np.testing.assert_allclose(np.concatenate((first.data, second.data)), y.data, rtol=1e-14)
    np.testing.assert_allclose(states[0].data, last[0].data, rtol=1e-14)


@each
def test_cells_are_layers_of_one_step(name, rng):
    x, params = rng.standard_normal((4, 2)), parameters(name, rng)
    cell = getattr(F, f"{name}_cell")
    result = cell(x, None, *params)
    _, *states = run(name, x[None], None, params)
    for a, b in zip(result if name == "lstm" else [result], states, strict=True):
        np.testing.assert_array_equal(a.data, b.data[0])
    alone = cell(x[1], None, *params)
    np.testing.assert_allclose((alone[0] if name == "lstm" else alone).data, states[0].data[0, 1], rtol=1e-14)


@each
def test_empty_batch_with_states(name, rng):
    params = [Tensor(p, requires_grad=True) for p in parameters(name, rng)]
    h = Tensor(np.zeros((1, 0, 3)), requires_grad=True)
    y, *states = run(name, np.zeros((4, 0, 2)), (h, h) if name == "lstm" else h, params)
    assert y.shape == (4, 0, 3)
    assert [s.shape for s in states] == [(1, 0, 3)] * len(states)
    y.sum().backward()
    assert not any(p.grad.any() for p in params)
    assert h.grad.shape == (1, 0, 3)


X = np.ones((4, 2, 2))
P = [np.ones((12, 2)), np.ones((12, 3)), np.ones(12), np.ones(12)]
H = np.zeros((1, 2, 3))


class PackedSequence:
    batch_sizes = (2, 1)


def lstm(x=X, hx=None, params=P, biases=True, layers=1, dropout=0.0, batch_first=False, **kwargs):
    return F.lstm(x, hx, params, biases, layers, dropout, True, False, batch_first, **kwargs)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lstm(PackedSequence()), TypeError,
         "expected input to be an array or Tensor, got a PackedSequence. Packed sequences are not offered: .*lengths="),
        (lambda: lstm(X[..., :1]), ValueError, r"expected input of shape \(T, N, 2\) or \(T, 2\), got shape \(4, 2,"),
        (lambda: lstm(X[None], batch_first=True), ValueError, r"expected input of shape \(N, T, 2\) or \(T, 2\), got"),
        (lambda: lstm(X[:0]), ValueError, r"expected input with at least one time step, got shape \(0, 2, 2\)"),
        (lambda: lstm(Tensor(X.astype(np.float32))), TypeError, "expected input of dtype float64 like the parameters"),
        (lambda: lstm(hx=H), TypeError, r"expected hx to be a pair \(h, c\) or None, got ndarray"),
        (lambda: lstm(hx=(H, H[:, :1])), ValueError, r"expected c of shape \(1, 2, 3\), got shape \(1, 1, 3\)"),
        (lambda: lstm(hx=(H[0], H)), ValueError, r"expected h of shape \(1, 2, 3\), got shape \(2, 3\)"),
        (lambda: lstm(hx=(Tensor(H.astype(np.float32)), H)), TypeError, "expected h of dtype float64 like the input"),
        (lambda: lstm(params=P[:3]), ValueError, "expected params with 4 or 5 arrays for each of 1 layers and"),
        (lambda: lstm(params=P * 2, layers=3), ValueError, ".* for each of 3 layers and directions, got 8 arrays"),
        (lambda: lstm(params=[P[0], P[1].T, *P[2:]]), ValueError,
         r"expected params number 1 of shape \(12, 3\) \(4 rows for each of 3 units\), got shape \(3, 12\)"),
        (lambda: lstm(params=[P[0][:0], P[1][:0], P[2][:0], P[3][:0]]), ValueError, "expected params number 0 of"),
        (lambda: lstm(params=[P[0][0], *P[1:]]), ValueError, r"expected weights with 2 dimensions, got shape \(2,\)"),
        (lambda: lstm(params=[P[0], P[1].astype(np.float32), *P[2:]]), TypeError, "expected params of one float dtype"),
        (lambda: lstm(layers=0), ValueError, "expected num_layers to be an integer >= 1, got 0"),
        (lambda: lstm(dropout=1.5), ValueError, r"expected dropout to be a number in \[0, 1\], got 1.5"),
        (lambda: lstm(lengths=[4.0, 1.0]), TypeError, "expected lengths of an integer dtype, got float64"),
        (lambda: lstm(lengths=[4]), ValueError, r"expected lengths of shape \(2,\), got shape \(1,\)"),
        (lambda: lstm(lengths=[4, 0]), ValueError, r"expected lengths in \[1, 4\], got values in \[0, 4\]"),
        (lambda: lstm(lengths=[5, 1]), ValueError, r"expected lengths in \[1, 4\], got values in \[1, 5\]"),
        (lambda: lstm(X[:, 0], lengths=[4]), ValueError, "expected lengths to be None for input without a batch"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error, match=f"^lstm: {message}"):
        call()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.gru_cell(X[0], None, P[0], P[1]), ValueError,
         r"gru_cell: expected params number 1 of shape \(12, 4\) \(3 rows for each of 4 units\), got shape \(12, 3\)"),
        (lambda: F.lstm_cell(X[0], None, *P[:3]), ValueError, "lstm_cell: expected both b_ih and b_hh or neither"),
        (lambda: F.lstm_cell(X, None, *P), ValueError,
         r"lstm_cell: expected input of shape \(N, 2\) or \(2,\), got shape \(4, 2, 2\)"),
        (lambda: F.lstm_cell(X[0], (H, H), *P), ValueError, r"lstm_cell: expected h of shape \(2, 3\), got"),
        (lambda: F.lstm_cell(X[0, 0], (H[0, 0], H[0]), *P), ValueError, r"expected c of shape \(3,\), got shape \(2,"),
        (lambda: F.rnn_tanh_cell(X[0], H[0, :1], np.ones((3, 2)), np.ones((3, 3))), ValueError,
         r"rnn_tanh_cell: expected hx of shape \(2, 3\), got shape \(1, 3\)"),
    ],
)  # fmt: skip
def test_cell_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
