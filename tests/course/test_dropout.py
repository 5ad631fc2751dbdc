"""The forms of dropout, halving, and votes."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
import nnx.functional as F
from nnx import nn
from nnx.course import dropout
from nnx.train import VotingEnsemble, mc_dropout


def test_F130_inverted_dropout_keeps_the_mean():
    x = np.ones(1_000_000)
    y = F.dropout(x, 0.3, generator=np.random.default_rng(0)).data
    # the mean of n numbers that are 0 or 1/q has the standard error sqrt(p / (q n)) = 0.00065
    assert y.mean() == pytest.approx(1, abs=4 * np.sqrt(0.3 / 0.7 / x.size))
    assert F.dropout(x, 0.3, training=False).data is x


def test_F130_the_mask_does_not_depend_on_the_number_of_threads():
    x = np.ones((300, 1000), np.float32)
    before = nnx.get_num_threads()
    try:
        masks = []
        for threads in (1, 2, 4):
            nnx.set_num_threads(threads)
            masks.append(F.dropout(x, 0.5, generator=np.random.default_rng(0)).data.tobytes())
    finally:
        nnx.set_num_threads(before)
    assert masks[0] == masks[1] == masks[2]


def test_F131_the_mean_over_masks_is_half_the_sum():
    w, x = [2.0, -1.0], [3.0, 4.0]
    assert dropout.mean_over_masks(w, x) == 0.5 * (w[0] * x[0] + w[1] * x[1])  # N27
    rng = np.random.default_rng(0)
    masks = rng.random((100_000, 2)) < 0.5
    # one sample's deviation is sqrt(36 + 16) / 2 = 3.6
    assert np.mean(masks @ np.multiply(w, x)) == pytest.approx(1.0, abs=4 * 3.6 / np.sqrt(100_000))
    assert dropout.mean_over_masks([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], keep=0.8) == pytest.approx(4.8, rel=1e-12)


def test_F131_plain_equals_inverted_after_scaling():
    x = np.random.default_rng(0).standard_normal((20, 30))
    plain = F.plain_dropout(x, 0.25, generator=np.random.default_rng(1)).data
    inverted = F.dropout(x, 0.25, generator=np.random.default_rng(1)).data
    np.testing.assert_allclose(plain, 0.75 * inverted, rtol=1e-15)
    np.testing.assert_allclose(F.plain_dropout(x, 0.25, training=False).data, 0.75 * x, rtol=1e-15)


def test_F131_the_factor_in_evaluation_is_one_half():
    """X4: not 1.2."""
    assert nn.PlainDropout(0.5).eval()(np.array([1.0])).item() == 0.5


def test_F132_masks_of_a_pair_are_complementary():
    nnx.manual_seed(0)
    layer = nn.AlternatingDropout()
    x = np.ones((3, 10))
    for _ in range(5):
        first, second = layer(x).data, layer(x).data
        assert first[0].sum() == 5
        np.testing.assert_array_equal(first + second, x)


def test_F132_only_the_weights_are_halved():
    """X16: evaluation of the dropped layer at 1/2 is halving the weights behind it, without their bias."""
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((4, 8))
    behind = nn.Linear(8, 3).double()
    behind.bias.data[...] = 1.0
    expected = behind(nn.AlternatingDropout().eval()(hidden)).data
    bias = behind.bias.data.copy()
    dropout.halve_outgoing(behind)
    np.testing.assert_allclose(behind(hidden).data, expected, rtol=1e-14)
    np.testing.assert_array_equal(behind.bias.data, bias)
    wrong = hidden @ behind.weight.data.T + 0.5 * bias
    np.testing.assert_allclose(expected - wrong, 0.5, rtol=1e-12)


def test_F132_a_pair_of_halves_averages_to_the_halved_network():
    """Both halves add up to the whole, for a linear layer exactly."""
    nnx.manual_seed(3)
    layer, behind = nn.AlternatingDropout(), nn.Linear(8, 3).double()
    hidden = np.random.default_rng(0).standard_normal((4, 8))
    mean = (behind(layer(hidden)).data + behind(layer(hidden)).data) / 2
    np.testing.assert_allclose(mean, behind(layer.eval()(hidden)).data, rtol=1e-12)


def test_F133_eight_of_ten_say_three():
    def sees(digit):
        return lambda x: np.eye(10)[[digit]]

    ensemble = VotingEnsemble([sees(3)] * 8 + [sees(5), sees(8)])
    assert ensemble.votes(None)[0, 3] == 8 and ensemble.predict(None).tolist() == [3]


def test_F133_the_mean_over_masks_is_near_the_scaled_network():
    nnx.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(20, 2)).double()
    x = np.random.default_rng(0).standard_normal((3, 20))
    mean, deviation = mc_dropout(model, x, samples=2000)
    assert (np.abs(mean - model.predict(x)) < 4 * deviation / np.sqrt(2000)).all()


def test_F133_a_vote_beats_its_members():
    result = dropout.run(small=True)
    assert result["vote"] >= result["single"] - 0.02  # three barely trained networks: the tie is allowed
    assert 0 <= result["mc_dropout"] <= 1
