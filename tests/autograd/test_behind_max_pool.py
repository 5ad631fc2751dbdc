"""A max pooling's gradient that the engine leaves to the convolution in front: the same sums without the zeros."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import nnx
from nnx import functional as F
from nnx.autograd import engine
from nnx.backends import backend_of

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}  # relative to the largest gradient
both_types = pytest.mark.parametrize("dtype", (np.float32, np.float64))


class Case(NamedTuple):
    """Arguments of a convolution, and of the max pooling behind it."""

    x: tuple
    w: tuple
    conv: dict[str, Any]
    pool: dict[str, Any]


TWO = {"kernel_size": 2}
FIRST = Case((3, 1, 12, 12), (6, 1, 5, 5), {"padding": 2}, TWO)
SECOND = Case((2, 6, 12, 12), (16, 6, 5, 5), {}, TWO)
OFFERED = {
    "lenet-1": FIRST,
    "lenet-2": SECOND,
    "strides": Case((2, 3, 25, 20), (4, 3, 6, 4), {"stride": (3, 2), "padding": (1, 2)}, TWO),
    "padding-of-one-side": Case((2, 4, 9, 8), (5, 4, 5, 4), {"padding": ((0, 4), (3, 1))}, TWO),
    "overlapping": Case((2, 8, 14, 13), (20, 8, 3, 3), {}, {"kernel_size": 3, "stride": 2}),
    "hanging-over": Case((2, 7, 11, 13), (3, 7, 3, 5), {}, {"kernel_size": 3, "ceil_mode": True}),
    "dilated": Case((2, 9, 12, 12), (3, 9, 3, 3), {}, {"kernel_size": 2, "stride": 2, "dilation": (3, 2)}),
    "not-square": Case((1, 16, 10, 15), (4, 16, 3, 4), {}, {"kernel_size": (1, 5), "stride": (1, 4)}),
    "only-some": Case((1, 5, 14, 12), (2, 5, 4, 4), {}, {"kernel_size": 2, "stride": (3, 4)}),
}
NOT_OFFERED = {
    "groups": Case((2, 6, 9, 9), (4, 3, 5, 5), {"groups": 2}, TWO),
    "dilation": Case((2, 4, 10, 10), (4, 4, 4, 4), {"dilation": 2}, TWO),
    "dilation-of-columns": Case((2, 4, 10, 10), (4, 4, 4, 4), {"dilation": (1, 2)}, TWO),
    "pooling-padding": Case((2, 4, 14, 14), (4, 4, 5, 5), {}, {"kernel_size": 3, "padding": 1}),
    "many-channels": Case((2, 17, 7, 7), (4, 17, 4, 4), {}, TWO),
    "windows-shrink-little": Case((2, 4, 8, 8), (4, 4, 5, 5), {}, {"kernel_size": (1, 2)}),
    "windows-side-by-side": Case((2, 4, 12, 12), (4, 4, 5, 5), {}, {"kernel_size": 3, "stride": 1}),
    "large-windows": Case((1, 4, 20, 20), (4, 4, 5, 5), {}, {"kernel_size": 16}),
    "sequence": Case((2, 4, 30), (4, 4, 20), {}, {"kernel_size": 4}),
    "volume": Case((2, 3, 6, 6, 5), (4, 3, 3, 3, 2), {}, TWO),
    "far-padding": Case((1, 1, 1, 7), (2, 1, 1, 1), {"padding": (0, 70000)}, {"kernel_size": (1, 3)}),
    "far-windows": Case((1, 1, 1, 70010), (2, 1, 1, 1), {}, {"kernel_size": (1, 2), "stride": (1, 70000)}),
    "far-pixels": Case(
        (1, 1, 1, 140020), (2, 1, 1, 1), {"stride": (1, 70000)}, {"kernel_size": (1, 2), "stride": (1, 2)}
    ),
    "far-elements": Case(
        (1, 1, 2, 70010), (2, 1, 1, 1), {}, {"kernel_size": (1, 2), "stride": (1, 2), "dilation": (1, 66000)}
    ),
    "long-rows": Case((1, 1, 3, 600000), (2, 1, 2, 3), {}, TWO),
    "one-sample": Case((6, 12, 12), (16, 6, 5, 5), {}, TWO),
}
WINOGRAD = Case((2, 16, 10, 10), (16, 16, 3, 3), {}, TWO)
# offered only where the gradient of x is not wanted
FEW_UNDER = Case((2, 7, 9, 9), (4, 7, 3, 3), {}, TWO)
MANY_UNDER = Case((1, 16, 9, 9), (3, 16, 6, 6), {}, TWO)


def operands(case, dtype, wanted=(True, True, True)):
    rng = np.random.default_rng(0)
    shapes = case.x, case.w, case.w[:1]
    return [
        nnx.Tensor(rng.standard_normal(shape).astype(dtype), requires_grad=r)
        for shape, r in zip(shapes, wanted, strict=True)
    ]


def convolved(case, leaves):
    return getattr(F, f"conv{len(case.w) - 2}d")(*leaves, **case.conv)


def pooled(case, y):
    return getattr(F, f"max_pool{len(case.w) - 2}d")(y, **case.pool)


def both(case, leaves):
    return pooled(case, convolved(case, leaves))


def cotangent(z):
    return np.random.default_rng(1).standard_normal(z.shape).astype(z.dtype)


def gradients(leaves):
    """And forget them."""
    result = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    return result


def pull(function, case, leaves):
    z = function(case, leaves)
    z.backward(cotangent(z))
    return gradients(leaves)


def one_by_one(function, case, leaves, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_behind", {})
        return pull(function, case, leaves)


def assert_same_bits(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        assert (a is None) == (b is None)
        assert a is None or (a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes())


def assert_agree(actual, expected):
    """The gradient of x to the bit; the sums for w and b are added in another order."""
    assert_same_bits(actual[:1], expected[:1])
    for a, b in zip(actual[1:], expected[1:], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[b.dtype.type] * np.abs(b).max())


@pytest.fixture
def offers(monkeypatch):
    """Whether the backend computed the sums, each time that it was asked."""
    seen = []
    home = type(backend_of(np.ones(1)))
    original = home.conv_sums_behind_max_pool

    def asked(self, *arguments):
        result = original(self, *arguments)
        seen.append(result is not None)
        return result

    monkeypatch.setattr(home, "conv_sums_behind_max_pool", asked)
    return seen


@pytest.fixture
def calls(monkeypatch):
    """How often the gradient of a whole convolution's result was computed."""
    seen = []
    home = type(backend_of(np.ones(1)))
    original = home.max_pool_backward
    monkeypatch.setattr(home, "max_pool_backward", lambda self, *a: seen.append(1) or original(self, *a))
    return seen


@both_types
@pytest.mark.parametrize("name", OFFERED)
def test_the_sums_agree_with_one_by_one(name, dtype, monkeypatch, offers):
    case = OFFERED[name]
    for x_wanted in (False, True):
        if name == "lenet-1" and x_wanted:
            continue  # too few numbers under a filter
        leaves = operands(case, dtype, (x_wanted, True, True))
        expected = one_by_one(both, case, leaves, monkeypatch)
        assert offers == []
        assert_agree(pull(both, case, leaves), expected)
        assert offers.pop() and offers == []


@both_types
@pytest.mark.parametrize("name", NOT_OFFERED)
def test_the_same_bits_where_it_is_not_offered(name, dtype, monkeypatch, offers):
    case = NOT_OFFERED[name]
    for x_wanted in (False, True):
        leaves = operands(case, dtype, (x_wanted, True, True))
        expected = one_by_one(both, case, leaves, monkeypatch)
        assert_same_bits(pull(both, case, leaves), expected)
    assert not any(offers)


@pytest.mark.parametrize("x_wanted", (False, True))
def test_winograds_algorithm_keeps_its_shapes(x_wanted, monkeypatch, offers):
    leaves = operands(WINOGRAD, np.float32, (x_wanted, True, True))
    expected = one_by_one(both, WINOGRAD, leaves, monkeypatch)
    assert_same_bits(pull(both, WINOGRAD, leaves), expected)
    assert offers == [False]
    with nnx.set_conv_precision("high"):
        expected = one_by_one(both, WINOGRAD, leaves, monkeypatch)
        assert_agree(pull(both, WINOGRAD, leaves), expected)
    assert offers == [False, True]


@both_types
@pytest.mark.parametrize("case", (FEW_UNDER, MANY_UNDER, FIRST), ids=("few", "many", "lenet-1"))
def test_beside_the_gradient_of_x_only_what_pays_is_offered(case, dtype, monkeypatch, offers):
    leaves = operands(case, dtype)
    assert_same_bits(pull(both, case, leaves), one_by_one(both, case, leaves, monkeypatch))
    assert offers == [False]
    leaves[0].requires_grad = False
    assert_agree(pull(both, case, leaves), one_by_one(both, case, leaves, monkeypatch))
    assert offers == [False, True]


def test_the_base_backend_offers_nothing(monkeypatch):
    leaves = operands(SECOND, np.float32)
    with nnx.testing.base_backend():
        assert_same_bits(pull(both, SECOND, leaves), one_by_one(both, SECOND, leaves, monkeypatch))


@both_types
def test_some_gradients_only(dtype, monkeypatch, offers, calls):
    for wanted in np.ndindex(2, 2, 2):
        if any(wanted):
            leaves = operands(SECOND, dtype, map(bool, wanted))
            expected = one_by_one(both, SECOND, leaves, monkeypatch)
            calls.clear()
            offers.clear()
            actual = pull(both, SECOND, leaves)
            assert_agree(actual, expected)
            assert [g is not None for g in actual] == [bool(n) for n in wanted]
            assert len(calls) == wanted[0] and len(offers) == max(wanted[1:]), "nothing is computed in vain"


def test_without_a_bias(monkeypatch):
    leaves = operands(SECOND, np.float32)[:2]
    expected = one_by_one(both, SECOND, leaves, monkeypatch)
    assert_agree(pull(both, SECOND, leaves), expected)


@pytest.mark.parametrize("name", OFFERED)
def test_a_first_layer_does_without_the_gradient_of_the_whole_result(name, monkeypatch, calls):
    case = OFFERED[name]
    for x_wanted in (False, True):
        leaves = operands(case, np.float32, (x_wanted, True, True))
        expected = one_by_one(both, case, leaves, monkeypatch)
        assert len(calls) == 1, "the comparison computes it"
        calls.clear()
        assert_agree(pull(both, case, leaves), expected)
        assert len(calls) == x_wanted
        calls.clear()


@pytest.mark.parametrize(
    "function",
    [
        lambda p, y: p.sum() + y.sum(),  # the other branch reaches the convolution before the pooling does
        lambda p, y: y.sum() + (p * p).sum(),  # and behind it
        lambda p, y: (y * y).sum() * p.sum(),
        lambda p, y: (p * F.max_pool2d(y, 2) * 3).sum(),
        lambda p, y: F.avg_pool2d(F.relu(y), 2).sum() - (p * p).sum(),
    ],
)
@pytest.mark.parametrize("case", (FIRST, SECOND), ids=("lenet-1", "lenet-2"))
@pytest.mark.parametrize("x_wanted", (False, True))
def test_other_branches(function, case, x_wanted, monkeypatch, offers):
    """What reaches the convolution's result from elsewhere is added to the pooling's gradient: nothing is left out."""
    leaves = operands(case, np.float32, (x_wanted, True, True))

    def pooling_first(case, leaves):
        y = convolved(case, leaves)
        return function(pooled(case, y), y)

    def pooling_last(case, leaves):
        y = convolved(case, leaves)
        other = nnx.cat([y])
        return function(pooled(case, y), other)

    for whole in (pooling_first, pooling_last):
        expected = one_by_one(whole, case, leaves, monkeypatch)
        assert_same_bits(pull(whole, case, leaves), expected)
    assert offers == []


@both_types
def test_operations_around_both(dtype, monkeypatch, offers):
    """In front of them and behind, two poolings one after the other, the same filters twice."""

    def network(case, leaves):
        x, w, b = leaves
        first = F.max_pool2d(F.conv2d(F.tanh(x), w, b, padding=2), 2)
        return F.max_pool2d(F.max_pool2d(F.conv2d(first[:, :6], w, b, padding=2), 2), 2, 1) * 2

    leaves = operands(SECOND, dtype)
    expected = one_by_one(network, SECOND, leaves, monkeypatch)
    actual = pull(network, SECOND, leaves)
    assert offers == [True, True]
    assert_agree(actual, expected)


@both_types
@pytest.mark.parametrize("x_wanted", (False, True))
def test_retained_gradients_are_there(x_wanted, dtype, monkeypatch):
    leaves = operands(SECOND, dtype, (x_wanted, True, True))
    expected = one_by_one(both, SECOND, leaves, monkeypatch)
    y = convolved(SECOND, leaves)
    y.retain_grad()
    z = pooled(SECOND, y)
    gy = cotangent(z)
    z.backward(gy)
    windows = np.where(y.data == z.data.repeat(2, 2).repeat(2, 3), gy.repeat(2, 2).repeat(2, 3), 0)
    np.testing.assert_array_equal(y.grad, windows)
    assert_same_bits(gradients(leaves), expected)


@pytest.mark.parametrize("x_wanted", (False, True))
def test_a_second_backward(x_wanted, offers):
    leaves = operands(SECOND, np.float32, (x_wanted, True, True))
    y = convolved(SECOND, leaves)
    z = pooled(SECOND, y)
    gy = cotangent(z)
    z.backward(gy, retain_graph=True)
    once = [None if leaf.grad is None else leaf.grad.copy() for leaf in leaves]
    z.backward(gy)
    assert offers == [True, True]
    for leaf, g in zip(leaves, once, strict=True):
        assert (leaf.grad is None) == (g is None)
        if g is not None:
            np.testing.assert_array_equal(leaf.grad, 2 * g)
    for used, name in ((z, "max_pool"), (y, "conv")):
        with pytest.raises(RuntimeError, match=f"expected a graph that was not used yet, .* \\(operation '{name}'\\)"):
            used.backward(cotangent(used))


def test_what_is_given_is_not_written_to():
    leaves = operands(SECOND, np.float32)
    z = both(SECOND, leaves)
    gy = cotangent(z)
    before = [a.copy() for a in (gy, *(leaf.data for leaf in leaves))]
    z.backward(gy)
    for a, b in zip((gy, *(leaf.data for leaf in leaves)), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("layout", ("last", "holes", "broadcast"))
def test_any_layout(layout, monkeypatch, offers):
    """Of the input and, from a sum behind the pooling, of the gradient."""
    case = OFFERED["strides"]  # of few channels, whose images nobody copies
    x, w, b = operands(case, np.float32, (False, True, True))
    if layout == "last":
        x = nnx.Tensor(np.moveaxis(np.moveaxis(x.data, 1, -1).copy(), -1, 1))
    elif layout == "holes":
        x = nnx.Tensor(x.data.repeat(2, 0).repeat(2, 3)[::2, :, ::-1, ::2])
    else:
        x = nnx.Tensor(np.broadcast_to(x.data[:, :1, :1], x.shape))

    def total(case, leaves):
        return both(case, leaves).sum()

    expected = one_by_one(total, case, [x, w, b], monkeypatch)
    assert_agree(pull(total, case, [x, w, b]), expected)
    assert offers == [True]


def test_an_empty_batch_has_gradients_of_zero(offers):
    leaves = operands(Case((0, 6, 12, 12), *SECOND[1:]), np.float32, (False, True, True))
    _, *sums = pull(both, SECOND, leaves)
    assert offers == [True]
    assert all(not g.any() and g.shape == leaf.shape for g, leaf in zip(sums, leaves[1:], strict=True))


@pytest.mark.parametrize("wrt", ((1, 2), (0, 1, 2)), ids=("first-layer", "all"))
def test_gradients_are_right(wrt, offers):
    case = Case((1, 4, 7, 6), (2, 4, 4, 4), {"stride": 1, "padding": ((1, 0), (0, 2))}, TWO)
    arrays = tuple(leaf.data for leaf in operands(case, np.float64))
    nnx.testing.gradcheck(lambda *leaves: both(case, leaves), arrays, wrt=wrt)
    assert offers and all(offers)


WITH_RELU = ("lenet-1", "lenet-2", "strides", "padding-of-one-side", "overlapping", "hanging-over", "dilated")
WITHOUT = ("groups", "dilation", "pooling-padding", "many-channels", "large-windows", "one-sample")


@both_types
@pytest.mark.parametrize("name", WITH_RELU + WITHOUT)
@pytest.mark.parametrize("special", (False, True), ids=("finite", "special"))
def test_sequential_agrees_with_the_functions(name, special, dtype):
    """With ReLU between them; `special`: what is not finite arrives where the maximum is 0, and counts nothing."""
    case = (OFFERED | NOT_OFFERED)[name]
    x, w, b = operands(case, dtype)
    b.data -= np.sqrt(dtype(w.data[0].size))  # many windows without a positive number
    b.data[0] -= 1000
    y = pooled(case, F.relu(convolved(case, (x, w, b))))
    assert (y.data == 0).any() and (y.data > 0).any()
    gy = cotangent(y)
    if special:
        gy[y.data == 0] = np.resize(np.array([np.nan, np.inf, -np.inf], dtype), (y.data == 0).sum())
    y.backward(gy)
    expected = gradients((x, w, b))
    conv = nnx.nn.Conv2d(case.x[-3], case.w[0], case.w[2:], **case.conv)
    conv.weight, conv.bias = nnx.nn.Parameter(w.data), nnx.nn.Parameter(b.data)
    net = nnx.nn.Sequential(conv, nnx.nn.ReLU(), nnx.nn.MaxPool2d(**case.pool))
    for source in (x.detach(), x):
        z = net(source)
        np.testing.assert_array_equal(z.data, y.data)
        z.backward(gy)
        g, *others = gradients((source, conv.weight, conv.bias))
        for actual, right in zip((expected[0] if g is None else g, *others), expected, strict=True):
            assert actual.dtype == dtype and np.isfinite(actual).all()
            np.testing.assert_allclose(actual, right, rtol=0, atol=TOLERANCE[dtype] * np.abs(right).max())
    assert g is not None
