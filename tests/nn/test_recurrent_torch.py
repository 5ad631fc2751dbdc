"""Every variant of the recurrent layers against PyTorch: parameters, outputs, last states and gradients."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nnx import nn
from nnx.autograd import Tensor

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

KINDS = [("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("GRU", {}), ("LSTM", {}), ("LSTM", {"proj_size": 4})]
VARIANTS = [
    {"num_layers": layers, "bias": bias, "batch_first": first, "bidirectional": both}
    for layers, bias, first, both in itertools.product((1, 2), (True, False), (True, False), (True, False))
]
# float64: rounding alone. float32: rounding of both sides, relative to the largest value of an array
BOUND = {np.float32: 1e-5, np.float64: 1e-10}


def pair(name, dtype, **options):
    theirs = getattr(torch.nn, name)(3, 7, dtype=getattr(torch, np.dtype(dtype).name), **options)
    ours = getattr(nn, name)(3, 7, dtype=dtype, **options)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: tuple(v.shape) for k, v in theirs.state_dict().items()
    }
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    return ours, theirs


def close(ours, theirs, dtype):
    theirs = theirs.detach().numpy()
    scale = max(float(np.abs(theirs).max()), 1e-3)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=BOUND[dtype] * scale)


def compare(ours, theirs, x, hx, dtype):
    """Outputs, last states, and the gradients of input, first states and parameters."""
    leaves = [Tensor(a, requires_grad=True) for a in (x, *hx)]
    others = [torch.tensor(a, requires_grad=True) for a in (x, *hx)]

    def state(tensors):
        return () if not hx else (tuple(tensors[1:]) if len(hx) == 2 else tensors[1],)

    y, last = ours(leaves[0], *state(leaves))
    t, ends = theirs(others[0], *state(others))
    last, ends = (last, ends) if isinstance(last, tuple) else ((last,), (ends,))
    for a, b in zip((y, *last), (t, *ends), strict=True):
        assert a.shape == tuple(b.shape)
        close(a.data, b, dtype)
    ((y * y).sum() + sum((s * s * s).sum() for s in last)).backward()
    ((t * t).sum() + sum((s * s * s).sum() for s in ends)).backward()
    grads = [*(v.grad for v in leaves), *(p.grad for p in ours.parameters())]
    for a, b in zip(grads, [*(v.grad for v in others), *(p.grad for p in theirs.parameters())], strict=True):
        close(a, b, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", VARIANTS, ids=lambda o: "-".join(f"{k}{int(v)}" for k, v in o.items()))
@pytest.mark.parametrize(
    ("name", "more"), KINDS, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v.values()))
)
def test_every_variant(name, more, options, dtype, rng):
    ours, theirs = pair(name, dtype, **more, **options)
    runs = options["num_layers"] * (1 + options["bidirectional"])
    x = rng.standard_normal((5, 4, 3)).astype(dtype)
    batch = 5 if options["batch_first"] else 4
    hx = [rng.standard_normal((runs, batch, n)).astype(dtype) for n in (more.get("proj_size", 7), 7)]
    compare(ours, theirs, x, hx if name == "LSTM" else hx[1:], dtype)


@pytest.mark.parametrize(("name", "more"), KINDS)
@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 3)])
def test_without_first_state(name, more, shape, rng):
    ours, theirs = pair(name, np.float64, **more)
    compare(ours, theirs, rng.standard_normal(shape), (), np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_large(name, dtype, rng):
    """Several blocks of sequences, threads, panels that are not full."""
    theirs = getattr(torch.nn, name)(20, 67, dtype=getattr(torch, np.dtype(dtype).name))
    ours = getattr(nn, name)(20, 67, dtype=dtype)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    compare(ours, theirs, rng.standard_normal((12, 45, 20)).astype(dtype), (), dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"bias": False}])
@pytest.mark.parametrize("name", ["RNNCell", "GRUCell", "LSTMCell"])
def test_cells(name, options, dtype, rng):
    ours, theirs = pair(name, dtype, **options)
    x, h, c = (rng.standard_normal((4, n)).astype(dtype) for n in (3, 7, 7))
    hx = (h, c) if name == "LSTMCell" else (h,)
    leaves, others = [Tensor(a, requires_grad=True) for a in (x, *hx)], [torch.tensor(a) for a in (x, *hx)]
    for t in others:
        t.requires_grad_()
    a = ours(leaves[0], tuple(leaves[1:]) if len(hx) == 2 else leaves[1])
    b = theirs(others[0], tuple(others[1:]) if len(hx) == 2 else others[1])
    a, b = (a, b) if isinstance(a, tuple) else ((a,), (b,))
    for i, (s, t) in enumerate(zip(a, b, strict=True)):
        close(s.data, t, dtype)
        (s * s * (i + 1)).sum().backward(retain_graph=True)
        (t * t * (i + 1)).sum().backward(retain_graph=True)
    grads = [*(v.grad for v in leaves), *(p.grad for p in ours.parameters())]
    for g, t in zip(grads, [*(v.grad for v in others), *(p.grad for p in theirs.parameters())], strict=True):
        close(g, t, dtype)


def test_a_packed_sequence_is_refused_by_name():
    packed = torch.nn.utils.rnn.pack_sequence([torch.zeros(3, 2), torch.zeros(1, 2)])
    with pytest.raises(TypeError, match="LSTM: expected input to be an array or Tensor, got a PackedSequence"):
        nn.LSTM(2, 3)(packed)
