"""Random graphs, run through nnx and through PyTorch, give the same values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnx
from nnx.autograd import Tensor

torch = pytest.importorskip("torch")

# each step takes two of the (3, 4) arrays made so far and makes another
STEPS = [
    lambda m, a, b: a + b,
    lambda m, a, b: a * b,
    lambda m, a, b: a - 2 * b,
    lambda m, a, b: m.tanh(a) + a,
    lambda m, a, b: a / (1 + b * b),
    lambda m, a, b: m.maximum(a, b),
    lambda m, a, b: m.relu(a) - b.sum(),
    lambda m, a, b: a @ b.T @ a * 0.1,
    lambda m, a, b: m.cat([a[:1], b[1:]]),
    lambda m, a, b: m.stack([a, b]).mean(0),
    lambda m, a, b: a * b.sum(1, True),
    lambda m, a, b: a[[2, 2, 0]] * b[:, [1, 0, 0, 3]],
    lambda m, a, b: a.reshape(4, 3).T.reshape(3, 4) + b,
    lambda m, a, b: a - a.amax(1, True) + m.logsumexp(b, 0),
    lambda m, a, b: m.where(a > b, a, b * b * 0.1),
    lambda m, a, b: m.cat([p * k for k, p in enumerate(a.split(1, 1))], 1) + b,
]

programs = st.lists(
    st.tuples(st.integers(0, len(STEPS) - 1), st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=12
)


def run(module, leaves, program):
    made = list(leaves)
    for step, i, j in program:
        made.append(m_scaled(STEPS[step](module, made[i % len(made)], made[j % len(made)])))
    return sum((v * (k + 1) for k, v in enumerate(made)), start=made[0] * 0).sum()


def m_scaled(y):
    """Hold values near 1, so that long products do not overflow."""
    return y / (1 + abs(y))


@given(programs, st.integers(0, 2**32 - 1))
def test_random_graphs(program, seed):
    values = [np.random.default_rng(seed).standard_normal((3, 4)) for _ in range(2)]
    ours = [Tensor(v, requires_grad=True) for v in values]
    theirs = [torch.tensor(v, requires_grad=True) for v in values]
    y, t = run(nnx, ours, program), run(torch, theirs, program)
    y.backward()
    t.backward()
    np.testing.assert_allclose(y.item(), t.item(), rtol=1e-10, atol=1e-10)
    for a, b in zip(ours, theirs, strict=True):
        grad = np.zeros((3, 4)) if b.grad is None else b.grad.numpy()
        np.testing.assert_allclose(a.grad, grad, rtol=1e-9, atol=1e-9)


def test_retained_gradients():
    a, t = Tensor(np.array([1.0, 2.0]), requires_grad=True), torch.tensor([1.0, 2.0], requires_grad=True)
    b, u = a * 3, t * 3
    b.retain_grad()
    u.retain_grad()
    (b * b + b).sum().backward()
    (u * u + u).sum().backward()
    np.testing.assert_allclose(b.grad, u.grad.numpy())
    np.testing.assert_allclose(a.grad, t.grad.numpy())
