"""The five tables of ten layers of 500 units, held to the bands of ten seeds."""

from __future__ import annotations

import numpy as np
import pytest

from nnx.diagnose import initialisation_experiment, initialisation_tables

# What the document prints for layers 1, 2, 5 and 10; the bands are four standard deviations over ten seeds.
PRINTED = {
    "tanh, 0.01": (0.213081, 0.047551, 0.000532, 0.000000),
    "tanh, 1.0": (0.981879, 0.981649, 0.981614, 0.981736),
    "tanh, Xavier": (0.627953, 0.486051, 0.320917, 0.228008),
    "ReLU, Xavier": (0.582273, 0.403795, 0.140299, 0.026076),
    "ReLU, He": (0.825232, 0.827835, 0.834092, 0.844523),
}
BANDS = {
    "tanh, 0.01": {1: (0.212, 0.215), 2: (0.0471, 0.0482), 5: (5.12e-4, 5.52e-4), 10: (0, 1e-6)},
    "tanh, 1.0": {i: (0.9809, 0.9824) for i in range(1, 11)},
    "tanh, Xavier": {1: (0.625, 0.630), 2: (0.483, 0.489), 5: (0.314, 0.328), 10: (0.220, 0.238)},
    "ReLU, Xavier": {1: (0.578, 0.589), 2: (0.392, 0.432), 5: (0.106, 0.184), 10: (0.012, 0.040)},
    "ReLU, He": {1: (0.817, 0.833), 2: (0.785, 0.864), 5: (0.60, 1.04), 10: (0.39, 1.26)},
}


def outside(title, stds):
    """The layers whose standard deviation lies outside its band."""
    return [i for i, (low, high) in BANDS[title].items() if not low <= stds[i - 1] <= high]


@pytest.fixture(scope="module")
def tables():
    return initialisation_tables(seed=0)


@pytest.mark.parametrize("title", BANDS)
def test_F115_every_table_lies_in_its_band(title, tables):
    assert outside(title, tables[title].stds) == []


@pytest.mark.parametrize("title", BANDS)
def test_F115_what_is_printed_lies_in_the_same_bands(title):
    stds = dict(zip((1, 2, 5, 10), PRINTED[title], strict=True))
    assert not [i for i, std in stds.items() if not BANDS[title][i][0] <= std <= BANDS[title][i][1]]


def test_F115_small_weights_lose_a_constant_factor(tables):
    stds = tables["tanh, 0.01"].stds
    ratios = np.divide(stds[3:], stds[2:-1])  # from layer 3 on, where tanh is linear
    np.testing.assert_allclose(ratios, 0.01 * 500**0.5, rtol=0.01)


def test_F115_relu_with_xavier_halves_the_mean_square(tables):
    report = tables["ReLU, Xavier"]
    squares = np.square(report.means) + np.square(report.stds)
    # half in each layer on average; the scatter of one draw over nine layers is below a tenth of the factor
    assert 0.45 < (squares[-1] / squares[0]) ** (1 / 9) < 0.55
    assert 0.38 < report.means[0] < 0.42 and 0.0085 < report.means[-1] < 0.028  # printed: .398623, .018408


def test_F115_means_of_tanh_are_zero(tables):
    for title in ("tanh, 0.01", "tanh, 1.0", "tanh, Xavier"):
        # 500,000 outputs of deviation below 1, 500 at a time with common weights: the printed means reach 0.0012
        assert np.abs(tables[title].means).max() < 0.005


@pytest.mark.parametrize(
    ("title", "activation", "scale"),
    [
        ("tanh, 0.01", "tanh", 0.0102),
        ("tanh, 1.0", "tanh", 0.9),
        ("tanh, Xavier", "tanh", (1.03 / 500) ** 0.5),
        ("ReLU, Xavier", "relu", (1.05 / 500) ** 0.5),
        ("ReLU, He", "relu", (1 / 500) ** 0.5),
        ("ReLU, He", "relu", (4 / 500) ** 0.5),
    ],
)
def test_F115_the_bands_fail_on_a_wrong_scale(title, activation, scale):
    assert outside(title, initialisation_experiment(activation, scale).stds)
