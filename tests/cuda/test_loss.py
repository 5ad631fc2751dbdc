"""The kernels of losses, run by the emulator, against the base backend; labels and their devices."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import functional as F
from nnx.backends.base import Backend

BASE = Backend()
DTYPES = (np.float32, np.float64)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
# nothing, one, a tail behind a block of 256, and more dimensions
SHAPES = [(0, 3), (1,), (257,), (3, 5, 7)]
ROWS = [(1, 1), (3, 2), (5, 10), (257, 3), (2, 33), (3, 1025)]


@pytest.fixture
def be(cuda):
    from nnx.backends.cuda import CUDABackend

    return CUDABackend()


def close(actual, expected):
    """A few roundings of numbers that may be a hundred times as large as their sum."""
    tolerance = 2e-5 if expected.dtype == np.float32 else 1e-12
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual.get(), expected, tolerance, tolerance)


def layouts(cuda, a):
    """The array on the device as it is, with its axes turned in memory, and with holes between the numbers."""
    yield cuda.asarray(a)
    yield cuda.asarray(np.ascontiguousarray(a.T)).T
    wide = cuda.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = cuda.asarray(a)
    yield wide[..., ::2]


ELEMENTWISE = [
    ("squared_error", (), "any"),
    ("absolute_error", (), "any"),
    ("huber", (0.7,), "any"),
    ("bce", (), "probabilities"),
    ("bce_with_logits", (None,), "targets"),
    ("kl", (False,), "targets"),
    ("kl", (True,), "any"),
]


@pytest.mark.parametrize(("name", "more", "kind"), ELEMENTWISE, ids=lambda v: str(v))
@each_dtype
def test_elements(cuda, be, name, more, kind, dtype, rng):
    for shape in SHAPES:
        x, t = rng.standard_normal(shape), rng.standard_normal(shape)
        if kind != "any":
            t = rng.uniform(0, 1, shape).round(1)
        if kind == "probabilities":
            x = rng.uniform(0, 1, shape).round(1)
        elif x.size > 100:
            x.flat[:5] = np.nan, np.inf, -np.inf, 0.0, 200.0
            t.flat[3] = 0
        x, t = x.astype(dtype), t.astype(dtype)
        expected = getattr(BASE, name)(x, t, *more)
        both = name in ("bce", "bce_with_logits", "kl")
        for xd, td in zip(layouts(cuda, x), reversed(list(layouts(cuda, t))), strict=True):
            close(getattr(be, name)(xd, td, *more), expected)
            for gy in (np.asarray(0.5, dtype), rng.standard_normal(shape).astype(dtype)):
                last = ((True, True),) if both else ()
                arguments = (*more, *last)
                ours = getattr(be, f"{name}_backward")(cuda.asarray(gy), xd, td, *arguments)
                theirs = getattr(BASE, f"{name}_backward")(gy, x, t, *arguments)
                for a, e in zip(ours, theirs, strict=True) if both else [(ours, theirs)]:
                    close(a, np.broadcast_to(e, shape))


def test_what_is_not_needed_is_not_computed(cuda, be):
    x = cuda.asarray(np.array([0.2, 0.3], np.float32))
    gy = cuda.asarray(np.float32(1))
    for name, more in (("bce", ()), ("bce_with_logits", (None,)), ("kl", (False,))):
        gx, gt = getattr(be, f"{name}_backward")(gy, x, x, *more, (False, True))
        assert gx is None and gt is not None
        gx, gt = getattr(be, f"{name}_backward")(gy, x, x, *more, (True, False))
        assert gx is not None and gt is None


@each_dtype
def test_weights_of_positives(cuda, be, dtype, rng):
    x, t = rng.standard_normal((5, 3)).astype(dtype), rng.uniform(0, 1, (5, 3)).astype(dtype)
    weight = rng.uniform(0.1, 3, 3).astype(dtype)
    gy = rng.standard_normal((5, 3)).astype(dtype)
    for xd in layouts(cuda, x):
        td, wd = cuda.asarray(t), cuda.asarray(weight)
        close(be.bce_with_logits(xd, td, wd), BASE.bce_with_logits(x, t, weight))
        ours = be.bce_with_logits_backward(cuda.asarray(gy), xd, td, wd, (True, True))
        for a, e in zip(ours, BASE.bce_with_logits_backward(gy, x, t, weight, (True, True)), strict=True):
            close(a, e)


def scores(shape, dtype, rng):
    x = rng.standard_normal(shape).astype(dtype)
    if len(x) == 257:
        x[3] = np.nan
        x[4, 0] = -np.inf
        x[5, 1] = np.inf
        x[6] = 1000
    labels = rng.integers(-1, shape[1], shape[0])
    return x, labels


@pytest.mark.parametrize("shape", ROWS, ids=str)
@each_dtype
def test_rows(cuda, be, shape, dtype, rng):
    x, labels = scores(shape, dtype, rng)
    ld = cuda.asarray(labels)
    rows = rng.standard_normal(shape[0]).astype(dtype)
    for xd in layouts(cuda, x):
        for smoothing in (0.0, 0.3):
            ours = be.softmax_cross_entropy(xd, ld, smoothing)
            theirs = BASE.softmax_cross_entropy(x, labels, smoothing)
            for a, e in zip(ours, theirs, strict=True):
                close(a, e)
            for gy in (rows, rows[:1]):
                got = be.softmax_cross_entropy_backward(cuda.asarray(gy), xd, ld, smoothing, *ours[1:])
                close(got, BASE.softmax_cross_entropy_backward(gy, x, labels, smoothing, *theirs[1:]))
        close(be.nll(xd, ld), BASE.nll(x, labels))
        for p in (1, 2):
            close(be.multiclass_hinge(xd, ld, p, 0.7), BASE.multiclass_hinge(x, labels, p, 0.7))
            for gy in (rows, rows[:1]):
                got = be.multiclass_hinge_backward(cuda.asarray(gy), xd, ld, p, 0.7)
                close(got, BASE.multiclass_hinge_backward(gy, x, labels, p, 0.7))
    for gy in (rows, rows[:1]):
        close(be.nll_backward(cuda.asarray(gy), ld, shape), BASE.nll_backward(gy, labels, shape))


def test_more_rows_than_groups(cuda, be, monkeypatch, rng):
    """As for more than a million rows: every group of threads takes several."""
    from nnx.backends.cuda import loss

    monkeypatch.setattr(loss, "blocks_for", lambda n: 1)
    for shape in ((600, 3), (9, 300)):
        test_rows(cuda, be, shape, np.float32, rng)
    test_elements(cuda, be, "squared_error", (), "any", np.float32, rng)


def test_rows_of_nothing(cuda, be):
    x, labels = cuda.zeros((0, 4), np.float32), cuda.zeros(0, np.int64)
    assert [a.shape for a in be.softmax_cross_entropy(x, labels, 0.0)] == [(0,)] * 3
    assert be.nll(x, labels).shape == be.multiclass_hinge(x, labels, 1, 1.0).shape == (0,)
    gy = cuda.zeros(0, np.float32)
    assert (
        be.nll_backward(gy, labels, (0, 4)).shape == be.multiclass_hinge_backward(gy, x, labels, 1, 1.0).shape == (0, 4)
    )


@pytest.mark.parametrize("rows", [1, 257, 5000])
@each_dtype
def test_means_of_rows(cuda, be, rows, dtype, monkeypatch, rng):
    from nnx.backends.cuda import loss

    losses, labels = rng.standard_normal(rows).astype(dtype), rng.integers(-1, 2, rows)
    losses[labels < 0] = 0
    labels[0] = 0
    for chunk in (8192, 1000, 256):
        monkeypatch.setattr(loss, "_CHUNK", chunk)
        for a, e in zip(
            be.labelled_mean(cuda.asarray(losses), cuda.asarray(labels)),
            BASE.labelled_mean(losses, labels),
            strict=True,
        ):
            assert a.dtype == dtype and a.get() == pytest.approx(
                e, rel=1e-5 if dtype == np.float32 else 1e-12, abs=1e-6
            )
    ignored = be.labelled_mean(cuda.zeros(3, dtype), cuda.asarray(np.full(3, -1)))
    assert np.isnan(ignored[0].get()) and ignored[1].get() == 0


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_labels_are_sorted_out(cuda, be, dtype):
    labels = np.array([0, 3, 4, 100, 2], dtype)
    for ignored in (None, 100):
        got = be.class_labels(cuda.asarray(labels), 4, ignored)
        assert got.get().tolist() == [0, 3, 4, 4 if ignored is None else -1, 2]
        assert BASE.class_labels(labels, 4, ignored).tolist() == got.get().tolist()
    assert be.class_labels(cuda.asarray(np.array([-1, -100])), 4, -100).get().tolist() == [4, -1]


@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss, F.multiclass_hinge_loss])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_label_out_of_range_gives_nan(cuda, loss, weighted, rng):
    x = nnx.Tensor(cuda.asarray(rng.standard_normal((4, 3)).astype(np.float32)), requires_grad=True)
    weight = cuda.asarray(np.ones(3, np.float32)) if weighted else None
    y = loss(x, cuda.asarray(np.array([0, 3, 2, -7])), weight=weight, reduction="none")
    assert np.isnan(y.numpy()).tolist() == [False, True, False, True]
    y.sum().backward()
    assert np.isnan(x.grad.get()).all(axis=1).tolist() == [False, True, False, True]


def test_a_label_out_of_range_gives_nan_with_weights_and_smoothing(cuda, rng):
    x = cuda.asarray(rng.standard_normal((3, 3)).astype(np.float32))
    weight = cuda.asarray(np.array([1, 2, 3], np.float32))
    y = F.cross_entropy(x, cuda.asarray(np.array([0, 3, -100])), weight, reduction="none", label_smoothing=0.1)
    assert np.isnan(y.numpy()).tolist() == [False, True, False] and y.numpy()[2] == 0


def test_labels_on_the_other_device_are_refused(cuda, rng):
    x, labels = rng.standard_normal((4, 3)).astype(np.float32), np.array([0, 1, 2, 0])
    with pytest.raises(ValueError, match=r"cross_entropy: expected target on cuda:0 like input, got it on cpu\. Move"):
        F.cross_entropy(cuda.asarray(x), labels)
    with pytest.raises(ValueError, match="nll_loss: expected target on cpu like input, got it on cuda:0"):
        F.nll_loss(x, cuda.asarray(labels))
    with pytest.raises(ValueError, match="cross_entropy: expected weight on cuda:0 like input, got it on cpu"):
        F.cross_entropy(cuda.asarray(x), cuda.asarray(labels), np.ones(3))
    with pytest.raises(ValueError, match="mse_loss: expected target on cuda:0 like input, got it on cpu"):
        F.mse_loss(cuda.asarray(x), x)
    with pytest.raises(ValueError, match="l1_penalty: expected weights number 1 on cuda:0 like weights number 0"):
        F.l1_penalty([cuda.asarray(x), x])


def test_lists_have_no_device(cuda, rng):
    x = rng.standard_normal((2, 3)).astype(np.float32)
    for got, expected in (
        (F.cross_entropy(cuda.asarray(x), [0, 2], [1.0, 2.0, 3.0]), F.cross_entropy(x, [0, 2], [1.0, 2.0, 3.0])),
        (F.mse_loss(cuda.asarray(x[0]), [1.0, 2.0, 3.0]), F.mse_loss(x[0], [1.0, 2.0, 3.0])),
    ):
        assert got.device == "cuda:0"
        np.testing.assert_allclose(got.numpy(), expected.numpy(), 1e-5)


def test_penalties(cuda, rng):
    arrays = [rng.standard_normal(s).astype(np.float32) for s in ((4, 3), (5,))]
    there = [nnx.Tensor(cuda.asarray(a), requires_grad=True) for a in arrays]
    here = [nnx.Tensor(a, requires_grad=True) for a in arrays]
    for tensors in (there, here):
        (F.elastic_net_penalty(tensors, 0.3, 0.5) + F.l1_penalty(tensors[0]) + F.l2_penalty(tensors[1])).backward()
    for a, b in zip(there, here, strict=True):
        np.testing.assert_allclose(a.grad.get(), b.grad, 1e-5)


def test_one_launch_forward_and_one_backward(cuda, be, monkeypatch, rng):
    from nnx.backends.cuda._kernels import Kernels

    launches = []
    launch = Kernels.launch
    monkeypatch.setattr(Kernels, "launch", lambda self, name, *rest: (launches.append(name), launch(self, name, *rest)))
    x, labels = cuda.asarray(rng.standard_normal((4, 3)).astype(np.float32)), cuda.asarray(np.array([0, 1, 2, 0]))
    _, top, total = be.softmax_cross_entropy(x, labels, 0.1)
    be.softmax_cross_entropy_backward(cuda.ones(1, np.float32), x, labels, 0.1, top, total)
    assert launches == ["softmax_cross_entropy", "softmax_cross_entropy_backward"]
