"""A ReLU's gradient that the engine leaves to the operation in front: the same bits, and nobody can tell."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import functional as F
from nnx.autograd import engine
from nnx.backends import backend_of

SMALL = [(4, 5, 6, 7), (3, 16, 4, 4), (9, 3), (2, 40, 5)]
LARGE = [(130, 64, 3, 3), (6000, 3), (20, 30, 40)]  # batch norm is computed together with the ReLU
both_sizes = pytest.mark.parametrize("shape", [SMALL[0], LARGE[0]], ids=str)


def operands(shape, dtype, special=False):
    rng = np.random.default_rng(0)
    x, gy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    w, b = (rng.standard_normal(shape[1]).astype(dtype) for _ in range(2))
    if special:
        x[::3, 0] = np.nan
        y = F.batch_norm(x, None, None, w, b, training=True).data
        gy[:, 1][y[:, 1] < 0] = np.inf  # where it counts nothing
        gy[::2, 2] = np.inf
    return [nnx.Tensor(a, requires_grad=True) for a in (x, w, b)], gy


def normalised(leaves, training=True):
    """Of the result of an operation, which nobody writes to; of a leaf it would not be left for later."""
    x, w, b = leaves
    mean, var = np.zeros(w.shape, w.dtype), np.ones(w.shape, w.dtype)
    return F.batch_norm(nnx.cat([x]), mean, var, w, b, training=training)


def bits(a):
    """The bytes of an array; which sign a NaN has depends on the order of operands in the compiled code."""
    return np.where(np.isnan(a), a.dtype.type(np.nan), a).tobytes()


def gradients(leaves):
    return [bits(leaf.grad) for leaf in leaves]


@pytest.fixture
def calls(monkeypatch):
    """How often a ReLU's gradient was computed by itself."""
    seen = []
    home = type(backend_of(np.ones(1)))
    original = home.relu_backward
    monkeypatch.setattr(home, "relu_backward", lambda self, gy, y: seen.append(1) or original(self, gy, y))
    return seen


def one_by_one(function, leaves, gy, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_behind", {})
        function(leaves).backward(gy)
    result = gradients(leaves)
    for leaf in leaves:
        leaf.grad = None
    return result


@pytest.mark.parametrize("shape", SMALL + LARGE, ids=str)
@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("special", (False, True), ids=("finite", "special"))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_same_bits_as_one_by_one(shape, dtype, special, monkeypatch, calls):
    leaves, gy = operands(shape, dtype, special)
    expected = one_by_one(lambda t: F.relu(normalised(t)), leaves, gy, monkeypatch)
    assert len(calls) == 1, "the comparison computes the ReLU's gradient by itself"
    calls.clear()
    F.relu(normalised(leaves)).backward(gy)
    assert gradients(leaves) == expected
    if shape in LARGE:
        assert not calls, "batch norm did both"


@both_sizes
def test_some_gradients_only(shape, monkeypatch):
    for kept in range(3):
        leaves, gy = operands(shape, np.float32)
        expected = one_by_one(lambda t: F.relu(normalised(t)), leaves, gy, monkeypatch)
        for i, leaf in enumerate(leaves):
            leaf.requires_grad = i == kept
        F.relu(normalised(leaves)).backward(gy)
        assert bits(leaves[kept].grad) == expected[kept]
        assert all(leaf.grad is None for i, leaf in enumerate(leaves) if i != kept)


@both_sizes
@pytest.mark.parametrize(
    "function",
    [
        lambda y: F.relu(y) + y,  # the other branch reaches batch norm before the ReLU does
        lambda y: y * 2 + F.relu(y),  # and behind it
        lambda y: F.relu(y) + F.relu(y) * 3,
        lambda y: F.relu(F.relu(y)),
        lambda y: F.relu(y).sum() + F.sigmoid(y).sum(),
    ],
)
def test_other_branches(function, shape, monkeypatch):
    leaves, _ = operands(shape, np.float32)

    def whole(t):
        return function(normalised(t)).sum()

    expected = one_by_one(whole, leaves, None, monkeypatch)
    whole(leaves).backward()
    # two contributions may be added in another order of operations, but of the same numbers
    assert gradients(leaves) == expected


@both_sizes
def test_retained_gradients_are_there(shape, monkeypatch):
    leaves, gy = operands(shape, np.float32)
    expected = one_by_one(lambda t: F.relu(normalised(t)), leaves, gy, monkeypatch)
    y = normalised(leaves)
    y.retain_grad()
    z = F.relu(y)
    z.backward(gy)
    np.testing.assert_array_equal(y.grad, np.where(z.data > 0, gy, 0))
    assert gradients(leaves) == expected


@both_sizes
def test_a_second_backward(shape):
    leaves, gy = operands(shape, np.float32)
    z = F.relu(normalised(leaves))
    z.backward(gy, retain_graph=True)
    once = [leaf.grad.copy() for leaf in leaves]
    z.backward(gy)
    for leaf, g in zip(leaves, once, strict=True):
        np.testing.assert_array_equal(leaf.grad, 2 * g)
    with pytest.raises(RuntimeError, match="expected a graph that was not used yet"):
        z.backward(gy)


def test_gradients_are_right():
    rng = np.random.default_rng(1)
    arrays = (rng.standard_normal((5, 3, 4)), rng.uniform(0.5, 2, 3), rng.standard_normal(3))
    nnx.testing.gradcheck(lambda x, w, b: F.relu(F.batch_norm(x, None, None, w, b, training=True)), arrays)


@both_sizes
def test_in_evaluation_mode(shape, monkeypatch):
    leaves, gy = operands(shape, np.float32)
    expected = one_by_one(lambda t: F.relu(normalised(t, False)), leaves, gy, monkeypatch)
    F.relu(normalised(leaves, False)).backward(gy)
    assert gradients(leaves) == expected
