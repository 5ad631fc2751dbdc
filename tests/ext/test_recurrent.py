"""ext/recurrent.pyx at every level against plain NumPy, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from nnx._ext import recurrent
from nnx.backends import Backend
from nnx.backends.base.recurrent import GATES

BASE = Backend()
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
each_mode = pytest.mark.parametrize("mode", [*GATES, "LSTM projected"])
each_direction = pytest.mark.parametrize("reverse", [False, True])
# steps, sequences, units: one of each; odd sizes; three blocks of sequences; more columns than a task has
SIZES = [(1, 1, 1), (3, 2, 5), (4, 37, 17), (2, 3, 300)]


class Problem:
    """The arguments of both kernels, and the results that the base backend has for them."""

    def __init__(self, mode, size, dtype, reverse, rng, ragged=False):
        steps, batch, hidden = size
        projected, self.mode = mode.endswith("projected"), mode.split()[0]
        width = max(hidden // 2, 1) if projected else hidden
        rows = GATES[self.mode] * hidden
        scale = 0.7 / hidden**0.5

        def normal(*shape):
            return (rng.standard_normal(shape) * (scale if len(shape) == 2 else 1)).astype(dtype)

        self.hidden, self.width, self.reverse = hidden, width, reverse
        self.x, self.w_ih, self.w_hh = normal(steps, batch, 3), normal(rows, 3), normal(rows, width)
        self.b_ih, self.b_hh = normal(rows), normal(rows)
        self.w_hr = normal(width, hidden) if projected else None
        self.first = normal(1, batch, width + (hidden if self.mode == "LSTM" else 0))[0]
        self.lengths = rng.integers(1, steps + 1, batch) if ragged else None
        self.gs = normal(steps + 1, batch, self.first.shape[1])
        layer = (self.w_ih, self.w_hh, self.b_ih, self.b_hh, self.w_hr, self.lengths, reverse)
        self.states, self.gates = BASE.recurrent(self.mode, self.x, self.first, *layer)
        # with the unit matrix in the place of W_ih, the gradient of the input is that of the sums of its gates
        wide, eye = np.zeros((steps, batch, rows), dtype), np.eye(rows, dtype=dtype)
        weights = (eye, self.w_hh, self.w_hr, self.lengths, reverse)
        needs = (True, True, False, True, False, False, projected)
        self.ga, self.gstate, _, self.gw_hh, _, _, self.gw_hr = BASE.recurrent_backward(
            self.mode, self.gs, wide, self.states, self.gates, *weights, needs
        )

    def before(self):
        """Gates and states as forward takes them: with the input's part of the sums."""
        hidden = self.hidden
        states = np.full_like(self.states, np.nan)
        states[-1 if self.reverse else 0] = self.first
        a = BASE.linear(self.x, self.w_ih, self.b_ih)
        if self.mode == "GRU":
            gates = np.full_like(self.gates, np.nan)
            gates[:, :, : 2 * hidden] = a[:, :, : 2 * hidden] + self.b_hh[: 2 * hidden]
            gates[:, :, 3 * hidden :] = a[:, :, 2 * hidden :]
            return gates, states, self.b_hh[2 * hidden :].copy()
        if self.mode == "LSTM":
            return a + self.b_hh, states, None
        states[slice(0, -1) if self.reverse else slice(1, None)] = a + self.b_hh
        return None, states, None


def guarded(a):
    """A copy of `a` between two rows of sevens, as (view, guards)."""
    memory = np.full((len(a) + 2, *a.shape[1:]), 7, a.dtype)
    memory[1:-1] = a
    return memory[1:-1], memory[[0, -1]]


def assert_near(actual, expected, dtype):
    """Relative to the largest value: sums of some hundred products, over a few steps."""
    scale = max(float(np.abs(expected).max(initial=0)), 1e-3)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=scale * (2e-6 if dtype == np.float32 else 1e-13))


@each_dtype
@each_mode
@each_direction
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
def test_forward(mode, size, dtype, reverse, ragged, level, rng):
    p = Problem(mode, size, dtype, reverse, rng, ragged)
    first = None
    for threads in (1, 2, 5):
        gates, states, bias = p.before()
        states, guards = guarded(states)
        recurrent.forward(p.mode, gates, states, p.w_hh, bias, p.w_hr, p.lengths, reverse, threads)
        assert_near(states, p.states, dtype)
        if gates is not None:
            assert_near(gates, p.gates, dtype)
        assert (guards == 7).all()
        first = first or states.tobytes()
        assert states.tobytes() == first


@each_dtype
@each_mode
@each_direction
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
def test_backward(mode, size, dtype, reverse, ragged, level, rng):
    p = Problem(mode, size, dtype, reverse, rng, ragged)
    steps, batch, hidden = size
    first = None
    for threads in (1, 2, 5):
        columns = p.width if p.gates is None else 4 * hidden
        ga, guards = guarded(np.full((steps, batch, columns), np.nan, dtype))
        gstate = np.full_like(p.first, np.nan)
        gh = m = None
        if p.w_hr is not None:
            gh, m = np.empty((steps, batch, p.width), dtype), np.empty((steps, batch, hidden), dtype)
        arrays = (p.gs, p.gates, p.states, p.w_hh, p.w_hr, p.lengths, ga, gstate, gh, m)
        recurrent.backward(p.mode, *arrays, reverse, threads)
        used = ga
        if p.mode == "GRU":
            used = np.concatenate((ga[:, :, : 2 * hidden], ga[:, :, 3 * hidden :]), axis=2)
            old = p.states[1:] if reverse else p.states[:-1]
            rows = ga[:, :, : 3 * hidden].reshape(-1, 3 * hidden)
            assert_near(rows.T @ old.reshape(-1, hidden), p.gw_hh, dtype)
        assert_near(used, p.ga, dtype)
        assert_near(gstate, p.gstate, dtype)
        if gh is not None:
            assert_near(gh.reshape(-1, p.width).T @ m.reshape(-1, hidden), p.gw_hr, dtype)
        assert (guards == 7).all()
        first = first or ga.tobytes() + gstate.tobytes()
        assert ga.tobytes() + gstate.tobytes() == first


@each_dtype
@pytest.mark.parametrize("mode", ["LSTM", "GRU", "RNN_TANH"])
def test_threads_that_share_out_columns(mode, dtype, level, rng):
    """Few sequences and many units: threads take columns of W_hh, and the bits stay."""
    p = Problem(mode, (3, 2, 520), dtype, False, rng)
    results = []
    for threads in (1, 2, 3):
        gates, states, bias = p.before()
        recurrent.forward(mode, gates, states, p.w_hh, bias, None, None, False, threads)
        ga, gstate = np.empty((3, 2, p.width if gates is None else 4 * 520), dtype), np.empty_like(p.first)
        recurrent.backward(mode, p.gs, gates, states, p.w_hh, None, None, ga, gstate, None, None, False, threads)
        results.append((states.tobytes(), ga.tobytes(), gstate.tobytes()))
    assert results[0] == results[1] == results[2]


def test_no_sequences():
    states = np.zeros((4, 0, 10))
    recurrent.forward("LSTM", np.zeros((3, 0, 20)), states, np.zeros((20, 5)), None, None, None, False, 2)
    recurrent.backward(
        "LSTM", states, np.zeros((3, 0, 20)), states, np.zeros((20, 5)), None, None, np.zeros((3, 0, 20)),
        np.zeros((0, 10)), None, None, False, 2,
    )  # fmt: skip


def forward(
    mode="LSTM", gates=(3, 2, 20), states=(4, 2, 10), w_hh=(20, 5), bias=None, w_hr=None, lengths=None, threads=1
):
    arrays = [np.zeros(a) if isinstance(a, tuple) else a for a in (gates, states, w_hh, bias, w_hr)]
    recurrent.forward(mode, *arrays, lengths, False, threads)


def backward(mode="LSTM", gs=(4, 2, 10), ga=(3, 2, 20), gstate=(2, 10), gh=None, m=None, w_hr=None):
    arrays = [np.zeros(a) if isinstance(a, tuple) else a for a in (gs, ga, gstate, gh, m, w_hr)]
    gs, ga, gstate, gh, m, w_hr = arrays
    gates, states, w_hh = np.zeros((3, 2, 20)), np.zeros((4, 2, 10)), np.zeros((20, 5))
    recurrent.backward(mode, gs, gates, states, w_hh, w_hr, None, ga, gstate, gh, m, False, 1)


def frozen(*shape):
    a = np.zeros(shape)
    a.flags.writeable = False
    return a


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: forward(mode="lstm"), ValueError, "expected mode 'RNN_TANH', 'RNN_RELU', 'GRU' or 'LSTM', got 'lstm'"),
        (lambda: forward(states=(1, 2, 10)), ValueError, "expected a state more than steps"),
        (lambda: forward(w_hh=(22, 5)), ValueError, "w_hh with 4 rows for each unit, got 4 states and 22 rows"),
        (lambda: forward(w_hh=(0, 5)), ValueError, "w_hh with 4 rows for each unit"),
        (lambda: forward(w_hh=(20, 4)), ValueError, "expected w_hh to have 5 in dimension 1"),
        (lambda: forward(w_hh=(20,)), ValueError, "expected w_hh with 2 dimensions"),
        (lambda: forward(w_hh=(24, 6)), ValueError, "expected states to have 12 in dimension 2"),
        (lambda: forward(states=(4, 20)), ValueError, "expected states with 3 dimensions"),
        (lambda: forward(states=np.zeros((4, 2, 20))[:, :, ::2]), ValueError, "expected states to be C-contiguous"),
        (lambda: forward(states=frozen(4, 2, 10)), ValueError, "expected states to be writeable"),
        (lambda: forward(states=np.zeros((4, 2, 10), int)), TypeError, "expected states to be float32 or float64"),
        (lambda: forward(gates=(3, 2, 19)), ValueError, "expected gates with 120 elements"),
        (lambda: forward(gates=None), TypeError, "expected gates to be an array, got None"),
        (lambda: forward(gates=frozen(3, 2, 20)), ValueError, "expected gates to be writeable"),
        (lambda: forward(gates=np.zeros((3, 2, 20), np.float32)), TypeError, "expected gates to be float64"),
        (lambda: forward(w_hh=np.zeros((20, 5), np.float32)), TypeError, "expected w_hh to be float64"),
        (lambda: forward(w_hh=np.zeros((5, 20)).T), ValueError, "expected w_hh to be C-contiguous"),
        (lambda: forward(bias=(5,)), ValueError, "expected bias to be None for LSTM"),
        (lambda: forward("GRU", w_hh=(15, 5), states=(4, 2, 5), bias=(4,)), ValueError, "bias with 5 elements"),
        (lambda: forward("GRU", w_hh=(15, 5), states=(4, 2, 5), w_hr=(5, 5)), ValueError, "w_hr to be None for GRU"),
        (lambda: forward("RNN_TANH", w_hh=(5, 5), states=(4, 2, 5)), ValueError, "gates to be None for RNN_TANH"),
        (lambda: forward(w_hh=(20, 3), states=(4, 2, 8), w_hr=(4, 5)), ValueError, "w_hr to have 3 in dimension 0"),
        (lambda: forward(w_hh=(20, 3), states=(4, 2, 8), w_hr=(3, 4)), ValueError, "w_hr to have 5 in dimension 1"),
        (lambda: forward(lengths=np.ones(2, np.int32)), TypeError, "expected lengths to be int64"),
        (lambda: forward(lengths=np.ones(3, np.int64)), ValueError, "expected lengths with 2 elements"),
        (lambda: forward(threads=0), ValueError, "expected num_threads to be at least 1"),
        (lambda: backward(gs=(4, 2, 9)), ValueError, "expected gs with 80 elements"),
        (lambda: backward(ga=(3, 2, 15)), ValueError, "expected ga with 120 elements"),
        (lambda: backward(ga=frozen(3, 2, 20)), ValueError, "expected ga to be writeable"),
        (lambda: backward(gstate=(2, 5)), ValueError, "expected gstate with 20 elements"),
        (lambda: backward(gh=(3, 2, 5)), ValueError, "expected gh and m to be None without w_hr"),
        (lambda: backward(w_hr=(5, 5), m=(3, 2, 5)), TypeError, "expected gh to be an array, got None"),
        (lambda: backward(w_hr=(5, 5), gh=(3, 2, 5), m=(3, 2, 4)), ValueError, "expected m with 30 elements"),
    ],
)  # fmt: skip
def test_refused(call, error, message):
    with pytest.raises(error, match=f"^recurrent: .*{message}"):
        call()
