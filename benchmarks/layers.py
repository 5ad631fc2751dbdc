"""Convolution layers against PyTorch, over a fixed list of shapes: ``python -m benchmarks.layers [--write FILE]``.

Forward, data gradient and weight gradient of each shape on both sides, in alternating rounds in this process; results
are compared first. PyTorch's side is its better layout. The last column is nnx's arithmetic over the sgemm peak of the
same run (a direct convolution's products are counted, so that Winograd's algorithm may exceed 100 %).
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx.backends import backend_of

ROUNDS = 15
SLOWER = 0.95


@dataclass(frozen=True)
class Shape:
    """A convolution: images, channels, filters, size of the map, kernel, stride, padding, dilation, groups."""

    n: int
    c: int
    f: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    transposed: bool = False

    def __str__(self) -> str:
        extras = [f"s{self.stride}" if self.stride > 1 else "", f"p{self.padding}" if self.padding else ""]
        extras += [f"d{self.dilation}" if self.dilation > 1 else "", f"g{self.groups}" if self.groups > 1 else ""]
        extras.append("transposed" if self.transposed else "")
        size, kernel = ("x".join(map(str, v)) for v in (self.size, self.kernel))
        return f"{self.n} x {self.c}->{self.f} @ {size}, {kernel} {' '.join(e for e in extras if e)}".strip()


def square(n: int, c: int, f: int, size: int, k: int, stride: int = 1, padding: int = -1, **more: Any) -> Shape:
    return Shape(n, c, f, (size, size), (k, k), stride, (k - 1) // 2 if padding < 0 else padding, **more)


SHAPES = [
    # 1x1
    square(64, 16, 64, 32, 1), square(64, 64, 16, 32, 1), square(7, 100, 48, 17, 1), square(1, 256, 512, 14, 1),
    square(64, 64, 256, 14, 1), square(1, 64, 64, 224, 1), square(64, 16, 32, 32, 1, 2), square(64, 128, 256, 8, 1, 2),
    square(1, 512, 512, 7, 1), square(64, 3, 24, 32, 1),
    # 3x3, stride 1
    square(64, 3, 16, 32, 3), square(64, 3, 32, 32, 3), square(64, 16, 16, 32, 3), square(64, 32, 32, 32, 3),
    square(64, 32, 32, 16, 3), square(64, 64, 64, 32, 3), square(64, 64, 64, 16, 3), square(64, 64, 64, 8, 3),
    square(64, 128, 128, 8, 3), square(7, 128, 128, 14, 3), square(1, 64, 64, 224, 3), square(1, 3, 64, 224, 3),
    square(1, 128, 128, 112, 3), square(1, 256, 256, 56, 3), square(1, 512, 512, 28, 3), square(1, 512, 512, 14, 3),
    square(7, 256, 256, 7, 3), square(64, 1, 6, 28, 3), square(64, 6, 16, 14, 3), square(64, 24, 24, 17, 3),
    square(7, 48, 100, 33, 3), square(64, 48, 48, 28, 3), square(64, 100, 100, 9, 3), square(64, 256, 256, 4, 3),
    # 3x3, stride 2
    square(64, 16, 32, 32, 3, 2), square(64, 32, 64, 16, 3, 2), square(7, 64, 128, 56, 3, 2),
    square(1, 128, 256, 56, 3, 2), square(1, 256, 512, 28, 3, 2), square(64, 3, 32, 33, 3, 2),
    square(64, 24, 48, 17, 3, 2),
    # 5x5, 7x7, 11x11
    square(64, 1, 6, 28, 5), square(128, 6, 16, 14, 5, 1, 0), square(64, 16, 32, 28, 5), square(7, 32, 48, 28, 5),
    square(1, 64, 64, 56, 5), square(64, 48, 24, 14, 5), square(1, 3, 64, 224, 7, 2), square(7, 3, 64, 112, 7, 2),
    square(64, 16, 16, 17, 7), square(1, 3, 64, 224, 11, 4, 2), square(7, 3, 96, 224, 11, 4, 2),
    # dilated
    square(64, 16, 32, 28, 3, 1, 2, dilation=2), square(7, 64, 64, 33, 3, 1, 2, dilation=2),
    square(1, 256, 256, 28, 3, 1, 4, dilation=4), square(64, 32, 32, 16, 3, 1, 3, dilation=3),
    # grouped and depthwise
    square(64, 32, 64, 16, 3, groups=2), square(7, 128, 128, 28, 3, groups=32), square(64, 48, 48, 14, 3, groups=4),
    square(1, 256, 256, 28, 3, groups=8), square(64, 32, 32, 32, 3, groups=32), square(64, 128, 128, 14, 3, groups=128),
    square(1, 512, 512, 14, 3, groups=512), square(7, 64, 64, 56, 3, 2, groups=64),
    square(64, 24, 24, 28, 5, groups=24),
    # transposed
    square(64, 32, 16, 14, 2, 2, 0, transposed=True), square(64, 64, 32, 8, 4, 2, 1, transposed=True),
    square(7, 128, 64, 16, 3, 1, 1, transposed=True), square(1, 256, 128, 28, 2, 2, 0, transposed=True),
    square(64, 16, 3, 16, 4, 2, 1, transposed=True),
    # one and three dimensions
    Shape(64, 16, 32, (256,), (5,), 1, 2), Shape(64, 64, 64, (128,), (3,), 1, 1),
    Shape(7, 100, 128, (500,), (7,), 2, 3),
    Shape(64, 1, 32, (1024,), (16,), 4, 0), Shape(1, 256, 256, (512,), (3,), 1, 1),
    Shape(7, 3, 16, (16, 32, 32), (3, 3, 3), 1, 1), Shape(7, 16, 16, (8, 16, 16), (3, 3, 3), 1, 1),
    Shape(1, 32, 64, (8, 28, 28), (3, 3, 3), 2, 1), Shape(1, 64, 64, (4, 14, 14), (3, 3, 3), 1, 1),
]  # fmt: skip


def gemm_peak() -> float:
    """GFLOP/s of a product of 1024 x 1024 matrices in nnx, the best of a second: a processor may be away."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 1024, 1024)).astype(np.float32)
    backend = backend_of(a)
    taken: list[float] = []
    while sum(taken) < 1:
        start = time.perf_counter()
        backend.matmul(a, b)
        taken.append(time.perf_counter() - start)
    return 2e-9 * 1024**3 / min(taken)


def last(a: np.ndarray) -> np.ndarray:
    """The same array, channels-last in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


def sides(shape: Shape) -> dict[str, tuple[Callable, list[Callable]]]:
    """For each pass: nnx's function, and PyTorch's in both layouts."""
    import torch

    rng = np.random.default_rng(0)
    dims = len(shape.size)
    # a transposed convolution is the data gradient of one from its result to its input
    c, f = (shape.f, shape.c) if shape.transposed else (shape.c, shape.f)
    s, p, d = ((v,) * dims for v in (shape.stride, shape.padding, shape.dilation))
    if shape.transposed:
        size = tuple(
            (n - 1) * shape.stride - 2 * shape.padding + k for n, k in zip(shape.size, shape.kernel, strict=True)
        )
    else:
        size = shape.size
    x = last(rng.standard_normal((shape.n, c, *size)).astype(np.float32))
    w = rng.standard_normal((f, c // shape.groups, *shape.kernel)).astype(np.float32) * 0.1
    be = backend_of(x)
    pairs = tuple((v, v) for v in p)
    y = be.conv(x, w, None, s, pairs, d, shape.groups)
    gy = last(rng.standard_normal(y.shape).astype(np.float32))
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    tx, tw, tg = torch.tensor(np.ascontiguousarray(x)), torch.tensor(w), torch.tensor(np.ascontiguousarray(gy))
    both = [(tx, tg)]
    if dims + 2 in layouts:
        both.append(tuple(t.contiguous(memory_format=layouts[dims + 2]) for t in (tx, tg)))
    convolve = getattr(torch.nn.functional, f"conv{dims}d")

    def backward(pair: tuple, mask: list[bool]) -> Callable:
        def run() -> Any:
            return torch.ops.aten.convolution_backward(
                pair[1], pair[0], tw, None, s, p, d, False, (0,) * dims, shape.groups, mask
            )

        return run

    forward = (
        lambda: be.conv(x, w, None, s, pairs, d, shape.groups),
        [lambda pair=pair: convolve(pair[0], tw, None, s, p, d, shape.groups) for pair in both],
    )
    data = (
        lambda: be.conv_data_grad(gy, w, x.shape, s, pairs, d, shape.groups),
        [backward(pair, [True, False, False]) for pair in both],
    )
    weight = (
        lambda: be.conv_weight_grad(gy, x, w.shape, s, pairs, d, shape.groups),
        [backward(pair, [False, True, False]) for pair in both],
    )
    names = ("data grad", "forward", "weight grad") if shape.transposed else ("forward", "data grad", "weight grad")
    return dict(zip(names, (forward, data, weight), strict=True))


def agree(ours: np.ndarray, theirs: Any, what: str) -> None:
    result = next(t for t in theirs if t is not None) if isinstance(theirs, tuple) else theirs
    expected = result.numpy()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=3e-4 * np.abs(expected).max(), err_msg=what)


def compare(ours: Callable, theirs: list[Callable], what: str) -> tuple[float, float]:
    """Median seconds of nnx, and of PyTorch's better layout."""
    for other in theirs:
        agree(ours(), other(), what)
    mine, *others = medians([ours, *theirs], ROUNDS)
    return mine, min(others)


def medians(functions: list[Callable], rounds: int) -> list[float]:
    """Median seconds of each of these, in turns of three rounds behind one that is not counted."""
    taken: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds // 3):
        for function, seconds in zip(functions, taken, strict=True):
            function()
            for _ in range(3):
                start = time.perf_counter()
                function()
                seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in taken]


def table(chosen: str) -> str:
    import torch

    from nnx.config import config

    threads = nnx.get_num_threads()
    torch.set_num_threads(threads)
    peak = gemm_peak()
    lines = [
        f"{date.today()}; {platform.machine()}, nnx {nnx.__version__} at level {config()['level']}, "
        f"PyTorch {torch.__version__}, {threads} threads each; sgemm peak {peak:.0f} GFLOP/s",
        "",
        "| layer | pass | nnx (ms) | PyTorch (ms) | ratio | of peak |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    ratios = []
    for shape in SHAPES:
        if chosen not in str(shape):
            continue
        for what, (ours, theirs) in sides(shape).items():
            a, b = compare(ours, theirs, f"{shape}, {what}")
            ratios.append((b / a, f"{shape}, {what}"))
            positions = float(np.prod(shape.size)) if shape.transposed else 0.0
            if not positions:
                out = [(n + 2 * shape.padding - shape.dilation * (k - 1) - 1) // shape.stride + 1
                       for n, k in zip(shape.size, shape.kernel, strict=True)]  # fmt: skip
                positions = float(np.prod(out))
            work = 2e-9 * shape.n * positions * shape.c * shape.f / shape.groups * float(np.prod(shape.kernel))
            lines.append(
                f"| {shape} | {what} | {1e3 * a:.3f} | {1e3 * b:.3f} | {b / a:.2f} | {100 * work / a / peak:.0f} % |"
            )
            print(lines[-1], flush=True)
    slower = sorted(r for r in ratios if r[0] < SLOWER)
    lines += ["", f"{len(ratios)} rows; slower than PyTorch (below {SLOWER}): {len(slower)}.", ""]
    lines += [f"* {ratio:.2f}: {name}" for ratio, name in slower]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layers", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="only shapes whose name contains this")
    parser.add_argument("--write", metavar="FILE", help="also write the table to this file")
    options = parser.parse_args()
    text = table(options.only)
    print("\n" + text)
    if options.write:
        Path(options.write).write_text("# Convolution layers against PyTorch\n\n" + text + "\n")


if __name__ == "__main__":
    main()
