"""The pictures of nnx.viz: what is drawn, where it is written, and what is refused."""

from __future__ import annotations

import importlib.util
import re
import sys

import numpy as np
import pytest

import nnx
from nnx import viz

FOUND = importlib.util.find_spec("matplotlib") is not None
needs_matplotlib = pytest.mark.skipif(not FOUND, reason="could not import 'matplotlib'")

X = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
Y = np.array([0, 1, 1, 0])

CALLS = {
    "curves": lambda **k: viz.curves({"loss": [2.0, 1.0], "val_loss": [2.0, None]}, **k),
    "lines": lambda **k: viz.lines({"a": [1.0, 2.0], "b": ([0, 4], [1, 9])}, **k),
    "bars": lambda **k: viz.bars({"a": 1, "b": 2.5}, **k),
    "histograms": lambda **k: viz.histograms({"a": np.arange(9), "b": [0.0, np.nan]}, **k),
    "confusion_matrix": lambda **k: viz.confusion_matrix(Y, Y[::-1], labels=["no", "yes"], **k),
    "images": lambda **k: viz.images(np.arange(32.0).reshape(2, 4, 4), titles=["a", "b"], **k),
    "filters": lambda **k: viz.filters(np.arange(54.0).reshape(2, 3, 3, 3), **k),
    "neighbour_grid": lambda **k: viz.neighbour_grid(np.zeros((2, 4, 4)), np.ones((2, 3, 4, 4)), **k),
    "decision_regions": lambda **k: viz.decision_regions(lambda p: (p.sum(1) > 1).astype(int), X, Y, **k),
    "paths": lambda **k: viz.paths(lambda p: 5 * p[0] ** 2 + p[1] ** 2, {"sgd": X}, **k),
}


@needs_matplotlib
@pytest.mark.parametrize("name", CALLS)
def test_every_picture_is_a_figure_and_a_file(name, tmp_path):
    from matplotlib.figure import Figure

    path = tmp_path / "folder" / "picture.png"
    assert isinstance(CALLS[name](), Figure)
    assert isinstance(CALLS[name](path=path), Figure)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]


@needs_matplotlib
def test_pictures_leave_pyplot_alone():
    loaded = "matplotlib.pyplot" in sys.modules
    for call in CALLS.values():
        call()
    assert ("matplotlib.pyplot" in sys.modules) == loaded


@needs_matplotlib
@pytest.mark.parametrize(("ending", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_ending_chooses_the_format(ending, start, tmp_path):
    viz.bars({"a": 1}, path=str(tmp_path / f"a.{ending}"))
    assert (tmp_path / f"a.{ending}").read_bytes().startswith(start)


@pytest.mark.parametrize("name", CALLS)
def test_an_unknown_ending_is_refused(name, tmp_path):
    path = tmp_path / "picture.jpeg"
    with pytest.raises(ValueError, match=rf"viz.{name}: expected path to end in one of .png, .svg, .pdf, got '.*jpeg'"):
        CALLS[name](path=path)
    assert not path.exists()


@pytest.mark.parametrize("name", CALLS)
def test_without_matplotlib_the_extra_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    text = f'viz.{name}: expected matplotlib to be installed, got none. Try: pip install "nnx-core[plot]"'
    with pytest.raises(ImportError, match=re.escape(text)):
        CALLS[name]()


@needs_matplotlib
def test_curves_draw_training_and_validation_together():
    history = {"loss": [3, 2], "val_loss": [3, 2.5], "accuracy": [0.1, 0.2], "seconds": [1, 1]}
    figure = viz.curves(history)
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy"]
    assert [len(axes.lines) for axes in figure.axes] == [2, 1]
    np.testing.assert_array_equal(figure.axes[0].lines[1].get_ydata(), [3, 2.5])
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xdata(), [1, 2])  # epochs count from 1


@needs_matplotlib
def test_curves_of_a_history():
    history = nnx.train.History()
    history.append({"loss": 1.0, "accuracy": 0.5})
    assert len(viz.curves(history).axes) == 2


@needs_matplotlib
def test_lines_take_y_or_x_and_y():
    axes = viz.lines({"a": [1, 2, 3], "b": ([5, 7], [1, 9])}, xlabel="step", ylabel="loss", log="y").axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [0, 1, 2])
    np.testing.assert_array_equal(axes.lines[1].get_xdata(), [5, 7])
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_xlabel()) == ("linear", "log", "step")


@needs_matplotlib
def test_a_mosaic_shows_every_image_where_it_belongs():
    arrays = np.zeros((3, 4, 4), np.uint8)
    arrays[1] = 100
    arrays[2] = 200
    picture = viz.images(arrays, columns=2).axes[0].images[0].get_array()
    assert picture.shape == (2 * 5 + 1, 2 * 5 + 1, 3)
    assert (picture[1:5, 1:5] == 0).all() and (picture[1:5, 6:10] == 100).all() and (picture[6:10, 1:5] == 200).all()
    assert (picture[6:10, 6:10] == 255).all() and (picture[0] == 255).all()


@needs_matplotlib
def test_filters_of_many_channels_are_a_row_each(rng):
    picture = viz.filters(rng.normal(size=(2, 5, 3, 3))).axes[0].images[0].get_array()
    assert picture.shape == (2 * 4 + 1, 5 * 4 + 1, 3)


@needs_matplotlib
def test_templates_of_a_linear_layer():
    layer = nnx.nn.Linear(48, 10)
    picture = viz.filters(layer.weight, shape=(3, 4, 4), columns=5).axes[0].images[0].get_array()
    assert picture.shape == (2 * 5 + 1, 5 * 5 + 1, 3)


@needs_matplotlib
def test_activation_maps_of_channels_and_of_flat_layers(model):
    x = np.ones((1, 1, 8, 8), np.float32)
    assert len(viz.activation_maps(model, x, "0").axes[0].images) == 1
    assert len(viz.activation_maps(model, x, model[5]).axes[0].patches) == 10
    with pytest.raises(ValueError, match=r"viz.activation_maps: expected the layer to answer .* got \(2, 6, 6, 6\)"):
        viz.activation_maps(model, np.ones((2, 1, 8, 8), np.float32), "0")


@needs_matplotlib
@pytest.mark.parametrize("labels", [(0, 1), (-1, 1)])
def test_decision_regions_colour_what_the_classifier_says(labels):
    low, high = labels
    predict = lambda p: np.where(p[:, 0] > 0.5, high, low)  # noqa: E731
    axes = viz.decision_regions(predict, X, np.array([low, high, low, high]), resolution=10).axes[0]
    regions = axes.images[0].get_array()
    assert (regions[:, :5] == 0).all() and (regions[:, 5:] == 1).all()
    assert axes.collections[0].get_array().tolist() == [0, 1, 0, 1]


@needs_matplotlib
def test_decision_regions_of_scores_of_modules_and_of_estimators():
    scores = np.array([[1.0, 0.0], [0.0, 1.0]])

    class Estimator:
        def predict(self, x):
            return (x[:, 1] > x[:, 0]).astype(int)

    module = nnx.nn.Linear(2, 2, bias=False)
    module.weight.data[...] = scores
    expected = viz.decision_regions(Estimator(), X, Y, resolution=9).axes[0].images[0].get_array()
    for predict in (lambda p: p @ scores.T, module):
        got = viz.decision_regions(predict, X, Y, resolution=9).axes[0].images[0].get_array()
        np.testing.assert_array_equal(got, expected)


@needs_matplotlib
def test_paths_draw_contours_of_functions_of_one_point_or_of_many():
    way = np.array([[1.0, 1.0], [0.5, 0.8], [np.nan, 0.0]])
    many = viz.paths(lambda p: p[0] ** 2 + p[1] ** 2, {"a": way})
    single = viz.paths(lambda p: float(p @ p), {"a": way})
    for figure in (many, single):
        np.testing.assert_array_equal(figure.axes[0].lines[0].get_xdata(), way[:, 0])
    assert viz.paths(lambda p: p[0] ** 2 + p[1] ** 2, {"a": way}, log=True).axes


WRONG = [
    (lambda: viz.curves([1, 2]), TypeError, "viz.curves: expected history to be a dict of lists, got list"),
    (lambda: viz.curves({"seconds": [1]}), ValueError, "viz.curves: expected history to hold at least one list"),
    (lambda: viz.curves({"loss": [[1, 2]]}), ValueError, "viz.curves: expected a list of numbers in 'loss', got"),
    (lambda: viz.lines({}), ValueError, "viz.lines: expected series to be a dict with at least one entry"),
    (lambda: viz.lines({"a": ([1], [1, 2])}), ValueError, "viz.lines: expected series['a'] to be y of shape (T,)"),
    (lambda: viz.lines({"a": [1]}, log="z"), ValueError, "viz.lines: expected log to be one of None, 'x', 'y', 'xy'"),
    (lambda: viz.bars({"a": "b"}), TypeError, "viz.bars: expected values['a'] to be a number, got 'b' (str)"),
    (lambda: viz.histograms({}), ValueError, "viz.histograms: expected arrays to be a dict with at least one entry"),
    (lambda: viz.histograms({"a": [1]}, bins=0), ValueError, "viz.histograms: expected bins to be an integer >= 1"),
    (
        lambda: viz.confusion_matrix([0, 1], [0]),
        ValueError,
        "viz.confusion_matrix: expected predicted to hold one class for each of the 2 labels, got 1",
    ),
    (
        lambda: viz.confusion_matrix([0, 2], [0, 1], labels=["a", "b"]),
        ValueError,
        "viz.confusion_matrix: expected labels to name at least 3 classes, got 2",
    ),
    (
        lambda: viz.confusion_matrix([0.5], [0]),
        ValueError,
        "viz.confusion_matrix: expected y to be a filled (N,) array of integers >= 0, got float64 of shape (1,)",
    ),
    (
        lambda: viz.images(np.zeros((2, 3, 3)), titles=["a"]),
        ValueError,
        "viz.images: expected 2 titles, one per image, got 1",
    ),
    (lambda: viz.images(np.zeros((2, 3, 3)), columns=0), ValueError, "viz.images: expected columns to be an integer"),
    (lambda: viz.filters(np.zeros((2, 9))), ValueError, "viz.filters: expected weight of shape (out, in, kh, kw), or"),
    (
        lambda: viz.neighbour_grid(np.zeros((2, 3, 3)), np.zeros((2, 3, 3))),
        ValueError,
        "viz.neighbour_grid: expected neighbours of shape (Q, K, ...) for queries of shape (2, 3, 3), got (2, 3, 3)",
    ),
    (
        lambda: viz.decision_regions(len, X[:, :1], Y),
        ValueError,
        "viz.decision_regions: expected x of shape (N, 2) and y of shape (N,), got (4, 1) and (4,)",
    ),
    (
        lambda: viz.decision_regions(lambda p: p[:5, 0], X, Y, resolution=3),
        ValueError,
        "viz.decision_regions: expected predict to answer 9 points with classes of shape (9,) or scores",
    ),
    (
        lambda: viz.decision_regions(3, X, Y),
        TypeError,
        "viz.decision_regions: expected predict to be a function or to have one, got int",
    ),
    (
        lambda: viz.decision_regions(len, X, Y, limits=(1, 0, 0, 1)),
        ValueError,
        "viz.decision_regions: expected limits to be (left, right, bottom, top), got (1, 0, 0, 1)",
    ),
    (lambda: viz.paths(len, {}), ValueError, "viz.paths: expected paths to be a dict with at least one path, got {}"),
    (
        lambda: viz.paths(len, {"a": np.zeros((3, 3))}),
        ValueError,
        "viz.paths: expected paths['a'] of shape (T, 2), got (3, 3)",
    ),
    (
        lambda: viz.paths(len, {"a": np.full((1, 2), np.nan)}),
        ValueError,
        "viz.paths: expected at least one finite point, got none. Give limits",
    ),
]


@needs_matplotlib
@pytest.mark.parametrize(
    ("call", "error", "text"), WRONG, ids=[text.split(":")[0] + f"-{i}" for i, (_, _, text) in enumerate(WRONG)]
)
def test_wrong_arguments(call, error, text):
    with pytest.raises(error, match=re.escape(text)):
        call()
