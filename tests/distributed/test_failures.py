"""Ranks that fail, and going on afterwards."""

from __future__ import annotations

import time

import numpy as np
import pytest
import rank_problems as problems
from rank_problems import distance, picked, same_bits

from nnx import nn
from nnx.train import Checkpoint, Trainer, latest_checkpoint

WITHIN = 5.0  # seconds from the failure of a rank to the end of all
TIMEOUT = 2.0


def seconds_after(job) -> float:
    """From the moment at which rank 1 noted the time to now, just after the launch has ended."""
    return time.time() - float((job.folder / "time").read_text())


@pytest.mark.parametrize(
    "kind, allowed, words",
    [
        ("exception", WITHIN, "nnx: rank 1 of 3, after step 7: ValueError: planted: the job ends"),
        ("thread", WITHIN, "nnx: rank 1 of 3, after step 7: ZeroDivisionError: division by zero: the job ends"),
        ("kill", WITHIN, "after step 8: told to end (SIGTERM) while it waits in allreduce for rank 1 (after step 7)"),
        ("stop", WITHIN + TIMEOUT, "after step 8: allreduce has waited 2 s for rank 1 (after step 7): the job ends"),
        ("busy", WITHIN + TIMEOUT, "after step 8: allreduce has waited 2 s for rank 1 (after step 7): the job ends"),
    ],
)
def test_a_rank_that_fails_ends_all_of_them(launch, kind, allowed, words):
    job = launch(3, "trouble", kind, good=False, NNX_TIMEOUT=str(TIMEOUT))
    assert seconds_after(job) < allowed
    assert words in job.text, job.text
    assert latest_checkpoint(job.folder / "checkpoints").name == "checkpoint-000000006.safetensors"


@pytest.fixture(scope="module")
def whole(launch):
    return launch(3, "long_fit", 0)


@pytest.fixture(scope="module")
def ended(launch):
    """Three ranks, of which one is sent SIGTERM after step 13."""
    return launch(3, "long_fit", 13, good=False)


def test_sigterm_writes_a_checkpoint_at_the_next_step_boundary(ended):
    assert ended.code == 143, ended.text
    newest = latest_checkpoint(ended.folder / "checkpoints")
    assert newest.name in ("checkpoint-000000013.safetensors", "checkpoint-000000014.safetensors")


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_resume_with_any_number_of_ranks(launch, ended, whole, tmp_path, ranks):
    copied = tmp_path / "checkpoints"
    copied.mkdir()
    newest = latest_checkpoint(ended.folder / "checkpoints")
    (copied / newest.name).write_bytes(newest.read_bytes())
    again = launch(ranks, "long_fit", 0, copied).arrays(ranks - 1)
    assert again["step"] == whole.arrays(0)["step"] == 24
    assert distance(picked(again, "end"), picked(whole.arrays(0), "end")) <= 1e-12
    if ranks == 3:
        assert same_bits(picked(again, "end"), picked(whole.arrays(0), "end"))


def test_resume_in_one_process(ended, whole, tmp_path):
    newest = latest_checkpoint(ended.folder / "checkpoints")
    x, y = problems.images()
    net = problems.model(np.float64)
    trainer = Trainer(net, nn.CrossEntropyLoss(), problems.sgd(net))
    trainer.fit(x, y, epochs=4, batch_size=9, seed=1, verbose=False, resume=newest, callbacks=[Checkpoint(tmp_path)])
    assert trainer.step == 24
    assert distance(net.state_dict(), picked(whole.arrays(0), "end")) <= 1e-12


@pytest.mark.parametrize(
    "kind, words",
    [
        ("shape", "got rank 2 with parameter 'weight' of float32 (3, 4), where rank 0 has parameter 'weight' of "),
        ("name", "got rank 2 with parameter '0.weight' of float32 (2, 4), where rank 0 has parameter 'weight'"),
        (
            "type",
            "got rank 2 with parameter 'weight' of float64 (2, 4), where rank 0 has parameter 'weight' of float32",
        ),
        ("more", "got rank 2 with parameter '1.weight' of float32 (2, 2), where rank 0 has nothing more"),
        ("version", "got rank 2 with nnx 9.9, where rank 0 has nnx "),
        ("norm", "SyncBatchNorm: expected more than one value per channel on all ranks together in training"),
    ],
)
def test_ranks_that_differ_are_named(launch, kind, words):
    assert words in launch(3, "differ", kind, good=False).text
