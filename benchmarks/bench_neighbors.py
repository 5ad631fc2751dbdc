"""Nearest neighbours against NumPy: a loop over the queries as one would write it, and all pairs by a matrix product.

python -m benchmarks.bench_neighbors      prints times beside scikit-learn's, and by size of the training set
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np

from benchmarks._case import Case, speed_test
from nnx.backends import backend_of


def by_rows(x, y, k):
    """L1, one query at a time. (A byte is widened first: its differences would wrap.)"""
    wide = y.astype(np.int16) if y.dtype == np.uint8 else y
    distances = np.empty((len(x), k), np.float64)
    for i, row in enumerate(x.astype(wide.dtype)):
        d = np.abs(wide - row).sum(axis=1)
        distances[i] = np.sort(d[np.argpartition(d, k - 1)[:k]])
    return distances


def by_product(x, y, k):
    """L2, all pairs at once: |x - y|^2 = |x|^2 + |y|^2 - 2 x y."""
    a, b = (v.astype(np.float32) if v.dtype == np.uint8 else v for v in (x, y))
    d = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * (a @ b.T)
    return np.sqrt(np.maximum(np.sort(np.partition(d, k - 1, axis=1)[:, :k], axis=1), 0))


def pixels(rng, n, width, dtype):
    """Rows with the correlations of pictures: a few patterns, mixed, and noise."""
    patterns = np.random.default_rng(7).standard_normal((20, width))
    mixed = 128 + 15 * rng.standard_normal((n, 20)) @ patterns + 10 * rng.standard_normal((n, width))
    return mixed.clip(0, 255).astype(dtype)


def search(p, dtype, queries, points, width=3072, k=5):
    def make(rng):
        x, y = pixels(rng, queries, width, dtype), pixels(rng, points, width, dtype)
        be = backend_of(x)
        naive = by_rows if p == 1 else by_product
        return lambda: be.nearest(x, y, k, p)[0], lambda: naive(x, y, k)

    return Case(f"neighbors L{p} {np.dtype(dtype).name} {queries} of {points}x{width}", make, tolerance=1e-3)


CASES = [
    search(1, np.uint8, 50, 2000),
    search(1, np.float32, 50, 2000),
    search(1, np.float64, 50, 2000),
    search(2, np.uint8, 200, 5000),
    search(2, np.float32, 200, 5000),
    search(2, np.float64, 200, 5000),
    search(2, np.float32, 500, 5000, width=64),
    search(1, np.uint8, 1, 5000),
]
test_speed = speed_test(CASES)


def seconds(function, repeats=5):
    """The shortest of several runs."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main():
    """Print the comparison with scikit-learn and the growth with the training set."""
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(0)
    for p, dtype in ((1, np.uint8), (1, np.float32), (2, np.uint8), (2, np.float32), (2, np.float64)):
        x, y = pixels(rng, 100, 3072, dtype), pixels(rng, 5000, 3072, dtype)
        be = backend_of(x)
        a, b = (v.astype(np.float32) if dtype == np.uint8 else v for v in (x, y))
        fitted = NearestNeighbors(n_neighbors=5, algorithm="brute", p=p).fit(b)
        ours, theirs = seconds(partial(be.nearest, x, y, 5, p)), seconds(partial(fitted.kneighbors, a), 2)
        print(
            f"L{p} {np.dtype(dtype).name:8} 100 of 5000x3072: nnx {1e3 * ours:7.1f} ms, "
            f"scikit-learn {1e3 * theirs:7.1f} ms, ratio {theirs / ours:.2f}"
        )
    sizes = [1000, 2000, 4000, 8000, 16000]
    y = rng.integers(0, 256, (max(sizes), 3072), dtype=np.uint8)
    x = rng.integers(0, 256, (64, 3072), dtype=np.uint8)
    be = backend_of(x)
    times = [seconds(partial(be.nearest, x, y[:n], 1, 1)) for n in sizes]
    print(
        "L1 of 64 queries by training rows:",
        ", ".join(f"{n}: {1e3 * t:.1f} ms" for n, t in zip(sizes, times, strict=True)),
    )
    print(f"slope of log(time) over log(rows): {np.polyfit(np.log(sizes), np.log(times), 1)[0]:.2f}")


if __name__ == "__main__":
    main()
