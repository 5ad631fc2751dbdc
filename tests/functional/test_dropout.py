"""Dropout: statistics, determinism, layouts, errors. Gradients: tests/test_cases.py."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nnx
import nnx.functional as F
from nnx.testing import base_backend

ALL = {"dropout": (40, 30), "dropout1d": (40, 30, 2), "dropout2d": (40, 30, 2, 2),
       "dropout3d": (40, 30, 2, 2, 2), "alpha_dropout": (40, 30)}  # fmt: skip


def generator(seed=0):
    return np.random.default_rng(seed)


def call(name, x, p=0.5, training=True, **options):
    return getattr(F, name)(x, p, training, **options)


# -- statistics ------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.1, 0.5, 0.77])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kept_elements_are_scaled_up_and_the_mean_stays(p, dtype):
    n = 1_000_000
    y = F.dropout(np.ones(n, dtype), p, generator=generator()).data
    kept = y != 0
    np.testing.assert_allclose(y[kept], 1 / (1 - p), rtol=1e-6)
    # five standard deviations of a binomial distribution: one failure in two million seeds
    assert abs(kept.mean() - (1 - p)) < 5 * math.sqrt(p * (1 - p) / n)
    assert abs(y.mean() - 1) < 5 * math.sqrt(p / (1 - p) / n)


def test_elements_are_dropped_independently():
    """Neighbours share the random word that they come from, but no bits of it."""
    n = 1_000_000
    kept = F.dropout(np.ones(n), 0.5, generator=generator()).data != 0
    for lag in (1, 2, 3, 64):
        both = (kept[:-lag] & kept[lag:]).mean()
        assert abs(both - 0.25) < 5 * math.sqrt(3 / 16 / (n - lag)) * 2


@pytest.mark.parametrize("name", ["dropout1d", "dropout2d", "dropout3d"])
def test_whole_channels_are_dropped(name):
    x = np.ones(ALL[name])
    for batch in (x, x[0]):
        y = call(name, batch, 0.3, generator=generator()).data
        maps = y.reshape(*batch.shape[: -int(name[-2])], -1)
        assert ((maps == 0).all(-1) | (np.abs(maps - 1 / 0.7) < 1e-12).all(-1)).all()
        assert 0 < (maps[..., 0] == 0).mean() < 1
    assert (call(name, x, 0.3, generator=generator()).data != 0).any(axis=tuple(range(2, x.ndim))).std() > 0


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_alpha_dropout_keeps_mean_and_variance(p):
    """Of standard normal numbers: mean 0 and variance 1, to five standard deviations and more."""
    x = generator(1).standard_normal(1_000_000)
    y = F.alpha_dropout(x, p, training=True, generator=generator()).data
    assert abs(y.mean()) < 0.01 and abs(y.var() - 1) < 0.01
    values, counts = np.unique(y, return_counts=True)
    assert abs(counts.max() / len(y) - p) < 0.005  # all dropped elements have one value


def test_expectation_of_plain_dropout():
    """The average over all four masks of two inputs is half their weighted sum."""
    w, x = np.array([0.3, -0.7]), np.array([2.0, 5.0])
    total = sum((w * x * [i, j]).sum() for i in (0, 1) for j in (0, 1)) / 4
    assert math.isclose(total, 0.5 * (w * x).sum())
    y = [F.dropout(x, 0.5, generator=generator(i)).data for i in range(4000)]
    assert abs((np.array(y) @ w).mean() - (w * x).sum()) < 0.35  # 5 standard deviations


# -- the ends --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_nothing_happens_in_evaluation_or_with_p_0(name):
    x = nnx.Tensor(generator().standard_normal(ALL[name]), requires_grad=True)
    before = nnx._random.get_state()
    assert call(name, x, 0.5, training=False) is x
    assert call(name, x, 0.0) is x
    assert nnx._random.get_state() == before, "random numbers were used up"


@pytest.mark.parametrize("name", ALL)
def test_p_1_drops_everything(name):
    x = nnx.Tensor(generator().standard_normal(ALL[name]), requires_grad=True)
    y = call(name, x, 1.0)
    y.backward(np.ones_like(x.data))
    assert not y.data.any() and not x.grad.any()


def test_p_near_the_ends():
    x = np.ones(10_000, np.float32)
    assert (F.dropout(x, 1e-12, generator=generator()).data == 1).all()
    assert (F.dropout(x, 1 - 1e-12, generator=generator()).data == 0).all()


@pytest.mark.parametrize("base", [False, True])
def test_what_is_dropped_is_0_whatever_it_was(base):
    x = np.array([math.nan, math.inf, -math.inf, 1.0] * 100)
    with base_backend() if base else nnx.no_grad():
        y = F.dropout(x, 0.5, generator=generator()).data
        zeros = F.dropout(np.ones(400), 0.5, generator=generator()).data == 0
    assert (y[zeros] == 0).all() and np.isnan(y[::4][~zeros[::4]]).all()


def test_default_arguments():
    """As PyTorch's: dropout is on, alpha dropout is off unless it is told to train."""
    x = np.ones(1000)
    assert 400 < (F.dropout(x).data == 0).sum() < 600
    assert F.alpha_dropout(x).data is x


# -- determinism -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_same_generator_same_mask(name):
    x = generator(1).standard_normal(ALL[name])
    y = call(name, x, generator=generator(3)).data
    np.testing.assert_array_equal(call(name, x, generator=generator(3)).data, y)
    assert (call(name, x, generator=generator(4)).data != y).any()
    nnx.manual_seed(3)
    np.testing.assert_array_equal(call(name, x).data, y)  # the library's own stream
    assert (call(name, x).data != y).any(), "the stream did not move on"


def test_numpy_global_state_is_left_alone():
    before = np.random.get_state()[1].copy()
    F.dropout(np.ones(100))
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mask_depends_on_the_shape_alone(dtype):
    """Not on the type, the memory layout, the backend or the number of threads."""
    x = generator(1).standard_normal((4, 5, 6, 7))
    expected = F.dropout(x, 0.4, generator=generator()).data == 0
    layouts = [
        x.astype(dtype),
        np.asfortranarray(x),
        x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2),
        np.repeat(x, 2, axis=3)[..., ::2],
        x[::-1].copy()[::-1],
    ]
    for layout in layouts:
        for threads in (1, 2):
            nnx.set_num_threads(threads)
            y = F.dropout(layout, 0.4, generator=generator()).data
            np.testing.assert_array_equal(y == 0, expected)
        with base_backend():
            y = F.dropout(layout, 0.4, generator=generator()).data
        np.testing.assert_array_equal(y == 0, expected)


def test_gradient_uses_the_mask_of_the_forward_pass():
    x = nnx.Tensor(generator(1).standard_normal((6, 7)), requires_grad=True)
    y = F.dropout(x, 0.4)
    y.backward(np.ones((6, 7)))
    np.testing.assert_allclose(x.grad, np.where(y.data == 0, 0, 1 / 0.6), rtol=1e-12)


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_input_is_never_changed(name):
    x = generator(1).standard_normal(ALL[name])
    x.flags.writeable = False
    y = call(name, x, inplace=True)
    assert not np.shares_memory(y.data, x)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,), ()])
def test_empty_and_single_numbers(shape):
    assert F.dropout(np.ones(shape)).shape == shape
    assert F.alpha_dropout(np.ones(shape), training=True).shape == shape


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"p": 1.5}, ValueError, r"expected p to be a number in \[0, 1\], got 1.5"),
        ({"p": -0.1}, ValueError, r"expected p to be a number in \[0, 1\], got -0.1"),
        ({"p": math.nan}, ValueError, "expected p to be a number in"),
        ({"p": "half"}, TypeError, "expected p to be a number in .*, got 'half'"),
        ({"x": nnx.Tensor(np.ones((3, 3), int))}, TypeError, "got a Tensor of dtype int64. Convert it"),
        ({"generator": np.random.RandomState(0)}, TypeError,
         "expected a numpy.random.Generator, got RandomState"),
    ],
)  # fmt: skip
def test_errors(name, change, error, message):
    arguments = {"x": np.ones(ALL[name]), **change}
    with pytest.raises(error, match=message):
        call(name, **arguments)


@pytest.mark.parametrize(
    ("name", "shape", "form"),
    [
        ("dropout1d", (3,), r"\(N, C, L\) or \(C, L\)"),
        ("dropout1d", (3, 4, 5, 6), r"\(N, C, L\) or \(C, L\)"),
        ("dropout2d", (3, 4), r"\(N, C, H, W\) or \(C, H, W\)"),
        ("dropout3d", (3, 4, 5), r"\(N, C, D, H, W\) or \(C, D, H, W\)"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_wrong_rank(name, shape, form, training):
    with pytest.raises(ValueError, match=f"{name}: expected input of shape {form}, got shape"):
        call(name, np.ones(shape), training=training)


# -- plain dropout ---------------------------------------------------------------------------------


def test_plain_dropout_is_dropout_times_the_keeping_probability():
    x = generator().standard_normal((40, 30))
    plain = F.plain_dropout(x, 0.3, generator=generator(1)).data
    np.testing.assert_allclose(plain, F.dropout(x, 0.3, generator=generator(1)).data * 0.7, rtol=1e-15)
    np.testing.assert_allclose(F.plain_dropout(x, 0.3, False).data, x * 0.7, rtol=1e-15)
    assert F.plain_dropout(x.astype(np.float32), 0.3, False).dtype == np.float32
    assert (F.plain_dropout(x, 1.0).data == 0).all() and (F.plain_dropout(x, 1.0, False).data == 0).all()
    np.testing.assert_array_equal(F.plain_dropout(x, 0.0).data, x)


def test_plain_dropout_errors():
    with pytest.raises(ValueError, match=r"plain_dropout: expected p to be a number in \[0, 1\], got 1\.5"):
        F.plain_dropout(np.ones(3), 1.5)
    with pytest.raises(TypeError, match="plain_dropout: expected input of dtype float32 or float64"):
        F.plain_dropout(nnx.Tensor(np.ones(3, int)))
