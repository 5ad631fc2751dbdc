"""The compiled optimizer kernels against the base backend, and what they refuse."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnx
from nnx._ext import optim as kernels
from nnx._ext import simd
from nnx.backends.base import Backend
from nnx.backends.base.optim import OptimOps
from nnx.backends.cpu import CPUBackend

BASE, CPU = Backend(), CPUBackend()

# name, number of accumulators, and the scalars behind the lists (from `step` or `first` on)
STEPS = [
    ("sgd_step", 1, (True, 0.1, 0.0, 0.0, 0.0, False, False)),
    ("sgd_step", 1, (False, 0.1, 0.0, 0.0, 0.3, False, True)),
    ("sgd_step", 1, (True, 0.1, 0.9, 0.5, 0.3, False, True)),
    ("sgd_step", 1, (False, 0.1, 0.9, 0.5, 0.3, False, False)),
    ("sgd_step", 1, (False, 0.1, 0.9, 0.0, 0.0, True, False)),
    ("adagrad_step", 1, (3, 0.1, 0.2, 1e-3, 0.3, True)),
    ("adagrad_step", 1, (1, 0.1, 0.0, 1e-10, 0.0, False)),
    ("adadelta_step", 2, (0.1, 0.9, 1e-6, 0.0, False)),
    ("adadelta_step", 2, (0.1, 0.7, 1e-3, 0.3, True)),
    ("rmsprop_step", 1, (None, None, 0.1, 0.9, 1e-8, 0.0, 0.0, False)),
    ("rmsprop_step", 2, (None, 0.1, 0.9, 1e-3, 0.3, 0.0, True)),
    ("rmsprop_step", 3, (0.1, 0.9, 1e-3, 0.3, 0.5, False)),
    ("adam_step", 2, (None, 1, 0.1, 0.9, 0.999, 1e-8, 0.0, False, True, False)),
    ("adam_step", 2, (None, 7, 0.1, 0.8, 0.9, 1e-3, 0.3, False, False, True)),
    ("adam_step", 3, (7, 0.1, 0.8, 0.9, 1e-3, 0.3, True, True, False)),
]
IDS = [f"{name}-{i}" for i, (name, _, _) in enumerate(STEPS)]
every = pytest.mark.parametrize(("name", "accumulators", "scalars"), STEPS, ids=IDS)
types = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def columns(rng, shapes, accumulators, dtype):
    """Parameters, gradients, and accumulators that are not negative (means of squares)."""
    lists = [[np.asarray(rng.standard_normal(s), dtype) for s in shapes] for _ in range(2)]
    for k in range(accumulators):
        # rmsprop's first is a mean of squares, well above the square of its second, a mean: their
        # difference must not be all rounding
        low = 0.5 + (k == 0)
        lists.append([np.asarray(rng.uniform(low, low + 0.4, s), dtype) for s in shapes])
    return lists


def copies(lists):
    return [[a.copy(order="K") for a in column] for column in lists]


def assert_close(ours, expected, dtype):
    """Kernels may fuse a multiplication and an addition, where NumPy rounds twice."""
    bound = 40 * np.finfo(dtype).eps
    for a, b in zip(ours, expected, strict=True):
        for x, y in zip(a, b, strict=True):
            assert x.dtype == y.dtype
            finite = np.abs(y[np.isfinite(y)])
            np.testing.assert_allclose(x, y, rtol=bound, atol=bound * finite.max(initial=0))


@every
@types
def test_equals_the_base_backend(name, accumulators, scalars, dtype, rng):
    shapes = [(5, 3), (), (0, 2), (8192,), (8193,), (3, 5000)]
    lists = columns(rng, shapes, accumulators, dtype)
    ours, expected, before = copies(lists), copies(lists), copies(lists)
    getattr(CPU, name)(*ours, *scalars)
    getattr(BASE, name)(*expected, *scalars)
    assert_close(ours, expected, dtype)
    for g, b in zip(ours[1], before[1], strict=True):
        np.testing.assert_array_equal(g, b)
    assert all((p != b).all() for p, b in zip(ours[0], before[0], strict=True))


@every
@types
def test_every_level_and_several_threads(name, accumulators, scalars, dtype, rng):
    lists = columns(rng, [(40_001,), (3,), (30_000,)], accumulators, dtype)
    expected = copies(lists)
    getattr(BASE, name)(*expected, *scalars)
    nnx.set_num_threads(2)
    for level in simd.supported_levels():
        previous = simd.force_level(level)
        try:
            ours = copies(lists)
            getattr(CPU, name)(*ours, *scalars)
        finally:
            simd.force_level(previous)
        assert_close(ours, expected, dtype)


@every
@types
def test_nan_and_infinity(name, accumulators, scalars, dtype):
    # 1e15 has a square in float32; beyond it, a fused operation is finite where two are not
    values = np.array([0, -0.0, 1, -1, np.nan, np.inf, -np.inf, 1e15, 1e-30], dtype)
    p, g = (a.ravel() for a in np.meshgrid(values, values))
    lists = [[p.copy()], [g.copy()]]
    for k in range(accumulators):
        lists.append([np.abs(np.roll(p, 3 * k + 1)) + (k == 0)])
    ours, expected = copies(lists), copies(lists)
    getattr(CPU, name)(*ours, *scalars)
    getattr(BASE, name)(*expected, *scalars)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(np.isnan(a[0]), np.isnan(b[0]))
        np.testing.assert_allclose(a[0], b[0], rtol=1e-4)


LAYOUTS = {
    "C": lambda a: np.ascontiguousarray(a),
    "F": lambda a: np.asfortranarray(a),
    "last": lambda a: np.ascontiguousarray(a.transpose(0, 2, 1)).transpose(0, 2, 1),
    "holes": lambda a: np.repeat(a, 2, axis=2)[:, :, ::2],
    "reverse": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "unaligned": lambda a: (
        np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].copy().view(a.dtype).reshape(a.shape)
        if a.size == 0
        else _unaligned(a)
    ),
    "foreign": lambda a: a.astype(a.dtype.newbyteorder()),
}


def _unaligned(a):
    memory = np.zeros(a.nbytes + 1, np.uint8)[1:]
    b = memory.view(a.dtype).reshape(a.shape)
    b[...] = a
    return b


@every
@given(data=st.data())
def test_any_layout_of_any_row(name, accumulators, scalars, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    shapes = data.draw(st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=4))
    lists = columns(rng, shapes, accumulators, dtype)
    expected = copies(lists)
    ours = [[LAYOUTS[data.draw(st.sampled_from(list(LAYOUTS)))](a) for a in c] for c in lists]
    arrays = [list(c) for c in ours]
    getattr(CPU, name)(*ours, *scalars)
    getattr(BASE, name)(*expected, *scalars)
    assert all(a is b for c, d in zip(ours, arrays, strict=True) for a, b in zip(c, d, strict=True))
    bound = 40 * np.finfo(dtype).eps
    for a, b in zip(ours, expected, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x.astype(dtype), y, rtol=bound, atol=bound)


def test_the_comparison_sees_one_wrong_element(rng):
    lists = columns(rng, [(9000,)], 1, np.float64)
    ours, expected = copies(lists), copies(lists)
    CPU.adagrad_step(*ours, 1, 0.1, 0.0, 1e-10, 0.0, False)
    BASE.adagrad_step(*expected, 1, 0.1, 0.0, 1e-10, 0.0, False)
    ours[0][0][8500] += 1e-12
    with pytest.raises(AssertionError):
        assert_close(ours, expected, np.float64)


def test_signatures_are_those_of_the_base_backend():
    names = [n for n in vars(OptimOps) if not n.startswith("_")]
    assert len(names) >= 8
    for name in names:
        assert inspect.signature(getattr(CPUBackend, name)) == inspect.signature(getattr(OptimOps, name))


@types
@pytest.mark.parametrize("order", [1.0, 2.0, 3.5, np.inf])
def test_total_norm(dtype, order, rng):
    arrays = columns(rng, [(3, 7), (), (0,), (20_000,)], 0, dtype)[0]
    arrays.append(arrays[3][::-2])
    everything = np.concatenate([a.ravel() for a in arrays]).astype(np.float64)
    expected = np.linalg.norm(everything, order)
    assert BASE.total_norm(arrays, order) == pytest.approx(expected, rel=1e-12)
    assert CPU.total_norm(arrays, order) == pytest.approx(expected, rel=1e-12)
    for bad in (np.nan, np.inf, -np.inf):
        arrays[0][1, 1] = bad
        np.testing.assert_equal(BASE.total_norm(arrays, order), np.abs(bad))
        np.testing.assert_equal(CPU.total_norm(arrays, order), np.abs(bad))
    assert CPU.total_norm([], order) == BASE.total_norm([], order) == 0


@types
def test_scale_and_clamp(dtype, rng):
    arrays = columns(rng, [(3, 7), (), (0,), (20_000,)], 0, dtype)[0]
    arrays.append(rng.standard_normal((4, 6)).astype(dtype)[:, ::2])
    for backend in (BASE, CPU):
        ours = [a.copy() for a in arrays[:-1]] + [arrays[-1].repeat(2, 1)[:, ::2]]
        backend.scale(ours, 0.3)
        backend.clamp(ours, -0.2, 0.1)
        for a, b in zip(ours, arrays, strict=True):
            np.testing.assert_array_equal(a, np.clip(b * dtype(0.3), -0.2, 0.1).astype(dtype))


# -- the kernels' own checks -----------------------------------------------------------------------


def a(*shape, dtype=np.float64):
    return np.ones(shape, dtype)


def test_arrays_that_share_memory_are_handed_back_untouched():
    x = a(100)
    for params, grads in [([x, x], [a(100), a(100)]), ([x[:50], x[40:90]], [a(50), a(50)])]:
        assert kernels.sgd_step(params, grads, None, True, 1, 0, 0, 0, False, False, 1) is False
    assert kernels.sgd_step([x], [x], None, True, 1, 0, 0, 0, False, False, 1) is False
    assert kernels.adagrad_step([x], [a(100)], [x], 1, 1, 0, False, 1) is False
    assert kernels.scale([x[:60], x[50:]], 2.0, 1) is False
    np.testing.assert_array_equal(x, 1)
    # neighbours, empty arrays and gradients that two parameters share are no conflict
    g = a(50)
    halves, grads = [x[:50], x[50:], x[:0]], [g, g, a(0)]
    assert kernels.sgd_step(halves, grads, None, True, 1, 0, 0, 0, False, False, 2) is True
    np.testing.assert_array_equal(x, 0)


def frozen(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("params", "grads", "sums", "error", "message"),
    [
        ([a(3)], [a(4)], [a(3)], ValueError, r"expected grads with shape \(3,\) and strides \(8,\)"),
        ([a(3)], [a(3)], [a(2)], ValueError, r"expected sums with shape \(3,\) and strides \(8,\)"),
        ([a(3, 2)], [a(2, 3).T], [a(3, 2)], ValueError, "expected grads with shape"),
        ([a(3)], [], [a(3)], ValueError, "expected grads with 1 arrays like params, got 0"),
        ([a(3)], [a(3)], [a(3), a(3)], ValueError, "expected sums with 1 arrays like params, got 2"),
        ([a(6)[::2]], [a(3)], [a(3)], ValueError, "expected params to be dense in memory"),
        ([frozen(a(3))], [a(3)], [a(3)], ValueError, "expected params to be writeable"),
        ([a(3)], [a(3)], [frozen(a(3))], ValueError, "expected sums to be writeable"),
        ([a(3, dtype="f2")], [a(3)], [a(3)], TypeError, r"expected params\[0\] to be float32 or fl"),
        ([a(3), a(3, dtype="f4")], [a(3)] * 2, [a(3), a(3)], TypeError, "expected params to be flo"),
        ([a(3)], [a(3, dtype="f4")], [a(3)], TypeError, "expected grads to be float64"),
        ([a(3)], [a(3, dtype=">f8")], [a(3)], TypeError, "expected grads to be float64"),
        ([a(3)], [[1.0] * 3], [a(3)], TypeError, "ndarray"),
        ([a(3)], [None], [a(3)], TypeError, "None"),
        ([None], [a(3)], [a(3)], TypeError, "None"),
        (3, [a(3)], [a(3)], TypeError, "not iterable"),
    ],
)
def test_wrong_arguments_of_a_kernel(params, grads, sums, error, message):
    with pytest.raises(error, match=message):
        kernels.adagrad_step(params, grads, sums, 0.1, 1e-10, 0.0, False, 1)


def test_a_kernel_needs_a_thread():
    with pytest.raises(ValueError, match="scale: expected num_threads to be at least 1, got 0"):
        kernels.scale([a(3)], 2.0, 0)
    with pytest.raises(ValueError, match="square_sum: expected num_threads to be at least 1"):
        kernels.square_sum([a(3)], -1)
    assert kernels.scale([], 2.0, 1) is True
    assert kernels.square_sum([], 1) == 0.0


@types
def test_every_block_is_done_once_by_any_number_of_threads(rng, dtype):
    """Each thread takes its part of every array; arrays of one block go round."""
    sizes = [1, 8191, 8192, 8193, 3, 50_000, 0, 17, 100_001, 5]
    start = [rng.standard_normal(n).astype(dtype) for n in sizes]
    grads = [rng.standard_normal(n).astype(dtype) for n in sizes]
    for threads in (1, 2, 3, 4, 8, 70):
        params = [a.copy() for a in start]
        assert kernels.sgd_step(params, grads, None, True, 0.5, 0.0, 0.0, 0.0, False, False, threads)
        for p, a, g in zip(params, start, grads, strict=True):
            np.testing.assert_allclose(p, a - dtype(0.5) * g, rtol=1e-6, atol=1e-6)
        squares = kernels.square_sum(grads, threads)
        assert squares == kernels.square_sum(grads, 1)
        np.testing.assert_allclose(squares, sum((g.astype(np.float64) ** 2).sum() for g in grads), rtol=1e-6)


def test_what_a_step_takes_as_it_is():
    """The elements of all parameters, or -1 where one array needs more than that."""
    a, f = np.ones((3, 4), np.float32), np.asfortranarray(np.ones((2, 5), np.float32))
    assert kernels.fit(([a, f], [a.copy(), f.copy(order="F")], None)) == 22
    assert kernels.fit(([], [])) == 0
    read_only = a.copy()
    read_only.flags.writeable = False
    assert kernels.fit(([a], [read_only])) == 12  # a gradient is only read
    unaligned = np.ones(49, np.uint8)[1:].view(np.float32).reshape(3, 4)
    for columns in (
        ([read_only], [a]),
        ([a], [a], [read_only]),
        ([a], [np.asfortranarray(a)]),
        ([a], [a.astype(np.float64)]),
        ([a.astype(np.int32)], [a.astype(np.int32)]),
        ([np.ones((3, 8), np.float32)[:, ::2]], [np.ones((3, 8), np.float32)[:, ::2]]),
        ([a], [a[:2]]),
        ([a], [a.reshape(-1)]),
        ([a], [1.0]),
        ([a], [unaligned]),
        ([a], [a.astype(">f4")]),
        ([a, a], [a]),
        ((a,), [a]),
        ([a.view(np.matrix)], [a]),
    ):
        assert kernels.fit(columns) == -1
