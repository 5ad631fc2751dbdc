"""Normalisation against the vectorised base backend."""

from __future__ import annotations

import numpy as np

from benchmarks._case import Case, speed_test
from nnx.backends import Backend, backend_of

BASE = Backend()
ALL = (True, True, True)


def image(rng, shape):
    """Channels-last in memory, as a convolution leaves it."""
    n, c, h, w = shape
    return rng.standard_normal((n, h, w, c)).astype(np.float32).transpose(0, 3, 1, 2)


def name_of(operation, shape):
    return f"{operation} {'x'.join(map(str, shape))}"


def batch_norm(*shape):
    def make(rng):
        x = image(rng, shape) if len(shape) == 4 else rng.standard_normal(shape).astype(np.float32)
        w, b = rng.standard_normal((2, shape[1])).astype(np.float32)
        be = backend_of(x)
        return lambda: be.batch_norm(x, w, b, 1e-5), lambda: BASE.batch_norm(x, w, b, 1e-5)

    return Case(name_of("batch norm", shape), make, 1e-4, np.prod(shape) >= 4096)


def batch_norm_backward(*shape):
    def make(rng):
        x, gy = image(rng, shape), image(rng, shape)
        w = rng.standard_normal(shape[1]).astype(np.float32)
        _, mean, _, rstd = BASE.batch_norm(x, w, None, 1e-5)
        be = backend_of(x)
        args = gy, x, w, mean, rstd, ALL
        return lambda: be.batch_norm_backward(*args), lambda: BASE.batch_norm_backward(*args)

    return Case(name_of("batch norm backward", shape), make)


def batch_norm_infer(*shape):
    def make(rng):
        x = image(rng, shape)
        mean, w, b = rng.standard_normal((3, shape[1])).astype(np.float32)
        args = x, mean, np.abs(mean) + 1, w, b, 1e-5
        be = backend_of(x)
        return lambda: be.batch_norm_infer(*args), lambda: BASE.batch_norm_infer(*args)

    return Case(name_of("batch norm in evaluation", shape), make)


def layer_norm(rows, width):
    def make(rng):
        x, gy = rng.standard_normal((2, rows, width)).astype(np.float32)
        w, b = rng.standard_normal((2, 1, width)).astype(np.float32)
        be = backend_of(x)

        def step(backend):
            y, mean, _, rstd = backend.row_norm(x, w, b, 1e-5)
            return y, *backend.row_norm_backward(gy, x, w, mean, rstd, 1, ALL)

        return lambda: step(be), lambda: step(BASE)

    return Case(name_of("layer norm, both passes", (rows, width)), make)


def local_response_norm(*shape):
    def make(rng):
        x, gy = image(rng, shape), image(rng, shape)
        be = backend_of(x)

        def step(backend):
            y, scale = backend.local_response_norm(x, 5, 1e-4, 0.75, 1.0)
            return y, backend.local_response_norm_backward(gy, x, scale, 5, 1e-4, 0.75)

        return lambda: step(be), lambda: step(BASE)

    return Case(name_of("local response norm, both passes", shape), make)


CASES = [
    batch_norm(64, 32),
    batch_norm(256, 512),
    batch_norm(32, 16, 32, 32),
    batch_norm(128, 64, 16, 16),
    batch_norm(32, 256, 14, 14),
    batch_norm(64, 3, 32, 32),
    batch_norm_backward(32, 16, 32, 32),
    batch_norm_backward(128, 64, 16, 16),
    batch_norm_backward(32, 256, 14, 14),
    batch_norm_infer(128, 64, 16, 16),
    layer_norm(4096, 64),
    layer_norm(512, 768),
    local_response_norm(16, 96, 27, 27),
]
test_speed = speed_test(CASES)
