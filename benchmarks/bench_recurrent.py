"""Recurrent layers against the base backend, whose products NumPy's BLAS does: forward, and forward with backward."""

from __future__ import annotations

import numpy as np

from benchmarks._case import Case, speed_test
from nnx.backends import Backend, backend_of
from nnx.backends.base.recurrent import GATES

BASE = Backend()
ALL = (True, True, True, True, True, True, False)


def layer(mode, steps, batch, features, hidden, backward=False):
    def make(rng):
        def normal(*shape):
            return rng.standard_normal(shape).astype(np.float32)

        rows, state = GATES[mode] * hidden, hidden * (2 if mode == "LSTM" else 1)
        x, first, gs = normal(steps, batch, features), normal(batch, state), normal(steps + 1, batch, state)
        weights = [normal(*shape) / hidden**0.5 for shape in ((rows, features), (rows, hidden), (rows,), (rows,))]

        def run(be):
            states, gates = be.recurrent(mode, x, first, *weights, None, None, False)
            if not backward:
                return states
            more = (x, states, gates, *weights[:2], None, None, False)
            return be.recurrent_backward(mode, gs, *more, ALL)

        be = backend_of(x)
        return lambda: run(be), lambda: run(BASE)

    name = f"{mode} {'training' if backward else 'forward'} {steps}x{batch}, {features} to {hidden}"
    return Case(name, make, tolerance=1e-3)  # rounding grows through the steps


CASES = [
    layer("LSTM", 64, 32, 64, 128),
    layer("LSTM", 64, 32, 64, 128, backward=True),
    layer("LSTM", 20, 1, 128, 512),
    layer("LSTM", 100, 64, 32, 64, backward=True),
    layer("GRU", 64, 32, 64, 128),
    layer("GRU", 64, 32, 64, 128, backward=True),
    layer("GRU", 32, 64, 128, 256, backward=True),
    layer("RNN_TANH", 64, 32, 64, 128),
    layer("RNN_TANH", 64, 32, 64, 128, backward=True),
]
test_speed = speed_test(CASES)
