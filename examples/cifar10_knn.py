"""k nearest neighbours on CIFAR-10: every test image against all 50,000 training images, pixel by pixel.

    python examples/cifar10_knn.py FOLDER
    python examples/cifar10_knn.py FOLDER --test 1000 --k 1 5 10 --sklearn 200

FOLDER holds CIFAR-10 in its binary version, or train/ and test/ with a folder of images for each class.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import nnx
from nnx.classic import KNeighborsClassifier

NAMES = {1: "L1", 2: "L2"}


def load(folder: str) -> nnx.data.ImageData:
    """The images as bytes, in either form."""
    if (Path(folder) / "train").is_dir():
        return nnx.data.image_folder(folder, dtype="uint8")
    return nnx.data.cifar10(folder, dtype="uint8")


def search(data: nnx.data.ImageData, p: int, ks: list[int]) -> dict[int, float]:
    """Search once for the largest k, and let each k vote; print and return the accuracies."""
    knn = KNeighborsClassifier(max(ks), p).fit(data.x_train, data.y_train)
    start = time.perf_counter()
    _, index = knn.kneighbors(data.x_test)
    seconds = time.perf_counter() - start
    print(
        f"{NAMES[p]}: {len(data.x_test):,} images against {len(data.x_train):,} in {seconds:.1f} s "
        f"({nnx.get_num_threads()} threads)"
    )
    accuracy = {k: float(np.mean(knn.vote(index[:, :k]) == data.y_test)) for k in ks}
    for k, value in accuracy.items():
        print(f"  k = {k:3}: accuracy {value:.4f}")
    return accuracy


def compare(data: nnx.data.ImageData, p: int, k: int, count: int) -> None:
    """Time the first `count` test images here and in scikit-learn (float32, brute force), and compare the answers."""
    from sklearn.neighbors import KNeighborsClassifier as Theirs

    queries = data.x_test[:count]
    train, few = (a.reshape(len(a), -1).astype(np.float32) for a in (data.x_train, queries))
    ours = KNeighborsClassifier(k, p).fit(data.x_train, data.y_train)
    theirs = Theirs(k, p=p, algorithm="brute", n_jobs=-1).fit(train, data.y_train)
    seconds = {}
    answers = []
    for name, knn, x in (("nnx", ours, queries), ("scikit-learn", theirs, few)):
        start = time.perf_counter()
        answers.append(knn.predict(x))
        seconds[name] = time.perf_counter() - start
    same = int((answers[0] == answers[1]).sum())
    print(f"{NAMES[p]}, k = {k}, {count} images: " + ", ".join(f"{name} {s:.2f} s" for name, s in seconds.items()))
    print(f"  the same answer for {same} of {count}")


def main(arguments: list[str] | None = None) -> dict[int, dict[int, float]]:
    """Run both distances; returns {p: {k: accuracy}}."""
    parser = argparse.ArgumentParser(description="k nearest neighbours on CIFAR-10")
    parser.add_argument("folder")
    parser.add_argument("--train", type=int, default=50_000, help="training images (default: all)")
    parser.add_argument("--test", type=int, default=10_000, help="test images (default: all)")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 3, 5, 7, 10, 20, 50, 100])
    parser.add_argument("--sklearn", type=int, default=0, metavar="N", help="compare on N test images")
    options = parser.parse_args(arguments)
    data = load(options.folder)
    order = np.random.default_rng(0).permutation(len(data.x_train))[: options.train]
    shown = np.random.default_rng(1).permutation(len(data.x_test))[: options.test]
    data = replace(
        data,
        x_train=data.x_train[order],
        y_train=data.y_train[order],
        x_test=data.x_test[shown],
        y_test=data.y_test[shown],
    )
    results = {p: search(data, p, options.k) for p in (1, 2)}
    if options.sklearn:
        for p in (1, 2):
            compare(data, p, options.k[0], min(options.sklearn, len(data.x_test)))
    return results


if __name__ == "__main__":
    main()
