"""The golden table: every number of the lectures that can be recomputed exactly, N1 to N27, through nnx's public names.

Where a lecture prints a wrong number the test carries the right one and the X-number of docs/course/errors.md. Numbers
printed with few digits are compared to the digits of the recomputed value; everything is float64.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import nnx
import nnx.functional as F
from nnx import classic, data, diagnose, graph, models, nn, optim
from nnx.course.backpropagation import eleven_lines, eleven_lines_by_tape, pipeline, small_convnet
from nnx.testing import eval_numerical_gradient

# -- N1: the convolution demo of S0 ----------------------------------------------------------------

DEMO_IMAGE = np.array(
    [
        [[1, 0, 2, 1, 1], [2, 0, 2, 2, 0], [2, 0, 0, 2, 0], [1, 1, 0, 0, 1], [1, 2, 0, 0, 0]],
        [[0, 0, 0, 0, 0], [1, 2, 2, 2, 1], [0, 2, 1, 0, 1], [0, 2, 2, 1, 2], [1, 2, 1, 2, 1]],
        [[1, 2, 2, 1, 1], [0, 0, 0, 0, 2], [2, 0, 1, 0, 1], [0, 0, 1, 1, 1], [1, 0, 2, 0, 2]],
    ],
    np.float64,
)[None]
DEMO_FILTERS = np.array(
    [
        [
            [[0, -1, -1], [1, 0, 0], [1, 1, 0]],
            [[0, 0, -1], [0, 0, 1], [0, 1, 0]],
            [[1, 1, -1], [1, 1, 1], [-1, 1, -1]],
        ],
        [
            [[-1, 0, 1], [1, 1, -1], [1, 1, -1]],
            [[0, 0, 1], [1, -1, 0], [0, -1, -1]],
            [[1, 0, 1], [0, 1, 0], [1, 1, -1]],
        ],
    ],
    np.float64,
)
DEMO_BIAS = np.array([1.0, 0.0])


def test_N01_convolution_demo_is_cross_correlation():
    y = F.conv2d(DEMO_IMAGE, DEMO_FILTERS, DEMO_BIAS, stride=2, padding=1)[0].tolist()
    assert y[0] == [[7, 10, 9], [2, -1, 9], [0, 6, 4]]
    assert y[1] == [[1, -1, 6], [4, 2, 1], [2, 6, 4]]


def test_N01_X11_true_convolution_differs():
    y = F.true_conv2d(DEMO_IMAGE, DEMO_FILTERS, DEMO_BIAS, stride=2, padding=1)[0].tolist()
    assert y[0] == [[2, 3, 1], [5, 11, 3], [6, 7, 8]]


# -- N2 to N7: the losses of S2 --------------------------------------------------------------------

SCORES = np.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])  # a cat, a car, a frog
RIGHT = np.array([0, 1, 2])


def hinge(scores, labels=RIGHT, **arguments):
    return F.multiclass_hinge_loss(scores, labels, reduction="none", **arguments).numpy()


def test_N02_multiclass_svm_loss():
    np.testing.assert_allclose(hinge(SCORES), [2.9, 0, 12.9], atol=1e-12)
    assert F.multiclass_hinge_loss(SCORES, RIGHT).item() == pytest.approx(15.8 / 3, abs=1e-12)  # 5.26667


def test_N03_twice_the_weights():
    car = 2 * SCORES[1]
    np.testing.assert_allclose((car - car[1] + 1)[[0, 2]], [-6.2, -4.8], atol=1e-12)
    np.testing.assert_allclose(hinge(2 * SCORES), [4.8, 0, 23.8], atol=1e-12)


def test_N04_quiz_over_all_classes_adds_one():
    # the right class's own margin is max(0, 0 + 1) = 1
    margins = np.maximum(0, SCORES - SCORES[np.arange(3), RIGHT][:, None] + 1).sum(axis=1)
    np.testing.assert_allclose(margins, [3.9, 1, 13.9], atol=1e-12)
    np.testing.assert_allclose(hinge(SCORES) + 1, margins, atol=1e-12)
    assert margins.mean() == pytest.approx(6.26667, abs=5e-6)


def test_N04_quiz_squared():
    np.testing.assert_allclose(hinge(SCORES, p=2), [8.41, 0, 83.25], atol=1e-12)
    assert F.multiclass_hinge_loss(SCORES, RIGHT, p=2).item() == pytest.approx(30.5533, abs=5e-5)


def test_N04_quiz_mean_over_the_wrong_classes():
    np.testing.assert_allclose(hinge(SCORES) / 2, [1.45, 0, 6.45], atol=1e-12)


@pytest.mark.parametrize("classes", [3, 10])
def test_N04_quiz_loss_at_the_start_and_its_bounds(classes):
    assert hinge(np.zeros((1, classes)), [0]).tolist() == [classes - 1]
    best, worst = np.zeros((2, classes))
    best[0], worst[0] = 1e6, -1e6
    assert hinge(best[None], [0]).tolist() == [0]
    assert hinge(worst[None], [0])[0] > 1e6  # no bound above


def test_N05_softmax_of_the_cat():
    np.testing.assert_allclose(np.exp(SCORES[0]), [24.5325, 164.0219, 0.1827], atol=5e-5)
    np.testing.assert_allclose(F.softmax(SCORES[0], dim=0).numpy(), [0.12998, 0.86905, 0.00097], atol=5e-6)


def test_N06_X01_softmax_loss_has_the_natural_logarithm():
    losses = F.cross_entropy(SCORES, RIGHT, reduction="none").numpy()
    np.testing.assert_allclose(losses, [2.04036, 0.07913, 6.15648], atol=5e-6)
    assert losses.mean() == pytest.approx(2.75865, abs=5e-6)
    assert losses[0] / np.log(10) == pytest.approx(0.88611, abs=5e-6)  # what is printed as 0.89
    assert F.cross_entropy(np.zeros((1, 3)), [0]).item() == pytest.approx(1.09861, abs=5e-6)


def test_N07_hinge_beside_softmax():
    scores = np.array([[10.0, -2, 3], [10, 9, 9], [10, -100, -100]])
    assert hinge(scores, [0, 0, 0]).tolist() == [0, 0, 0]
    losses = F.cross_entropy(scores, [0, 0, 0], reduction="none").numpy()
    np.testing.assert_allclose(losses, [0.000918, 0.551445, 0], atol=5e-7)


# -- N8: distances of pictures ---------------------------------------------------------------------

TEST_IMAGE = np.array([[56, 32, 10, 18], [90, 23, 128, 133], [24, 26, 178, 200], [2, 0, 255, 220]], np.uint8)
TRAINING_IMAGE = np.array([[10, 20, 24, 17], [8, 10, 89, 100], [12, 16, 178, 170], [4, 32, 233, 112]], np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64])
def test_N08_pixel_distances_do_not_wrap(dtype):
    x, known = TEST_IMAGE.reshape(1, 16).astype(dtype), TRAINING_IMAGE.reshape(1, 16).astype(dtype)
    assert classic.nearest(x, known, p=1)[0].tolist() == [[456]]
    assert classic.nearest(x, known, p=2)[0][0, 0] == pytest.approx(162.111, abs=5e-4)


def test_N08_what_bytes_would_give():
    wrapped = np.abs(TEST_IMAGE - TRAINING_IMAGE).astype(np.int64).sum()
    assert wrapped == 1128  # the lecture's line on arrays of bytes


# -- N9 to N11: gradients --------------------------------------------------------------------------


def test_N09_numeric_gradient():
    w = np.array([0.34, -1.11, 0.78, 0.12, 0.55, 2.81, -3.10, -1.50, 0.33])
    table = {(): 1.25347, (0,): 1.25322, (1,): 1.25353, (2,): 1.25347}

    def loss(point):
        return table.get(tuple(np.flatnonzero(point != w)), 1.25347)

    gradient = eval_numerical_gradient(loss, w, h=1e-4)
    np.testing.assert_allclose(gradient[:3], [-2.5, 0.6, 0.0], atol=1e-9)


def test_N10_circuit_of_add_and_multiply():
    x, y, z = (graph.Input(name) for name in "xyz")
    q = graph.Node(graph.AddGate(), x, y)
    circuit = graph.ComputationalGraph(graph.Node(graph.MultiplyGate(), q, z))
    assert circuit.forward({"x": -2, "y": 5, "z": -4}) == -12 and q.value == 3
    assert circuit.backward() == {"x": -4, "y": -4, "z": 3} and q.grad == -4


def test_N10_by_the_tape():
    x, y, z = (nnx.tensor(value, dtype=np.float64, requires_grad=True) for value in (-2.0, 5.0, -4.0))
    f = (x + y) * z
    f.backward()
    assert (f.item(), x.grad, y.grad, z.grad) == (-12, -4, -4, 3)


def test_N11_sigmoid_circuit():
    w, x = nnx.Parameter(np.array([2.0, -3.0, -3.0])), nnx.Parameter(np.array([-1.0, -2.0]))
    dot = w[0] * x[0] + w[1] * x[1] + w[2]
    f = nnx.sigmoid(dot)
    f.backward()
    assert dot.item() == 1 and f.item() == pytest.approx(0.731059, abs=5e-7)
    np.testing.assert_allclose(w.grad, [-0.19661, -0.39322, 0.19661], atol=5e-6)
    np.testing.assert_allclose(x.grad, [0.39322, -0.58984], atol=6e-6)


# -- N12 to N14: filters and output arithmetic -----------------------------------------------------


def test_N12_gaussian():
    window = np.array([[178, 174, 177], [179, 178, 179], [168, 171, 178]])
    assert data.filter_image(window, "gaussian_blur", "valid").item() == 176.1875
    assert data.filter_image(window.astype(np.uint8), "gaussian_blur", "valid").item() == 176  # bytes are rounded


def test_N13_X07_output_size():
    assert [F.conv_output_size(7, 3, stride=stride) for stride in (1, 2)] == [5, 3]
    with pytest.raises(ValueError, match=r"conv_output_size: .* got 4 / 3 \+ 1 = 2\.33"):
        F.conv_output_size(7, 3, stride=3)


def test_N14_sizes_and_parameters():
    layer = nn.Conv2d(3, 10, 5, padding=2)
    assert layer.predict(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 10, 32, 32)
    parameters = sum(p.size for p in layer.parameters())
    assert parameters == 760 and parameters // 10 == 76
    assert nn.Conv2d(3, 6, 5).predict(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 6, 28, 28)
    assert F.conv_output_size(7, 3, padding=1) == 7


# -- N15 to N19: counting --------------------------------------------------------------------------


def test_N15_sizes_of_two_networks():
    assert sum(p.size for p in models.mlp(3, 4, 2).parameters()) == 26
    assert sum(p.size for p in models.mlp(3, 4, 4, 1).parameters()) == 41


def test_N16_nand():
    inputs = list(itertools.product((0, 1), repeat=2))
    assert classic.gates.NAND.sums(inputs).tolist() == [3, 1, 1, -1]
    assert classic.gates.NAND(inputs).tolist() == [1, 1, 1, 0]


@pytest.fixture
def no_init(monkeypatch):
    """Leave fresh parameters as the allocator gives them: pages that nobody writes cost nothing."""
    for name in nn.init.__all__:
        if name.endswith("_"):
            monkeypatch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("vgg16", {}, 138_357_544),
        ("vgg19", {}, 143_667_240),
        ("alexnet", {}, 62_378_344),
        ("alexnet", {"grouped": True}, 60_965_224),
    ],
)
def test_N19_X20_sizes_of_large_networks(name, arguments, expected, no_init):
    assert sum(p.size for p in models.build(name, **arguments).parameters()) == expected


def test_N20_X24_face_set():
    counts = {"Messi": 534, "Neymar": 444, "Iniesta": 610}
    assert sum(counts.values()) == 1588
    assert max(counts.values()) / 1588 == pytest.approx(0.384, abs=5e-4)  # always answering Iniesta


def test_N21_pooling():
    x = np.array([[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]], np.float64)[None, None]
    assert F.max_pool2d(x, 2)[0, 0].tolist() == [[6, 8], [3, 4]]
    assert F.avg_pool2d(x, 2)[0, 0].tolist() == [[3.25, 5.25], [2, 2]]
    assert F.sum_pool2d(x, 2)[0, 0].tolist() == [[13, 21], [8, 8]]


def test_N22_tanh_is_a_scaled_sigmoid():
    x = np.linspace(-5, 5, 10_001)
    assert np.abs(F.tanh(x).numpy() - (2 * F.sigmoid(2 * x).numpy() - 1)).max() < 5e-16  # two units in the last place


def slopes(function, points):
    x = nnx.Parameter(np.array(points))
    function(x).sum().backward()
    return x.grad


def test_N23_slopes():
    assert slopes(F.sigmoid, [-3.0])[0] == pytest.approx(0.04518, abs=5e-6)
    points = np.linspace(-4, 4, 801)
    assert slopes(F.sigmoid, points).max() == 0.25 and slopes(F.tanh, points).max() == 1
    assert points[slopes(F.sigmoid, points).argmax()] == 0


# -- N17, N18: complexities and variances ----------------------------------------------------------


def test_N17_complexities():
    dense, sparse = np.array([1.3, -1.2, 0.0, 0.0]), np.array([0.0, 0.0, 2.2, 0.0])  # w0 to w3
    assert [int(np.count_nonzero(w)) for w in (dense, sparse)] == [2, 1]
    assert [F.l1_penalty(w).item() for w in (dense, sparse)] == pytest.approx([2.5, 2.2])
    assert [F.l2_penalty(w).item() for w in (dense, sparse)] == pytest.approx([3.13, 4.84])


def test_N18_sum_of_200_normals_and_glorot():
    assert np.sqrt(200) == pytest.approx(14.1421, abs=5e-5)
    sums = np.random.default_rng(0).normal(size=(100_000, 200)).sum(axis=1)
    assert sums.std() == pytest.approx(np.sqrt(200), rel=0.01)
    assert 1 / 200 == 2 / (200 + 200) == 0.005
    weight = nn.init.xavier_normal_(nnx.Parameter(np.zeros((200, 200))), generator=np.random.default_rng(0))
    assert weight.data.var() == pytest.approx(0.005, rel=0.03)  # 40,000 draws: one deviation is 0.7 %


# -- N24 to N27 ------------------------------------------------------------------------------------


def test_N24_eleven_lines():
    errors, _ = eleven_lines(60_000)
    expected = [0.496410031903, 0.008584525653, 0.005789459863, 0.004629176777, 0.003958765280, 0.003510122568]
    assert [errors[j] for j in range(0, 60_000, 10_000)] == pytest.approx(expected, abs=1e-11)
    assert errors[60_000] == pytest.approx(0.003183530736, abs=1e-11)


def test_N24_the_tape_takes_the_same_steps():
    by_hand, by_tape = eleven_lines(100)[1], eleven_lines_by_tape(100)
    for ours, theirs in zip(by_hand, by_tape, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-12)


def test_N25_shapes():
    x = np.zeros((1, 3))
    shapes = [nn.Linear(3, 4).double().predict(x).shape, nn.Linear(4, 4).double().predict(np.zeros((1, 4))).shape]
    assert shapes == [(1, 4), (1, 4)] and nn.Linear(4, 1).predict(np.zeros((1, 4), np.float32)).shape == (1, 1)
    assert pipeline() == [[12, 32, 32], [12, 32, 32], [12, 16, 16], [3072], [10]]
    assert [sum(p.size for p in layer.parameters()) for layer in small_convnet()] == [336, 0, 0, 0, 30_730]


def test_N26_update_ratio():
    assert diagnose.update_ratio([0.02, 0.0], [0.02, 0.0002]) == pytest.approx(0.01, rel=1e-12)


def test_N27_X04_mean_of_dropout():
    w, x = np.array([0.7, -1.3]), np.array([2.0, 5.0])
    mean = np.mean([(w * x * mask).sum() for mask in itertools.product((0, 1), repeat=2)])
    assert mean == 0.5 * (w * x).sum()
    # the factor in the forecast is 1/2, not 1.2
    assert F.plain_dropout(w * x, p=0.5, training=False).sum().item() == pytest.approx(mean, abs=1e-15)
    masks = F.plain_dropout(np.tile(w * x, (100_000, 1)), p=0.5, generator=np.random.default_rng(0)).numpy()
    deviation = np.sqrt(((w * x) ** 2).sum() / 4 / 100_000)
    assert masks.sum(axis=1).mean() == pytest.approx(mean, abs=4 * deviation)


# -- optimizers: three steps on 5 x^2 + y^2 / 2 from (1, 1) ------------------------------------------

STEPS = {
    "SGD": (lambda p: optim.SGD(p, lr=0.01), [0.729, 0.970299]),
    "momentum": (lambda p: optim.SGD(p, lr=0.01, momentum=0.9), [0.486, 0.944379]),
    "Nesterov": (lambda p: optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True), [0.327321, 0.920893941]),
    "AdaGrad": (lambda p: optim.Adagrad(p, lr=0.1, eps=1e-7), [0.780456183089, 0.780456198761]),
    "RMSProp": (lambda p: optim.RMSprop(p, lr=0.1, alpha=0.9, eps=1e-7), [0.369180567428, 0.36918069588]),
    "Adam": (lambda p: optim.Adam(p, lr=0.1, eps=1e-7), [0.701586274504, 0.701586302555]),
    "Adam, not corrected": (
        lambda p: optim.Adam(p, lr=0.1, eps=1e-7, bias_correction=False),
        [-0.1621412074, -0.162138762622],
    ),
}


def three_steps(make, steps=3):
    p = nnx.Parameter(np.array([1.0, 1.0]))
    optimizer = make([p])

    def closure():
        optimizer.zero_grad()
        loss = 5 * p[0] ** 2 + 0.5 * p[1] ** 2
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return p.data


@pytest.mark.parametrize("name", STEPS)
def test_optimizer_steps(name):
    make, expected = STEPS[name]
    np.testing.assert_allclose(three_steps(make), expected, atol=2e-12)


def test_newton_needs_one_step():
    np.testing.assert_allclose(three_steps(optim.Newton, steps=1), [0, 0], atol=1e-8)  # differences of step 1e-4


def test_adam_without_correction_starts_too_fast():
    first = three_steps(STEPS["Adam, not corrected"][0], steps=1)
    assert (1 - first[0]) / 0.1 == pytest.approx(3.1623, abs=5e-5)
