"""Training steps and predictions of the reference networks, against the same networks on the plain NumPy backend.

Against PyTorch: `python -m benchmarks.networks`.
"""

from __future__ import annotations

import numpy as np

from benchmarks._case import Case, speed_test
from benchmarks._networks import BATCH
from benchmarks._torch_nets import nnx_sides
from nnx.testing import base_backend


def compared(name, what):
    """A step of nnx and the same step in NumPy; each side has a model of its own, with the same weights."""

    def make(rng):
        ours, plain = nnx_sides(name), nnx_sides(name)
        plain["model"].load_state_dict(ours["model"].state_dict())
        if what == "infer":
            for side in (ours, plain):
                side["model"].eval()

        def in_numpy():
            with base_backend():
                return np.asarray(plain[what]())

        return (lambda: np.asarray(ours[what]())), in_numpy

    return make


CASES = [
    Case(f"{name} {BATCH[name]} {'training' if what == 'train' else 'inference'}", compared(name, what), 1e-3)
    for name in BATCH
    for what in ("train", "infer")
]

test_speed = speed_test(CASES)
