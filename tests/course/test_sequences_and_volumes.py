"""Row F178: convolution over words, samples and volumes."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx.course import sequences_and_volumes as topic
from nnx.course._sentences import BAD, GOOD, reviews


def test_F178_sentences():
    """Filters over five words see what "not" belongs to (seen: 1.00 with two seeds); single words do not (0.72)."""
    sentences, liked = reviews(900, np.random.default_rng(0))
    numbers = topic.vocabulary(sentences)
    index = topic.encode(sentences, numbers)
    nnx.manual_seed(0)
    train, test = (index[:700], liked[:700]), (index[700:], liked[700:])
    assert topic.learn(topic.SentenceNet(len(numbers) + 1), train, test, 10, 1e-2) >= 0.95
    assert topic.learn(topic.SentenceNet(len(numbers) + 1, window=1), train, test, 10, 1e-2) <= 0.85


def test_F178_what_the_sentences_say():
    sentences, liked = reviews(200, np.random.default_rng(3))
    for words, good in zip(sentences, liked, strict=True):
        place, opinion = next((i, w) for i, w in enumerate(words) if w in GOOD + BAD)
        assert good == ((opinion in GOOD) != ("not" in words[:place]))
        assert place - (words.index("not") if "not" in words[:place] else place) <= 4  # inside of a window
    assert max(map(len, sentences)) <= topic.LENGTH


def test_F178_a_sentence_filter_is_a_product_with_a_window_of_words():
    nnx.manual_seed(0)
    model = topic.SentenceNet(9)
    index = np.array([[3, 1, 4, 1, 5, 0, 0]])
    vectors = np.pad(model.embedding(index).data[0], ((2, 2), (0, 0)))
    weight, bias = model.convolution.weight.data, model.convolution.bias.data
    expected = [np.tensordot(weight, vectors[t : t + 5].T, 2) + bias for t in range(7)]
    np.testing.assert_allclose(model.answers(index).data[0].T, np.maximum(expected, 0), rtol=1e-4, atol=1e-6)


def test_F178_sounds():
    rng = np.random.default_rng(0)
    nnx.manual_seed(0)
    assert topic.learn(topic.sound_net(), topic.sounds(600, rng), topic.sounds(200, rng), 10) >= 0.9


def test_F178_volumes():
    """Three solids as clouds of points, counted into 12 x 12 x 12 cells (seen: 0.98 and more with three seeds)."""
    rng = np.random.default_rng(0)
    (points, labels), (new, new_labels) = topic.clouds(500, rng), topic.clouds(200, rng)
    nnx.manual_seed(0)
    train, test = (topic.cells(points), labels), (topic.cells(new), new_labels)
    assert topic.learn(topic.volume_net(), train, test, 6) >= 0.9


def test_F178_clouds_are_the_solids_they_are_called():
    """Distances from the centre: all alike on a ball, three in one ratio on a box, bounded on a ring."""
    points, labels = topic.clouds(60, np.random.default_rng(1))
    distance = np.linalg.norm(points, axis=2)
    spread = distance.std(axis=1) / distance.mean(axis=1)
    assert set(labels) == {0, 1, 2}
    assert spread[labels == 0].max() < 0.06 < spread[labels != 0].min()
    assert np.abs(points).max() < 1.2


def test_F178_volume_convolution_equals_torch(rng):
    torch = pytest.importorskip("torch")
    model = topic.volume_net()
    x = rng.standard_normal((2, 1, 12, 12, 12)).astype(np.float32)
    conv = model[0]
    theirs = torch.nn.functional.conv3d(
        torch.from_numpy(x), torch.from_numpy(conv.weight.data), torch.from_numpy(conv.bias.data), padding=1
    )
    np.testing.assert_allclose(conv(x).data, theirs.numpy(), rtol=0, atol=1e-5)


def test_F178_cells():
    grid = topic.cells(np.array([[[-1.0, 0.0, 0.99], [-1.0, 0.0, 0.99], [2.0, 2.0, 2.0]]]), 4)
    assert grid.shape == (1, 1, 4, 4, 4)
    assert np.argwhere(grid[0, 0]).tolist() == [[0, 2, 3], [3, 3, 3]]
