"""Rows of nnx.course.nearest_neighbours."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx.backends import Backend
from nnx.backends.base import neighbors as base_neighbors
from nnx.classic import KNeighborsClassifier, LinearSVM, Perceptron, SoftmaxClassifier, TwoLayerClassifier, nearest
from nnx.course import nearest_neighbours as topic


@pytest.fixture(scope="module")
def digits():
    return nnx.data.digits("uint8")


@pytest.mark.parametrize(
    "model",
    [
        KNeighborsClassifier(1),
        Perceptron(2),
        LinearSVM(epochs=1),
        SoftmaxClassifier(epochs=1),
        TwoLayerClassifier(epochs=1),
    ],
    ids=repr,
)
def test_F020_every_classifier_has_train_and_predict(model, digits):
    x, y = digits.x_train[:200], digits.y_train[:200]
    assert model.fit(x, y) is model
    predicted = model.predict(digits.x_test[:7])
    assert predicted.shape == (7,)
    assert set(predicted) <= set(range(10))
    assert model.score(x, y) == np.mean(model.predict(x) == y)
    assert model.classes_.tolist() == list(range(10))


def test_F020_ten_lines_of_python_agree(digits):
    simple = topic.NearestNeighbor()
    simple.train(digits.x_train, digits.y_train)
    ours = KNeighborsClassifier(1, p=1).fit(digits.x_train, digits.y_train)
    assert (simple.predict(digits.x_test) == ours.predict(digits.x_test)).all()


def test_F021_bytes_never_wrap():
    a, b = topic.TEST.reshape(1, -1), topic.TRAIN.reshape(1, -1)
    assert topic.wrapped(a, b) == 1128  # what byte arithmetic gives
    for x, y in ((a, b), (b, a)):
        assert nearest(x, y, p=1)[0].item() == 456
        assert Backend().nearest(x, y, 1, 1)[0].item() == 456
    for kind in (np.int16, np.int64, np.float32, np.float64, ">i2"):
        assert nearest(a.astype(kind), b, p=1)[0].item() == 456
    assert KNeighborsClassifier(1, 1).fit(b[None], [7]).kneighbors(a[None])[0].item() == 456


def test_F021_images_of_bytes_are_taken_everywhere(digits):
    x, y = digits.x_train[:300], digits.y_train[:300]
    assert x.dtype == np.uint8 and x.ndim == 4
    wide = x.astype(np.float64)
    for make in (lambda: KNeighborsClassifier(3), lambda: KNeighborsClassifier(3, 1), lambda: Perceptron(3)):
        from_bytes, from_floats = make().fit(x, y), make().fit(wide, y)
        assert (from_bytes.predict(digits.x_test) == from_floats.predict(digits.x_test.astype(np.float64))).all()
    for make in (LinearSVM, SoftmaxClassifier):
        options = {"learning_rate": 1e-4, "epochs": 2}
        a, b = make(**options).fit(x, y), make(**options).fit(x.astype(np.float32), y)
        np.testing.assert_array_equal(a.coef_, b.coef_)


def test_F022_loaders_read_local_folders_and_no_pickle(tmp_path, rng):
    records = np.hstack([rng.integers(0, 10, (20, 1)), rng.integers(0, 256, (20, 3072))]).astype(np.uint8)
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        (tmp_path / name).write_bytes(records.tobytes())
    data = nnx.data.cifar10(tmp_path, dtype="uint8")
    assert data.x_train.shape == (100, 3, 32, 32) and data.x_train.dtype == np.uint8
    np.testing.assert_array_equal(data.y_test, records[:, 0])

    pixels, labels = rng.integers(0, 256, (5, 28, 28)).astype(np.uint8), np.arange(5, dtype=np.uint8)
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part in ("train", "t10k"):
        head = np.array([0x803, 5, 28, 28], ">u4").tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(np.array([0x801, 5], ">u4").tobytes() + labels.tobytes())
    mnist = nnx.data.mnist(folder, dtype="uint8")
    np.testing.assert_array_equal(mnist.x_train[:, 0], pixels)

    pickled = tmp_path / "python"
    pickled.mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (pickled / name).write_bytes(b"cos\nabort\n(tR.")  # would end the process if it were opened
    with pytest.raises((FileNotFoundError, ValueError), match="cifar10"):
        nnx.data.cifar10(pickled)


def test_F023_l1_of_the_lectures_pictures():
    assert nearest(topic.TEST.reshape(1, -1), topic.TRAIN.reshape(1, -1), p=1)[0].item() == 456


@pytest.mark.parametrize("p", [1, 2])
def test_F023_F024_against_sklearn(p, digits):
    theirs = pytest.importorskip("sklearn.neighbors").KNeighborsClassifier
    train, test = (a.reshape(len(a), -1).astype(np.float64) for a in (digits.x_train, digits.x_test))
    ours = KNeighborsClassifier(1, p).fit(digits.x_train, digits.y_train)
    fitted = theirs(1, p=p, algorithm="brute").fit(train, digits.y_train)
    assert (ours.predict(digits.x_test) == fitted.predict(test)).all()
    np.testing.assert_allclose(ours.kneighbors(digits.x_test)[0], fitted.kneighbors(test)[0], rtol=1e-12)


def test_F023_l1_against_sklearn():
    theirs = pytest.importorskip("sklearn.neighbors").KNeighborsClassifier
    a, b = topic.TEST.reshape(1, -1), topic.TRAIN.reshape(1, -1)
    assert theirs(1, p=1).fit(b.astype(float), [0]).kneighbors(a.astype(float))[0].item() == 456


def test_F024_l2_of_the_lectures_pictures_and_the_form_with_a_product(rng):
    a, b = topic.TEST.reshape(1, -1), topic.TRAIN.reshape(1, -1)
    assert nearest(a, b, p=2)[0].item() == pytest.approx(162.111, abs=5e-4)
    x, y = rng.uniform(0, 1, (40, 192)), rng.uniform(0, 1, (300, 192))
    direct = np.sqrt(((x[:, None] - y) ** 2).sum(axis=2))
    np.testing.assert_allclose(topic.pairwise_l2(x, y), direct, rtol=1e-12)
    single = topic.pairwise_l2(x.astype(np.float32), y.astype(np.float32))
    np.testing.assert_allclose(single, direct, rtol=1e-5)
    found = nearest(x.astype(np.float32), y.astype(np.float32), k=300)[0]
    np.testing.assert_allclose(found, np.sort(direct, axis=1), rtol=1e-6)


def test_F025_one_neighbour_is_always_right_in_training_and_more_are_not(digits):
    table = topic.accuracies(digits, [1, 3, 20], 2)
    assert table[1][0] == 1
    assert table[3][0] < 1 and table[20][0] < table[3][0]


def test_F025_the_vote():
    x, y = [[0.0], [1.0], [1.1], [5.0], [5.1]], [1, 0, 0, 2, 2]
    assert KNeighborsClassifier(1).fit(x, y).predict([[0.2]]) == 1
    assert KNeighborsClassifier(3).fit(x, y).predict([[0.2]]) == 0
    assert KNeighborsClassifier(5).fit(x, y).predict([[9.0]]) == 0  # two votes each: the first label


def test_F026_work_is_linear_in_the_training_set(monkeypatch, rng):
    """Counted, not timed: the numbers that are subtracted. `benchmarks/bench_neighbors.py` times."""
    counted = []
    sums = base_neighbors._sums

    def count(e, p):
        counted.append(e.size)
        return sums(e, p)

    monkeypatch.setattr(base_neighbors, "_sums", count)
    work = []
    sizes = [100, 1000, 10_000]
    for n in sizes:
        counted.clear()
        Backend().nearest(rng.standard_normal((3, 20)), rng.standard_normal((n, 20)), 1, 1)
        work.append(sum(counted))
    slope = np.polyfit(np.log(sizes), np.log(work), 1)[0]
    assert slope == pytest.approx(1, abs=1e-9)
    seconds, measured = topic.prediction_times([200, 400], 4, 0)
    assert len(seconds) == 2 and np.isfinite(measured)


def test_F027_three_different_copies_at_one_distance(digits):
    for image in digits.x_test[:20, 0].astype(np.float64):
        copies = topic.equally_far(image)
        distances = [nearest(image.reshape(1, -1), copy.reshape(1, -1))[0].item() for copy in copies.values()]
        assert distances[0] > 0
        np.testing.assert_allclose(distances, distances[0], rtol=1e-12)
        shown = list(copies.values())
        assert all(np.abs(a - b).max() > 1 for i, a in enumerate(shown) for b in shown[:i])
