"""The kernels of activations in the emulator, beside the base backend."""

from __future__ import annotations

import numpy as np
import pytest
from compared import BASE, DTYPES, backend, channels_last, layouts, same

SELU = (1.6732632423543772, 1.0507009873554805, 1.0)

# Functions of x, with their parameters; the gradient takes gy and x.
OF_X = {
    "leaky_relu": [(0.01,), (-0.3,)],
    "hardtanh": [(-1.0, 1.0), (-0.5, 2.0)],
    "hardsigmoid": [()],
    "hardswish": [()],
    "elu": [(1.0, 1.0, 1.0), SELU, (0.5, 1.0, 2.0)],
    "softplus": [(1.0, 20.0), (2.5, 3.0), (-1.0, float("inf"))],
    "silu": [()],
    "mish": [()],
    "gelu": [("none",), ("tanh",)],
    "softsign": [()],
}
OF_Y = ("relu", "sigmoid", "tanh")  # whose gradient takes gy and y
CASES = [(name, p) for name, all_p in OF_X.items() for p in all_p] + [(name, ()) for name in OF_Y]

each_case = pytest.mark.parametrize(("name", "parameters"), CASES, ids=lambda v: v if isinstance(v, str) else "")
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture
def be(cuda):
    from nnx.backends.cuda.activation import ActivationCUDA

    return backend(cuda, ActivationCUDA)


@pytest.fixture
def launched(be, monkeypatch):
    """The names of the kernels that were launched."""
    from nnx.backends.cuda import activation

    names: list[str] = []
    launch = activation._k.launch

    def record(name, *args):
        names.append(name)
        launch(name, *args)

    monkeypatch.setattr(activation._k, "launch", record)
    return names


def numbers(dtype, shape=(3, 5, 7, 9)):
    """Numbers around 0, and those that are easily got wrong."""
    x = 4 * np.random.default_rng(0).standard_normal(shape)
    special = [0, -0.0, 1, -1, 3, -3, 20, -20, 90, -90, 800, -800, 1e30, -1e30, np.inf, -np.inf, np.nan, 1e-30, 1e-4]
    x.ravel()[: len(special)] = special
    return x.astype(dtype)


@each_case
@each_dtype
def test_elementwise(cuda, be, launched, name, parameters, dtype):
    x = numbers(dtype)
    expected = getattr(BASE, name)(x, *parameters)
    for layout, there in layouts(cuda, x):
        same(getattr(be, name)(there, *parameters), expected, layout)
    assert len(launched) == len(list(layouts(cuda, x)))  # one launch each


@each_case
@each_dtype
def test_gradient(cuda, be, launched, name, parameters, dtype):
    x = numbers(dtype)
    saved = getattr(BASE, name)(x, *parameters) if name in OF_Y else x
    gy = np.random.default_rng(1).standard_normal(x.shape).astype(dtype)
    gy.ravel()[30:33] = np.nan, np.inf, -np.inf
    expected = getattr(BASE, f"{name}_backward")(gy, saved, *parameters)
    gradients = [g for _, g in layouts(cuda, gy)]
    for (layout, there), g in zip(layouts(cuda, saved), [*gradients[1:], gradients[0]], strict=True):
        result = getattr(be, f"{name}_backward")(g, there, *parameters)
        same(result, expected, layout)
        if layout in ("rows", "channels-last", "columns"):
            assert result.strides == there.strides
    assert len(launched) == len(gradients)


@each_case
def test_empty(cuda, be, launched, name, parameters):
    x = np.zeros((0, 3), np.float32)
    same(getattr(be, name)(cuda.asarray(x), *parameters), x)
    same(getattr(be, f"{name}_backward")(cuda.asarray(x), cuda.asarray(x), *parameters), x)
    assert not launched


@pytest.mark.parametrize("n", [1, 3, 4, 255, 256, 257, 1023, 1024, 1025, 4099])
@each_dtype
def test_every_element_of_any_number(cuda, be, monkeypatch, n, dtype):
    from nnx.backends.cuda import activation

    x = np.random.default_rng(n).standard_normal(n).astype(dtype)
    same(be.relu(cuda.asarray(x)), BASE.relu(x))
    same(be.relu_backward(cuda.asarray(x), cuda.asarray(x)), BASE.relu_backward(x, x))
    monkeypatch.setattr(activation, "blocks_for", lambda n: 2)  # threads go around
    same(be.relu(cuda.asarray(x)), BASE.relu(x))
    same(be.relu_backward(cuda.asarray(x), cuda.asarray(x)), BASE.relu_backward(x, x))


def test_scalar(cuda, be):
    same(be.tanh(cuda.asarray(np.float32(0.5))), np.tanh(np.float32([0.5])).reshape(()))


def test_other_types_go_to_the_base(cuda, be, launched):
    x = np.random.default_rng(0).standard_normal((3, 5)).astype("float16")
    with np.errstate(all="ignore"):
        same(be.relu(cuda.asarray(x)), BASE.relu(x))
        same(be.silu(cuda.asarray(x)), BASE.silu(x))
        same(be.softmax(cuda.asarray(x), 1), BASE.softmax(x, 1), rtol=1e-3, atol=1e-3)
    assert not launched


@each_dtype
def test_add(cuda, be, launched, dtype):
    a, b = numbers(dtype), numbers(dtype)[::-1].copy()
    expected = BASE.add(a, b)
    for _, there in layouts(cuda, a):
        same(be.add(there, channels_last(cuda, b)), expected)
    target = channels_last(cuda, a)
    be.add_in_place(target, channels_last(cuda, b))
    same(target, expected)
    be.add_in_place(other := cuda.asarray(a), channels_last(cuda, b))
    same(other, expected)
    off = cuda.asarray(np.concatenate([np.zeros(1, dtype), a.ravel()]))[1:]
    be.add_in_place(off, cuda.asarray(b.ravel()))
    same(off, expected.ravel())
    assert launched == ["add", "add", "add"]  # of two arrays in one layout


def test_relu_in_place(cuda, be):
    from nnx.backends.cuda.activation import relu_in_place

    x = numbers("float32")
    there = channels_last(cuda, x)
    assert relu_in_place(there) is there
    same(there, BASE.relu(x))


# -- prelu -------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("shape", [(1,), (5, 1, 1), (1, 5, 1, 1), (9,), (3, 1, 1, 1)])
def test_prelu(cuda, be, launched, shape, dtype):
    x = numbers(dtype)
    weight = np.random.default_rng(2).standard_normal(shape).astype(dtype)
    gy = np.random.default_rng(1).standard_normal(x.shape).astype(dtype)
    expected = BASE.prelu(x, weight)
    with np.errstate(invalid="ignore"):
        gradients = BASE.prelu_backward(gy, x, weight, (True, True))
    w = cuda.asarray(weight)
    for layout, there in layouts(cuda, x):
        same(be.prelu(there, w), expected, layout)
        same(be.prelu_backward(cuda.asarray(gy), there, w, (True, True)), gradients, layout)
    there = cuda.asarray(x)
    same(be.prelu_backward(cuda.asarray(gy), there, w, (True, False)), (gradients[0], None))
    same(be.prelu_backward(cuda.asarray(gy), there, w, (False, True)), (None, gradients[1]))
    assert set(launched) == {"prelu_forward", "prelu_backward"}


def test_prelu_with_other_weights_goes_to_the_base(cuda, be, launched):
    x = numbers("float32")
    weight = np.random.default_rng(2).standard_normal((5, 7, 1)).astype("float32")
    same(be.prelu(cuda.asarray(x), cuda.asarray(weight)), BASE.prelu(x, weight))
    assert not launched


# -- over an axis ------------------------------------------------------------------------------

OVER_AXIS = ("softmax", "log_softmax")


@pytest.mark.parametrize("name", OVER_AXIS)
@each_dtype
def test_every_axis_and_layout(cuda, be, name, dtype):
    x = (3 * np.random.default_rng(3).standard_normal((3, 5, 7, 9))).astype(dtype)
    gy = np.random.default_rng(4).standard_normal(x.shape).astype(dtype)
    for axis in range(4):
        y = getattr(BASE, name)(x, axis)
        gx = getattr(BASE, f"{name}_backward")(gy, y, axis)
        for (layout, there), (_, saved) in zip(layouts(cuda, x), layouts(cuda, y), strict=True):
            result = getattr(be, name)(there, axis)
            same(result, y, layout)
            same(getattr(be, f"{name}_backward")(cuda.asarray(gy), saved, axis), gx, layout)
            if layout == "channels-last":
                assert result.strides == there.strides


@pytest.mark.parametrize("name", OVER_AXIS)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((1, 1), 1),
        ((700, 3), 1),
        ((67, 10), 1),
        ((5, 33), 1),
        ((3, 1031), 1),
        ((2, 3000), 1),
        ((300, 3), 0),
        ((257, 2), 0),
    ],
)
def test_lengths(cuda, be, monkeypatch, name, shape, axis):
    from nnx.backends.cuda import activation

    x = (3 * np.random.default_rng(5).standard_normal(shape)).astype("float32")
    gy = np.random.default_rng(6).standard_normal(shape).astype("float32")
    y = getattr(BASE, name)(x, axis)
    # float32 sums over up to 3000 numbers
    tolerance = {"rtol": 3e-5, "atol": 1e-5}
    gx = getattr(BASE, f"{name}_backward")(gy, y, axis)
    for most in (activation._MOST_BLOCKS, 2):  # with 2, blocks take several rows one after the other
        monkeypatch.setattr(activation, "_MOST_BLOCKS", most)
        same(getattr(be, name)(cuda.asarray(x), axis), y, **tolerance)
        same(getattr(be, f"{name}_backward")(cuda.asarray(gy), cuda.asarray(y), axis), gx, **tolerance)


@pytest.mark.parametrize("name", OVER_AXIS)
@each_dtype
def test_nan_and_infinity_stay_in_their_slice(cuda, be, name, dtype):
    x = np.random.default_rng(7).standard_normal((6, 11)).astype(dtype)
    x[0, 3], x[1, 4], x[2, 0], x[3] = np.nan, np.inf, -np.inf, -np.inf
    x[4] *= 1e4
    same(getattr(be, name)(cuda.asarray(x), 1), getattr(BASE, name)(x, 1))
    same(getattr(be, name)(cuda.asarray(x.T.copy()), 0), getattr(BASE, name)(x.T, 0))


@pytest.mark.parametrize("name", OVER_AXIS)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty_slices(cuda, be, launched, name, shape):
    x = np.zeros(shape, np.float32)
    same(getattr(be, name)(cuda.asarray(x), 1), x)
    same(getattr(be, f"{name}_backward")(cuda.asarray(x), cuda.asarray(x), 1), x)
    assert not launched


@pytest.mark.parametrize(
    ("shape", "pieces", "axis"),
    [
        ((5, 12), 3, 1),
        ((12, 5), 4, 0),
        ((2, 6, 3, 5), 2, 1),
        ((2, 4, 3, 5), 4, 1),
        ((3, 5, 2, 6), 1, 3),
        ((2, 600), 300, 1),
    ],
)
@each_dtype
def test_maxout(cuda, be, launched, shape, pieces, axis, dtype):
    x = np.random.default_rng(8).integers(-3, 3, shape).astype(dtype)  # with equals
    x.ravel()[::7] = np.nan
    y, index = BASE.maxout(x, pieces, axis)
    gy = np.random.default_rng(9).standard_normal(y.shape).astype(dtype)
    gx = BASE.maxout_backward(gy, index, pieces, axis)
    for layout, there in layouts(cuda, x):
        got, which = be.maxout(there, pieces, axis)
        same((got, which), (y, index), layout)
        for _, g in layouts(cuda, gy):
            same(be.maxout_backward(g, which, pieces, axis), gx, layout)
    assert len(launched) == len(list(layouts(cuda, x))) * (1 + len(list(layouts(cuda, gy))))


def test_maxout_of_nothing(cuda, be):
    x = np.zeros((0, 6), np.float32)
    y, index = BASE.maxout(x, 3, 1)
    same(be.maxout(cuda.asarray(x), 3, 1), (y, index))
    same(be.maxout_backward(cuda.asarray(y), cuda.asarray(index), 3, 1), x)
