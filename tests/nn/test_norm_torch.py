"""Normalisation layers beside PyTorch's over several steps: results, gradients and running statistics."""

from __future__ import annotations

import numpy as np
import pytest

from nnx import nn
from nnx.autograd import Tensor

torch = pytest.importorskip("torch")

SHAPES = {"1d": [(6, 3), (4, 3, 5)], "2d": [(4, 3, 5, 4)], "3d": [(3, 3, 2, 4, 3)]}
# float32: some units in the last place of the largest value; the running mean of float32 accumulates over the steps
RTOL = {np.float32: 2e-5, np.float64: 1e-10}


def close(a, b, dtype):
    b = np.asarray(b)
    scale = max(np.abs(b).max(initial=0), 1e-3)
    np.testing.assert_allclose(a, b, rtol=0, atol=RTOL[dtype] * scale)


def compare(ours, theirs, shape, dtype, rng, steps=3):
    """Train both for some steps on the same batches with plain gradient descent, then evaluate."""
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        a.data[...] = rng.standard_normal(a.shape)
        b.data.copy_(torch.from_numpy(a.data))
    for _ in range(steps):
        x = (rng.standard_normal(shape) * 3 + 1).astype(dtype)
        gy = rng.standard_normal(shape).astype(dtype)
        xo, xt = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        yo, yt = ours(xo), theirs(xt)
        yo.backward(gy)
        yt.backward(torch.from_numpy(gy))
        close(yo.data, yt.detach(), dtype)
        close(xo.grad, xt.grad, dtype)
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            close(a.grad, b.grad, dtype)
            a.data -= 0.01 * a.grad
            b.data -= 0.01 * b.grad
            a.grad = b.grad = None
        state, other = ours.state_dict(), theirs.state_dict()
        assert list(state) == list(other)
        for name, array in state.items():
            close(array, other[name], dtype)
            assert array.shape == tuple(other[name].shape)
    ours.eval()
    theirs.eval()
    x = rng.standard_normal(shape).astype(dtype)
    gy = rng.standard_normal(shape).astype(dtype)
    xo, xt = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    yo, yt = ours(xo), theirs(xt)
    yo.backward(gy)
    yt.backward(torch.from_numpy(gy))
    close(yo.data, yt.detach(), dtype)
    close(xo.grad, xt.grad, dtype)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        close(a.grad, b.grad, dtype)


def pair(name, dtype, *args, **options):
    ours = getattr(nn, name)(*args, dtype=dtype, **options)
    theirs = getattr(torch.nn, name)(*args, dtype=torch.float32 if dtype == np.float32 else torch.float64, **options)
    return ours, theirs


each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@each_dtype
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": None},
        {"momentum": 0.7, "eps": 0.01},
        {"affine": False},
        {"track_running_stats": False},
        {"affine": False, "track_running_stats": False},
    ],
    ids=str,
)
@pytest.mark.parametrize(("name", "shape"), [(f"BatchNorm{k}", s) for k, shapes in SHAPES.items() for s in shapes])
def test_batch_norm(name, shape, options, dtype, rng):
    compare(*pair(name, dtype, 3, **options), shape, dtype, rng)


@each_dtype
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"affine": True},
        {"affine": True, "track_running_stats": True},
        {"track_running_stats": True, "momentum": 0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("InstanceNorm1d", (4, 3, 5)),
        ("InstanceNorm1d", (3, 5)),
        ("InstanceNorm2d", (4, 3, 5, 4)),
        ("InstanceNorm2d", (3, 5, 4)),
        ("InstanceNorm3d", (2, 3, 2, 4, 3)),
    ],
)
def test_instance_norm(name, shape, options, dtype, rng):
    compare(*pair(name, dtype, 3, **options), shape, dtype, rng)


@each_dtype
@pytest.mark.parametrize(
    ("shape", "normalized", "options"),
    [
        ((4, 7), 7, {}),
        ((4, 3, 7), (3, 7), {"eps": 0.1}),
        ((4, 3, 7), 7, {"bias": False}),
        ((4, 3, 7), [7], {"elementwise_affine": False}),
    ],
)
def test_layer_norm(shape, normalized, options, dtype, rng):
    compare(*pair("LayerNorm", dtype, normalized, **options), shape, dtype, rng)


@each_dtype
@pytest.mark.parametrize(
    ("shape", "groups", "options"),
    [((4, 6), 2, {}), ((4, 6, 5), 2, {"eps": 0.1}), ((2, 6, 3, 4), 6, {}), ((2, 6, 3, 4), 1, {"affine": False})],
)
def test_group_norm(shape, groups, options, dtype, rng):
    compare(*pair("GroupNorm", dtype, groups, 6, **options), shape, dtype, rng)


@each_dtype
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 30])
def test_local_response_norm(size, dtype, rng):
    options = {"alpha": 0.3, "beta": 0.75, "k": 2.0}
    for shape in [(2, 7, 5), (2, 7, 3, 4), (1, 70, 2, 3)]:
        ours, theirs = nn.LocalResponseNorm(size, **options), torch.nn.LocalResponseNorm(size, **options)
        compare(ours, theirs, shape, dtype, rng, steps=1)


def test_a_file_of_pytorch_loads(rng):
    theirs = torch.nn.BatchNorm2d(3)
    theirs(torch.from_numpy(rng.standard_normal((4, 3, 5, 5)).astype(np.float32)))
    ours = nn.BatchNorm2d(3)
    ours.load_state_dict({name: t.numpy() for name, t in theirs.state_dict().items()})
    assert ours.num_batches_tracked == 1
    x = rng.standard_normal((2, 3, 4, 4)).astype(np.float32)
    close(ours.eval()(x).data, theirs.eval()(torch.from_numpy(x)).detach(), np.float32)


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1), (1, 3, 1, 1)])
def test_both_refuse_one_value_per_channel(shape):
    name = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d"}[len(shape)]
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        getattr(torch.nn, name)(3)(torch.ones(shape))
    with pytest.raises(ValueError, match="more than one value per channel"):
        getattr(nn, name)(3)(np.ones(shape))


@pytest.mark.parametrize("training", [True, False])
def test_both_take_an_empty_batch(training):
    ours, theirs = nn.BatchNorm2d(3).train(training), torch.nn.BatchNorm2d(3).train(training)
    yo, yt = ours(np.zeros((0, 3, 4, 4))), theirs(torch.zeros((0, 3, 4, 4)))
    assert yo.shape == tuple(yt.shape)
    for name, array in ours.state_dict().items():
        np.testing.assert_array_equal(array, theirs.state_dict()[name].numpy())
