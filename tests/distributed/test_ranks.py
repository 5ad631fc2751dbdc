"""Several ranks compute what one process computes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rank_problems as problems
from rank_problems import distance, picked, same_bits

import nnx
from nnx import nn
from nnx.train import Trainer

RANKS = 4
SOURCE = str(Path(nnx.__file__).parents[1])


@pytest.fixture(scope="module")
def equality(launch):
    return launch(RANKS, "equality")


def alone(dtype, size, steps=50, norm=False):
    net = problems.model(dtype, norm)
    problems.train(net, problems.batches(dtype, steps, size))
    return net.state_dict()


def in_rank_order(size, steps=50):
    """One process that does what the ranks do: gradients of the shares, times their samples, added in rank order."""
    net = problems.model(np.float64)
    optimizer = problems.sgd(net)
    for x, y in problems.batches(np.float64, steps, size):
        total = [np.zeros_like(p.data) for p in net.parameters()]
        for rank in range(RANKS):
            mine = problems.part(size, rank, RANKS)
            optimizer.zero_grad()
            nnx.functional.cross_entropy(net(x[mine]), y[mine]).backward()
            for i, p in enumerate(net.parameters()):
                share = p.grad * len(x[mine])
                total[i] = share if rank == 0 else total[i] + share
        for p, g in zip(net.parameters(), total, strict=True):
            p.grad = g / size
        optimizer.step()
    return net.state_dict()


@pytest.mark.parametrize(
    "name, dtype, size, steps, norm, bound",
    [
        ("float32", np.float32, 16, 50, False, 1e-5),
        ("float64", np.float64, 16, 50, False, 1e-12),
        ("unequal", np.float64, 11, 50, False, 1e-12),
        ("few", np.float64, 3, 10, False, 1e-12),  # fewer samples than ranks
        ("norm", np.float64, 11, 10, True, 1e-12),  # running statistics too
        ("norm few", np.float64, 3, 5, True, 1e-12),
    ],
)
def test_ranks_equal_one_process_with_the_whole_batch(equality, name, dtype, size, steps, norm, bound):
    assert distance(picked(equality.arrays(0), name), alone(dtype, size, steps, norm)) <= bound


def test_all_ranks_have_the_same_bits(equality):
    first = equality.arrays(0)
    for rank in range(1, RANKS):
        assert same_bits(equality.arrays(rank), first)


def test_ordered_has_the_bits_of_the_shares_summed_in_rank_order(equality):
    assert same_bits(picked(equality.arrays(0), "ordered"), in_rank_order(11))


def test_buckets_have_the_bits_of_one_message(equality):
    assert same_bits(picked(equality.arrays(0), "buckets"), picked(equality.arrays(0), "ordered"))


def test_batch_norm_is_local_unless_asked_for(equality):
    local = picked(equality.arrays(0), "local norm")
    assert distance(local, alone(np.float64, 16, 3, True)) > 1e-6
    assert local["1.num_batches_tracked"] == 3


def test_F076_four_workers_averaged_equal_a_single_process_bit_by_bit(equality):
    x, y = problems.whole_numbers()
    net = problems.regression()
    problems.fit_regression(net, x, y)
    assert same_bits(picked(equality.arrays(0), "exact"), net.state_dict())

    wrong = problems.regression()  # the check can fail: a worker that is left out
    problems.fit_regression(wrong, x[:12], y[:12])
    assert not same_bits(wrong.state_dict(), net.state_dict())


def test_F076_every_node_steps_and_the_average_is_applied(launch):
    found = launch(RANKS, "parameters")
    for every in (1, 3):
        for size in (16, 11, 3):
            nets = [problems.model(np.float64) for _ in range(RANKS)]
            seen = [0] * RANKS
            for step, (x, y) in enumerate(problems.batches(np.float64, 6, size)):
                for rank, net in enumerate(nets):
                    mine = problems.part(size, rank, RANKS)
                    seen[rank] += len(x[mine])
                    if len(x[mine]):
                        optimizer = nnx.optim.SGD(net.parameters(), lr=0.1)
                        nnx.functional.cross_entropy(net(x[mine]), y[mine]).backward()
                        optimizer.step()
                        optimizer.zero_grad()
                if (step + 1) % every == 0:
                    for group in zip(*(net.parameters() for net in nets), strict=True):
                        total = sum(p.data * n for p, n in zip(group, seen, strict=True) if n)
                        for p in group:
                            p.data[...] = total / sum(seen)
                    seen = [0] * RANKS
            for rank in range(RANKS):
                ours = picked(found.arrays(rank), f"{every} {size}")
                assert distance(ours, nets[0].state_dict()) <= 1e-14, (every, size)


def test_one_step_of_plain_sgd_averaged_is_the_step_with_the_averaged_gradient(launch):
    found = launch(2, "parameters")
    net = problems.model(np.float64)
    optimizer = nnx.optim.SGD(net.parameters(), lr=0.1)
    for x, y in problems.batches(np.float64, 6, 11):
        optimizer.zero_grad()
        nnx.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    assert distance(picked(found.arrays(0), "1 11"), net.state_dict()) <= 1e-12


def test_graphs_of_other_forms(launch):
    job = launch(3, "autograd")
    found = [job.arrays(rank) for rank in range(3)]
    assert all(same_bits(f, found[0]) for f in found)
    f = found[0]
    x = np.random.default_rng(2).standard_normal((8, 4))
    nnx.manual_seed(0)
    net = nn.Linear(4, 4).to(np.float64)
    ((net(net(x)) ** 2).mean() + (net.weight**2).sum()).backward()
    twice = net.weight.grad.copy()
    ((net(x) - 1) ** 2).mean().backward()
    for buckets in (None, 1):
        np.testing.assert_allclose(f[f"twice {buckets}"], twice, rtol=1e-12)
        np.testing.assert_allclose(f[f"added {buckets}"], net.weight.grad, rtol=1e-12)
        first = problems.part(8, 0, 3).stop  # rank 0's samples go through branch 0, all others through branch 1
        np.testing.assert_allclose(f[f"branch 0 {buckets}"], x[:first].sum(0, keepdims=True) / 8, rtol=1e-12)
        np.testing.assert_allclose(f[f"branch 1 {buckets}"], x[first:].sum(0, keepdims=True) / 8, rtol=1e-12)
        assert f[f"unused {buckets}"]
    assert f["frozen"] and f["freed"].shape == (4, 4)


def test_communicator(launch):
    job = launch(3, "communicator")
    for rank in range(3):
        f = job.arrays(rank)
        assert f["distributed"] and f["size"] == 3 and f["node"] == 3
        np.testing.assert_array_equal(f["sum"], [0, 6, 12])
        np.testing.assert_array_equal(f["max"], [0, 3, 6])
        np.testing.assert_array_equal(f["min"], [0, 1, 2])
        np.testing.assert_array_equal(f["broadcast"], np.ones((2, 2)))
        np.testing.assert_array_equal(f["allgather"], [[0], [1], [2]])
        assert f["text"].tobytes().decode() == "größer 2"
        assert f["any"] and not f["none"]
        np.testing.assert_array_equal(f["ordered"], (f["parts"][0] + f["parts"][1]) + f["parts"][2])
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        assert 1 <= f["threads"] <= max(1, cores // 3)
        assert f["own threads"] == 64


def test_too_many_threads_are_warned_of(launch):
    job = launch(3, "communicator", PYTHONWARNINGS="default", NNX_NUM_THREADS="1")
    assert job.text.count("threads of 3 ranks on this machine: they wait for each other") >= 1
    assert "got 192 threads" in job.text


# -- Trainer ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(launch):
    return launch(3, "fit")


def test_trainer_equals_one_process(fitted):
    x, y = problems.images()
    net = problems.model(np.float64)
    trainer = Trainer(net, nn.CrossEntropyLoss(), problems.sgd(net), clip_grad_norm=0.5)
    history = trainer.fit(x, y, 3, 9, validation=(x[:7], y[:7]), seed=1, verbose=False)
    weights = {name: a.copy() for name, a in net.state_dict().items()}
    trainer.fit(x, y, batch_size=46, seed=2, verbose=False)
    for rank in range(3):
        found = fitted.arrays(rank)
        assert distance(picked(found, "plain"), weights) <= 1e-12
        for name, values in history.items():
            if name != "seconds":
                np.testing.assert_allclose(found[f"history/{name}"], values, rtol=1e-12, err_msg=name)
        assert found["samples"] == 46 and found["step"] == 18
        assert distance(picked(found, "further"), net.state_dict()) <= 1e-12


def test_all_ranks_of_a_trainer_have_the_same_bits(fitted):
    for rank in (1, 2):
        assert same_bits(fitted.arrays(rank), fitted.arrays(0))


def test_trainer_with_lbfgs_and_batches_of_an_iterable(fitted):
    x, y = problems.images()
    net = problems.model(np.float64)
    optimizer = nnx.optim.LBFGS(net.parameters(), max_iter=4, line_search_fn="strong_wolfe")
    batches = [(x[i : i + 20], y[i : i + 20]) for i in (0, 20)]
    Trainer(net, nn.CrossEntropyLoss(), optimizer).fit(iter_of(batches), epochs=2, verbose=False)
    # line searches branch on comparisons, so rounding is amplified
    assert distance(picked(fitted.arrays(0), "lbfgs"), net.state_dict()) <= 1e-9


class iter_of:
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def test_resume_with_as_many_ranks_gives_the_same_bits(fitted):
    """With dropout, whose masks differ between ranks, and batch norm."""
    found = fitted.arrays(0)
    assert found["stopped at"] == 9  # told after step 8 had been agreed on: the next one is the last
    assert same_bits(picked(found, "again"), picked(found, "whole"))


def test_nan_on_one_rank_stops_all_of_them_with_its_name(launch):
    job = launch(3, "nan")
    texts = {(job.folder / f"error{rank}").read_text() for rank in range(3)}
    assert len(texts) == 1
    text = texts.pop()
    assert "step 3" in text and "on rank 1 'bias' of layer '0' (Conv2d) is not finite" in text


# -- command line ----------------------------------------------------------------------------------


def test_command_line_has_one_log_and_trains_as_one_process_would(launch, tmp_path):
    command = [sys.executable, "-m", "nnx", "train", "digits", "--model", "mlp", "--epochs", "2", "--augment", "none"]
    job = launch.command(3, [*command, "--out", str(tmp_path / "ranks")], tmp_path, True, {})
    lines = job.text.splitlines()
    assert sum(line.startswith("digits: 1,438 training and 359 test images") for line in lines) == 1
    assert sum(line.startswith("epoch 2/2") for line in lines) == 1
    assert any(line.endswith("; 3 ranks") for line in lines)
    assert sum(line.startswith("test accuracy") for line in lines) == 1

    environment = {**os.environ, "PYTHONPATH": SOURCE, "NNX_NUM_THREADS": "1"}
    out = ["--out", str(tmp_path / "alone")]
    alone = subprocess.run([*command, *out], capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    accuracies = [float(text.split("test accuracy ")[-1].split()[0]) for text in (job.text, alone.stdout)]
    assert abs(accuracies[0] - accuracies[1]) <= 0.01
    ours, theirs = (nnx.load(tmp_path / name / "model.safetensors") for name in ("ranks", "alone"))
    assert distance(ours, theirs) <= 1e-3  # 46 steps of Adam in float32, which divides by small numbers

    job = launch.command(2, [*command, "--out", str(tmp_path / "ranks"), "--resume"], tmp_path, True, {})
    assert f"test accuracy {accuracies[0]:.4f}" in job.text  # nothing was left to do
    job = launch.command(2, [*command[:3], "evaluate", str(tmp_path / "ranks")], tmp_path, True, {})
    assert job.text.count("test accuracy") == 1 and f"test accuracy {accuracies[0]:.4f}" in job.text


def test_command_line_says_once_what_is_wrong_everywhere(launch, tmp_path):
    command = [sys.executable, "-m", "nnx", "train", "digits", "--model", "nonesuch"]
    job = launch.command(2, command, tmp_path, False, {})
    assert job.text.count("expected --model to be one of") == 1
    assert "nnx: rank 0 of 2, after step 0: error: train: expected --model" in job.text
