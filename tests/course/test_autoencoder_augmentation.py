"""Augmentation by an autoencoder: ten digits per class."""

from __future__ import annotations

import numpy as np

from nnx import data
from nnx.course import autoencoder_augmentation as topic


def test_F138_augmented_accuracy_is_not_lower_over_ten_choices():
    result = topic.run()
    assert len(result["nearest"]) == 10
    # gains of 0.008 to 0.016 with the seeds 0 to 4
    assert np.mean(result["nearest_augmented"]) >= np.mean(result["nearest"])
    assert np.mean(result["nearest_augmented"]) >= 0.9


def test_F138_reduced_set_has_ten_of_each_class():
    labels = data.digits().y_train
    chosen = topic.choose(labels, 10, np.random.default_rng(0))
    assert len(set(chosen.tolist())) == 100
    assert np.bincount(labels[chosen]).tolist() == [10] * 10
    again = topic.choose(labels, 10, np.random.default_rng(0))
    assert chosen.tolist() == again.tolist()
    assert chosen.tolist() != topic.choose(labels, 10, np.random.default_rng(1)).tolist()


def test_F138_points_lie_between_two_codes_of_one_class():
    y = np.array([0, 0, 1, 1])
    codes = np.array([[0, 0], [2, 0], [0, 5], [0, 9]], np.float32)
    points, labels = topic.between(codes, y, 200, np.random.default_rng(0))
    zero, one = points[labels == 0], points[labels == 1]
    assert len(zero) + len(one) == 200
    assert (zero[:, 1] == 0).all() and 0 <= zero[:, 0].min() < 0.1 and 1.9 < zero[:, 0].max() <= 2
    assert (one[:, 0] == 0).all() and 5 <= one[:, 1].min() and one[:, 1].max() <= 9
