"""Convolution and its gradients against one big im2col and NumPy's threaded BLAS, float32.

Each side gets images in the memory order it works in: channels-last for nnx, NCHW for NumPy. "nchw" in a name means
that nnx gets NCHW as well, as the first layer of a network does. "three passes" are output, data gradient and weight
gradient; a transposed convolution is a data gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks._case import Case, Side, speed_test
from nnx.backends.base import Backend
from nnx.backends.base.conv import output_sizes
from nnx.backends.cpu import CPUBackend

BASE, CPU = Backend(), CPUBackend()


def channels_last(a: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


def conv(
    x: tuple[int, ...],
    w: tuple[int, ...],
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    passes: str = "forward",
    nchw: bool = False,
) -> Case:
    """One convolution: `passes` is "forward", "data", "weight" or "three"."""
    n = len(x) - 2
    geometry = ((stride,) * n, ((padding, padding),) * n, (dilation,) * n, groups)

    def make(rng: np.random.Generator) -> tuple[Side, Side]:
        images = rng.standard_normal(x, np.float32)
        weights, bias = rng.standard_normal(w, np.float32), rng.standard_normal(w[0], np.float32)
        gy = rng.standard_normal((x[0], w[0], *output_sizes(x[2:], w[2:], *geometry[:3])), np.float32)

        def side(backend: Backend, order: Callable) -> Side:
            mine, mine_gy = (images if nchw else order(images)), order(gy)

            def run() -> list[np.ndarray]:
                results = []
                if passes in ("forward", "three"):
                    results.append(backend.conv(mine, weights, bias, *geometry))
                if passes in ("data", "three"):
                    results.append(backend.conv_data_grad(mine_gy, weights, x, *geometry))
                if passes in ("weight", "three"):
                    results.append(backend.conv_weight_grad(mine_gy, mine, w, *geometry))
                return results

            return run

        return side(CPU, channels_last), side(BASE, np.ascontiguousarray)

    extra = "".join(
        f" {name}{value}" for name, value, usual in
        [("s", stride, 1), ("p", padding, 0), ("d", dilation, 1), ("g", groups, 1)] if value != usual
    )  # fmt: skip
    shape = f"{'x'.join(map(str, x))} * {'x'.join(map(str, w))}{extra}"
    kind = {"three": "three passes", "data": "data gradient", "weight": "weight gradient"}.get(passes, passes)
    # sums of up to 100,000 products in the weight gradient
    return Case(f"conv {shape}{' nchw' if nchw else ''}, {kind}", make, 1e-4, x[0] * int(np.prod(x[1:])) >= 4096)


def pooled(x: tuple[int, ...], w: tuple[int, ...], padding: int) -> Case:
    """Convolution, ReLU and 2x2 max pooling, and the gradients of weights and bias, as in a first layer."""
    geometry = ((1, 1), ((padding, padding),) * 2, (1, 1), 1)
    windows = ((2, 2), (2, 2), (0, 0), (1, 1))

    def make(rng: np.random.Generator) -> tuple[Side, Side]:
        images = rng.standard_normal(x, np.float32)
        weights, bias = rng.standard_normal(w, np.float32), rng.standard_normal(w[0], np.float32)
        shape = (x[0], w[0], *output_sizes(x[2:], w[2:], *geometry[:3]))
        y, index = BASE.conv_max_pool(images, weights, bias, *geometry, windows, False)  # one index: no near ties
        gy = rng.standard_normal(y.shape, np.float32)

        def side(backend: Backend, order: Callable) -> Side:
            mine, mine_gy, mine_index = images, order(gy), order(index)

            def run() -> list[np.ndarray]:
                y, _ = backend.conv_max_pool(mine, weights, bias, *geometry, windows, False)
                sums = backend.conv_sums_behind_max_pool(
                    mine_gy, mine_index, (shape, *windows), mine, w, *geometry, False
                )
                if sums is None:
                    g = backend.max_pool_backward(mine_gy, mine_index, shape, *windows)
                    sums = backend.conv_weight_grad(g, mine, w, *geometry), backend.channel_sum(g)
                return [y, *sums]

            return run

        return side(CPU, channels_last), side(BASE, np.ascontiguousarray)

    return Case(f"conv, relu, max pool {'x'.join(map(str, x))} * {'x'.join(map(str, w))} p{padding}", make, 1e-4)


def behind_batch_norm(x: tuple[int, ...], filters: int) -> Case:
    """The gradients of a 3x3 convolution from that of the batch norm behind it, as in a residual block."""
    geometry = ((1, 1), ((1, 1), (1, 1)), (1, 1), 1)

    def make(rng: np.random.Generator) -> tuple[Side, Side]:
        images, weights = rng.standard_normal(x, np.float32), rng.standard_normal((filters, x[1], 3, 3), np.float32)
        y, gy = rng.standard_normal((2, x[0], filters, *x[2:]), np.float32)
        mean, var = BASE.batch_moments(y)
        scale, rstd = rng.standard_normal(filters, np.float32), 1 / np.sqrt(var)

        def side(backend: Backend, order: Callable) -> Side:
            mine, mine_y, mine_gy = order(images), order(y), order(gy)

            def run() -> tuple[np.ndarray, ...]:
                later = backend.batch_norm_backward_later(mine_gy, mine_y, scale, mean, rstd)
                both = later and backend.conv_gradients(later[0], mine, weights, *geometry)
                if both:
                    return both
                g = backend.batch_norm_backward(mine_gy, mine_y, scale, mean, rstd, (True, True, True))[0]
                return (
                    backend.conv_data_grad(g, weights, x, *geometry),
                    backend.conv_weight_grad(g, mine, weights.shape, *geometry),
                )

            return run

        return side(CPU, channels_last), side(BASE, np.ascontiguousarray)

    return Case(f"conv {'x'.join(map(str, x))} * {filters}x{x[1]}x3x3 p1, both gradients behind batch norm", make, 1e-4)


CASES = [
    # LeNet and a small VGG, batch 64
    conv((64, 1, 28, 28), (6, 1, 5, 5), padding=2, nchw=True),
    pooled((64, 1, 28, 28), (6, 1, 5, 5), 2),
    pooled((64, 3, 32, 32), (32, 3, 3, 3), 1),
    behind_batch_norm((64, 16, 32, 32), 16),
    conv((64, 6, 14, 14), (16, 6, 5, 5)),
    conv((64, 6, 14, 14), (16, 6, 5, 5), passes="three"),
    conv((64, 3, 32, 32), (32, 3, 3, 3), padding=1, nchw=True),
    conv((64, 32, 32, 32), (32, 32, 3, 3), padding=1),
    conv((64, 32, 32, 32), (32, 32, 3, 3), padding=1, passes="data"),
    conv((64, 32, 32, 32), (32, 32, 3, 3), padding=1, passes="weight"),
    conv((64, 64, 16, 16), (64, 64, 3, 3), padding=1, passes="three"),
    # the kinds of layer of large networks
    conv((4, 128, 28, 28), (128, 128, 3, 3), padding=1, passes="three"),
    conv((2, 3, 224, 224), (64, 3, 7, 7), stride=2, padding=3, nchw=True),
    conv((8, 256, 14, 14), (64, 256, 1, 1), passes="three"),
    conv((8, 64, 56, 56), (128, 64, 1, 1), stride=2),
    conv((8, 64, 28, 28), (64, 1, 3, 3), padding=1, groups=64, passes="three"),
    conv((8, 128, 28, 28), (128, 4, 3, 3), padding=1, groups=32, passes="three"),
    conv((8, 96, 27, 27), (256, 48, 5, 5), padding=2, groups=2),
    # odd shapes, one and three dimensions
    conv((7, 17, 19, 23), (13, 17, 3, 2), stride=2, padding=1, passes="three"),
    conv((4, 24, 33, 31), (20, 24, 3, 3), padding=2, dilation=2),
    conv((16, 32, 1000), (64, 32, 5), padding=2, passes="three"),
    conv((2, 16, 16, 24, 24), (16, 16, 3, 3, 3), padding=1, passes="three"),
    # small
    conv((1, 3, 16, 16), (8, 3, 3, 3), padding=1, nchw=True),
    conv((1, 16, 8, 8), (16, 16, 3, 3), padding=1, passes="three"),
]

test_speed = speed_test(CASES)
