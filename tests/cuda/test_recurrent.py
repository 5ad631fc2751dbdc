"""The kernels of recurrent layers, run by the emulator, against the base backend."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import nn
from nnx.backends.base import Backend
from nnx.backends.base.recurrent import GATES

BASE = Backend()
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
MODES = [("RNN_TANH", 0), ("RNN_RELU", 0), ("GRU", 0), ("LSTM", 0), ("LSTM", 2), ("LSTM", 9)]
each_mode = pytest.mark.parametrize(("mode", "proj"), MODES, ids=lambda v: str(v))


@pytest.fixture
def be(cuda):
    from nnx.backends.cuda import CUDABackend

    return CUDABackend()


def draw(rng, mode, proj, steps, batch, features, hidden, bias, dtype):
    """x, state, w_ih, w_hh, b_ih, b_hh, w_hr"""
    width, rows = proj or hidden, GATES[mode] * hidden
    shapes = [
        (steps, batch, features),
        (batch, width + (hidden if mode == "LSTM" else 0)),
        (rows, features),
        (rows, width),
    ]
    scale = dtype(min(0.7, 2 / hidden**0.5))  # larger weights let rounding grow from step to step
    arrays = [rng.standard_normal(s).astype(dtype) * scale for s in shapes]
    arrays += [rng.standard_normal(rows).astype(dtype) if b else None for b in bias]
    return [*arrays, rng.standard_normal((proj, hidden)).astype(dtype) if proj else None]


def there(cuda, arrays):
    return [None if a is None else cuda.asarray(a) for a in arrays]


def close(ours, theirs, dtype):
    """Rounding grows through the steps."""
    tolerance = 3e-5 if dtype == np.float32 else 1e-11
    for a, e in zip(ours, theirs, strict=True):
        assert (a is None) == (e is None)
        if e is not None:
            assert a.shape == e.shape and a.dtype == e.dtype
            largest = np.max(np.abs(e), where=np.isfinite(e), initial=1)
            np.testing.assert_allclose(a.get(), e, tolerance, tolerance * largest)


@each_mode
@each_dtype
@pytest.mark.parametrize("bias", [(True, True), (False, True), (True, False)], ids=["biases", "b_hh", "b_ih"])
def test_layers(cuda, be, mode, proj, dtype, bias, rng):
    for steps, batch, features, hidden, lengths, reverse in [
        (1, 1, 1, 1, None, False),
        (3, 5, 2, 7, None, True),
        (4, 3, 3, 90, [2, 4, 1], False),  # more than a block
        (4, 3, 2, 5, [2, 4, 1], True),
    ]:
        args = draw(rng, mode, proj, steps, batch, features, hidden, bias, dtype)
        ends = None if lengths is None else np.array(lengths, np.int32 if reverse else np.int64)
        device = there(cuda, [*args, ends])
        states, gates = BASE.recurrent(mode, *args, ends, reverse)
        got = be.recurrent(mode, *device, reverse)
        close(got, (states, gates), dtype)
        gs = rng.standard_normal(states.shape).astype(dtype)
        needs = tuple(a is not None for a in args)
        x, _, w_ih, w_hh, _, _, w_hr = args
        xd, _, ihd, hhd, _, _, hrd = device[:-1]
        expected = BASE.recurrent_backward(mode, gs, x, states, gates, w_ih, w_hh, w_hr, ends, reverse, needs)
        held = cuda.asarray(np.ascontiguousarray(gs.T)).T
        ours = be.recurrent_backward(mode, held, xd, *got, ihd, hhd, hrd, device[-1], reverse, needs)
        close(ours, expected, dtype)
        none = be.recurrent_backward(
            mode, held, xd, *got, ihd, hhd, hrd, device[-1], reverse, (False, False, True, *needs[:4])
        )  # fmt: skip
        assert none[0] is none[1] is None and none[2] is not None


@each_mode
def test_nan_infinity_and_other_layouts(cuda, be, mode, proj, rng):
    args = draw(rng, mode, proj, 3, 4, 5, 6, (True, True), np.float32)
    args[0][1, 2, 3], args[0][0, 1, 0] = np.nan, np.inf
    device = [None if a is None else cuda.asarray(np.ascontiguousarray(a.T)).T for a in args]
    states, gates = BASE.recurrent(mode, *args, None, False)
    close(be.recurrent(mode, *device, None, False), (states, gates), np.float32)


def test_empty_batch(cuda, be, rng):
    for mode, proj in MODES:
        args = draw(rng, mode, proj, 3, 0, 5, 6, (True, True), np.float32)
        states, gates = be.recurrent(mode, *there(cuda, args), None, False)
        assert states.shape[:2] == (4, 0) and (gates is None or gates.shape == (3, 0, 24))


def test_launches_per_step(cuda, be, monkeypatch, rng):
    """One product and one launch for the gates: forward and backward."""
    from nnx.backends.cuda import recurrent
    from nnx.backends.cuda._kernels import Kernels

    calls = []
    launch, multiply = Kernels.launch, recurrent.multiply

    def counted(self, name, *rest):
        if self is recurrent._k:
            calls.append(name)
        launch(self, name, *rest)

    monkeypatch.setattr(Kernels, "launch", counted)
    monkeypatch.setattr(recurrent, "multiply", lambda *a, **k: (calls.append("multiply"), multiply(*a, **k)))
    for mode, kernel in (("LSTM", "lstm"), ("GRU", "gru"), ("RNN_TANH", "rnn")):
        args = there(cuda, draw(rng, mode, 0, 3, 2, 4, 5, (True, True), np.float32))
        calls.clear()
        states, gates = be.recurrent(mode, *args, None, False)
        assert calls == ["multiply", f"{kernel}_forward"] * 3
        calls.clear()
        be.recurrent_backward(
            mode, states, args[0], states, gates, args[2], args[3], None, None, False, (True,) * 6 + (False,)
        )
        assert calls == [f"{kernel}_backward", "multiply"] * 3


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_modules(cuda, kind, rng):
    nnx.manual_seed(0)
    here, other = (kind(3, 4, num_layers=2, bidirectional=True, batch_first=True) for _ in range(2))
    other.load_state_dict(here.state_dict())
    other.to("cuda")
    x, lengths = rng.standard_normal((5, 6, 3)).astype(np.float32), np.array([6, 1, 3, 2, 6])
    results = []
    for model, a, ends in (
        (here, x, lengths),
        (other, cuda.asarray(x), lengths),
        (other, cuda.asarray(x), cuda.asarray(lengths)),
    ):
        model.zero_grad()
        y, _ = model(a, lengths=ends)
        (y**2).sum().backward()
        results.append([y.numpy()] + [p.grad if model is here else p.grad.get() for p in model.parameters()])
    for result in results[1:]:
        for a, e in zip(result, results[0], strict=True):
            np.testing.assert_allclose(a, e, 2e-5, 2e-5)
    with pytest.raises(ValueError, match="expected input on cuda:0 like params, got it on cpu"):
        other(x)


def test_a_sequence_in_a_graph(cuda, rng):
    """Nothing waits, with lengths on the device."""
    model = nn.LSTM(3, 4, proj_size=2).to("cuda")
    x = cuda.asarray(rng.standard_normal((5, 2, 3)).astype(np.float32))
    lengths = cuda.asarray(np.array([5, 3]))
    expected = model(x, lengths=lengths)[0].numpy()
    pool, stream = cuda.cuda.MemoryPool(), cuda.cuda.Stream()
    with stream, cuda.cuda.using_allocator(pool.malloc):
        model(x, lengths=lengths)  # cuBLAS has its workspace
        stream.begin_capture()
        y, _ = model(x, lengths=lengths)
        y.sum().backward()
        graph = stream.end_capture()
        graph.launch()
    assert (y.numpy() == expected).all() and np.isfinite(model.weight_hr_l0.grad.get()).all()
