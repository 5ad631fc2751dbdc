"""Matrix products and the linear layer against NumPy's threaded BLAS."""

from __future__ import annotations

import numpy as np

from benchmarks._case import Case, speed_test
from nnx.backends import Backend, backend_of

BASE = Backend()


def product(m, n, k, transposed="", dtype=np.float32):
    def make(rng):
        a = rng.standard_normal((k, m) if "a" in transposed else (m, k)).astype(dtype)
        b = rng.standard_normal((n, k) if "b" in transposed else (k, n)).astype(dtype)
        a = a.T if "a" in transposed else a
        b = b.T if "b" in transposed else b
        be = backend_of(a)
        return lambda: be.matmul(a, b), lambda: a @ b

    kind = "".join(f" {t}'" for t in transposed)
    name = f"{np.dtype(dtype).name} {m}x{n}x{k}{kind}"
    return Case(name, make, 1e-5 if dtype is np.float32 else 1e-12, m * n >= 4096)


def linear(batch, inputs, outputs):
    def make(rng):
        x = rng.standard_normal((batch, inputs)).astype(np.float32)
        w = rng.standard_normal((outputs, inputs)).astype(np.float32)
        b = rng.standard_normal(outputs).astype(np.float32)
        gy = rng.standard_normal((batch, outputs)).astype(np.float32)
        be = backend_of(x)

        def step(backend):
            y = backend.linear(x, w, b)
            return y, *backend.linear_backward(gy, x, w, (True, True, True))

        return lambda: step(be), lambda: step(BASE)

    return Case(f"linear {batch}x{inputs}->{outputs}, three passes", make, 1e-4, batch * outputs >= 4096)


CASES = [
    product(32, 32, 32),
    product(64, 64, 64),
    product(128, 128, 128),
    product(128, 512, 784, "b"),
    product(784, 512, 128, "a"),
    product(512, 512, 512),
    product(512, 512, 512, "b"),
    product(1024, 1024, 1024),
    product(1000, 1100, 900, "ab"),
    product(4096, 64, 576),
    product(1, 512, 784, "b"),
    product(512, 512, 512, "", np.float64),
    product(128, 512, 784, "b", np.float64),
    linear(128, 784, 512),
    linear(128, 512, 10),
    linear(1, 784, 512),
]

test_speed = speed_test(CASES)
