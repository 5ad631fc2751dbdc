"""What nnx.viz computes without matplotlib: pixels, activations, and the input that a unit answers most to."""

from __future__ import annotations

import re

import numpy as np
import pytest

import nnx
from nnx import nn, viz
from nnx.viz.charts import confusion_counts

# -- as_images -------------------------------------------------------------------------------------


def test_weights_of_a_linear_classifier_become_ten_colour_images(rng):
    pixels = viz.as_images(rng.normal(size=(10, 3072)), shape=(3, 32, 32))
    assert pixels.shape == (10, 32, 32, 3) and pixels.dtype == np.uint8
    assert (pixels.reshape(10, -1).min(1) == 0).all() and (pixels.reshape(10, -1).max(1) == 255).all()


def test_channels_first_becomes_channels_last(rng):
    array = rng.integers(0, 256, (2, 3, 4, 5)).astype(np.uint8)
    np.testing.assert_array_equal(viz.as_images(array), array.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(viz.as_images(array[:, :1]), array[:, 0])
    np.testing.assert_array_equal(viz.as_images(array.transpose(0, 2, 3, 1)), array.transpose(0, 2, 3, 1))


def test_scale_each_and_all():
    array = np.array([[[0.0, 1.0]], [[0.0, 4.0]]])
    assert viz.as_images(array, scale="each").tolist() == [[[0, 255]], [[0, 255]]]
    assert viz.as_images(array, scale="all").tolist() == [[[0, 64]], [[0, 255]]]


def test_flat_and_infinite_images():
    array = np.array([[[2.0, 2.0]], [[np.nan, 1.0]], [[np.inf, 0.0]], [[np.nan, np.nan]]])
    pixels = viz.as_images(array)
    assert pixels[0].tolist() == [[0, 0]]
    assert pixels[1].tolist() == [[0, 0]]
    assert pixels[2].tolist() == [[255, 0]]
    assert pixels[3].tolist() == [[0, 0]]


def test_input_stays_as_it_is(rng):
    array = rng.normal(size=(2, 3, 4))
    array.flags.writeable = False
    before = array.copy()
    viz.as_images(array)[...] = 0
    np.testing.assert_array_equal(array, before)


def test_parameters_are_arrays_too():
    assert viz.as_images(nn.Conv2d(3, 4, 5).weight).shape == (4, 5, 5, 3)


@pytest.mark.parametrize(
    ("array", "shape", "text"),
    [
        (np.zeros((2, 5, 4, 4)), None, "expected images of shape .* got shape (2, 5, 4, 4)"),
        (np.zeros((0, 4, 4)), None, "expected images of shape .* got shape (0, 4, 4)"),
        (np.zeros((2, 10)), (3, 3), "expected rows of 9 numbers for (3, 3), got (2, 10)"),
        (np.zeros((2, 9)), (3, 0), "expected shape to be an integer >= 1, got 0"),
    ],
)
def test_what_is_no_image(array, shape, text):
    with pytest.raises(ValueError, match="viz.as_images: " + re.escape(text).replace(r"\.\*", ".*")):
        viz.as_images(array, shape)


def test_what_is_no_number():
    with pytest.raises(TypeError, match=r"viz.as_images: expected images to be numbers, got dtype <U1"):
        viz.as_images(np.full((1, 2, 2), "a"))
    with pytest.raises(ValueError, match="viz.as_images: expected scale to be one of 'each', 'all', got 'none'"):
        viz.as_images(np.zeros((1, 2, 2)), scale="none")


# -- activations -----------------------------------------------------------------------------------


def test_activations_are_what_the_layer_computes(model, rng):
    x = rng.random((3, 1, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(viz.activations(model, x, "0"), model[0].predict(x))
    np.testing.assert_array_equal(viz.activations(model, x, model[5]), model.predict(x))
    np.testing.assert_array_equal(viz.activations(model, x, ""), model.predict(x))
    assert not model[0]._forward_hooks and model.training


def test_activations_are_a_copy(model, rng):
    x = rng.random((1, 1, 8, 8)).astype(np.float32)
    first = viz.activations(model, x, "2")
    first[...] = -1
    assert (viz.activations(model, x, "2") >= 0).all()


def test_unknown_layers(model):
    x = np.zeros((1, 1, 8, 8), np.float32)
    with pytest.raises(
        ValueError, match=r"viz.activations: expected layer to be a module of the model or one of '', '0'"
    ):
        viz.activations(model, x, "7")
    with pytest.raises(ValueError, match=r"viz.activations: expected layer .* got Linear"):
        viz.activations(model, x, nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"viz.activations: expected model to be a nnx.nn.Module, got function"):
        viz.activations(lambda x: x, x, "0")


def test_a_layer_that_does_not_run():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.idle = nn.Linear(2, 2)

        def forward(self, x):
            return nnx.tensor(x)

    with pytest.raises(ValueError, match="viz.activations: expected the layer to run"):
        viz.activations(Idle(), np.zeros((1, 2), np.float32), "idle")


# -- maximise_unit ---------------------------------------------------------------------------------


def test_the_answer_of_a_linear_unit_is_maximal_along_its_weights():
    layer = nn.Linear(4, 1)
    layer.weight.data[...] = [[1.0, -2.0, 0.5, 0.0]]
    x, rise = viz.maximise_unit(layer, "", 0, (4,), steps=200, bounds=(-1, 1))
    np.testing.assert_allclose(x[:3], [1, -1, 1], atol=1e-3)  # the corner of the box; the last input does not matter
    assert rise[-1] == pytest.approx(3.5 + layer.bias.data[0], abs=1e-2)


def test_the_penalty_bounds_the_answer():
    layer = nn.Linear(2, 1, bias=False).double()
    layer.weight.data[...] = [[2.0, 0.0]]
    # a(x) - l2 * (x0**2 + x1**2) / 2 is maximal at x = (2 / l2, 0)
    x, _ = viz.maximise_unit(layer, "", 0, (2,), steps=300, l2=4.0)
    np.testing.assert_allclose(x, [0.5, 0.0], atol=1e-4)


@pytest.mark.parametrize(("layer", "unit"), [("0", 2), ("0", (2, 3, 4)), ("2", 5), ("5", 7)])
def test_the_answer_rises_from_step_to_step(model, layer, unit):
    image, rise = viz.maximise_unit(model, layer, unit, (1, 8, 8), steps=20, bounds=(0, 1))
    assert image.shape == (1, 8, 8) and image.min() >= 0 and image.max() <= 1
    assert len(rise) > 2 and all(np.diff(rise) > 0)
    answer = viz.activations(model, image[None], layer)[0]
    assert answer[unit].mean() == pytest.approx(rise[-1], rel=1e-5)


def test_the_model_stays_as_it_is(model):
    model.train()
    model[1].eval()
    model[5].bias.requires_grad = False
    before = {name: array.copy() for name, array in model.state_dict().items()}
    viz.maximise_unit(model, "5", 0, (1, 8, 8), steps=3)
    assert model.training and not model[1].training
    assert [p.requires_grad for p in model.parameters()] == [True] * 5 + [False]
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_the_model_stays_as_it_is_after_an_error(model):
    with pytest.raises(ValueError, match=r"viz.maximise_unit: expected unit to be a channel below 10, .* got 10"):
        viz.maximise_unit(model, "5", 10, (1, 8, 8))
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_dead_unit_stays_where_it_is():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    model[0].bias.data[...] = -100
    assert viz.maximise_unit(model, "1", 0, (3,), steps=5)[1] == [0.0]


def test_same_seed_same_image(model):
    first, second, third = (viz.maximise_unit(model, "5", 3, (1, 8, 8), steps=4, seed=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"steps": -1}, r"expected steps to be an integer >= 0, got -1"),
        ({"lr": 0}, r"expected lr to be a number in \(0, inf\), got 0"),
        ({"l2": -1}, r"expected l2 to be a number in \[0, inf\), got -1"),
        ({"bounds": (1, 1)}, r"expected bounds\[1\] to be a number in \(1, inf\), got 1"),
        ({"unit": (1, 2)}, r"expected unit to be a channel below 6, or an index into \(6, 6, 6\), got \(1, 2\)"),
        ({"unit": -1}, r"expected unit to be a channel below 6, .* got -1"),
    ],
)
def test_wrong_arguments(model, arguments, text):
    with pytest.raises(ValueError, match="viz.maximise_unit: " + text):
        viz.maximise_unit(model, "0", **{"unit": 0, "shape": (1, 8, 8), **arguments})


# -- confusion -------------------------------------------------------------------------------------


def test_confusion_counts_rows_by_the_true_class():
    y, predicted = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 0, 2])
    expected = [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    assert confusion_counts("test", y, predicted).tolist() == expected
    assert confusion_counts("test", y, np.eye(3)[predicted]).tolist() == expected
    assert confusion_counts("test", y, predicted, 4).shape == (4, 4)


def test_viz_loads_no_matplotlib():
    import os
    import subprocess
    import sys
    from pathlib import Path

    code = "import nnx.viz, sys; nnx.viz.available(); print('matplotlib' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(nnx.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "False", done.stderr
