"""Who should compute a matrix product: ``python -m benchmarks.gemm_methods [--threads N] [--write FILE]``.

Compares the two methods of `nnx._ext.gemm.product` on the same arrays in alternating rounds: "blas" (one BLAS call, or
64x64x64 tiles of it) and "kernel" (packing and the tile kernel of ext/simd/gemm.h). Figures are GFLOP/s of the median.
The level is NNX_LEVEL's; OPENBLAS_CORETYPE (Nehalem, Haswell, SkylakeX) holds BLAS down to the same instructions.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np

from nnx._ext import blas, gemm, simd

# M, N, K, and which operands are transposed
PRODUCTS = [
    (30, 30, 30, ""),
    (48, 48, 48, ""),
    (64, 64, 64, ""),
    (64, 64, 64, "b'"),
    (128, 128, 128, ""),
    (128, 128, 128, "b'"),
    (128, 512, 784, ""),
    (128, 512, 784, "b'"),
    (512, 784, 128, "a'"),
    (512, 512, 512, ""),
    (512, 512, 512, "b'"),
]
ROUNDS = 9
ROUND_SECONDS = 0.02


def compare(m: int, n: int, k: int, transposed: str, dtype: str, threads: int) -> dict[str, float]:
    """GFLOP/s of both methods."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((k, m) if "a'" in transposed else (m, k)).astype(dtype)
    b = rng.standard_normal((n, k) if "b'" in transposed else (k, n)).astype(dtype)
    a, b = a.T if "a'" in transposed else a, b.T if "b'" in transposed else b
    results = {method: np.empty((m, n), dtype) for method in ("blas", "kernel")}
    for method, c in results.items():
        gemm.product(a, b, c, None, threads, method)
    scale = np.abs(results["blas"]).max()
    np.testing.assert_allclose(results["kernel"] / scale, results["blas"] / scale, rtol=0, atol=1e-5)
    calls = max(1, int(ROUND_SECONDS * 2e10 / (2 * m * n * k)))
    taken: dict[str, list[float]] = {"blas": [], "kernel": []}
    for _ in range(ROUNDS):
        for method, c in results.items():
            start = time.perf_counter()
            for _ in range(calls):
                gemm.product(a, b, c, None, threads, method)
            taken[method].append((time.perf_counter() - start) / calls)
    return {method: 2e-9 * m * n * k / statistics.median(seconds) for method, seconds in taken.items()}


def table(threads: int) -> str:
    core = os.environ.get("OPENBLAS_CORETYPE", blas.blas_info().get("corename", "unknown"))
    lines = [
        f"level {simd.level()}, BLAS core {core}, threads {threads}",
        "",
        "| product | dtype | kernel | BLAS | kernel / BLAS |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for dtype in ("float32", "float64"):
        for m, n, k, transposed in PRODUCTS:
            rate = compare(m, n, k, transposed, dtype, threads)
            lines.append(
                f"| {m}x{n}x{k} {transposed} | {dtype} | {rate['kernel']:.0f} | {rate['blas']:.0f} "
                f"| {rate['kernel'] / rate['blas']:.2f} |"
            )
            print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gemm_methods", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", metavar="FILE", help="also write the table to this file")
    options = parser.parse_args()
    blas.bind_blas()
    text = table(options.threads)
    print("\n" + text)
    if options.write:
        Path(options.write).write_text(text + "\n")


if __name__ == "__main__":
    main()
