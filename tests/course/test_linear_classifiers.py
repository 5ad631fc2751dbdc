"""Rows of nnx.course.linear_classifiers."""

from __future__ import annotations

import numpy as np
import pytest

from nnx.classic import LinearSVM, SoftmaxClassifier
from nnx.course import linear_classifiers as topic


def test_F040_the_bias_trick(rng):
    x, weight, bias = rng.standard_normal((6, 3072)), rng.standard_normal((10, 3072)), rng.standard_normal(10)
    plain, joined = topic.bias_trick(x, weight, bias)
    assert plain.shape == (6, 10)
    assert np.hstack([weight, bias[:, None]]).shape == (10, 3073)
    np.testing.assert_allclose(joined, plain, rtol=0, atol=1e-10)
    np.testing.assert_allclose(plain, np.einsum("nd,cd->nc", x, weight) + bias, rtol=0, atol=1e-10)


@pytest.mark.parametrize("model", [LinearSVM(epochs=1), SoftmaxClassifier(epochs=1)], ids=repr)
def test_F041_templates_are_ten_images_of_bytes(model, rng):
    x = rng.standard_normal((40, 3, 32, 32)).astype(np.float32)
    model.fit(x, np.arange(40) % 10)
    templates = model.templates()
    assert templates.shape == (10, 32, 32, 3)
    assert templates.dtype == np.uint8
    w = model.coef_.reshape(10, 3, 32, 32)
    for one, template in zip(w, templates, strict=True):
        scaled = 255 * (one - one.min()) / (one.max() - one.min())
        assert np.abs(template.transpose(2, 0, 1) - scaled).max() <= 0.51  # rounded
        assert template.min() == 0 and template.max() == 255


def test_F044_doubling_the_weights():
    losses = np.array(topic.doubled())
    np.testing.assert_allclose(losses[:, 0], [2.9, 0, 12.9], rtol=0, atol=1e-12)
    np.testing.assert_allclose(losses[:, 1], [4.8, 0, 23.8], rtol=0, atol=1e-12)


def test_F044_a_classifier_with_no_loss_keeps_it_when_doubled(rng):
    x = np.concatenate([rng.standard_normal((20, 2)) + c for c in ((9, 9), (-9, 9), (0, -9))]).astype(np.float32)
    y = np.repeat([0, 1, 2], 20)
    model = LinearSVM(learning_rate=0.01, reg=0, epochs=100).fit(x, y)
    assert model.objective(x, y) == 0
    for p in model._parameters:
        p.data *= 2
    assert model.objective(x, y) == 0
    model.reg = 0.1  # a penalty tells the two apart
    doubled = model.objective(x, y)
    for p in model._parameters:
        p.data /= 2
    assert doubled == pytest.approx(4 * model.objective(x, y), rel=1e-6)
