"""Nearest neighbours: classify a picture by the most similar ones, and see why pixels are a poor measure.

Computes the lecture's distance between two small pictures, in bytes and in bytes that wrap; classifies digits by their
nearest neighbours with both distances and several k; measures how the time to predict grows with the training set; and
makes three damaged copies of a picture that are equally far from it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx import viz
from nnx.backends import backend_of
from nnx.classic import KNeighborsClassifier, nearest
from nnx.course import picture

ROWS = ("F020", "F021", "F022", "F023", "F024", "F025", "F026", "F027")

TEST = np.array([[56, 32, 10, 18], [90, 23, 128, 133], [24, 26, 178, 200], [2, 0, 255, 220]], np.uint8)
TRAIN = np.array([[10, 20, 24, 17], [8, 10, 89, 100], [12, 16, 178, 170], [4, 32, 233, 112]], np.uint8)


class NearestNeighbor:
    """The two functions of the data-driven approach in their simplest form: `train` remembers, `predict` compares."""

    def train(self, x: np.ndarray, y: np.ndarray) -> None:
        """Keep all images (N, ...) and labels (N,). Nothing else happens."""
        self.x, self.y = x.reshape(len(x), -1).astype(np.int64), y  # in bytes, differences would wrap

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The label of the training image at the smallest L1 distance, one image after the other."""
        labels = np.empty(len(x), self.y.dtype)
        for i, row in enumerate(x.reshape(len(x), -1).astype(np.int64)):
            distances = np.abs(self.x - row).sum(axis=1)
            labels[i] = self.y[distances.argmin()]
        return labels


def wrapped(a: np.ndarray, b: np.ndarray) -> int:
    """The L1 distance with the differences of bytes as bytes: they wrap, 10 - 24 is 242."""
    return int(np.abs(a - b).sum())


def pairwise_l2(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """All Euclidean distances by one matrix product: ``|x - y|^2 = |x|^2 + |y|^2 - 2 x y``; x (Q, d), y (N, d)."""
    products = backend_of(x).matmul(x, y.T)
    squares = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1) - 2 * products
    return np.sqrt(np.maximum(squares, 0))  # rounding may leave a small negative number


def equally_far(image: np.ndarray) -> dict[str, np.ndarray]:
    """Three copies of an image (H, W) that look different and have the same L2 distance to it.

    One is moved by a pixel, which sets the distance; one is darkened, and one is covered with a grey box, each as much
    as it takes.
    """
    image = image.astype(np.float64)
    moved = np.roll(image, 1, axis=1)
    distance = np.sqrt(((moved - image) ** 2).sum())
    darkness = distance / np.sqrt((image**2).sum())
    box = np.zeros_like(image)
    h, w = image.shape
    box[h // 8 : h - h // 8, w // 8 : w - w // 8] = image.max() / 2
    change = np.where(box > 0, box - image, 0)
    opacity = distance / np.sqrt((change**2).sum())
    return {"moved": moved, "darkened": image * (1 - darkness), "boxed": image + opacity * change}


def accuracies(data: nnx.data.ImageData, ks: list[int], p: int) -> dict[int, tuple[float, float]]:
    """For each k the accuracy on the training and on the test images."""
    knn = KNeighborsClassifier(max(ks), p).fit(data.x_train, data.y_train)
    found = knn.kneighbors(data.x_train)[1], knn.kneighbors(data.x_test)[1]
    return {
        k: (
            float(np.mean(knn.vote(found[0][:, :k]) == data.y_train)),
            float(np.mean(knn.vote(found[1][:, :k]) == data.y_test)),
        )
        for k in ks
    }


def prediction_times(sizes: list[int], queries: int, seed: int) -> tuple[list[float], float]:
    """Seconds to find the nearest of `sizes` pictures of 3072 bytes, and the slope of log(time) over log(size)."""
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 256, (max(sizes), 3072), dtype=np.uint8)
    x = rng.integers(0, 256, (queries, 3072), dtype=np.uint8)
    seconds = []
    for n in sizes:
        runs = []
        for _ in range(3):
            start = time.perf_counter()
            nearest(x, points[:n], k=1, p=1)
            runs.append(time.perf_counter() - start)
        seconds.append(min(runs))
    return seconds, float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Print distances, accuracies by k, times by size, and the three equal distances."""
    flat = TEST.reshape(1, -1), TRAIN.reshape(1, -1)
    l1, l2 = (float(nearest(*flat, p=p)[0].item()) for p in (1, 2))
    print(f"the lecture's pictures: L1 {l1:.0f}, L2 {l2:.3f}; in bytes that wrap L1 would be {wrapped(TEST, TRAIN)}")

    data = nnx.data.digits("uint8")
    if small:
        data = nnx.data.ImageData(data.x_train[:400], data.y_train[:400], data.x_test, data.y_test, data.classes)
    simple = NearestNeighbor()
    simple.train(data.x_train, data.y_train)
    plain = float(np.mean(simple.predict(data.x_test) == data.y_test))
    print(f"digits, one nearest neighbour in ten lines of Python: {plain:.4f} of the test images right")
    ks = [1, 3, 5, 10, 20, 50]
    table = {p: accuracies(data, ks, p) for p in (1, 2)}
    for p, by_k in table.items():
        for k, (train, test) in by_k.items():
            print(f"  L{p}, k = {k:2}: training {train:.4f}, test {test:.4f}")

    sizes = [500, 1000, 2000] if small else [2000, 4000, 8000, 16000]
    seconds, slope = prediction_times(sizes, 64, seed)
    print(
        "time to predict 64 pictures:", ", ".join(f"{n}: {1e3 * s:.1f} ms" for n, s in zip(sizes, seconds, strict=True))
    )
    print(f"  slope of log(time) over log(size): {slope:.2f}")

    image = nnx.data.digits("float64").x_test[3, 0]
    copies = equally_far(image)
    distances = {name: float(np.sqrt(((copy - image) ** 2).sum())) for name, copy in copies.items()}
    print("L2 distance to the picture:", ", ".join(f"{name} {d:.6f}" for name, d in distances.items()))

    if path := picture(out, "nearest_neighbours-equally-far"):
        shown = np.stack([image, *copies.values()])
        viz.images(shown, titles=["picture", *copies], columns=4, path=path, title="three copies at the same distance")
    if path := picture(out, "nearest_neighbours-k"):
        lines = {
            f"L{p}, {name}": (ks, [v[i] for v in table[p].values()])
            for p in (1, 2)
            for i, name in enumerate(("training", "test"))
        }
        viz.lines(lines, "k", "accuracy", log="x", path=path)
    if path := picture(out, "nearest_neighbours-grid"):
        _, index = nearest(data.x_test[:8], data.x_train, k=6, p=2)
        queries, known = (a[:, 0].astype(np.float32) for a in (data.x_test[:8], data.x_train))
        viz.neighbour_grid(queries, known[index], path=path, title="test image, nearest training images")
    return {
        "l1": l1,
        "l2": l2,
        "wrapped": wrapped(TEST, TRAIN),
        "plain": plain,
        "k": ks,
        "l1_accuracy": [list(v) for v in table[1].values()],
        "l2_accuracy": [list(v) for v in table[2].values()],
        "sizes": sizes,
        "seconds": seconds,
        "slope": slope,
        "equal_distances": distances,
    }
