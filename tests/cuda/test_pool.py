"""The kernels of pooling in the emulator, beside the base backend."""

from __future__ import annotations

import numpy as np
import pytest
from compared import BASE, DTYPES, backend, channels_last, layouts, same

# x, kernel, stride, padding, dilation, ceil_mode; channels that fill packs (8, 4) and such that do not
MAX = {
    "1d": ((2, 3, 9), (3,), (3,), (0,), (1,), False),
    "1d-all": ((2, 8, 9), (3,), (2,), (1,), (2,), True),
    "2x2": ((2, 3, 6, 8), (2, 2), (2, 2), (0, 0), (1, 1), False),
    "overlap": ((3, 8, 7, 6), (3, 3), (2, 2), (0, 0), (1, 1), False),
    "overlap-padding": ((2, 4, 7, 6), (3, 3), (2, 2), (1, 1), (1, 1), False),
    "same": ((2, 5, 5, 6), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "gaps": ((2, 2, 5, 9), (2, 2), (3, 4), (0, 0), (1, 1), False),
    "dilation": ((2, 2, 6, 7), (2, 2), (1, 1), (0, 0), (2, 3), False),
    "dilation-padding": ((2, 4, 6, 7), (3, 2), (2, 1), (1, 1), (2, 3), False),
    "ceil": ((2, 2, 5, 6), (2, 2), (3, 4), (0, 0), (1, 1), True),
    "ceil-padding": ((2, 3, 6, 5), (3, 3), (2, 2), (1, 1), (1, 1), True),
    "of-input-size": ((2, 3, 4, 5), (4, 5), (4, 5), (0, 0), (1, 1), False),
    "1x1": ((2, 3, 4, 5), (1, 1), (1, 1), (0, 0), (1, 1), False),
    "far-stride": ((2, 3, 4, 5), (2, 2), (2**31 - 1, 1), (0, 0), (1, 1), False),
    "window-of-255": ((1, 2, 16, 19), (15, 17), (1, 1), (0, 0), (1, 1), False),
    "window-of-272": ((1, 4, 17, 18), (16, 17), (1, 1), (0, 0), (1, 1), False),
    "3d": ((2, 3, 4, 3, 5), (2, 2, 2), (2, 2, 2), (0, 0, 0), (1, 1, 1), False),
    "3d-all": ((2, 4, 5, 4, 6), (2, 3, 2), (1, 2, 2), (1, 1, 0), (2, 1, 2), True),
    "many": ((9, 20, 13, 11), (3, 3), (2, 2), (1, 1), (1, 1), False),
}
MEAN = [name for name, case in MAX.items() if set(case[4]) == {1}]

each_dtype = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture
def be(cuda):
    from nnx.backends.cuda.pool import PoolCUDA

    return backend(cuda, PoolCUDA)


@pytest.fixture
def launched(be, monkeypatch):
    """The names of the kernels that were launched."""
    from nnx.backends.cuda import pool

    names: list[str] = []
    launch = pool._k.launch

    def record(name, *args):
        names.append(name)
        launch(name, *args)

    monkeypatch.setattr(pool._k, "launch", record)
    return names


def normal(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# -- maximum -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAX)
@each_dtype
def test_max(cuda, be, launched, name, dtype):
    shape, *geometry, ceil_mode = MAX[name]
    x = np.random.default_rng(1).integers(-9, 9, shape).astype(dtype)  # with equals
    x.ravel()[:: x.size // 7 + 1] = np.nan
    y, index = BASE.max_pool(x, *geometry, ceil_mode)
    gy = normal(y.shape, dtype)
    gx = BASE.max_pool_backward(gy, index, shape, *geometry)
    for layout, there in layouts(cuda, x):
        got = be.max_pool(there, *geometry, ceil_mode)
        same(got, (y, index), layout)
    for layout, g in layouts(cuda, gy):
        same(be.max_pool_backward(g, got[1], shape, *geometry), gx, layout)
        same(be.max_pool_backward(g, cuda.asarray(index), shape, *geometry), gx, layout)
    kinds = {f"max_forward_{index.dtype}", f"max_backward_{index.dtype}"}
    assert set(launched) == kinds and got[0].transpose(0, *range(2, y.ndim), 1).flags.c_contiguous


@pytest.mark.parametrize("name", ["2x2", "window-of-272"])
@each_dtype
def test_a_maximum_of_zero_is_nobody_s(cuda, be, name, dtype):
    """Where the maximum of a positive part is 0, no element has its index and nothing is passed back."""
    shape, *geometry, ceil_mode = MAX[name]
    x = np.maximum(normal(shape, dtype), 0)
    x[:, 0] = 0
    y, index = BASE.max_pool(x, *geometry, ceil_mode, True)
    got = be.max_pool(cuda.asarray(x), *geometry, ceil_mode, True)
    same(got, (y, index))
    gy = normal(y.shape, dtype)
    gx = BASE.max_pool_backward(gy, index, shape, *geometry)
    same(be.max_pool_backward(cuda.asarray(gy), got[1], shape, *geometry), gx)
    assert gx.any() and not gx[:, 0].any()


@each_dtype
def test_max_of_infinities_and_nan(cuda, be, dtype):
    """-inf everywhere has the index of its first element inside the input; of several NaN the last is taken."""
    geometry = (3, 3), (2, 2), (1, 1), (1, 1)
    x = np.full((3, 4, 5, 5), -np.inf, dtype)
    x[1], x[2, :, 1:3] = np.nan, np.inf
    for there in (cuda.asarray(x), channels_last(cuda, x)):
        same(be.max_pool(there, *geometry, False), BASE.max_pool(x, *geometry, False))


def test_gradients_of_nan_and_infinity(cuda, be):
    x = normal((2, 4, 6, 6), "float32")
    geometry = (3, 3), (2, 2), (1, 1), (1, 1)
    y, index = BASE.max_pool(x, *geometry, False)
    gy = normal(y.shape, "float32", 3)
    gy[0, 0, 0], gy[0, 1, 1], gy[1, 2, 2] = np.nan, np.inf, -np.inf
    got = be.max_pool_backward(cuda.asarray(gy), cuda.asarray(index), x.shape, *geometry)
    same(got, BASE.max_pool_backward(gy, index, x.shape, *geometry))
    arguments = (3, 3), (2, 2), (1, 1), False, True, None
    same(be.avg_pool_backward(cuda.asarray(gy), x.shape, *arguments), BASE.avg_pool_backward(gy, x.shape, *arguments))


# -- mean and sum ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MEAN)
@pytest.mark.parametrize(("count_pad", "divisor"), [(True, None), (False, None), (True, 1), (False, -3)])
def test_mean(cuda, be, launched, name, count_pad, divisor):
    shape, kernel, stride, padding, _, ceil_mode = MAX[name]
    arguments = kernel, stride, padding, ceil_mode, count_pad, divisor
    for dtype in DTYPES:
        x = normal(shape, dtype)
        y = BASE.avg_pool(x, *arguments)
        gy = normal(y.shape, dtype, 2)
        gx = BASE.avg_pool_backward(gy, shape, *arguments)
        for there in (cuda.asarray(x), channels_last(cuda, x)):
            same(be.avg_pool(there, *arguments), y)
        for g in (cuda.asarray(gy), channels_last(cuda, gy)):
            same(be.avg_pool_backward(g, shape, *arguments), gx)
    inside = np.prod([min(k, n) for k, n in zip(kernel, shape[2:], strict=True)])
    assert set(launched) == {"mean_forward_large" if inside >= 16 else "mean_forward", "mean_backward"}


@each_dtype
def test_mean_in_every_layout(cuda, be, dtype):
    arguments = (3, 2), (2, 1), (1, 1), True, False, None
    x = normal((2, 8, 7, 5), dtype)
    x[0, 0, 0, 0], x[0, 1, 2, 2], x[1, 2, 3, 3:] = np.nan, np.inf, (np.inf, -np.inf)
    with np.errstate(invalid="ignore"):
        y = BASE.avg_pool(x, *arguments)
    gy = normal(y.shape, dtype, 2)
    gx = BASE.avg_pool_backward(gy, x.shape, *arguments)
    for layout, there in layouts(cuda, x):
        same(be.avg_pool(there, *arguments), y, layout)
    for layout, g in layouts(cuda, gy):
        same(be.avg_pool_backward(g, x.shape, *arguments), gx, layout)


ADAPTIVE = [
    ((2, 3, 7), (3,)),
    ((2, 4, 6, 9), (3, 3)),
    ((2, 3, 5, 7), (3, 4)),
    ((2, 8, 2, 3), (5, 4)),
    ((2, 3, 5, 4), (1, 1)),
    ((2, 1, 17, 19), (1, 1)),
    ((2, 3, 13, 9), (1, 1)),
    ((3, 40, 11, 12), (1, 1)),
    ((2, 8, 30, 31), (2, 3)),
    ((2, 3, 300), (2,)),
    ((2, 3, 4, 3, 5), (2, 3, 2)),
    ((2, 4, 7, 6, 5), (1, 1, 1)),
    ((2, 3, 4, 5), (0, 2)),
    ((2, 3, 0, 5), (2, 2)),
    ((0, 3, 4, 5), (2, 2)),
]


@pytest.mark.parametrize(("shape", "out"), ADAPTIVE)
@each_dtype
def test_adaptive(cuda, be, launched, shape, out, dtype):
    x = normal(shape, dtype)
    y = BASE.adaptive_avg_pool(x, out)
    gy = normal(y.shape, dtype, 2)
    gx = BASE.adaptive_avg_pool_backward(gy, shape)
    same(be.adaptive_avg_pool(cuda.asarray(x), out), y)
    same(be.adaptive_avg_pool(channels_last(cuda, x), out), y)
    same(be.adaptive_avg_pool_backward(cuda.asarray(gy), shape), gx)
    same(be.adaptive_avg_pool_backward(channels_last(cuda, gy), shape), gx)
    assert len(launched) == 2 * (y.size > 0) + 2 * (gx.size > 0)


def test_large_windows_are_summed_well(cuda, be):
    """A float32 mean of 65,025 numbers around 1000 is right to the last digits: sums are partly in double."""
    x = (1000 + normal((1, 2, 255, 255), "float64")).astype("float32")
    exact = x.astype("float64").mean(axis=(2, 3), keepdims=True)
    got = be.adaptive_avg_pool(cuda.asarray(x), (1, 1)).get()
    assert abs(got / exact - 1).max() < 1.5e-7


# -- sizes -------------------------------------------------------------------------------------


def test_empty_batch(cuda, be, launched):
    x = np.zeros((0, 3, 6, 6), np.float32)
    geometry = (3, 3), (2, 2), (1, 1), (1, 1)
    y, index = BASE.max_pool(x, *geometry, False)
    same(be.max_pool(cuda.asarray(x), *geometry, False), (y, index))
    same(be.max_pool_backward(cuda.asarray(y), cuda.asarray(index), x.shape, *geometry), x)
    arguments = (3, 3), (2, 2), (1, 1), False, True, None
    same(be.avg_pool(cuda.asarray(x), *arguments), y)
    same(be.avg_pool_backward(cuda.asarray(y), x.shape, *arguments), x)
    assert not launched


def test_large_batches_go_in_parts(cuda, be, launched, monkeypatch):
    """As where arrays have 2^31 elements: the images of a launch are limited."""
    from nnx.backends.cuda import pool

    monkeypatch.setattr(pool, "_LIMIT", 2 * 4 * 7 * 7 + 1)
    x = normal((5, 4, 7, 7), "float32")
    geometry = (3, 3), (2, 2), (1, 1), (1, 1)
    y, index = BASE.max_pool(x, *geometry, False)
    same(be.max_pool(cuda.asarray(x), *geometry, False), (y, index))
    assert len(launched) == 3
    gx = BASE.max_pool_backward(y, index, x.shape, *geometry)
    same(be.max_pool_backward(cuda.asarray(y), cuda.asarray(index), x.shape, *geometry), gx)
    same(be.adaptive_avg_pool(cuda.asarray(x), (2, 2)), BASE.adaptive_avg_pool(x, (2, 2)))
    monkeypatch.setattr(pool, "_MEDIUM", 1)
    same(be.adaptive_avg_pool(cuda.asarray(x), (2, 2)), BASE.adaptive_avg_pool(x, (2, 2)))
    assert len(launched) == 12
    monkeypatch.setattr(pool, "_LIMIT", 100)  # an image is too large: the base does it
    same(be.max_pool(cuda.asarray(x), *geometry, False), (y, index))
    assert len(launched) == 12


def test_threads_go_around(cuda, be, monkeypatch):
    from nnx.backends.cuda import pool

    monkeypatch.setattr(pool, "blocks_for", lambda n: 2)
    monkeypatch.setattr(pool, "_MOST_BLOCKS", 3)
    x = normal((3, 5, 9, 11), "float32")
    geometry = (2, 3), (1, 2), (1, 1), (1, 1)
    y, index = BASE.max_pool(x, *geometry, False)
    same(be.max_pool(cuda.asarray(x), *geometry, False), (y, index))
    gx = BASE.max_pool_backward(y, index, x.shape, *geometry)
    same(be.max_pool_backward(cuda.asarray(y), cuda.asarray(index), x.shape, *geometry), gx)
    arguments = (8, 9), (1, 1), (1, 1), False, False, None
    same(be.avg_pool(cuda.asarray(x), *arguments), BASE.avg_pool(x, *arguments))


def test_other_types_go_to_the_base(cuda, be, launched):
    x = normal((2, 3, 6, 6), "float16")
    geometry = (3, 3), (2, 2), (1, 1), (1, 1)
    y, index = BASE.max_pool(x, *geometry, False)
    same(be.max_pool(cuda.asarray(x), *geometry, False), (y, index))
    gx = BASE.max_pool_backward(y, index, x.shape, *geometry)
    same(be.max_pool_backward(cuda.asarray(y), cuda.asarray(index), x.shape, *geometry), gx)
    arguments = (3, 3), (2, 2), (1, 1), False, False, None
    same(be.avg_pool(cuda.asarray(x), *arguments), BASE.avg_pool(x, *arguments), rtol=1e-2, atol=1e-2)
    same(be.adaptive_avg_pool(cuda.asarray(x), (2, 2)), BASE.adaptive_avg_pool(x, (2, 2)), rtol=1e-2, atol=1e-2)
    assert not launched
    numbers = np.arange(5 * 7, dtype=np.uint8).reshape(1, 1, 5, 7) % 9
    positions = BASE.pool_positions(numbers, (6, 8), *geometry)
    same(be.pool_positions(cuda.asarray(numbers), (6, 8), *geometry), positions)
