"""The recurrent layers as modules: parameters, dropout, training. Values: test_recurrent_torch.py."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import nn
from nnx.testing import gradcheck

LAYERS = [
    (nn.RNN, {}),
    (nn.RNN, {"nonlinearity": "relu"}),
    (nn.GRU, {"num_layers": 2, "bidirectional": True}),
    (nn.LSTM, {"bias": False}),
    (nn.LSTM, {"proj_size": 2, "batch_first": True}),
]
each = pytest.mark.parametrize(("kind", "options"), LAYERS, ids=lambda v: getattr(v, "__name__", str(v)))


@each
def test_gradcheck(kind, options, rng):
    layer = kind(2, 3, dtype=np.float64, **options)
    assert gradcheck(lambda x: layer(x)[0], rng.standard_normal((3, 2, 2)), module=layer).checked > 20


@each
def test_a_planted_mistake_is_found(kind, options, rng, monkeypatch):
    """gradcheck refuses a backward pass whose gradient of W_hh is 1 % off."""
    layer = kind(2, 3, dtype=np.float64, **options)
    backend = type(nnx.backends.backend_of(np.zeros(1)))
    right = backend.recurrent_backward

    def wrong(self, *args):
        gx, gstate, gw_ih, gw_hh, *others = right(self, *args)
        return gx, gstate, gw_ih, gw_hh * 1.01, *others

    monkeypatch.setattr(backend, "recurrent_backward", wrong)
    with pytest.raises(AssertionError, match="expected the gradient of weight_hh_l0"):
        gradcheck(lambda x: layer(x)[0], rng.standard_normal((3, 2, 2)), module=layer)


@each
def test_plain_arrays_and_one_sequence(kind, options, rng):
    layer = kind(2, 3, **options)
    x = rng.standard_normal((4, 4, 2))  # float64: cast at the door
    y, last = layer(x)
    assert y.dtype == np.float32
    alone, _ = layer(x[0] if layer.batch_first else x[:, 0])
    np.testing.assert_allclose(alone.data, y.data[0] if layer.batch_first else y.data[:, 0], rtol=0, atol=1e-6)
    h = last[0] if kind is nn.LSTM else last
    directions = 2 if layer.bidirectional else 1
    assert h.shape == (layer.num_layers * directions, 4, layer.proj_size or 3)


def test_starts_uniform():
    layer = nn.LSTM(30, 25, num_layers=2)
    for p in layer.parameters():
        assert np.abs(p.data).max() <= 0.2
        assert np.abs(p.data).max() > 0.15
        assert abs(p.data.mean()) < 0.04  # 100 numbers at least: the standard error is 0.012


def test_dropout_lies_between_layers(rng):
    x = rng.standard_normal((5, 3, 4)).astype(np.float32)
    layer = nn.GRU(4, 6, num_layers=2, dropout=0.5)
    nnx.manual_seed(1)
    first, _ = layer(x)
    nnx.manual_seed(1)
    again, _ = layer(x)
    other, _ = layer(x)
    np.testing.assert_array_equal(first.data, again.data)
    assert (first.data != other.data).any()
    layer.eval()
    a, _ = layer(x)
    b, _ = layer(x)
    np.testing.assert_array_equal(a.data, b.data)
    layer.train()
    layer.dropout = 1.0  # the second layer sees zeros only
    y, _ = layer(x)
    top = nn.GRU(6, 6)
    top.load_state_dict({k.replace("l1", "l0"): v for k, v in layer.state_dict().items() if "l1" in k})
    np.testing.assert_allclose(y.data, top(np.zeros((5, 3, 6)))[0].data, rtol=1e-6)


def test_dropout_for_one_layer_is_a_warning():
    with pytest.warns(UserWarning, match="GRU: expected dropout to be 0 for one layer, got 0.5"):
        nn.GRU(2, 3, dropout=0.5)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_learns_to_remember(kind, rng):
    """The first of ten numbers is asked for after the last one."""
    nnx.manual_seed(0)
    x = rng.integers(0, 2, (10, 64, 1)).astype(np.float32) * 2 - 1
    layer, head = kind(1, 12), nn.Linear(12, 1)
    optimizer = nnx.optim.Adam([*layer.parameters(), *head.parameters()], lr=0.03)
    for _ in range(150):
        loss = nn.functional.mse_loss(head(layer(x)[0][-1]), x[0])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()
    assert loss.item() < 0.05  # the variance of the answer is 1


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_cells_go_step_by_step(kind, rng):
    """A loop over the cell is the layer with the same parameters."""
    cell = kind(2, 3, dtype=np.float64)
    layer = {"RNNCell": nn.RNN, "GRUCell": nn.GRU, "LSTMCell": nn.LSTM}[kind.__name__](2, 3, dtype=np.float64)
    layer.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    x = rng.standard_normal((5, 4, 2))
    state = None
    for t in range(5):
        state = cell(x[t], state)
    last = layer(x)[1]
    h, expected = (state[0], last[0]) if kind is nn.LSTMCell else (state, last)
    np.testing.assert_allclose(h.data, expected.data[0], rtol=1e-13)
    assert gradcheck(cell, x[0]).checked > 20


def test_cell_options():
    assert repr(nn.RNNCell(2, 3, nonlinearity="relu")) == "RNNCell(2, 3, nonlinearity=relu)"
    assert repr(nn.LSTMCell(2, 3, bias=False)) == "LSTMCell(2, 3, bias=False)"
    cell = nn.GRUCell(2, 3, bias=False)
    assert list(cell.state_dict()) == ["weight_ih", "weight_hh"]
    assert cell(np.zeros(2)).shape == (3,)
    y = nn.RNNCell(2, 3, nonlinearity="relu")(np.ones((4, 2)))
    assert (y.data >= 0).all()


def test_repr():
    assert repr(nn.LSTM(2, 3)) == "LSTM(2, 3)"
    text = repr(nn.LSTM(2, 3, num_layers=2, bias=False, batch_first=True, dropout=0.1, bidirectional=True, proj_size=1))
    assert text == (
        "LSTM(2, 3, proj_size=1, num_layers=2, bias=False, batch_first=True, dropout=0.1, bidirectional=True)"
    )
    assert repr(nn.RNN(2, 3, nonlinearity="relu")) == "RNN(2, 3, nonlinearity=relu)"


def test_all_weights():
    layer = nn.LSTM(2, 3, num_layers=2, proj_size=1)
    assert [[w.shape for w in weights] for weights in layer.all_weights] == [
        [(12, 2), (12, 1), (12,), (12,), (1, 3)],
        [(12, 1), (12, 1), (12,), (12,), (1, 3)],
    ]
    layer.flatten_parameters()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.LSTM(0, 3), ValueError, "LSTM: expected input_size to be an integer >= 1, got 0"),
        (lambda: nn.GRU(2, 0), ValueError, "GRU: expected hidden_size to be an integer >= 1, got 0"),
        (lambda: nn.RNN(2, 3, num_layers=0), ValueError, "RNN: expected num_layers to be an integer >= 1, got 0"),
        (lambda: nn.RNN(2, 3, nonlinearity="elu"), ValueError, "RNN: expected nonlinearity to be one of"),
        (lambda: nn.GRU(2, 3, dropout=-0.1), ValueError, r"GRU: expected dropout to be a number in \[0, 1\], got -0.1"),
        (lambda: nn.LSTM(2, 3, proj_size=3), ValueError, r"LSTM: expected proj_size below hidden_size \(3\), got 3"),
        (lambda: nn.RNNBase("GRU", 2, 3, proj_size=1), ValueError, "RNNBase: expected proj_size to be 0"),
        (lambda: nn.RNNBase("ELMAN", 2, 3), ValueError, "RNNBase: expected mode to be one of 'RNN_TANH'"),
        (lambda: nn.LSTM(2, 3, device="tpu"), ValueError, "LSTM: expected device to be .*got 'tpu'"),
        (lambda: nn.LSTM(2, 3, dtype=int), TypeError, "LSTM: expected dtype to be float32 or float64"),
        (lambda: nn.LSTMCell(2, 0), ValueError, "LSTMCell: expected hidden_size to be an integer >= 1, got 0"),
        (lambda: nn.RNNCell(2, 3, nonlinearity="elu"), ValueError, "RNNCell: expected nonlinearity to be one of"),
        (lambda: nn.GRU(2, 3)(np.zeros((4, 1, 3))), ValueError, r"GRU: expected input of shape \(T, N, 2\)"),
        (lambda: nn.GRUCell(2, 3)(np.zeros((4, 3))), ValueError, r"GRUCell: expected input of shape \(N, 2\) or"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()
