"""Memory: a steady training step asks the system for nothing, and scratch does not grow with the batch."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import nnx
from nnx._ext import memory
from nnx.backends import backend_of

pytestmark = pytest.mark.skipif(os.environ.get("NNX_CACHE_LIMIT") == "0", reason="NNX_CACHE_LIMIT=0 keeps nothing")


STEPS = """
import resource
import numpy as np
import nnx
from nnx import nn, optim

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

rng = np.random.default_rng(0)
model = nn.Sequential(
    nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
    nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8192, 64), nn.ReLU(), nn.Linear(64, 10),
)
optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
x, labels = rng.standard_normal((32, 3, 32, 32)).astype(np.float32), rng.integers(0, 10, 32)

def step():
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), labels).backward()
    optimizer.step()

before = faults()
step()
first = faults() - before
for _ in range(10):
    step()
before = faults()
for _ in range(10):
    step()
print(first, (faults() - before) / 10)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no count of page faults")
def test_a_steady_training_step_touches_no_fresh_pages():
    """In a process of its own: here earlier tests have left memory that would hide the first step's faults."""
    done = subprocess.run([sys.executable, "-c", STEPS], check=True, capture_output=True, text=True)
    first, steady = map(float, done.stdout.split())
    assert first > 100, "the first step must fill the memory, or nothing is shown"
    assert steady < 16


SHAPES = {
    "direct": ((3, 16, 16), (16, 3, 5, 5), 1),
    "spread": ((3, 16, 16), (2, 3, 5, 5), 1),
    "winograd": ((16, 16, 16), (16, 16, 3, 3), 1),
    "columns": ((16, 16, 16), (16, 8, 3, 3), 2),
    "depthwise": ((32, 16, 16), (32, 1, 3, 3), 32),
}


@pytest.mark.parametrize("step", ["forward", "data", "weight"])
@pytest.mark.parametrize("name", SHAPES)
def test_scratch_memory_does_not_grow_with_the_batch(name, step):
    """What a call gave back to the cache is its scratch, for the result is still held."""
    image, filters, groups = SHAPES[name]
    pad = (filters[2] - 1) // 2
    how = ((1, 1), ((pad, pad), (pad, pad)), (1, 1), groups)
    used = []
    for n in (64, 512):
        x = np.ones((n, *image), np.float32).transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
        w = np.ones(filters, np.float32)
        be = backend_of(x)
        gy = be.conv(x, w, None, *how)
        nnx.empty_cache()
        if step == "forward":
            result = be.conv(x, w, None, *how)
        elif step == "data":
            result = be.conv_data_grad(gy, w, x.shape, *how)
        else:
            result = be.conv_weight_grad(gy, x, w.shape, *how)
        used.append(memory.cached_bytes())
        del x, gy, result
    assert used[1] <= used[0] < 4 * 1024 * 1024 * nnx.get_num_threads(), used


def test_empty_cache_is_public_and_gives_everything_back():
    result = nnx.relu(np.ones((512, 512), np.float32))
    del result
    assert memory.cached_bytes() > 0
    assert nnx.empty_cache() > 0
    assert memory.cached_bytes() == 0
