"""Captioning: a convolutional network reads an image, a recurrent network writes what is to be seen.

The image becomes a vector, and an LSTM or a GRU writes a sentence word by word, each time shown the vector and the word
it wrote last. The scenes are drawn: one shape, or two that lie beside or above each other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx import course, nn, viz
from nnx.course import _scenes

ROWS = ("F172",)

SIZES = ("small", "large")
COLOURS = {"red": (0.9, 0.2, 0.2), "green": (0.2, 0.7, 0.2), "blue": (0.2, 0.3, 0.9), "yellow": (0.9, 0.8, 0.1)}
WORDS = ("<end>", "<start>", "a", *SIZES, *COLOURS, *_scenes.SHAPES, "above", "left", "of")
NUMBER = {word: i for i, word in enumerate(WORDS)}
LONGEST = 11  # words of a caption with its <end>
IGNORED = -100  # the target where a caption is over: cross_entropy leaves it out


def scenes(n: int, rng: np.random.Generator, size: int = 32, most: int = 2) -> tuple[np.ndarray, list[str]]:
    """Draw `n` colour images (n, 3, size, size) float32 and what they show, such as "a small red disc above a large
    blue square". Two shapes (`most`=1: never) are named in reading order, so that there is one right caption.
    """
    y, x = np.mgrid[:size, :size] + 0.5
    level = rng.uniform(0.3, 0.6, n).reshape(-1, 1, 1, 1)
    images = level + 0.03 * rng.standard_normal((n, 3, size, size))
    captions = []
    for image in images:
        count, stacked = min(1 + (rng.random() < 0.75), most), rng.random() < 0.5
        phrases = []
        for i in range(count):
            kind, large = rng.integers(len(_scenes.SHAPES)), rng.random() < 0.5
            colour = rng.choice(list(COLOURS))
            along = 0.5 if count == 1 else 0.27 + 0.46 * i  # two shapes share the image
            centre = size * (np.array([along, 0.5]) + rng.uniform(-0.04, 0.04, 2))
            cy, cx = centre if stacked else centre[::-1]
            radius = size * (rng.uniform(0.21, 0.24) if large else rng.uniform(0.13, 0.15))
            distance = _scenes.shape_distance(np.array(kind), y - cy, x - cx, np.array(radius))
            inside = np.clip(0.5 - distance, 0, 1)
            image += inside * (np.reshape(COLOURS[colour], (3, 1, 1)) - image)
            phrases.append(f"a {SIZES[large]} {colour} {_scenes.SHAPES[kind]}")
        captions.append((" above " if stacked else " left of ").join(phrases))
    return images.astype(np.float32), captions


def encode(captions: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The words that go in, (T, N) with <start> in front, and those that shall come out, (T, N) with <end> behind."""
    given = np.full((LONGEST, len(captions)), NUMBER["<end>"])
    wanted = np.full((LONGEST, len(captions)), IGNORED)
    for n, caption in enumerate(captions):
        words = [NUMBER[word] for word in caption.split()]
        given[: len(words) + 1, n] = [NUMBER["<start>"], *words]
        wanted[: len(words) + 1, n] = [*words, NUMBER["<end>"]]
    return given, wanted


class CaptionNet(nn.Module):
    """A ConvNet that tells a recurrent network what to write about, after O. Vinyals et al., "Show and tell: a neural
    image caption generator", arXiv:1411.4555 (2014), who show the image once; here it is shown before every word.

    kind:  "LSTM" or "GRU"
    """

    def __init__(self, kind: str = "LSTM", hidden: int = 128, width: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *_block(3, width), *_block(width, 2 * width), *_block(2 * width, 2 * width),
            nn.Flatten(), nn.Linear(2 * width * 16, hidden), nn.ReLU(),
        )  # fmt: skip
        self.embedding = nn.Embedding(len(WORDS), 32)
        self.decoder: nn.RNNBase = getattr(nn, kind)(hidden + 32, hidden)
        self.scores = nn.Linear(hidden, len(WORDS))

    def forward(self, images: Any, given: Any) -> nnx.Tensor:
        """Scores (T, N, words) for the word behind each of the words `given` (T, N)."""
        y, _ = self._read(self.encoder(images), given)
        return self.scores(y)

    def _read(self, code: nnx.Tensor, words: Any, state: Any = None) -> tuple[nnx.Tensor, Any]:
        """The decoder's output (T, N, hidden) for words (T, N), each beside the code of its image (N, hidden)."""
        image = code.unsqueeze(0).expand(len(words), *code.shape)
        return self.decoder(nnx.cat([image, self.embedding(words)], -1), state)

    def describe(self, images: Any) -> list[str]:
        """The captions of images (N, 3, H, W), the most probable word at each place."""
        was_training = self.training
        self.eval()
        with nnx.no_grad():
            code, state = self.encoder(images), None
            word = np.full((1, len(images)), NUMBER["<start>"])
            written = []
            for _ in range(LONGEST):
                y, state = self._read(code, word, state)
                word = self.scores(y).data.argmax(axis=-1)
                written.append(word[0])
        self.train(was_training)
        captions = []
        for column in np.stack(written).T:
            words = [WORDS[k] for k in column]
            captions.append(" ".join(words[: words.index("<end>")] if "<end>" in words else words))
        return captions


def _block(channels_in: int, channels_out: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU(), nn.MaxPool2d(2)]


def fit(model: CaptionNet, images: np.ndarray, captions: list[str], epochs: int, seed: int = 0) -> list[float]:
    """Train with the right words given, and return the loss of each epoch: the mean of -log p(word)."""
    given, wanted = encode(captions)
    batches = (len(images) + 31) // 32
    optimizer = nnx.optim.Adam(model.parameters(), lr=3e-3)
    schedule = nnx.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=batches * epochs)
    rng = np.random.default_rng(seed)
    losses = []
    for _ in range(epochs):
        total = 0.0
        for chosen in np.array_split(rng.permutation(len(images)), batches):
            scores = model(images[chosen], given[:, chosen])
            target = wanted[:, chosen].reshape(-1)
            loss = nn.functional.cross_entropy(scores.reshape(-1, len(WORDS)), target, ignore_index=IGNORED)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        losses.append(total / len(images))
    return losses


def exact_matches(model: CaptionNet, images: np.ndarray, captions: list[str]) -> float:
    """The share of images whose caption is right word for word."""
    return float(np.mean([ours == right for ours, right in zip(model.describe(images), captions, strict=True)]))


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train an LSTM and a GRU to describe scenes, and count captions that are right word for word on new ones."""
    rng = np.random.default_rng(seed)
    images, captions = scenes(64 if small else 4000, rng)
    new_images, new_captions = scenes(32 if small else 500, rng)
    unseen = [i for i, caption in enumerate(new_captions) if caption not in set(captions)]
    result: dict[str, Any] = {"words": len(WORDS), "unseen": len(unseen)}
    for kind in ("LSTM", "GRU"):
        nnx.manual_seed(seed)
        model = CaptionNet(kind, hidden=32 if small else 128, width=8 if small else 16)
        losses = fit(model, images, captions, 2 if small else 12, seed)
        share = exact_matches(model, new_images, new_captions)
        print(f"{kind}: {share:.1%} of the captions of {len(new_images)} new images are right word for word")
        result[kind] = {"exact": share, "loss": losses}
        if unseen:
            part = exact_matches(model, new_images[unseen], [new_captions[i] for i in unseen])
            print(f"{kind}: {part:.1%} of the {len(unseen)} whose caption no training image has")
            result[kind]["exact_unseen"] = part
        if kind == "LSTM":
            written = model.describe(new_images[:6])
            for ours in written:
                print(f"LSTM: {ours}")
            result["written"] = written
    if path := course.picture(out, "captioning-scenes"):
        pictures = np.clip(new_images[:6], 0, 1)
        viz.images(pictures, titles=[_folded(text) for text in written], columns=3, path=path)
    return result


def _folded(caption: str) -> str:
    """A caption in two lines."""
    return caption.replace(" above", " above\n").replace(" left of", " left of\n")
