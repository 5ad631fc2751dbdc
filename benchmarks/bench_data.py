"""Data: batches against a loop over samples, augmentation against plain NumPy.

CASES hold what the report compares: an epoch of whole batches against a loop over samples, as a data set without
gather() costs, and augmentation against loop-free NumPy as one would write it at first. The tests at the end show from
where on the loader's thread is worth it.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks._case import Case, speed_test
from nnx.data import (
    ArrayDataset,
    DataLoader,
    RandomCrop,
    RandomHorizontalFlip,
    RandomRotation,
    to_float,
)

SHAPE = (4096, 3, 32, 32)
BATCH = 128


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random(SHAPE, dtype=np.float32)


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(1).integers(0, 10, SHAPE[0])


class Samples:
    """The same samples one by one, as data sets without gather() give them."""

    def __init__(self, *arrays):
        self.arrays = arrays

    def __len__(self):
        return len(self.arrays[0])

    def __getitem__(self, i):
        return tuple(a[i] for a in self.arrays)


def drain(loader):
    for _ in loader:
        pass


def assert_same_epoch(one, two):
    for a, b in zip(one, two, strict=True):
        for left, right in zip(a, b, strict=True):
            np.testing.assert_array_equal(left, right)


# --------------------------------------------------------------------------------------- loader


def epoch(rng):
    """One shuffled epoch without a thread, as the sum of its batches."""
    x, y = rng.random(SHAPE, dtype=np.float32), rng.integers(0, 10, SHAPE[0])
    options = dict(batch_size=BATCH, shuffle=True, seed=0, prefetch=0)
    gathered = DataLoader(ArrayDataset(x, y), **options)
    looped = DataLoader(Samples(x, y), **options)
    assert_same_epoch(gathered, looped)
    return (lambda: drain(gathered)), (lambda: drain(looped))


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("size", [1 << 10, 1 << 14, 1 << 18, 1 << 20])
def test_hand_over(benchmark, monkeypatch, size, prefetch):
    """A batch of `size` bytes with and without the thread: from where on a thread is worth it."""
    from nnx.data import loader as module

    monkeypatch.setattr(module, "_LIGHT", 0)  # always take the thread
    benchmark.group = f"100 batches of {size:,} bytes"
    rows = np.random.default_rng(0).random((1600, size // 16 // 4), dtype=np.float32)
    options = dict(batch_size=16, shuffle=True, seed=0)
    assert_same_epoch(DataLoader(rows, prefetch=prefetch, **options), DataLoader(rows, prefetch=0, **options))
    benchmark(drain, DataLoader(rows, prefetch=prefetch, **options))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_overlap(benchmark, images, labels, prefetch):
    """Augmentation behind a consumer that is busy without the GIL, as a compiled network is."""
    benchmark.group = "32 augmented batches with a busy consumer"
    crop = RandomCrop(32, padding=4)
    work = np.random.default_rng(2).random(20_000)

    def consume(prefetch):
        loader = DataLoader((images, labels), BATCH, True, seed=0, prefetch=prefetch, transform=crop)
        total = 0.0
        for x, _ in loader:
            total += x[0, 0, 0, 0] + np.sort(work)[0]
        return total

    assert consume(prefetch) == consume(0)
    benchmark(consume, prefetch)


# --------------------------------------------------------------------------------- augmentation


def plain_flip(x, rng):
    chosen = rng.random(len(x)) < 0.5
    return np.where(chosen[:, None, None, None], x[..., ::-1], x)


def plain_crop(x, rng, padding=4):
    n, c, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    top = rng.integers(0, 2 * padding + 1, n)
    left = rng.integers(0, 2 * padding + 1, n)
    samples = np.arange(n)[:, None, None, None]
    channels = np.arange(c)[None, :, None, None]
    rows = (top[:, None] + np.arange(h))[:, None, :, None]
    columns = (left[:, None] + np.arange(w))[:, None, None, :]
    return padded[samples, channels, rows, columns]


def plain_rotation(x, rng, degrees=15):
    n, _, h, w = x.shape
    angle = np.deg2rad(rng.uniform(-degrees, degrees, n))[:, None, None]
    dy, dx = np.mgrid[:h, :w] - np.array([(h - 1) / 2, (w - 1) / 2])[:, None, None]
    y = np.cos(angle) * dy + np.sin(angle) * dx + (h - 1) / 2
    x_ = -np.sin(angle) * dy + np.cos(angle) * dx + (w - 1) / 2
    y, x_ = np.clip(y, -1, h), np.clip(x_, -1, w)
    top, left = (np.minimum(np.floor(t), k - 1).astype(int) for t, k in ((y, h), (x_, w)))
    down, right = (y - top)[:, None], (x_ - left)[:, None]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    i = np.arange(n)[:, None, None]

    def pixels(a, b):
        return padded[i, :, top + 1 + a, left + 1 + b].transpose(0, 3, 1, 2)

    upper = pixels(0, 0) * (1 - right) + pixels(0, 1) * right
    lower = pixels(1, 0) * (1 - right) + pixels(1, 1) * right
    return (upper * (1 - down) + lower * down).astype(x.dtype)


PAIRS = {
    "flip": (RandomHorizontalFlip(), plain_flip),
    "crop": (RandomCrop(32, padding=4), plain_crop),
    "rotation": (RandomRotation(15), plain_rotation),
    "to_float": (to_float, lambda x, rng: (x / 255).astype(np.float32)),
}


def augment(name):
    def make(rng):
        ours, plain = PAIRS[name]
        batch = rng.random((BATCH, *SHAPE[1:]), dtype=np.float32)
        if name == "to_float":
            batch = (batch * 255).astype(np.uint8)
        return (lambda: ours(batch, np.random.default_rng(5))), (lambda: plain(batch, np.random.default_rng(5)))

    return make


CASES = [
    Case("epoch of 32 batches of 128x3x32x32", epoch),
    *[Case(f"{name} of 128x3x32x32", augment(name)) for name in PAIRS],
]

test_speed = speed_test(CASES)
