"""Convolution along one axis and in three: sentences, sounds and point clouds.

A filter needs neighbours, not an image. Over the words of a sentence it finds phrases, over the samples of a sound it
finds tones, and in a cloud of points, counted into cells, it finds corners and faces.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx import course, nn, viz
from nnx.course._sentences import reviews

ROWS = ("F178",)

SOLIDS = ("ball", "box", "ring")
LENGTH = 16  # words of a sentence, with what is filled up


# -- one axis: words -------------------------------------------------------------------------------


class SentenceNet(nn.Module):
    """Scores for two classes from word numbers (N, T): filters over windows of words, and the largest answer of each
    wherever it is. After Y. Kim, "Convolutional neural networks for sentence classification", arXiv:1408.5882 (2014).

    window:  the words that a filter sees; 1 is a bag of words, for which the order does not matter
    """

    def __init__(self, words: int, window: int = 5, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, 16, padding_idx=0)
        self.convolution = nn.Conv1d(16, width, window, padding=window // 2)
        self.scores = nn.Linear(width, 2)

    def forward(self, index: Any) -> nnx.Tensor:
        return self.scores(self.answers(index).amax(-1))

    def answers(self, index: Any) -> nnx.Tensor:
        """What each filter says at each word, (N, width, T)."""
        return self.convolution(self.embedding(index).transpose(1, 2)).relu()


def vocabulary(sentences: list[list[str]]) -> dict[str, int]:
    """The number of each word; 0 stays free for the places behind the end."""
    return {word: i + 1 for i, word in enumerate(sorted({word for sentence in sentences for word in sentence}))}


def encode(sentences: list[list[str]], numbers: dict[str, int]) -> np.ndarray:
    """Sentences as rows of word numbers (N, LENGTH), filled up with 0."""
    index = np.zeros((len(sentences), LENGTH), np.int64)
    for row, sentence in zip(index, sentences, strict=True):
        row[: len(sentence)] = [numbers[word] for word in sentence]
    return index


# -- one axis: samples of a sound ------------------------------------------------------------------


def sounds(n: int, rng: np.random.Generator, samples: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """Draw `n` tones (n, 1, samples) float32 in noise, and whether each rises in pitch (n,)."""
    t = np.arange(samples) / samples
    rises = rng.integers(0, 2, n)
    low, change = rng.uniform(12, 24, (n, 1)), rng.uniform(12, 24, (n, 1))
    pitch = np.where(rises[:, None] == 1, low + change * t, low + change * (1 - t))  # periods per length
    wave = np.sin(2 * np.pi * (np.cumsum(pitch, axis=1) / samples + rng.random((n, 1))))
    return (wave + 0.3 * rng.standard_normal(wave.shape)).astype(np.float32)[:, None], rises


def sound_net(width: int = 16) -> nn.Sequential:
    """Three strided convolutions over the samples themselves; stride takes the place of pooling."""
    return nn.Sequential(
        nn.Conv1d(1, width, 16, stride=4), nn.ReLU(), nn.Conv1d(width, width, 8, stride=4), nn.ReLU(),
        nn.Conv1d(width, width, 4, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(width * 14, 2),
    )  # fmt: skip


# -- three axes: clouds of points ------------------------------------------------------------------


def clouds(n: int, rng: np.random.Generator, points: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Draw `n` clouds of points (n, points, 3) on the faces of SOLIDS, turned at random, and which solid each is."""
    labels = rng.integers(0, len(SOLIDS), n)
    direction = rng.standard_normal((n, points, 3))
    ball = direction / np.linalg.norm(direction, axis=2, keepdims=True)
    box = rng.uniform(-1, 1, (n, points, 3))
    face = rng.integers(0, 3, (n, points, 1))
    np.put_along_axis(box, face, rng.choice([-1.0, 1.0], face.shape), axis=2)
    around, across = rng.uniform(0, 2 * np.pi, (2, n, points))
    radius = 0.75 + 0.25 * np.cos(across)
    ring = np.stack([radius * np.cos(around), radius * np.sin(around), 0.25 * np.sin(across)], axis=2)
    cloud = np.choose(labels[:, None, None], [ball, 0.75 * box, 1.2 * ring])
    turn, _ = np.linalg.qr(rng.standard_normal((n, 3, 3)))
    size = rng.uniform(0.6, 0.75, (n, 1, 1))
    return cloud @ turn * size + 0.02 * rng.standard_normal(cloud.shape), labels


def cells(cloud: np.ndarray, size: int = 12) -> np.ndarray:
    """Which cells of a grid over [-1, 1]^3 have points in them: (n, 1, size, size, size) float32 of 0 and 1.

    >>> cells(np.array([[[-0.9, 0.0, 0.9]]]), 3)[0, 0].nonzero()
    (array([0]), array([1]), array([2]))
    """
    place = np.clip(((cloud + 1) / 2 * size).astype(int), 0, size - 1)
    grid = np.zeros((len(cloud), 1, size, size, size), np.float32)
    grid[np.arange(len(cloud))[:, None], 0, place[..., 0], place[..., 1], place[..., 2]] = 1
    return grid


def volume_net(width: int = 8) -> nn.Sequential:
    """Two convolutions of volumes (N, C, D, H, W), with pooling, and a linear layer."""
    return nn.Sequential(
        nn.Conv3d(1, width, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2),
        nn.Conv3d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2),
        nn.Flatten(), nn.Linear(2 * width * 27, len(SOLIDS)),
    )  # fmt: skip


# -- all of them -----------------------------------------------------------------------------------


def learn(model: nn.Module, train: tuple, test: tuple, epochs: int, lr: float = 3e-3, seed: int = 0) -> float:
    """Train a classifier, and return its accuracy on the test set."""
    trainer = nnx.train.Trainer(model, nn.CrossEntropyLoss(), nnx.optim.Adam(model.parameters(), lr=lr))
    trainer.fit(train[0], train[1], epochs=epochs, batch_size=32, seed=seed)
    return float((model.predict(test[0]).argmax(axis=1) == test[1]).mean())


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train the three kinds of networks and say what they reach on new data."""
    rng = np.random.default_rng(seed)
    n, n_test = (64, 32) if small else (1500, 500)
    nnx.manual_seed(seed)

    sentences, liked = reviews(n + n_test, rng)
    numbers = vocabulary(sentences)
    index = encode(sentences, numbers)
    train, test = (index[:n], liked[:n]), (index[n:], liked[n:])
    bag = learn(SentenceNet(len(numbers) + 1, window=1), train, test, 2 if small else 10, 1e-2, seed)
    model = SentenceNet(len(numbers) + 1)
    text = learn(model, train, test, 2 if small else 10, 1e-2, seed)
    print(f"sentences: {text:.1%} right with filters over five words, {bag:.1%} with single words")

    heard = learn(sound_net(), sounds(n, rng), sounds(n_test, rng), 1 if small else 10, seed=seed)
    print(f"sounds: {heard:.1%} right about whether the pitch rises")

    (train_points, train_labels), (points, labels) = clouds(n, rng), clouds(n_test, rng)
    volumes = volume_net()
    seen = learn(volumes, (cells(train_points), train_labels), (cells(points), labels), 1 if small else 6, seed=seed)
    print(f"point clouds: {seen:.1%} right about which of {', '.join(SOLIDS)}")

    example = ["the", "film", "was", "not", "to", "my", "surprise", "boring", "but", "it", "was", "a", "bad", "day"]
    known = [word for word in example if word in numbers]  # all of them, but for the smallest runs
    answers = model.answers(encode([known], numbers)).data[0, :, : len(known)]
    loudest = known[int(answers.max(axis=0).argmax())]
    print(f"the largest answer to '{' '.join(known)}' is at '{loudest}'")
    if path := course.picture(out, "sequences_and_volumes-accuracy"):
        viz.bars({"single words": bag, "five words": text, "sounds": heard, "point clouds": seen}, path=path)
    if path := course.picture(out, "sequences_and_volumes-slices"):
        first = [int(np.argmax(labels == k)) for k in range(len(SOLIDS)) if (labels == k).any()]
        slices = cells(points[first])[:, 0, 1::2].reshape(-1, 12, 12)
        viz.images(slices, columns=6, path=path)
    return {"sentences": text, "single_words": bag, "sounds": heard, "clouds": seen, "loudest": loudest}
