"""Sequences of several lengths against PyTorch's packed sequences."""

from __future__ import annotations

import numpy as np
import pytest

import nnx.functional as F
from nnx.autograd import Tensor

torch = pytest.importorskip("torch")
GATES = {"rnn_tanh": 1, "gru": 3, "lstm": 4}


@pytest.mark.parametrize(("name", "proj"), [("rnn_tanh", 0), ("gru", 0), ("lstm", 0), ("lstm", 2)])
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_lengths(name, proj, rng):
    """Two layers in both directions, with first states, outputs padded with 0."""
    lengths, hidden = np.array([3, 6, 1, 4]), 3
    width, rows = proj or hidden, GATES[name] * hidden
    shapes = []
    for layer in range(2):
        one = [(rows, 2 * width if layer else 2), (rows, width), (rows,), (rows,)] + [(width, hidden)] * bool(proj)
        shapes += one * 2
    values = [rng.standard_normal(s) * 0.6 for s in shapes]
    states = [rng.standard_normal((4, 4, width))] + [rng.standard_normal((4, 4, hidden))] * (name == "lstm")
    x = rng.standard_normal((6, 4, 2))
    ours = [Tensor(v, requires_grad=True) for v in (x, *states, *values)]
    theirs = [torch.tensor(v, requires_grad=True) for v in (x, *states, *values)]
    n = 1 + len(states)

    def hx(leaves):
        return tuple(leaves[1:n]) if name == "lstm" else leaves[1]

    y, *last = getattr(F, name)(ours[0], hx(ours), ours[n:], True, 2, 0.0, False, True, False, lengths=lengths)
    packed = torch.nn.utils.rnn.pack_padded_sequence(theirs[0], torch.from_numpy(lengths), enforce_sorted=False)
    order = packed.sorted_indices
    first = [s[:, order] for s in (theirs[1:n])]
    out, *ends = getattr(torch, name)(
        packed.data,
        packed.batch_sizes,
        tuple(first) if name == "lstm" else first[0],
        theirs[n:],
        True,
        2,
        0.0,
        False,
        True,
    )
    packed = torch.nn.utils.rnn.PackedSequence(out, packed.batch_sizes, order, packed.unsorted_indices)
    t, _ = torch.nn.utils.rnn.pad_packed_sequence(packed)
    ends = [e[:, packed.unsorted_indices] for e in ends]
    np.testing.assert_allclose(y.data, t.detach().numpy(), rtol=0, atol=1e-13)
    for a, b in zip(last, ends, strict=True):
        np.testing.assert_allclose(a.data, b.detach().numpy(), rtol=0, atol=1e-13)
    ((y * y).sum() + sum((s * s * s).sum() for s in last)).backward()
    ((t * t).sum() + sum((s * s * s).sum() for s in ends)).backward()
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=0, atol=1e-12)
