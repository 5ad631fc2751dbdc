"""Decision regions: more hidden units, more right; and the linear demo takes the steps that its formulas say."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx.course import decision_regions
from nnx.course.decision_regions import LinearDemo


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_F009_training_accuracy_rises_with_the_hidden_layer(seed):
    x, y = decision_regions.spirals(seed=seed)
    three, six, twenty = (decision_regions.train(hidden, x, y, 400, seed=seed)[1] for hidden in (3, 6, 20))
    assert three < six <= twenty
    assert twenty > 0.95 and three < 0.8


def test_F009_regularisation_smooths_what_twenty_units_decide():
    x, y = decision_regions.spirals()
    free, tied = (decision_regions.train(20, x, y, 400, weight_decay)[1] for weight_decay in (0.0, 0.001))
    assert free > 0.95 and tied < 0.8


def test_F009_regions_of_a_network_are_drawn():
    pytest.importorskip("matplotlib")
    x, y = decision_regions.spirals()
    model, _ = decision_regions.train(6, x, y, 50)
    regions = nnx.viz.decision_regions(model, x, y, resolution=30).axes[0].images[0].get_array()
    assert set(np.unique(regions)) == {0, 1}


def numeric(demo, array):
    """Central differences of the demo's total loss by the entries of one of its arrays."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        values = []
        for h in (1e-6, -1e-6):
            array[index] = kept + h
            values.append(demo.losses()["total"])
        array[index] = kept
        gradient[index] = (values[0] - values[1]) / 2e-6
    return gradient


@pytest.mark.parametrize("loss", LinearDemo.LOSSES)
def test_F055_a_step_goes_down_the_gradient(loss):
    demo = LinearDemo(loss=loss, reg=0.3, lr=0.05, seed=4)
    weight, bias = demo.weight.copy(), demo.bias.copy()
    by_weight, by_bias = numeric(demo, demo.weight), numeric(demo, demo.bias)
    demo.step()
    np.testing.assert_allclose(demo.weight, weight - 0.05 * by_weight, atol=1e-8)
    np.testing.assert_allclose(demo.bias, bias - 0.05 * by_bias, atol=1e-8)
    assert demo.steps == 1


def test_F055_losses_by_hand():
    demo = LinearDemo(x=[[1.0, 0.0]], y=[0], reg=0.5)
    demo.weight, demo.bias = np.array([[3.2, 0.0], [5.1, 0.0], [-1.7, 0.0]]), np.zeros(3)
    penalty = 0.5 * (3.2**2 + 5.1**2 + 1.7**2)
    for loss, expected in (("hinge", 2.9), ("squared hinge", 8.41), ("softmax", 2.0403552)):
        demo.loss = loss
        losses = demo.losses()
        assert losses["each"] == pytest.approx([expected], abs=1e-7)
        assert losses["total"] == pytest.approx(expected + penalty, abs=1e-7)


@pytest.mark.parametrize("loss", LinearDemo.LOSSES)
def test_F055_training_separates_the_points(loss):
    demo = LinearDemo(loss=loss, lr=0.3)
    assert demo.step(200)["total"] < 0.6
    assert (demo.predict(demo.x) == demo.y).all()


def test_F055_a_moved_point_changes_the_loss():
    demo = LinearDemo()
    demo.step(300)
    before = demo.losses()["each"][0]
    demo.x[0] = demo.x[-1]  # into the cloud of another class
    assert demo.losses()["each"][0] > before + 0.5


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"x": [[0.0, 1.0]]}, "LinearDemo: expected x and y together, got only one of them"),
        ({"x": [[0.0]], "y": [0]}, r"LinearDemo: expected x of shape \(N, 2\) and integer classes y of shape \(N,\)"),
        ({"x": [[0.0, 1.0]], "y": [0.5]}, r"LinearDemo: expected x of shape .* got \(1, 2\) and float64 \(1,\)"),
        ({"reg": -1}, r"LinearDemo: expected reg to be a number in \[0, inf\), got -1"),
    ],
)
def test_F055_wrong_arguments(arguments, text):
    with pytest.raises(ValueError, match=text):
        LinearDemo(**arguments)


def test_F055_an_unknown_loss_is_refused_before_a_step():
    demo = LinearDemo()
    demo.loss = "hnge"
    weight = demo.weight.copy()
    with pytest.raises(ValueError, match="LinearDemo: expected loss to be one of 'hinge', 'squared hinge', 'softmax'"):
        demo.step()
    np.testing.assert_array_equal(demo.weight, weight)
