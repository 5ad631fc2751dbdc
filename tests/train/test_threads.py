"""Threads: they work, and their number changes nothing but the time."""

from __future__ import annotations

import hashlib
import os
import time

import numpy as np
import pytest

import nnx
from nnx import nn, optim
from nnx._ext.threads import has_openmp


@pytest.fixture
def threads():
    before = nnx.get_num_threads()
    yield nnx.set_num_threads
    nnx.set_num_threads(before)


def model():
    """Every algorithm of convolution, and what stands around it."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),  # numbers read in place
        nn.Conv2d(6, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),  # Winograd
        nn.Conv2d(32, 32, 3, stride=2, padding=1, groups=2), nn.ReLU(),  # column matrix
        nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.AvgPool2d(2),  # one filter per channel
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(512, 64), nn.Tanh(), nn.LayerNorm(64), nn.Linear(64, 10),
    )  # fmt: skip


def train(steps: int) -> str:
    """The hash of all losses, of the last gradients and of the parameters after some steps."""
    nnx.manual_seed(3)
    rng = np.random.default_rng(4)
    net = model()
    optimizer = optim.SGD(net.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    criterion = nn.CrossEntropyLoss()
    x = rng.standard_normal((4, 12, 3, 32, 32)).astype(np.float32)
    labels = rng.integers(0, 10, (4, 12))
    digest, losses = hashlib.sha256(), []
    for step in range(steps):
        optimizer.zero_grad()
        loss = criterion(net(x[step % 4]), labels[step % 4])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        digest.update(loss.data.tobytes())
    assert losses[-1] < 0.5 * losses[0], "the network must learn, or the comparison shows little"
    for p in net.parameters():
        digest.update(np.ascontiguousarray(p.grad).tobytes())
    for value in net.state_dict().values():
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def test_a_hundred_training_steps_give_the_same_bits_for_any_number_of_threads(threads):
    results = {}
    for n in (1, 2, 3, 4, 8):
        threads(n)
        results[n] = train(100)
    assert len(set(results.values())) == 1, results


@pytest.mark.skipif((os.cpu_count() or 1) < 2 or not has_openmp(), reason="one core, or built without OpenMP")
def test_two_threads_really_work(threads):
    """CPU time of the process over that of the calling thread: on an idle machine the latter is the wall time."""
    x = np.ones((16, 64, 64, 64), np.float32)
    conv = nn.Conv2d(64, 64, 3, padding=1)
    ratios = {}
    for n in (1, 2):
        threads(n)
        best, end = 0.0, time.monotonic() + 20
        with nnx.no_grad():
            for _ in range(50):
                everybody, caller = time.process_time(), time.thread_time()
                for _ in range(4):
                    conv(x)
                best = max(best, (time.process_time() - everybody) / (time.thread_time() - caller))
                if best > 1.5 or time.monotonic() > end:
                    break
        ratios[n] = best
    assert ratios[1] < 1.2 and ratios[2] > 1.5, ratios
