"""Linear layers against PyTorch and the sgemm peak of the same run: ``python -m benchmarks.linear [--write FILE]``.

The three passes of each layer, in rounds that alternate with PyTorch's, results compared first; and in other rounds,
which alternate with a product of 1024 x 1024 matrices, the layer's arithmetic over that product's. Medians throughout.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np

import nnx
from benchmarks._case import PAUSE
from benchmarks.layers import ROUNDS, agree, compare, medians
from nnx.backends import backend_of

PEAK = 1024
PEAK_ROUNDS = 3 * ROUNDS
# batch, inputs, outputs: the layers of the four networks, and larger ones
LAYERS = [
    (128, 784, 512), (128, 512, 512), (128, 512, 10), (128, 400, 120), (128, 120, 84), (64, 4096, 256),
    (128, 1024, 1024), (128, 4096, 256), (128, 2048, 2048), (128, 4096, 4096), (32, 1024, 1024), (6, 1024, 1024),
]  # fmt: skip


def passes(batch: int, inputs: int, outputs: int) -> dict[str, tuple[Callable, Callable]]:
    """For each pass: nnx's function and PyTorch's."""
    import torch

    rng = np.random.default_rng(0)
    x, gy, w, b = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in ((batch, inputs), (batch, outputs), (outputs, inputs), (outputs,))
    )
    tx, tg, tw, tb = (torch.from_numpy(a) for a in (x, gy, w, b))
    be = backend_of(x)

    def backward(index: int) -> Callable:
        wanted = tuple(i == index for i in range(3))
        return lambda: be.linear_backward(gy, x, w, wanted)[index]

    return {
        "forward": (lambda: be.linear(x, w, b), lambda: torch.nn.functional.linear(tx, tw, tb)),
        "data grad": (backward(0), lambda: tg @ tw),
        "weight grad": (backward(1), lambda: tg.T @ tx),
    }


def table() -> str:
    import torch

    from nnx.config import config

    threads = nnx.get_num_threads()
    torch.set_num_threads(threads)
    a = np.random.default_rng(0).standard_normal((PEAK, PEAK)).astype(np.float32)
    of_peak: dict[tuple, float] = {}
    peaks = []
    layers = {(shape, what): pair for shape in LAYERS for what, pair in passes(*shape).items()}
    for key, (ours, theirs) in layers.items():
        agree(ours(), theirs(), f"{key}")
    time.sleep(PAUSE)  # the threads of other libraries wait beside ours for a while
    for key, (ours, _) in layers.items():
        layer, product = medians([ours, lambda: backend_of(a).matmul(a, a)], PEAK_ROUNDS)
        peaks.append(2e-9 * PEAK**3 / product)
        of_peak[key] = 2e-9 * float(np.prod(key[0])) / layer / peaks[-1]
    blas = 2e-9 * PEAK**3 / medians([lambda: a @ a], PEAK_ROUNDS)[0]
    time.sleep(PAUSE)
    lines = [
        f"{date.today()}; {platform.machine()}, nnx {nnx.__version__} at level {config()['level']}, "
        f"PyTorch {torch.__version__}, {threads} threads each. A product of {PEAK} x {PEAK} matrices: "
        f"nnx {statistics.median(peaks):.0f} GFLOP/s (the peak below), NumPy's BLAS {blas:.0f}.",
        "",
        "| layer | pass | nnx (us) | PyTorch (us) | ratio | of peak |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for key, (ours, theirs) in layers.items():
        (batch, inputs, outputs), what = key
        mine, others = compare(ours, [theirs], f"{key}")
        lines.append(
            f"| {batch} x {inputs}->{outputs} | {what} | {1e6 * mine:.0f} | {1e6 * others:.0f} | {others / mine:.2f} "
            f"| {100 * of_peak[key]:.0f} % |"
        )
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.linear", description=__doc__)
    parser.add_argument("--write", metavar="FILE", help="also write the table to this file")
    options = parser.parse_args()
    text = table()
    print("\n" + text)
    if options.write:
        Path(options.write).write_text("# Linear layers against PyTorch and the sgemm peak\n\n" + text + "\n")


if __name__ == "__main__":
    main()
