"""Kinds of networks: dense, convolutional, recurrent and generative, one small example of each.

The dense and the convolutional network read the shipped digits; the recurrent one completes a text letter by letter;
the generative pair learns to draw numbers that look like the given ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import nnx
import nnx.functional as F
from nnx import course, nn, viz

ROWS = ("F011",)

LINES = ("a net learns.", "a net reads. ", "a net writes.")
CENTRE, SPREAD = 3.0, 0.5  # of the numbers that the generative pair imitates


def classifier(kind: str) -> nn.Module:
    """A dense or a convolutional network for digits of 8 x 8, of about the same number of parameters."""
    if kind == "dense":
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def train_classifier(model: nn.Module, epochs: int, seed: int) -> tuple[float, float]:
    """Train on the digits; returns the accuracy on the test images, and on the same images shifted by a pixel."""
    digits = nnx.data.digits()
    rng = np.random.default_rng(seed)
    optimizer = nnx.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        order = rng.permutation(len(digits.x_train))
        for start in range(0, len(order), 64):
            batch = order[start : start + 64]
            optimizer.zero_grad()
            F.cross_entropy(model(digits.x_train[batch]), digits.y_train[batch]).backward()
            optimizer.step()
    shifted = np.roll(digits.x_test, 1, axis=3)
    return tuple(  # type: ignore[return-value]
        float(np.mean(model.predict(x).argmax(axis=1) == digits.y_test)) for x in (digits.x_test, shifted)
    )


class Writer(nn.Module):
    """A recurrent network that gives, for every letter of a text, scores of the letter that follows."""

    def __init__(self, letters: str, hidden: int = 32) -> None:
        super().__init__()
        self.letters = letters
        self.rnn = nn.RNN(len(letters), hidden, batch_first=True)
        self.head = nn.Linear(hidden, len(letters))

    def numbers(self, lines: Sequence[str]) -> np.ndarray:
        """Lines of equal length as numbers of letters: (N, T)."""
        return np.array([[self.letters.index(letter) for letter in line] for line in lines])

    def encode(self, lines: Sequence[str]) -> np.ndarray:
        """Lines of equal length as one-hot rows: (N, T, letters)."""
        return np.eye(len(self.letters), dtype=np.float32)[self.numbers(lines)]

    def forward(self, x: Any) -> nnx.Tensor:
        return self.head(self.rnn(x)[0])

    def complete(self, start: str, count: int) -> str:
        """Append the likeliest letter `count` times."""
        text = start
        for _ in range(count):
            text += self.letters[int(self.predict(self.encode([text]))[0, -1].argmax())]
        return text


def train_writer(steps: int) -> tuple[Writer, float]:
    """Train on `LINES`; returns the network and how many of their letters it foresees."""
    model = Writer("".join(sorted(set("".join(LINES)))))
    optimizer = nnx.optim.Adam(model.parameters(), lr=1e-2)
    x, y = model.encode([line[:-1] for line in LINES]), model.numbers([line[1:] for line in LINES])
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x).flatten(0, 1), y.ravel()).backward()
        optimizer.step()
    return model, float(np.mean(model.predict(x).argmax(axis=2) == y))


def train_pair(steps: int, rng: np.random.Generator) -> np.ndarray:
    """Train a generator against a discriminator; returns 1,000 generated numbers."""
    generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    discriminator = nn.Sequential(nn.Linear(1, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    for_generator = nnx.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.5, 0.99))
    for_discriminator = nnx.optim.Adam(discriminator.parameters(), lr=4e-3, betas=(0.5, 0.99))

    def noise(count: int) -> np.ndarray:
        return rng.standard_normal((count, 4), dtype=np.float32)

    yes, no = np.ones((128, 1), np.float32), np.zeros((128, 1), np.float32)
    for _ in range(steps):
        real = rng.normal(CENTRE, SPREAD, (128, 1)).astype(np.float32)
        for_discriminator.zero_grad()
        loss = F.binary_cross_entropy_with_logits(discriminator(real), yes)
        loss = loss + F.binary_cross_entropy_with_logits(discriminator(generator.predict(noise(128))), no)
        loss.backward()
        for_discriminator.step()
        for_generator.zero_grad()
        F.binary_cross_entropy_with_logits(discriminator(generator(noise(128))), yes).backward()
        for_generator.step()
    return generator.predict(noise(1000))[:, 0]


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train one network of each kind and print what it can do."""
    result: dict[str, Any] = {}
    for kind in ("dense", "convolutional"):
        nnx.manual_seed(seed)
        model = classifier(kind)
        accuracy, shifted = train_classifier(model, 3 if small else 20, seed)
        parameters = sum(p.size for p in model.parameters())
        result[kind] = {"parameters": parameters, "accuracy": accuracy, "shifted": shifted}
        print(f"{kind}: {parameters:,} parameters, digits {accuracy:.4f}, digits shifted by a pixel {shifted:.4f}")
    nnx.manual_seed(seed)
    writer, foreseen = train_writer(100 if small else 400)
    completed = {start: writer.complete(start, 6) for start in ("a net l", "a net r", "a net w")}
    result["recurrent"] = {"foreseen": foreseen, "completed": completed}
    print(f"recurrent: foresees {foreseen:.3f} of the letters")
    for start, text in completed.items():
        print(f"  {start!r} goes on as {text!r}")
    nnx.manual_seed(seed)
    numbers = train_pair(100 if small else 1000, np.random.default_rng(seed))
    result["generative"] = {"mean": float(numbers.mean()), "std": float(numbers.std())}
    print(f"generative: numbers {numbers.mean():.2f} +- {numbers.std():.2f}, made like {CENTRE} +- {SPREAD}")
    if path := course.picture(out, "kinds_of_nets-digits"):
        kinds = ("dense", "convolutional")
        heights = {f"{kind}, {name}": result[kind][name] for kind in kinds for name in ("accuracy", "shifted")}
        viz.bars(heights, ylabel="share of test digits right", path=path)
    if path := course.picture(out, "kinds_of_nets-generated"):
        real = np.random.default_rng(seed).normal(CENTRE, SPREAD, 1000)
        viz.histograms({"real": real, "generated": numbers}, range=(0, 6), path=path)
    return result
