"""Normalisation layers: what they keep, when they use it, what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from nnx import nn
from nnx.autograd import Tensor
from nnx.testing import gradcheck

BATCH = [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.BatchRenorm1d, nn.BatchRenorm2d, nn.BatchRenorm3d]
SHAPES = {"1d": (4, 3, 5), "2d": (4, 3, 2, 5), "3d": (4, 3, 2, 2, 3)}


def shape_for(layer):
    return SHAPES[layer.__name__[-2:]]


@pytest.mark.parametrize("layer", BATCH)
def test_state_has_pytorch_names(layer):
    state = layer(3).state_dict()
    assert list(state) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert state["num_batches_tracked"].dtype == np.int64
    assert state["num_batches_tracked"].shape == ()
    assert state["weight"].tolist() == state["running_var"].tolist() == [1.0] * 3
    assert state["bias"].tolist() == state["running_mean"].tolist() == [0.0] * 3


def test_state_of_other_layers():
    assert list(nn.LayerNorm((2, 3)).state_dict()) == ["weight", "bias"]
    assert nn.LayerNorm((2, 3)).weight.shape == (2, 3)
    assert list(nn.LayerNorm(3, bias=False).state_dict()) == ["weight"]
    assert list(nn.LayerNorm(3, elementwise_affine=False).state_dict()) == []
    assert list(nn.GroupNorm(3, 6).state_dict()) == ["weight", "bias"]
    assert list(nn.GroupNorm(3, 6, affine=False).state_dict()) == []
    assert list(nn.InstanceNorm2d(3).state_dict()) == []
    assert list(nn.InstanceNorm2d(3, affine=True, track_running_stats=True).state_dict()) == list(
        nn.BatchNorm2d(3).state_dict()
    )
    assert list(nn.BatchNorm2d(3, affine=False).state_dict()) == ["running_mean", "running_var", "num_batches_tracked"]
    assert list(nn.BatchNorm2d(3, track_running_stats=False).state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize("layer", BATCH)
def test_training_then_evaluation(layer, rng):
    bn = layer(3)
    x = rng.standard_normal(shape_for(layer)) * 3 + 1
    axes = (0, *range(2, x.ndim))
    y = bn(x)
    assert y.dtype == np.float32
    if "Renorm" not in layer.__name__:
        np.testing.assert_allclose(y.data.mean(axes), 0, atol=1e-6)
        np.testing.assert_allclose(y.data.std(axes), 1, rtol=1e-4)
    np.testing.assert_allclose(bn.running_mean, 0.1 * x.mean(axes), rtol=1e-4)
    np.testing.assert_allclose(bn.running_var, 0.9 + 0.1 * x.var(axes, ddof=1), rtol=1e-4)
    assert bn.num_batches_tracked == 1
    bn.eval()
    kept = {name: array.copy() for name, array in bn.state_dict().items()}
    y = bn(x).data
    column = (3,) + (1,) * (x.ndim - 2)
    mean, var = kept["running_mean"].reshape(column), kept["running_var"].reshape(column)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), rtol=1e-4, atol=1e-5)
    for name, array in bn.state_dict().items():
        np.testing.assert_array_equal(array, kept[name])


def test_momentum_none_averages_all_batches(rng):
    bn = nn.BatchNorm1d(3, momentum=None, dtype=np.float64)
    batches = [rng.standard_normal((5, 3)) for _ in range(4)]
    for batch in batches:
        bn(batch)
    np.testing.assert_allclose(bn.running_mean, np.mean([b.mean(0) for b in batches], 0), rtol=1e-12)
    np.testing.assert_allclose(bn.running_var, np.mean([b.var(0, ddof=1) for b in batches], 0), rtol=1e-12)
    assert bn.num_batches_tracked == 4


def test_without_running_statistics_evaluation_uses_the_batch(rng):
    bn = nn.BatchNorm1d(3, track_running_stats=False)
    x = rng.standard_normal((5, 3))
    np.testing.assert_array_equal(bn(x).data, bn.eval()(x).data)
    assert bn.running_mean is None
    with pytest.raises(ValueError, match="BatchNorm1d: expected more than one value per channel"):
        bn(x[:1])


def test_predict_uses_and_leaves_the_running_statistics(rng):
    bn = nn.BatchNorm1d(3)
    x = rng.standard_normal((5, 3)).astype(np.float32)
    y = bn.predict(x)
    np.testing.assert_allclose(y, x, rtol=1e-4)
    assert bn.training
    assert bn.num_batches_tracked == 0


def test_reset(rng):
    bn = nn.BatchNorm2d(3)
    bn(rng.standard_normal((2, 3, 4, 4)))
    bn.weight.data[...] = 7
    bn.bias.data[...] = 7
    kept = bn.running_mean
    bn.reset_running_stats()
    assert bn.running_mean is kept
    assert not kept.any()
    assert bn.running_var.tolist() == [1.0] * 3
    assert bn.num_batches_tracked == 0
    bn.reset_parameters()
    assert bn.weight.tolist() == [1.0] * 3
    assert bn.bias.tolist() == [0.0] * 3
    norm = nn.LayerNorm(3)
    norm.weight.data[...] = 7
    norm.reset_parameters()
    assert norm.weight.tolist() == [1.0] * 3


def test_an_error_leaves_everything_as_it_was(rng):
    bn = nn.BatchNorm1d(3)
    before = {name: array.copy() for name, array in bn.state_dict().items()}
    for x in (np.ones((1, 3)), np.ones((4, 2)), np.ones(3), Tensor(np.ones((4, 3)))):
        with pytest.raises((ValueError, TypeError)):
            bn(x)
    for name, array in bn.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_double(rng):
    bn = nn.BatchNorm1d(3).double()
    assert bn.running_mean.dtype == np.float64
    assert bn.num_batches_tracked.dtype == np.int64
    assert bn(rng.standard_normal((4, 3)).astype(np.float32)).dtype == np.float64
    assert nn.BatchNorm1d(3, dtype="float64").weight.dtype == np.float64


def test_without_parameters_the_type_of_the_input_stays():
    for layer in (nn.LayerNorm(3, elementwise_affine=False), nn.GroupNorm(3, 3, affine=False), nn.InstanceNorm1d(4)):
        for dtype in (np.float32, np.float64):
            assert (
                layer(
                    Tensor(np.arange(12, dtype=dtype).reshape(1, 4, 3)[:, : 3 if "Group" in repr(layer) else 4])
                ).dtype
                == dtype
            )


def test_weights_load_between_batch_norm_and_renorm(rng):
    a, b = nn.BatchNorm1d(3), nn.BatchRenorm1d(3)
    for _ in range(3):
        a(rng.standard_normal((6, 3)))
    b.load_state_dict(a.state_dict())
    x = rng.standard_normal((6, 3))
    np.testing.assert_array_equal(a.eval()(x).data, b.eval()(x).data)


def test_renorm_limits_may_change_during_training(rng):
    x = rng.standard_normal((6, 3)) * 4 + 3
    layer, plain = nn.BatchRenorm1d(3, rmax=1.0, dmax=0.0), nn.BatchNorm1d(3)
    np.testing.assert_allclose(layer(x).data, plain(x).data, rtol=1e-5, atol=1e-6)
    layer.rmax, layer.dmax = 3.0, 5.0
    assert np.abs(layer(x).data - plain(x).data).max() > 0.1
    layer.rmax = 0.5
    with pytest.raises(ValueError, match=r"BatchRenorm1d: expected rmax to be a number in \[1, inf\), got 0.5"):
        layer(x)


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(3),
        nn.BatchNorm2d(3, affine=False),
        nn.BatchNorm2d(3).eval(),
        nn.BatchRenorm2d(3, rmax=1.0, dmax=0.0),
        nn.BatchRenorm2d(3).eval(),
        nn.InstanceNorm2d(3, affine=True),
        nn.InstanceNorm2d(3, affine=True, track_running_stats=True).eval(),
        nn.GroupNorm(3, 3),
        nn.LayerNorm((3, 2, 4)),
        nn.LocalResponseNorm(3, alpha=0.5),
    ],
    ids=repr,
)
def test_gradients(layer, rng):
    layer = layer.double()
    x = rng.standard_normal((2, 3, 2, 4))
    for p in layer.parameters():
        p.data = rng.standard_normal(p.shape)
    gradcheck(layer, x)


# -- instance norm ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d])
def test_instance_norm_of_one_sample(layer, rng):
    x = rng.standard_normal(shape_for(layer))
    whole = layer(3)(x).data
    np.testing.assert_array_equal(layer(3)(x[1]).data, whole[1])


def test_instance_norm_tracks_only_if_asked(rng):
    x = rng.standard_normal((4, 3, 5)) * 3
    layer = nn.InstanceNorm1d(3)
    np.testing.assert_array_equal(layer(x).data, layer.eval()(x).data)
    layer = nn.InstanceNorm1d(3, track_running_stats=True)
    trained = layer(x).data
    assert np.abs(trained - layer.eval()(x).data).max() > 0.1


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.BatchNorm2d(16)(np.ones((8, 3, 4, 4))), ValueError,
         r"BatchNorm2d: expected input with 16 channels \(dimension 1 of \(N, C, H, W\)\), got shape \(8, 3, 4, 4\)"),
        (lambda: nn.BatchNorm2d(3)(np.ones((8, 3))), ValueError,
         r"BatchNorm2d: expected input of shape \(N, C, H, W\), got shape \(8, 3\)"),
        (lambda: nn.BatchNorm1d(3)(np.ones(3)), ValueError,
         r"BatchNorm1d: expected input of shape \(N, C\) or \(N, C, L\), got shape \(3,\)"),
        (lambda: nn.BatchNorm3d(3)(np.ones((2, 3, 4, 4))), ValueError,
         r"BatchNorm3d: expected input of shape \(N, C, D, H, W\), got shape \(2, 3, 4, 4\)"),
        (lambda: nn.BatchNorm1d(3)(np.ones((1, 3))), ValueError,
         r"BatchNorm1d: expected more than one value per channel in training, got input of shape \(1, 3\)"),
        (lambda: nn.BatchNorm1d(3)(Tensor(np.ones((2, 3)))), TypeError,
         "BatchNorm1d: expected input of dtype float32 like the parameters, got a Tensor of dtype float64"),
        (lambda: nn.BatchNorm2d(-1), ValueError, "BatchNorm2d: expected num_features to be an integer >= 0, got -1"),
        (lambda: nn.BatchNorm2d(3.5), TypeError, "BatchNorm2d: expected num_features to be an integer"),
        (lambda: nn.BatchNorm2d(3, eps=0), ValueError,
         r"BatchNorm2d: expected eps to be a number in \(0, inf\), got 0"),
        (lambda: nn.BatchNorm2d(3, momentum="a"), TypeError, "BatchNorm2d: expected momentum to be a number"),
        (lambda: nn.BatchNorm2d(3, device="tpu"), ValueError,
         "BatchNorm2d: expected device to be .*got 'tpu'"),
        (lambda: nn.BatchNorm2d(3, dtype=int), TypeError, "BatchNorm2d: expected dtype to be float32 or float64"),
        (lambda: nn.BatchRenorm1d(3, rmax=0.9), ValueError,
         r"BatchRenorm1d: expected rmax to be a number in \[1, inf\)"),
        (lambda: nn.BatchRenorm1d(3, dmax=-0.1), ValueError,
         r"BatchRenorm1d: expected dmax to be a number in \[0, inf\)"),
        (lambda: nn.BatchRenorm2d(3)(np.ones((1, 3, 1, 1))), ValueError,
         "BatchRenorm2d: expected more than one value per channel in training"),
        (lambda: nn.LayerNorm(4)(np.ones((2, 3))), ValueError,
         r"LayerNorm: expected input of shape \(\.\.\., 4\), got shape \(2, 3\)"),
        (lambda: nn.LayerNorm(()), ValueError, "LayerNorm: expected normalized_shape with at least one dimension"),
        (lambda: nn.LayerNorm(4, eps=-1), ValueError, "LayerNorm: expected eps to be a number in"),
        (lambda: nn.LayerNorm(4, device="tpu"), ValueError, "LayerNorm: expected device to be .*got 'tpu'"),
        (lambda: nn.GroupNorm(4, 6), ValueError,
         "GroupNorm: expected num_channels to be divisible by num_groups=4, got 6"),
        (lambda: nn.GroupNorm(2, 6)(np.ones((3, 4))), ValueError,
         r"GroupNorm: expected input with 6 channels \(dimension 1 of \(N, C, \.\.\.\)\), got shape \(3, 4\)"),
        (lambda: nn.GroupNorm(0, 6), ValueError, "GroupNorm: expected num_groups to be an integer >= 1, got 0"),
        (lambda: nn.InstanceNorm2d(3)(np.ones((2, 4, 5, 5))), ValueError,
         r"InstanceNorm2d: expected input with 3 channels \(dimension 1 of \(N, C, H, W\)\), got shape \(2, 4, 5, 5\)"),
        (lambda: nn.InstanceNorm2d(3)(np.ones((4, 5, 5))), ValueError,
         r"InstanceNorm2d: expected input with 3 channels \(dimension 0 of \(C, H, W\)\), got shape \(4, 5, 5\)"),
        (lambda: nn.InstanceNorm1d(3)(np.ones((2, 3, 1))), ValueError,
         "InstanceNorm1d: expected more than one position per channel in training"),
        (lambda: nn.LocalResponseNorm(0), ValueError, "LocalResponseNorm: expected size to be an integer >= 1, got 0"),
        (lambda: nn.LocalResponseNorm(3, beta="b"), TypeError, "LocalResponseNorm: expected beta to be a number"),
        (lambda: nn.LocalResponseNorm(3)(np.ones((2, 3))), ValueError,
         "LocalResponseNorm: expected input with at least 3 dimensions"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error, match=rf"^{message}"):
        call()


def test_repr():
    assert repr(nn.BatchNorm2d(3)) == "BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)"
    assert repr(nn.BatchRenorm2d(3)) == "BatchRenorm2d(3, eps=1e-05, momentum=0.1, affine=True, rmax=3.0, dmax=5.0)"
    assert repr(nn.LayerNorm(4)) == "LayerNorm((4,), eps=1e-05, elementwise_affine=True)"
    assert repr(nn.GroupNorm(2, 4)) == "GroupNorm(2, 4, eps=1e-05, affine=True)"
    assert repr(nn.LocalResponseNorm(5)) == "LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=1.0)"
