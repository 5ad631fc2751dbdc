"""Batch norm that is computed when its result is read, or together with what follows: the same bits as at once.

What convolutions between batch norms do is in test_between_batch_norms.py.
"""

from __future__ import annotations

import copy
import hashlib
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest

import nnx
from nnx import functional as F
from nnx import nn
from nnx.autograd import Parameter, Tensor, engine
from nnx.autograd._later import later_of
from nnx.backends import backend_of
from nnx.backends.cpu.norm import LaterNorm

BACKEND = type(backend_of(np.ones(1)))

# images, numbers of channels that fill no vector, one channel, rows, one and three spatial axes
SHAPES = [(8, 16, 12, 12), (5, 5, 30, 31), (30, 1, 25, 25), (6000, 3), (20, 30, 40), (7, 5, 6, 9, 10)]
SHAPE = SHAPES[0]
each_dtype = pytest.mark.parametrize("dtype", (np.float32, np.float64))
quiet = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def bits(a):
    """A hash of an array's bytes; which sign a NaN has depends on the order of operands in the compiled code."""
    return hashlib.sha256(np.where(np.isnan(a), a.dtype.type(np.nan), a).tobytes()).hexdigest()


def differing(results, others):
    """The names under which two dictionaries of arrays (or None) differ in any bit."""
    assert results.keys() == others.keys()
    pairs = [(name, a, others[name]) for name, a in results.items()]
    return [name for name, a, b in pairs if (a is None) != (b is None) or (a is not None and bits(a) != bits(b))]


def order(a):
    """Where the elements of an array lie in memory."""
    return [step for n, step in zip(a.shape, a.strides, strict=True) if n > 1]


def images(rng, shape, dtype=np.float32):
    """Random numbers, channels-last in memory as the results of batch norm are."""
    n, c, *spatial = shape
    return np.moveaxis(rng.standard_normal((n, *spatial, c)).astype(dtype), -1, 1)


def arrays_for(shape, dtype=np.float32, affine="both", special=False):
    """Images h, g and s, two batch norms' weights and biases, and a gradient for results that are up to 4 n long."""
    rng = np.random.default_rng(0)
    n, channels, *spatial = shape
    arrays = {name: images(rng, shape, dtype) for name in "hgs"}
    if special:
        arrays["h"][::3, 0] = np.nan
        arrays["g"][1::3, -1] = np.inf
        arrays["s"][::2, channels // 2] = -np.inf
        arrays["s"][1::2] = -0.0
    for k in range(2):
        w, b = rng.standard_normal((2, channels)).astype(dtype)
        if special:
            w[channels // 3], b[channels // 3] = 0, -0.0  # results that are 0 and -0
        if affine in ("both", "weight"):
            arrays[f"w{k}"] = w
        if affine in ("both", "bias"):
            arrays[f"b{k}"] = b
    gy = images(rng, (4 * n, channels, *spatial), dtype)
    if special:
        gy[::5, channels // 2] = np.inf
    return arrays, gy


class Scene:
    """Leaves, results of an operation on them that nobody else has, and two batch norms."""

    def __init__(self, arrays):
        self.leaves = {name: Tensor(a.copy(order="K"), requires_grad=True) for name, a in arrays.items()}
        self.h, self.g, self.s = (nnx.cat([self.leaves[name]]) for name in "hgs")
        channels = self.h.shape[1]
        self.statistics = [[a(channels) for a in (np.zeros, np.ones)] for _ in range(2)]

    def norm(self, x, k=0):
        w, b = self.leaves.get(f"w{k}"), self.leaves.get(f"b{k}")
        return F.batch_norm(x, *self.statistics[k], w, b, training=True)

    @property
    def first(self):
        """A batch norm of h."""
        return self.norm(self.h)

    @property
    def second(self):
        """Another one of g."""
        return self.norm(self.g, 1)


def evaluate(function, arrays, gy):
    """The result of ``function(scene)``, all gradients and the statistics, by name."""
    scene = Scene(arrays)
    z = function(scene)
    z.backward(gy[: len(z)])
    gradients = {f"gradient of {name}": leaf.grad for name, leaf in scene.leaves.items()}
    statistics = {f"statistics {k}": np.stack(pair) for k, pair in enumerate(scene.statistics)}
    return {"result": z.data, **gradients, **statistics}


@contextmanager
def at_once(monkeypatch):
    """Nothing is left for later."""
    with monkeypatch.context() as patch:
        patch.setattr(BACKEND, "batch_norm_later", lambda *args: None)
        yield


def check_against_at_once(function, arrays, gy, monkeypatch):
    got = evaluate(function, arrays, gy)
    with at_once(monkeypatch):
        expected = evaluate(function, arrays, gy)
    assert differing(got, expected) == []
    assert got["result"].dtype == expected["result"].dtype
    assert order(got["result"]) == order(expected["result"])


def read(t):
    """The Tensor itself, once somebody has looked at its numbers."""
    assert t.data is t.data
    return t


@pytest.fixture
def passes(monkeypatch):
    """For each time that a batch norm left for later was computed: what was done in the same pass."""
    seen = []
    original = LaterNorm.array

    def array(self, relu=False):
        if self.result is None:
            seen.append("norm" + " + sum" * (self.added is not None) + " + relu" * (relu or self.relu))
        return original(self, relu)

    monkeypatch.setattr(LaterNorm, "array", array)
    return seen


# -- the same bits ---------------------------------------------------------------------------------


def before(scene):
    return F.relu(read(scene.first))


def after(scene):
    y = scene.first
    z = F.relu(y)
    return nnx.cat([z, read(y)])


def two_relus(scene):
    y = scene.first
    return nnx.cat([F.relu(y), F.relu(y) * 2])


def relu_and_others(scene):
    y = scene.first
    return nnx.cat([F.sigmoid(y), F.relu(y), y * 3])


def others_and_relu(scene):
    y = scene.first
    positive = F.relu(y)
    return nnx.cat([positive, y, F.tanh(y)])


def sum_and_relus(scene):
    y = scene.first
    total = y + scene.s
    return nnx.cat([F.relu(total), F.relu(y), total, y])


def sum_read_before(scene):
    return F.relu(read(scene.first + scene.s))


def summand_read_before(scene):
    return F.relu(read(scene.first) + scene.s)


def summand_read_after(scene):
    y = scene.first
    total = y + scene.s
    read(y)
    return F.relu(total)


def chain(scene):
    positive = F.relu(scene.norm(scene.h))
    return F.relu(scene.norm(positive + scene.g, 1) + positive)


def of_a_sum(scene):
    return F.relu(scene.norm(scene.first + scene.s, 1))


# each with the passes in which its batch norms are computed, where there is a weight and a bias
FUNCTIONS = {
    "relu(y)": (lambda scene: F.relu(scene.first), ["norm + relu"]),
    "relu(y + s)": (lambda scene: F.relu(scene.first + scene.s), ["norm + sum + relu"]),
    "relu(s + y)": (lambda scene: F.relu(scene.s + scene.first), ["norm + sum + relu"]),
    "y": (lambda scene: scene.first, ["norm"]),
    "y + s": (lambda scene: scene.first + scene.s, ["norm + sum"]),
    "s + y": (lambda scene: scene.s + scene.first, ["norm + sum"]),
    "y + z": (lambda scene: scene.first + scene.second, ["norm", "norm + sum"]),
    "relu(y + z)": (lambda scene: F.relu(scene.first + scene.second), ["norm", "norm + sum + relu"]),
    "relu(y + relu(z))": (
        lambda scene: F.relu(scene.first + F.relu(scene.second)),
        ["norm + relu", "norm + sum + relu"],
    ),
    "(y + s) + h": (lambda scene: scene.first + scene.s + scene.h, ["norm + sum"]),
    "relu(h + (s + y))": (lambda scene: F.relu(scene.h + (scene.s + scene.first)), ["norm + sum"]),
    "relu(y + h)": (lambda scene: F.relu(scene.first + scene.h), ["norm + sum + relu"]),
    "y + 2 s": (lambda scene: nnx.add(scene.first, scene.s, alpha=2), ["norm"]),
    "s + 2 y": (lambda scene: nnx.add(scene.s, scene.first, alpha=2), ["norm"]),
    "relu(y - s)": (lambda scene: F.relu(scene.first - scene.s), ["norm"]),
    "relu(relu(y))": (lambda scene: F.relu(F.relu(scene.first)), ["norm + relu"]),
    "read before": (before, ["norm"]),
    "read after": (after, ["norm + relu", "norm"]),
    "two relus": (two_relus, ["norm + relu", "norm + relu"]),
    "other operations, then relu": (relu_and_others, ["norm"]),
    "relu, then other operations": (others_and_relu, ["norm + relu", "norm"]),
    "a sum and relus": (sum_and_relus, ["norm + sum + relu", "norm + relu", "norm + sum", "norm"]),
    "a sum read before": (sum_read_before, ["norm + sum"]),
    "a summand read before": (summand_read_before, ["norm"]),
    "a summand read after": (summand_read_after, ["norm", "norm + sum + relu"]),
    "a chain": (chain, ["norm + relu", "norm + sum + relu"]),
    "of a sum": (of_a_sum, ["norm + sum", "norm + relu"]),
}
each_function = pytest.mark.parametrize("name", FUNCTIONS)


@each_dtype
@pytest.mark.parametrize("affine", ("both", "weight", "bias", "neither"))
@pytest.mark.parametrize("special", (False, True), ids=("finite", "special"))
@each_function
@quiet
def test_the_same_bits_as_at_once(name, dtype, affine, special, monkeypatch):
    function, _ = FUNCTIONS[name]
    for shape in SHAPES if affine == "both" and not special else SHAPES[:1]:
        check_against_at_once(function, *arrays_for(shape, dtype, affine, special), monkeypatch)


@each_function
def test_what_is_computed_in_one_pass(name, passes):
    function, expected = FUNCTIONS[name]
    for shape in SHAPES:
        evaluate(function, *arrays_for(shape))
        assert sorted(passes) == sorted(expected)  # a ReLU of images is computed when it is read, too
        passes.clear()


def test_a_sum_needs_a_bias_to_be_computed_in_one_pass(passes):
    for affine in ("weight", "neither"):
        evaluate(FUNCTIONS["relu(y + s)"][0], *arrays_for(SHAPE, affine=affine))
        assert passes == ["norm"]
        passes.clear()


@pytest.mark.parametrize("frozen", (["w0"], ["b0"], ["w0", "b0"], ["s"], ["s", "w0", "b0"]), ids=" ".join)
def test_some_gradients_only(frozen, monkeypatch):
    def function(scene):
        for name in frozen:
            scene.leaves[name].requires_grad = False
        return F.relu(scene.first + nnx.cat([scene.leaves["s"], scene.leaves["h"]])[: len(scene.h)])

    def relu_alone(scene):
        for name in frozen:
            scene.leaves[name].requires_grad = False
        return F.relu(scene.first)

    arrays, gy = arrays_for(SHAPE)
    for f in (function, relu_alone):
        check_against_at_once(f, arrays, gy, monkeypatch)
        assert all(evaluate(f, arrays, gy)[f"gradient of {name}"] is None for name in frozen)


# -- later, and when not ---------------------------------------------------------------------------


def test_nothing_is_computed_before_somebody_reads_it(passes):
    y = Scene(arrays_for(SHAPE)[0]).first
    assert later_of(y) is not None
    assert passes == []
    array = y.data
    assert later_of(y) is None
    assert y.data is array
    assert passes == ["norm"]


def test_relu_and_sums_do_not_read_it(passes):
    scene = Scene(arrays_for(SHAPE)[0])
    y = scene.first
    for total in (y + scene.s, scene.s + y):
        assert later_of(total) is not None and later_of(y) is not None
    assert passes == []
    z = F.relu(y)
    assert later_of(y) is not None and later_of(z) is not None
    assert passes == []
    np.testing.assert_array_equal(z.data, np.maximum(y.data, 0))
    np.testing.assert_array_equal(total.data, y.data + scene.s.data)


def test_backward_does_not_read_it(passes):
    scene = Scene(arrays_for(SHAPE)[0])
    y = scene.first
    z = F.relu(y)
    z.backward(np.ones(z.shape))
    assert passes == ["norm + relu"]
    assert later_of(y) is not None
    np.testing.assert_array_equal(z.data, np.maximum(y.data, 0))


@each_dtype
def test_the_result_of_each_operation_that_counts_as_fresh(dtype):
    rng = np.random.default_rng(0)
    x = Tensor(images(rng, SHAPE, dtype), requires_grad=True)
    w = Tensor(rng.standard_normal((SHAPE[1], SHAPE[1], 1, 1)).astype(dtype), requires_grad=True)
    for h in (
        F.conv2d(x, w),
        x + 1,
        1 + x,
        x + x,
        F.relu(x),
        nnx.cat([x]),
        nnx.cat([x, x], 1),
        F.batch_norm(x, None, None, None, None, True),
    ):
        y = F.batch_norm(h, None, None, training=True)
        assert later_of(y) is not None
        assert not np.shares_memory(h.data, x.data)


def test_from_this_size_on():
    for rows, later in ((engine.LARGE_SUM // 4, True), (engine.LARGE_SUM // 4 - 1, False)):
        x = Tensor(np.random.default_rng(0).standard_normal((rows, 4)), requires_grad=True)
        y = F.batch_norm(nnx.cat([x]), None, None, training=True)
        assert (later_of(y) is not None) == later
        np.testing.assert_allclose(y.data.std(axis=0), 1, rtol=1e-4)


def views():
    """Tensors that are not their memory's only owner, by name."""
    rng = np.random.default_rng(0)
    owner = Parameter(rng.standard_normal((16, 12, 12, 8)))
    square = Parameter(rng.standard_normal((150, 150)))
    return {
        "a parameter": (owner, owner),
        "a leaf": (leaf := Tensor(rng.standard_normal((200, 100)), requires_grad=True), leaf),
        "no gradient": (leaf := Tensor(rng.standard_normal((200, 100))), leaf),
        "reshape": (owner, owner.reshape(144, -1)),
        "flatten": (owner, owner.flatten(1)),
        "transpose": (square, square.transpose(0, 1)),
        "T": (square, square.T),
        "permute": (owner, owner.permute(3, 0, 1, 2)),
        "unsqueeze": (square, square.unsqueeze(2)),
        "slice": (square, square[:, :140]),
        "chunk": (owner, owner.chunk(1)[0]),
        "detach": (square, square.detach()),
        "view of a view": (owner, owner.reshape(16, 144, 8).permute(2, 0, 1)),
    }


@pytest.mark.parametrize("name", views())
def test_not_later_of_an_array_that_somebody_else_may_write_to(name):
    owner, x = views()[name]
    assert np.shares_memory(x.data, owner.data) and x.size >= engine.LARGE_SUM
    y = F.batch_norm(x, None, None, training=True)
    assert later_of(y) is None
    z = F.relu(y)
    expected = z.data.copy()
    owner.data[...] = 0
    np.testing.assert_array_equal(z.data, expected)
    np.testing.assert_array_equal(F.relu(y).data, expected)


def test_not_later_in_evaluation_mode():
    scene = Scene(arrays_for(SHAPE)[0])
    y = F.batch_norm(scene.h, np.zeros(SHAPE[1]), np.ones(SHAPE[1]), training=False)
    assert later_of(y) is None


def test_not_later_where_nothing_is_recorded():
    arrays, _ = arrays_for(SHAPE)
    scene = Scene(arrays)
    with nnx.no_grad():
        y = scene.first
    assert later_of(y) is None and not y.requires_grad
    np.testing.assert_array_equal(y.data, Scene(arrays).first.data)


@pytest.mark.parametrize(
    "function",
    [
        lambda y, s: y + s,
        lambda y, s: s + y,
        lambda y, s: F.relu(y + s),
        lambda y, s: F.relu(y),
        lambda y, s: y,
    ],
)
def test_the_rest_without_recording(function, monkeypatch):
    """Where nothing is recorded, the caller may write to a summand as soon as the sum is there."""
    arrays, _ = arrays_for(SHAPE)

    def result():
        scene = Scene(arrays)
        y, s = scene.first, scene.s
        with nnx.no_grad():
            z = function(y, s)
            assert z is y or (later_of(z) is None and not z.requires_grad)
            s.data[...] = 0
        return bits(z.data)

    got = result()
    with at_once(monkeypatch):
        assert result() == got


def other_summands():
    """What a batch norm is not added to later, by name: ``function(scene, y)``."""
    rng = np.random.default_rng(0)
    channels = SHAPE[1]
    wide = rng.standard_normal(SHAPE)  # float64 and C-contiguous
    row = rng.standard_normal((channels, 1, 1)).astype(np.float32)

    def fresh(a):
        return nnx.cat([Tensor(a.copy(order="K"), requires_grad=True)])

    return {
        "a row": lambda scene: fresh(row),
        "a number for each image": lambda scene: fresh(wide[:, :1, :1, :1].astype(np.float32)),
        "more dimensions": lambda scene: fresh(wide[None].astype(np.float32)),
        "a single element": lambda scene: fresh(np.ones(1, np.float32)),
        "another dtype": lambda scene: fresh(wide),
        "another dtype, channels-last": lambda scene: fresh(np.moveaxis(wide.reshape(8, 12, 12, 16), -1, 1)),
        "integers": lambda scene: Tensor(np.ones(SHAPE, int)),
        "another layout": lambda scene: fresh(wide.astype(np.float32)),
        "a leaf": lambda scene: scene.leaves["s"],
        "a view of a leaf": lambda scene: scene.leaves["s"].reshape(*SHAPE),
        "without gradient": lambda scene: scene.s.detach(),
        "a result that is not marked": lambda scene: scene.s * 2,
        "an array": lambda scene: scene.s.data,
        "an array of another dtype": lambda scene: wide,
        "an array of another shape": lambda scene: row,
        "an int": lambda scene: 3,
        "a float": lambda scene: 0.1,
        "a bool": lambda scene: True,
        "a list": lambda scene: row.tolist(),
        "a NumPy number": lambda scene: np.float64(0.1),
    }


@pytest.mark.parametrize("name", other_summands())
@pytest.mark.parametrize("positive", (False, True), ids=("sum", "relu"))
@pytest.mark.parametrize("flipped", (False, True), ids=("y + other", "other + y"))
def test_not_later_with_other_summands(name, positive, flipped, monkeypatch):
    def function(scene):
        y, other = scene.first, other_summands()[name](scene)
        total = nnx.add(other, y) if flipped else nnx.add(y, other)
        assert later_of(total) is None
        total = F.relu(total) if positive else total
        return total[0] if total.ndim > len(SHAPE) else total

    arrays, gy = arrays_for(SHAPE)
    check_against_at_once(function, arrays, gy, monkeypatch)


def test_shapes_that_do_not_go_together():
    scene = Scene(arrays_for(SHAPE)[0])
    for other in (scene.s[:, :5], nnx.cat([scene.s, scene.s])):
        with pytest.raises(ValueError, match="broadcast"):
            scene.first + other


# -- what may change in between --------------------------------------------------------------------


@pytest.mark.parametrize("affine", ("both", "weight", "bias"))
@pytest.mark.parametrize("name", ("y", "relu(y)", "y + s", "relu(y + s)"))
def test_parameters_that_change_before_it_is_read(name, affine, monkeypatch):
    """As an optimizer changes them: the result and its gradients are those of the call."""

    def function(scene, changes):
        y = scene.first
        total = y + scene.s if "+ s" in name else y
        if changes:
            for key in ("w0", "b0"):
                if key in scene.leaves:
                    scene.leaves[key].data[...] *= -3
        return F.relu(total) if "relu" in name else total

    arrays, gy = arrays_for(SHAPE, affine=affine)
    got = evaluate(lambda scene: function(scene, True), arrays, gy)
    with at_once(monkeypatch):
        expected = evaluate(lambda scene: function(scene, False), arrays, gy)
    assert differing(got, expected) == []


def test_parameters_that_change_after_it_is_read(monkeypatch):
    def function(scene):
        z = F.relu(scene.first)
        scene.leaves["w0"].data[...] = 0
        scene.leaves["b0"].data[...] = -1
        return z

    check_against_at_once(function, *arrays_for(SHAPE), monkeypatch)


@each_dtype
def test_running_statistics_move_at_the_call(dtype, monkeypatch):
    arrays, _ = arrays_for(SHAPE, dtype)
    scene = Scene(arrays)
    y = scene.first
    assert later_of(y) is not None
    moved = [a.copy() for a in scene.statistics[0]]
    x = scene.h.data.astype(np.float64)
    axes, count = (0, 2, 3), x.size // x.shape[1]
    atol = 1e-6 if dtype == np.float32 else 1e-14
    np.testing.assert_allclose(moved[0], 0.1 * x.mean(axis=axes), rtol=0, atol=atol)
    np.testing.assert_allclose(moved[1], 0.9 + 0.1 * x.var(axis=axes) * count / (count - 1), rtol=0, atol=atol)
    with at_once(monkeypatch):
        there = Scene(arrays)
        assert later_of(there.first) is None
    F.relu(y + scene.s)
    read(y)
    for now, before, expected in zip(scene.statistics[0], moved, there.statistics[0], strict=True):
        assert bits(now) == bits(before) == bits(expected)  # once, and not by those that read it


def test_statistics_that_change_before_it_is_read():
    arrays, _ = arrays_for(SHAPE)
    scene = Scene(arrays)
    y = scene.first
    for a in scene.statistics[0]:
        a[...] = 7
    np.testing.assert_array_equal(y.data, Scene(arrays).first.data)


@pytest.mark.parametrize("name", ("y", "relu(y)", "y + s", "relu(y + s)"))
def test_data_that_is_assigned_wins(name, monkeypatch, passes):
    arrays, gy = arrays_for(SHAPE)
    array = images(np.random.default_rng(1), SHAPE)

    def function(scene):
        y = scene.first
        y.data = array
        assert y.data is array and later_of(y) is None
        total = y + scene.s if "+ s" in name else y
        z = F.relu(total) if "relu" in name else total
        expected = array + scene.s.data if "+ s" in name else array
        np.testing.assert_array_equal(z.data, np.maximum(expected, 0) if "relu" in name else expected)
        return z

    check_against_at_once(function, arrays, gy, monkeypatch)
    assert passes == []


def test_data_that_is_assigned_to_a_sum(monkeypatch):
    arrays, gy = arrays_for(SHAPE)
    array = images(np.random.default_rng(1), SHAPE)

    def function(scene):
        total = scene.first + scene.s
        total.data = array
        return F.relu(total)

    np.testing.assert_array_equal(evaluate(function, arrays, gy)["result"], np.maximum(array, 0))
    check_against_at_once(function, arrays, gy, monkeypatch)


@pytest.mark.parametrize("written", ("assigned", "in place"))
def test_gradients_behind_a_relu_of_data_that_was_written(written):
    """The ReLU's gradient goes by the numbers that it saw, not by those that batch norm would give."""
    arrays, gy = arrays_for(SHAPE)
    array = images(np.random.default_rng(1), SHAPE)

    def function(scene):
        y = scene.first
        if written == "assigned":
            y.data = array
        else:
            y.data[...] = array
        return F.relu(y)

    got = evaluate(function, arrays, gy)
    gy = np.where(array > 0, gy[: len(array)], 0)
    expected = evaluate(lambda scene: scene.first, arrays, gy)
    assert differing(got, {**expected, "result": np.maximum(array, 0)}) == []


# -- a Tensor as any other -------------------------------------------------------------------------


def test_attributes_that_are_not_there(passes):
    scene = Scene(arrays_for(SHAPE)[0])
    y = scene.first
    for t in (y, scene.h, Parameter(np.ones(2)), F.relu(y)):
        assert not hasattr(t, "nothing")
        assert getattr(t, "nothing", 5) == 5
        with pytest.raises(AttributeError, match=f"'{type(t).__name__}' object has no attribute 'nothing'"):
            t.nothing  # noqa: B018 - raises
        with pytest.raises(AttributeError, match="'nothing'"):
            t.nothing = 1
    assert later_of(y) is not None and passes == []
    assert hasattr(y, "data")
    assert passes == ["norm"]


def test_a_tensor_that_was_never_initialised():
    for name in ("data", "grad", "_later", "nothing"):
        with pytest.raises(AttributeError):
            getattr(Tensor.__new__(Tensor), name)


@pytest.mark.parametrize(
    "look",
    [
        lambda t: t.shape,
        lambda t: t.dtype,
        lambda t: t.ndim,
        lambda t: t.dim(),
        lambda t: t.size,
        lambda t: t.numel(),
        lambda t: t.device,
        lambda t: len(t),
        lambda t: t.is_leaf,
        lambda t: t.requires_grad,
        lambda t: t.grad,
        lambda t: repr(t),
        lambda t: f"{t}",
        lambda t: t.tolist(),
        lambda t: bits(t.numpy()),
        lambda t: bits(np.asarray(t)),
        lambda t: bits(np.from_dlpack(t.detach())),
        lambda t: bits(t.detach().data),
        lambda t: (t.detach().requires_grad, t.detach().is_leaf),
        lambda t: bits(t[3].data),
        lambda t: [bits(row.data) for row in t],
        lambda t: bits(t.clone().data),
        lambda t: bits(t.double().data),
        lambda t: bits(t.permute(1, 0, 2, 3).data),
        lambda t: (t == 0).data.tobytes(),
        lambda t: 0.5 in t,
        lambda t: t.max().item(),
        lambda t: np.sum(t.detach()),
        lambda t: bits(copy.copy(t).data),
    ],
)
@pytest.mark.parametrize("summed", (False, True), ids=("y", "y + s"))
def test_whoever_looks_sees_the_same(look, summed, monkeypatch):
    def result():
        scene = Scene(arrays_for(SHAPE)[0])
        return look(scene.first + scene.s if summed else scene.first)

    got = result()
    with at_once(monkeypatch):
        assert result() == got


def test_numpy_and_detach_share_its_memory():
    y = Scene(arrays_for(SHAPE)[0]).first
    detached = y.detach()
    assert detached.data is y.data is y.numpy()


def test_deepcopy_is_refused():
    with pytest.raises(RuntimeError, match="expected a leaf Tensor"):
        copy.deepcopy(Scene(arrays_for(SHAPE)[0]).first)


def test_as_the_gradient_that_backward_begins_with():
    arrays, _ = arrays_for(SHAPE)
    scene, other = Scene(arrays), Scene(arrays)
    scene.h.backward(other.first)
    np.testing.assert_array_equal(scene.leaves["h"].grad, other.first.data)


@pytest.mark.parametrize("summed", (False, True), ids=("relu(y)", "relu(y + s)"))
def test_retained_gradients(summed, passes):
    arrays, gy = arrays_for(SHAPE)
    scene = Scene(arrays)
    y = scene.first
    total = y + scene.s if summed else y
    y.retain_grad()
    total.retain_grad()
    assert later_of(y) is not None and later_of(total) is not None
    z = F.relu(total)
    z.backward(gy[: len(z)])
    masked = np.where(z.data > 0, gy[: len(z)], 0)
    np.testing.assert_array_equal(y.grad, masked)
    np.testing.assert_array_equal(total.grad, masked)
    np.testing.assert_allclose(scene.leaves["b0"].grad, masked.sum(axis=(0, 2, 3), dtype=float), rtol=1e-5)
    assert passes == ["norm" + " + sum" * summed + " + relu"]


@each_function
def test_a_second_backward(name):
    scene = Scene(arrays_for(SHAPE)[0])
    z = FUNCTIONS[name][0](scene)
    gy = images(np.random.default_rng(1), (len(z), *SHAPE[1:]))
    z.backward(gy, retain_graph=True)
    once = {key: leaf.grad.copy() for key, leaf in scene.leaves.items() if leaf.grad is not None}
    z.backward(gy)
    for key, g in once.items():
        np.testing.assert_array_equal(scene.leaves[key].grad, 2 * g)
    with pytest.raises(RuntimeError, match="expected a graph that was not used yet"):
        z.backward(gy)


def test_gradients_are_right(monkeypatch, passes):
    """Against differences: of batch norm and a ReLU, and of a sum between them, in one pass."""
    monkeypatch.setattr("nnx.functional.norm.LARGE_SUM", 1)
    rng = np.random.default_rng(1)
    x, s = rng.standard_normal((2, 20, 3))
    arrays = x, rng.uniform(0.5, 2, 3), rng.standard_normal(3), s

    def normalised(x, w, b):
        return F.batch_norm(nnx.cat([x]), None, None, w, b, training=True)

    for function, expected in (
        (lambda x, w, b, s: F.relu(normalised(x, w, b) + nnx.cat([s])), "norm + sum + relu"),
        (lambda x, w, b, s: F.relu(normalised(x, w, b)) + s, "norm + relu"),
    ):
        nnx.testing.gradcheck(function, arrays)
        assert expected in passes
        passes.clear()


# -- networks and threads --------------------------------------------------------------------------


class Block(nn.Module):
    """A residual block whose shortcut has a batch norm too."""

    def __init__(self, dtype):
        super().__init__()
        channels = SHAPE[1]
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(3))
        self.norm1, self.norm2, self.norm3 = (nn.BatchNorm2d(channels) for _ in range(3))

    def forward(self, x):
        x = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(x))
        x = F.relu(y + x)
        return F.relu(self.norm3(self.conv3(x)) + y)


@each_dtype
@pytest.mark.parametrize("threads", (1, 3))
def test_training_steps_of_a_residual_block(dtype, threads, monkeypatch, passes, every_kernel_threaded):
    nnx.set_num_threads(threads)

    def train():
        nnx.manual_seed(0)
        net = Block(dtype).to(dtype)
        optimizer = nnx.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
        rng = np.random.default_rng(0)
        for _ in range(2):
            x = images(rng, SHAPE, dtype)
            optimizer.zero_grad()
            (net(x) ** 2).mean().backward()
            optimizer.step()
        return {name: a for name, a in net.state_dict().items() if a.dtype == dtype}

    nnx.manual_seed(0)
    first = Block(dtype).to(dtype).state_dict()
    got = train()
    assert passes == 2 * ["norm + relu", "norm + sum + relu", "norm", "norm + sum + relu"]
    with at_once(monkeypatch):
        expected = train()
    assert differing(got, expected) == []
    assert [name for name in got if (got[name] == first[name]).all()] == []  # everything was trained


def in_threads(function, count=4):
    """Call `function` in several threads at once; their results."""
    results, errors = [], []

    def run():
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(results) == count
    return results


def test_two_threads_compute_it_at_once(monkeypatch):
    y = Scene(arrays_for(SHAPE)[0]).first
    expected = bits(Scene(arrays_for(SHAPE)[0]).first.data)
    both = threading.Barrier(2)
    original = LaterNorm.array

    def array(self, relu=False):
        try:
            both.wait(timeout=5)  # until the other one has begun too
        except threading.BrokenBarrierError:
            pass  # the other one waits for this one: as good
        return original(self, relu)

    monkeypatch.setattr(LaterNorm, "array", array)
    assert [bits(a) for a in in_threads(lambda: y.data, 2)] == 2 * [expected]
    assert bits(y.data) == expected


def test_a_thread_that_reads_a_summand_meanwhile(monkeypatch):
    scene = Scene(arrays_for(SHAPE)[0])

    def looked(t):
        later = later_of(t)
        if isinstance(t, Tensor):
            read(t)  # as another thread may do at any time
        return later

    expected = bits((scene.first + scene.s).data)
    monkeypatch.setattr("nnx.autograd.arithmetic.later_of", looked)
    assert bits((scene.s + scene.first).data) == expected
    assert bits((scene.first + scene.s).data) == expected


def test_threads_that_read_and_use_it():
    """Whatever the others have done by then, each gets what it would get alone."""
    arrays, _ = arrays_for(SHAPE)
    uses = [
        lambda scene, y: y.data,
        lambda scene, y: F.relu(y).data,
        lambda scene, y: F.relu(y + scene.s).data,
        lambda scene, y: (scene.s + y).data,
    ]
    scene = Scene(arrays)
    expected = sorted(bits(use(scene, scene.first)) for use in uses)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):
            y, rest, start = scene.first, list(uses), threading.Barrier(len(uses))

            def one(y=y, rest=rest, start=start):
                use = rest.pop()
                start.wait()
                return bits(use(scene, y))

            assert sorted(in_threads(one, len(uses))) == expected
    finally:
        sys.setswitchinterval(interval)
