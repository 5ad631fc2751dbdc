"""Pooling against PyTorch: outputs, indices and gradients for all arguments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import nnx
from nnx import functional as F
from nnx.backends.base.pool import pooled_sizes
from nnx.testing import assert_close

torch = pytest.importorskip("torch")

TOLERANCE = {np.float64: 1e-12, np.float32: 1e-5}  # sums of at most 64 numbers


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Its threads would wait for ours, and ours for them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@st.composite
def geometries(draw):
    n = draw(st.sampled_from((1, 2, 2, 3)))

    def sizes(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(n))

    kernel = sizes(1, 4)
    return {
        "n": n,
        "shape": (
            *draw(st.sampled_from(((), (1,), (2,)))),
            draw(st.sampled_from((1, 2, 3, 5, 17))),
            *sizes(1, 9 if n < 3 else 5),
        ),
        "kernel": kernel,
        "stride": draw(st.none() | st.just(sizes(1, 4))),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel),
        "dilation": sizes(1, 3),
        "ceil_mode": draw(st.booleans()),
        "counted": draw(st.booleans()),
        "divisor": draw(st.none() | st.sampled_from((1, 5, -2))),
        "values": draw(st.sampled_from(("normal", "ties", "special"))),
        "dtype": draw(st.sampled_from((np.float32, np.float64))),
        "seed": draw(st.integers(0, 1000)),
    }


def draw_input(g):
    rng = np.random.default_rng(g["seed"])
    x = rng.standard_normal(g["shape"])
    if g["values"] == "ties":
        x = np.round(x)
    elif g["values"] == "special":
        x = rng.choice([np.nan, -np.inf, np.inf, 0.0, 1.0], g["shape"], p=[0.2, 0.4, 0.1, 0.2, 0.1])
    return x.astype(g["dtype"])


def fits(g, dilation):
    size = g["shape"][-g["n"] :]
    out = pooled_sizes(size, g["kernel"], g["stride"] or g["kernel"], g["padding"], dilation, g["ceil_mode"])
    return min(out) >= 1 and all(d <= n for d, n in zip(dilation, size, strict=True))


def compare(ours, theirs, x, dtype, seed):
    t = nnx.Tensor(x, requires_grad=True)
    leaf = torch.from_numpy(x.copy()).requires_grad_()
    y, expected = ours(t), theirs(leaf)
    if isinstance(y, tuple):
        (y, index), (expected, positions) = y, expected
        np.testing.assert_array_equal(index.data, positions.numpy())
    assert y.dtype == dtype
    tolerance = TOLERANCE[dtype]
    assert_close(y, expected.detach().numpy(), tolerance, tolerance)
    gy = np.random.default_rng(seed).standard_normal(y.shape).astype(dtype)
    y.backward(gy)
    expected.backward(torch.from_numpy(gy))
    assert_close(t.grad, leaf.grad.numpy(), tolerance, tolerance)


@given(geometries())
def test_max_pool(g):
    assume(fits(g, g["dilation"]))
    arguments = (g["kernel"], g["stride"], g["padding"], g["dilation"], g["ceil_mode"], True)
    name = f"max_pool{g['n']}d"

    def call(module):
        return lambda x: getattr(module, name)(x, *arguments)

    compare(call(F), call(torch.nn.functional), draw_input(g), g["dtype"], g["seed"])


@given(geometries())
def test_avg_pool(g):
    assume(fits(g, (1,) * g["n"]))
    # PyTorch's avg_pool3d refuses inputs that only their padding makes large enough
    assume(g["n"] < 3 or all(n >= k for n, k in zip(g["shape"][-3:], g["kernel"], strict=True)))
    assume(g["values"] != "special")
    arguments = [g["kernel"], g["stride"], g["padding"], g["ceil_mode"], g["counted"]]
    if g["n"] > 1:
        arguments.append(g["divisor"])
    name = f"avg_pool{g['n']}d"

    def call(module):
        return lambda x: getattr(module, name)(x, *arguments)

    compare(call(F), call(torch.nn.functional), draw_input(g), g["dtype"], g["seed"])


@given(geometries(), st.data())
def test_adaptive_avg_pool(g, data):
    assume(g["values"] != "special")
    size = tuple(data.draw(st.integers(1, 8)) for _ in range(g["n"]))
    name = f"adaptive_avg_pool{g['n']}d"

    def call(module):
        return lambda x: getattr(module, name)(x, size)

    compare(call(F), call(torch.nn.functional), draw_input(g), g["dtype"], g["seed"])
