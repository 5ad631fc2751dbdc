"""Recurrent networks complete a text, character by character.

A character model learns to predict the next character of sentences that a small grammar draws. The verb must agree with
a noun many characters before it, which a table of character pairs cannot see. RNN, GRU and LSTM are compared with that
table, and with the entropy of the grammar itself, below which no model can get.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx import course, nn, viz
from nnx.course._sentences import plain_sentences

ROWS = ("F173",)

CHARACTERS = " .abcdefghijklmnopqrstuvwxyz"
KINDS = ("RNN", "GRU", "LSTM")


class CharacterModel(nn.Module):
    """Scores for the character that follows each character: an embedding, one recurrent layer, a linear layer.

    kind:  "RNN", "GRU" or "LSTM"
    """

    def __init__(self, kind: str, hidden: int = 96) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(CHARACTERS), 24)
        self.recurrent = getattr(nn, kind)(24, hidden)
        self.scores = nn.Linear(hidden, len(CHARACTERS))

    def forward(self, index: Any, state: Any = None) -> tuple[nnx.Tensor, Any]:
        """Scores (T, N, characters) for character numbers (T, N), and the state to go on with."""
        y, state = self.recurrent(self.embedding(index), state)
        return self.scores(y), state


def encode(text: str) -> np.ndarray:
    """The numbers of the characters of a text."""
    return np.array([CHARACTERS.index(c) for c in text])


def windows(index: np.ndarray, length: int) -> np.ndarray:
    """A long text cut into columns (length, N) that overlap by one character, the rest left out."""
    n = (len(index) - 1) // (length - 1)
    starts = np.arange(n) * (length - 1)
    return index[starts + np.arange(length)[:, None]]


def bits_per_character(model: CharacterModel, index: np.ndarray) -> float:
    """Cross-entropy of the model on a text, in bits: ``-log2 p(next character)``, on average."""
    x = windows(index, 257)
    with nnx.no_grad():
        scores, _ = model(x[:-1])
        loss = nn.functional.cross_entropy(scores.reshape(-1, len(CHARACTERS)), x[1:].reshape(-1))
    return loss.item() / np.log(2)


def bigram_bits(train: np.ndarray, test: np.ndarray) -> float:
    """Cross-entropy of the table of pairs ``p(b | a) = (count(a, b) + 1) / (count(a) + characters)``, in bits.

    >>> text = encode("abababab")
    >>> round(bigram_bits(text, text), 3)  # each of 27 others may still come
    2.796
    """
    counts = np.ones((len(CHARACTERS), len(CHARACTERS)))
    np.add.at(counts, (train[:-1], train[1:]), 1)
    p = counts / counts.sum(axis=1, keepdims=True)
    return float(-np.log2(p[test[:-1], test[1:]]).mean())


def fit(model: CharacterModel, index: np.ndarray, steps: int, rng: np.random.Generator) -> list[float]:
    """Train on random pieces of a text, and return the loss of each step in bits."""
    optimizer = nnx.optim.Adam(model.parameters(), lr=1e-2)
    schedule = nnx.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    losses = []
    for _ in range(steps):
        starts = rng.integers(0, len(index) - 65, 32)
        x = index[starts + np.arange(65)[:, None]]
        scores, _ = model(x[:-1])
        loss = nn.functional.cross_entropy(scores.reshape(-1, len(CHARACTERS)), x[1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # long products of slopes can explode
        optimizer.step()
        schedule.step()
        losses.append(loss.item() / np.log(2))
    return losses


def complete(model: CharacterModel, beginning: str, limit: int = 60) -> str:
    """The beginning of a sentence with the most probable characters behind it, up to the full stop."""
    text = beginning
    with nnx.no_grad():
        scores, state = model(encode(". " + beginning)[:, None])
        while len(text) < limit and not text.endswith("."):
            text += CHARACTERS[int(scores.data[-1, 0].argmax())]
            scores, state = model(encode(text[-1])[:, None], state)
    return text


def agreement(model: CharacterModel, sentences: list[str]) -> float:
    """How often the model gets the ending of the verb right where a place stands between it and its noun."""
    right = []
    for sentence in sentences:
        words = sentence.rstrip(".").split()
        if "the" not in words:
            continue
        verb = words.index("the") + 2
        stem = words[verb] if words[0] in ("two", "many", "these") else words[verb][:-1]
        with nnx.no_grad():
            scores, _ = model(encode(". " + " ".join([*words[:verb], stem]))[:, None])
        says_s = CHARACTERS[int(scores.data[-1, 0].argmax())] == "s"
        right.append(says_s == (words[verb] != stem))
    return float(np.mean(right))


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train the three kinds on the same text, compare them in bits per character, and complete sentences."""
    rng = np.random.default_rng(seed)
    train, _ = plain_sentences(200 if small else 2000, rng)
    test, entropy = plain_sentences(60 if small else 400, rng)
    x_train, x_test = encode(" ".join(train)), encode(" ".join(test))
    bits = {"bigram": bigram_bits(x_train, x_test)}
    curves, completed, endings = {}, {}, {}
    beginnings = ["many old h", "this young teacher near the rivers", "two", "these dogs behind the house d"]
    for kind in KINDS:
        nnx.manual_seed(seed)
        model = CharacterModel(kind, 32 if small else 96)
        curves[kind] = fit(model, x_train, 20 if small else 900, np.random.default_rng(seed))
        bits[kind] = bits_per_character(model, x_test)
        endings[kind] = agreement(model, test)
        completed[kind] = [complete(model, text) for text in beginnings]
    for name, value in bits.items():
        print(f"{name}: {value:.3f} bits per character on {len(test)} new sentences")
    print(f"the grammar itself: {entropy:.3f} bits per character")
    for kind, share in endings.items():
        print(f"{kind}: {share:.1%} of the verbs behind a place end as their noun wants")
    for text in completed["LSTM"]:
        print(f"LSTM: {text}")
    if path := course.picture(out, "recurrent-bits"):
        viz.bars({**bits, "grammar": entropy}, ylabel="bits per character", path=path)
    if path := course.picture(out, "recurrent-loss"):
        viz.lines(curves, xlabel="step", ylabel="bits per character", path=path)
    return {"bits": bits, "entropy": entropy, "agreement": endings, "completed": completed, "loss": curves}
