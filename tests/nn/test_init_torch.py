"""The formulas of initialisation beside PyTorch's: gains, bounds and deviations of the same shapes."""

from __future__ import annotations

import numpy as np
import pytest

from nnx import nn
from nnx.nn import init

torch = pytest.importorskip("torch")

NONLINEARITIES = [
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "sigmoid",
    "tanh", "relu", "leaky_relu", "selu",
]  # fmt: skip


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_gain(name):
    assert init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    if name == "leaky_relu":
        assert init.calculate_gain(name, 0.3) == pytest.approx(torch.nn.init.calculate_gain(name, 0.3))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("uniform_", {"a": -2, "b": 3}),
        ("normal_", {"mean": 1, "std": 2}),
        ("trunc_normal_", {"mean": 0.5, "std": 0.7, "a": -1, "b": 1}),
        ("xavier_uniform_", {"gain": 2}),
        ("xavier_normal_", {}),
        ("kaiming_uniform_", {"a": 0.3}),
        ("kaiming_uniform_", {"mode": "fan_out", "nonlinearity": "relu"}),
        ("kaiming_normal_", {"mode": "fan_out"}),
        ("orthogonal_", {"gain": 1.5}),
        ("sparse_", {"sparsity": 0.25, "std": 0.5}),
    ],
)
def test_spread(name, options):
    torch.manual_seed(0)
    shape = (200, 300) if name == "sparse_" else (200, 30, 5, 2)
    ours = getattr(init, name)(np.empty(shape, np.float32), **options)
    theirs = getattr(torch.nn.init, name)(torch.empty(shape), **options).numpy()
    # 60,000 draws on both sides: the deviations' standard errors are 0.3 %, the means' 0.4 % of a deviation
    assert ours.std() == pytest.approx(theirs.std(), rel=0.02)
    assert abs(ours.mean() - theirs.mean()) < 0.03 * theirs.std()
    if "uniform" in name or "trunc" in name:
        assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=1e-3)


@pytest.mark.parametrize(("shape", "groups"), [((4, 3, 3), 1), ((6, 2, 3, 4), 2), ((3, 5, 2, 3, 1), 3), ((2, 4, 5), 1)])
def test_dirac(shape, groups):
    ours = init.dirac_(np.empty(shape), groups)
    np.testing.assert_array_equal(ours, torch.nn.init.dirac_(torch.empty(shape), groups).numpy())


def test_eye():
    np.testing.assert_array_equal(init.eye_(np.empty((3, 5))), torch.nn.init.eye_(torch.empty(3, 5)).numpy())


@pytest.mark.parametrize(
    ("name", "args"),
    [("Linear", (300, 200)), ("Bilinear", (20, 30, 100)), ("Embedding", (300, 200)), ("BatchNorm2d", (5,))],
)
def test_layers(name, args):
    torch.manual_seed(0)
    ours, theirs = getattr(nn, name)(*args).state_dict(), getattr(torch.nn, name)(*args).state_dict()
    assert list(ours) == list(theirs)
    for key, array in ours.items():
        other = theirs[key].numpy()
        assert (array.shape, array.dtype) == (other.shape, other.dtype)
        assert array.std() == pytest.approx(other.std(), rel=0.2 if array.ndim == 1 else 0.02)
        if name != "Embedding":
            assert np.abs(array).max() == pytest.approx(np.abs(other).max(), rel=0.1)
