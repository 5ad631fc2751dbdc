"""What the documents print wrong, X1 to X26: one test each of the right value. The page is docs/course/errors.md."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import nnx
import nnx.functional as F
from nnx import classic, diagnose, graph, models, nn, optim
from nnx.course import dropout, gradient_descent, history
from nnx.diagnose.updates import judge_ratio
from nnx.functional import activation, loss
from nnx.train.classifier import init_two_layer_model, two_layer_net

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "course" / "errors.md").read_text(encoding="utf-8")
CAT = np.array([[3.2, 5.1, -1.7]])


def test_X01_the_loss_of_the_cat_is_a_natural_logarithm():
    assert F.cross_entropy(CAT, [0]).item() == pytest.approx(2.04036, abs=5e-6)
    assert -np.log10(0.13) == pytest.approx(0.886, abs=5e-4)  # printed as 0.89


def test_X02_the_hinge_loss_compares_scores_and_the_softmax_loss_takes_a_logarithm():
    margins = [max(0.0, 5.1 - 3.2 + 1), max(0.0, -1.7 - 3.2 + 1)]
    assert F.multiclass_hinge_loss(CAT, [0]).item() == pytest.approx(sum(margins), abs=1e-12)
    probability = np.exp(3.2) / np.exp(CAT).sum()
    assert F.cross_entropy(CAT, [0]).item() == pytest.approx(-np.log(probability), abs=1e-12)


def test_X03_the_printed_loss_has_the_half():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-0.5, 0.5, (20, 3072)), rng.integers(0, 10, 20)
    half, whole = [], []
    for _ in range(3):
        model = init_two_layer_model(32 * 32 * 3, 50, 10, rng=rng)
        half.append(two_layer_net(x, y, model, 1e3)[0])
        whole.append(two_layer_net(x, y, model, 1e3, l2_half=False)[0])
    assert half == pytest.approx([3.0731] * 3, abs=4 * 0.0028)
    assert whole == pytest.approx([3.8436] * 3, abs=4 * 0.0056)
    assert abs(3.06859716482 - 3.0731) < 2 * 0.0028 and abs(3.06859716482 - 3.8436) > 100 * 0.0056


def test_X03_the_conventions_of_the_three_documents():
    w, strength, n = np.array([1.0, -2.0, 0.5]), 0.3, 10
    squares, absolutes = 5.25, 3.5
    assert F.l2_penalty(w, strength).item() == pytest.approx(strength * squares)  # S2
    assert F.l2_penalty(w, strength, "half-mean", n).item() == pytest.approx(strength / (2 * n) * squares)  # S1, S4
    assert F.l1_penalty(w, strength, "half-mean", n).item() == pytest.approx(strength / (2 * n) * absolutes)  # S1
    assert F.l1_penalty(w, strength, "mean", n).item() == pytest.approx(strength / n * absolutes)  # S4


def test_X04_the_factor_of_the_forecast_is_one_half():
    a = np.array([1.5, -2.0])
    assert F.plain_dropout(a, p=0.5, training=False).tolist() == [0.75, -1.0]
    assert dropout.mean_over_masks([1.0, 1.0], a) == 0.5 * a.sum()


def test_X05_the_slope_of_leaky_relu_is_a_parameter():
    x = np.array([-2.0, 3.0])
    assert F.leaky_relu(x).tolist() == [-0.02, 3.0]
    assert F.leaky_relu(x, 0.1).tolist() == [-0.2, 3.0]


def test_X06_a_filter_of_five_on_32_pixels_gives_28():
    assert nn.Conv2d(3, 5, 5).predict(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 5, 28, 28)
    assert F.conv_output_size(32, 5) == 28 and F.conv_output_size(32, 7) == 26


def test_X07_it_is_stride_3_that_does_not_fit():
    assert F.conv_output_size(7, 3, stride=2) == 3
    with pytest.raises(ValueError, match=r"2\.33"):
        F.conv_output_size(7, 3, stride=3)


def test_X08_an_update_ratio_far_above_a_thousandth_is_too_large():
    assert judge_ratio(1e-3) == "about right"
    assert judge_ratio(0.1) == "large" and judge_ratio(1.0) == "large"


def test_X09_the_inputs_of_the_experiment_have_500_features():
    report = diagnose.initialisation_experiment("tanh", 0.01, layers=2, examples=200)
    # the deviation of a layer is about 0.01 sqrt(features): 0.2236 for 500, 0.0316 for 10
    assert report.stds[0] == pytest.approx(0.01 * np.sqrt(500), rel=0.1)


def test_X10_best_w_is_not_best_W():
    with pytest.raises(NameError, match="best_w"):
        exec("best_W = 1\nscores = best_w", {})


def test_X10_prints_without_brackets_and_xrange_are_python_2():
    with pytest.raises(SyntaxError):
        compile('print "In attempt"', "slide", "exec")
    with pytest.raises(NameError, match="xrange"):
        exec("xrange(1000)", {})


def test_X10_leibniz_was_born_before_he_died():
    assert history.LIFETIMES["Gottfried Wilhelm Leibniz"] == (1646, 1716)
    assert all(born < died for born, died in history.LIFETIMES.values())


def test_X11_layers_compute_cross_correlation():
    x, w = np.arange(9.0).reshape(1, 1, 3, 3), np.arange(4.0).reshape(1, 1, 2, 2)
    y = F.conv2d(x, w).numpy()
    assert y[0, 0, 0, 0] == (x[0, 0, :2, :2] * w[0, 0]).sum()
    np.testing.assert_array_equal(F.true_conv2d(x, w).numpy(), F.conv2d(x, w[:, :, ::-1, ::-1].copy()).numpy())
    assert not np.array_equal(y, F.true_conv2d(x, w).numpy())


def test_X12_the_table_of_step_sizes_has_ten_rows_and_percent_f_cannot_show_them():
    assert f"{1e-10:f}" == "0.000000" and f"{1e-10:e}" == "1.000000e-10"
    digits = nnx.data.digits("float64")
    _, table = gradient_descent.step_sizes(digits.x_train[:50].reshape(50, -1), digits.y_train[:50], seed=0)
    assert sorted(table) == list(range(-10, 0))  # -7 among them


SEPARABLE = np.array([[2.0, 1.0], [1.5, -0.5], [-1.0, 0.5], [-2.0, -1.0]]), np.array([1, 1, -1, -1])


def test_X13_the_class_is_plus_one_on_the_positive_side():
    x, y = SEPARABLE
    w = classic.perceptron_learning(x, y).weights
    assert (y * (x @ w) > 0).all()  # the condition printed beside it
    assert np.array_equal(np.where(x @ w > 0, 1, -1), y)
    assert not np.array_equal(np.where(x @ w > 0, -1, 1), y)  # as printed


def test_X14_the_update_must_happen_on_the_boundary_too():
    x, y, w0 = [[1.0, 0.0]], [1], [0.0, 1.0]
    strict = classic.perceptron_learning(x, y, w0, update="<")
    assert strict.updates == 0 and (np.array(x) @ strict.weights * y).tolist() == [0.0]
    assert classic.perceptron_learning(x, y, w0).weights.tolist() == [1.0, 1.0]


def test_X15_a_tie_is_a_matter_of_convention():
    tie = [[1, 1]]
    assert classic.ThresholdUnit([1, 1], threshold=2, at_zero=1)(tie).tolist() == [1]  # S1
    assert classic.ThresholdUnit([1, 1], threshold=2, at_zero=0)(tie).tolist() == [0]  # S3


def test_X16_halving_leaves_the_bias_alone():
    layer = nn.Linear(4, 1).double()
    layer.weight.data[...], layer.bias.data[...] = [[3.0, 5.0, 7.0, 1.0]], [1.0]
    h = np.array([[2.0, 1.0, 2.0, 6.38]])
    # each half was trained alone; both together, halved, give the mean of what the halves gave
    halves = [(h[0, half] * layer.weight.data[0, half]).sum() + 1.0 for half in ([0, 1], [2, 3])]
    dropout.halve_outgoing(layer)
    assert layer.predict(h).item() == pytest.approx(np.mean(halves), abs=1e-12) == pytest.approx(16.69)
    layer.bias.data *= 0.5  # as printed
    assert layer.predict(h).item() == pytest.approx(16.19)


def test_X17_batch_norm_needs_eps():
    x = np.full((5, 1), 3.0)
    y = F.batch_norm(x, np.zeros(1), np.ones(1), training=True).numpy()
    assert (y == 0).all()
    with np.errstate(invalid="ignore"):
        assert np.isnan((x - x.mean(0)) / np.sqrt(x.var(0))).all()


def test_X18_divide_by_the_deviation_not_by_the_variance(rng):
    x = rng.normal(100, 64, (100_000, 1))
    assert nnx.data.Standardize().fit(x)(x).std() == pytest.approx(1, abs=1e-6)
    assert ((x - x.mean()) / x.var()).std() == pytest.approx(1 / 64, rel=0.01)


def test_X19_1958_donald_hebb_mcculloch():
    people = {event.year: event.who for event in history.TIMELINE}
    assert "Rosenblatt" in people[1958] and 1948 not in people
    assert people[1949] == "Donald Hebb" and "McCulloch" in people[1943]


def test_X20_parameters_of_alexnet_and_vgg(monkeypatch):
    for name in nn.init.__all__:
        if name.endswith("_"):  # pages that nobody writes cost nothing
            monkeypatch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)
    sizes = {
        (name, *arguments): sum(p.size for p in models.build(name, **arguments).parameters())
        for name, arguments in (("alexnet", {}), ("alexnet", {"grouped": True}), ("vgg16", {}), ("vgg19", {}))
    }
    assert list(sizes.values()) == [62_378_344, 60_965_224, 138_357_544, 143_667_240]
    dense = [m for m in models.build("alexnet").modules() if isinstance(m, nn.Linear)]
    assert len(dense) == 3


def test_X21_adam_without_momentum_and_correction_is_rmsprop():
    ways = []
    for make in (
        lambda p: optim.Adam(p, lr=0.1, betas=(0.0, 0.9), eps=1e-7, bias_correction=False),
        lambda p: optim.RMSprop(p, lr=0.1, alpha=0.9, eps=1e-7),
        lambda p: optim.Adadelta(p, lr=0.1, rho=0.9, eps=1e-7),
    ):
        p = nnx.Parameter(np.array([1.0, 1.0]))
        optimizer = make([p])
        for _ in range(5):
            optimizer.zero_grad()
            (5 * p[0] ** 2 + 0.5 * p[1] ** 2).backward()
            optimizer.step()
        ways.append(p.data)
    np.testing.assert_allclose(ways[0], ways[1], rtol=1e-12)
    assert np.abs(ways[0] - ways[2]).max() > 0.1


def test_X22_the_error_goes_back_from_the_last_layer(rng):
    model = nn.Sequential(
        nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 2), nn.Sigmoid()
    ).double()
    x, y = rng.standard_normal((5, 3)), rng.random((5, 2))
    layers = graph.deltas(model, x, lambda a: 0.5 * ((a - y) ** 2).sum())
    slope = [a * (1 - a) for a in (model[: i + 2].predict(x) for i in (0, 2, 4))]
    found = {3: (model.predict(x) - y) * slope[2]}
    for level in (2, 1):  # each needs the one behind it
        found[level] = (found[level + 1] @ model[2 * level].weight.data) * slope[level - 1]
    for level in (1, 2, 3):
        np.testing.assert_allclose(layers[level - 1].delta, found[level], atol=1e-14)


def test_X23_two_dates_of_lenet():
    assert [event.year for event in history.TIMELINE if "LeCun" in event.who] == [1989, 1998]


def test_X24_the_baseline_is_the_largest_class():
    y = np.repeat([0, 1, 2], [534, 444, 610])
    assert np.mean(y == np.bincount(y).argmax()) == pytest.approx(0.384, abs=5e-4)


def test_X25_no_operating_system_is_required():
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "Operating System :: OS Independent" in metadata["classifiers"]


def test_X26_activation_functions_are_no_cost_functions():
    assert {"sigmoid", "tanh", "relu", "leaky_relu", "elu"} <= set(activation.__all__)
    assert not set(activation.__all__) & set(loss.__all__)
    # the expensive step of the sigmoid is the exponential
    assert F.sigmoid(np.array([2.0])).item() == pytest.approx(1 / (1 + np.exp(-2.0)), abs=1e-15)


# -- the page --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(1, 27))
def test_the_page_names_a_test_that_exists(number):
    row = re.search(rf"^\| X{number} \|.*\|$", PAGE, re.MULTILINE)
    assert row is not None, f"X{number} is missing"
    names = re.findall(r"`(test_\w+)`", row.group())
    assert names and all(name in globals() for name in names), names
    assert all(name.startswith(f"test_X{number:02}_") for name in names)
