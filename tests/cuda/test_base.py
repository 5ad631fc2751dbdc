"""The base backend itself over the stand-in: what runs where a kernel is missing needs no NumPy array on the way."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnx.backends.base import Backend
from nnx.backends.base.recurrent import GATES

BASE = Backend()


@pytest.fixture
def be(cuda):
    return type("Plain", (Backend,), {"xp": cuda})()


def same(cuda, be, name, *args, **kwargs):
    """The method's results on the device, after a comparison with those on the CPU."""

    def there(value):
        if isinstance(value, np.ndarray):
            return cuda.asarray(value)
        return [there(v) for v in value] if isinstance(value, list) else value

    def compare(a, e):
        if isinstance(e, (tuple, list)):
            for x, y in zip(a, e, strict=True):
                compare(x, y)
        elif isinstance(e, (np.ndarray, np.generic)):
            assert a.dtype == e.dtype and a.shape == e.shape
            np.testing.assert_allclose(a.get(), e, 1e-12, 1e-12)
        else:
            assert a == e or (type(e) is float and a == pytest.approx(e))

    device = [there(a) for a in args]
    expected = getattr(BASE, name)(*args, **kwargs)
    result = getattr(be, name)(*device, **kwargs)
    compare(result, expected)
    compare(device, list(args))  # what is updated in place
    return expected


def test_losses(cuda, be, rng):
    x, t, gy = (rng.uniform(0.1, 0.9, (5, 3)) for _ in range(3))
    t[0, 0] = 0
    weight, both = rng.uniform(0.5, 2, 3), (True, True)
    for name, more, last in (
        ("squared_error", (), ()),
        ("absolute_error", (), ()),
        ("huber", (0.2,), ()),
        ("bce", (), (both,)),
        ("bce_with_logits", (None,), (both,)),
        ("bce_with_logits", (weight,), (both,)),
        ("kl", (False,), (both,)),
        ("kl", (True,), (both,)),
        ("soft_cross_entropy", (1,), (both,)),
    ):
        loss = same(cuda, be, name, x, t, *more)
        for g in (np.asarray(0.5), gy if loss.ndim == 2 else gy[:, 0]):
            same(cuda, be, f"{name}_backward", g, x, t, *more, *last)


def test_losses_of_rows(cuda, be, rng):
    for x in (rng.standard_normal((5, 3)), np.zeros((0, 3))):
        labels = rng.integers(-1, 3, len(x))
        for gy in (rng.standard_normal(len(x)), np.ones(1)):
            _, top, total = same(cuda, be, "softmax_cross_entropy", x, labels, 0.1)
            same(cuda, be, "softmax_cross_entropy_backward", gy, x, labels, 0.1, top, total)
            same(cuda, be, "nll", x, labels)
            if len(gy) == len(x):
                same(cuda, be, "nll_backward", gy, labels, x.shape)
            for p in (1, 2):
                same(cuda, be, "multiclass_hinge", x, labels, p, 0.5)
                same(cuda, be, "multiclass_hinge_backward", gy, x, labels, p, 0.5)
    same(cuda, be, "class_labels", np.array([0, 5, -1, 7]), 5, 7)
    same(cuda, be, "labelled_mean", rng.standard_normal(4), np.array([0, 1, -1, 2]))


def test_optimizers(cuda, be, rng):
    def arrays(count):
        return [[rng.uniform(0.5, 1, s) for s in ((3, 2), ())] for _ in range(count)]

    same(cuda, be, "sgd_step", *arrays(3), False, 0.1, 0.9, 0.1, 0.1, False, True)
    same(cuda, be, "adagrad_step", *arrays(3), 3, 0.1, 0.2, 1e-3, 0.3, True)
    same(cuda, be, "adadelta_step", *arrays(4), 0.1, 0.7, 1e-3, 0.3, True)
    same(cuda, be, "rmsprop_step", *arrays(5), 0.1, 0.9, 1e-3, 0.3, 0.5, False)
    same(cuda, be, "adam_step", *arrays(5), 7, 0.1, 0.8, 0.9, 1e-3, 0.3, True, True, False)
    for order in (1, 2, 3.5, math.inf):
        same(cuda, be, "total_norm", arrays(1)[0], order)
    same(cuda, be, "clip_norm", arrays(1)[0], arrays(1)[0], 0.5, 2)
    same(cuda, be, "scale", arrays(1)[0], 0.5)
    same(cuda, be, "clamp", arrays(1)[0], 0.6, 0.8)
    assert not be.is_capturing() and be.when_replayed(print) is None


def test_dropout_embedding_and_neighbours(cuda, be, rng):
    x, keep = rng.standard_normal((4, 3)), rng.random((4, 3)) < 0.5
    same(cuda, be, "dropout", x, keep, 1.5)
    same(cuda, be, "dropout_backward", x, keep[:, :1], 1.5)
    index = rng.integers(0, 4, (5, 2))
    same(cuda, be, "take", x, index)
    same(cuda, be, "embedding_backward", rng.standard_normal((5, 2, 3)), index, 4)
    same(cuda, be, "index_counts", index, 6)
    points = rng.integers(0, 9, (7, 3)).astype(float)
    points[2, 1] = np.nan
    for p in (1, 2):
        same(cuda, be, "nearest", x, points, 3, p)
        same(cuda, be, "nearest", points[:2].astype(np.uint8), points[3:].astype(np.uint8), 2, p)


@pytest.mark.parametrize(("mode", "proj"), [("RNN_TANH", 0), ("RNN_RELU", 0), ("GRU", 0), ("LSTM", 0), ("LSTM", 2)])
def test_recurrent_layers(cuda, be, mode, proj, rng):
    steps, batch, features, hidden = 3, 2, 4, 5
    width, rows = proj or hidden, GATES[mode] * hidden
    shapes = [
        (steps, batch, features),
        (batch, width + (hidden if mode == "LSTM" else 0)),
        (rows, features),
        (rows, width),
    ]
    x, state, w_ih, w_hh, b_ih, b_hh = (rng.standard_normal(s) for s in [*shapes, rows, rows])
    w_hr = rng.standard_normal((proj, hidden)) if proj else None
    for lengths, reverse in ((None, False), (np.array([3, 1]), True)):
        states, gates = same(cuda, be, "recurrent", mode, x, state, w_ih, w_hh, b_ih, b_hh, w_hr, lengths, reverse)
        gs, needs = rng.standard_normal(states.shape), (True,) * 6 + (w_hr is not None,)
        args = (mode, gs, x, states, gates, w_ih, w_hh, w_hr, lengths, reverse, needs)
        same(cuda, be, "recurrent_backward", *args)
