"""What needs no second rank: one rank changes nothing, arguments are checked, and other ranks are played by threads."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rank_problems as problems

import nnx
from nnx import nn
from nnx.distributed import (
    Communicator,
    DataParallel,
    MPICommunicator,
    NCCLCommunicator,
    SerialCommunicator,
    SyncBatchNorm,
    _world,
    is_distributed,
    set_threads_of_rank,
    world,
)
from nnx.distributed._buckets import make_buckets
from nnx.distributed._watchdog import Board, Watchdog
from nnx.train import Trainer


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """As in a process that mpiexec has not started."""
    for name in _world._SIZES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_world, "_world", None)


# -- one rank --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"ordered": True}, {"bucket_bytes": 64}, {"sync": "params", "every": 2}])
def test_one_rank_is_the_model_bit_by_bit(options):
    data = problems.batches(np.float32, 20, 7)
    plain = problems.model(np.float32, norm=True)
    problems.train(plain, data)
    parallel = DataParallel(problems.model(np.float32, norm=True), SerialCommunicator(), **options)
    problems.train(parallel, data)
    assert problems.same_bits(parallel.state_dict(), plain.state_dict())


def test_trainer_with_one_rank_is_the_trainer_without_bit_by_bit():
    x, y = problems.images()

    def run(wrap, **arguments):
        net = problems.model(np.float32, norm=True)
        trainer = Trainer(wrap(net), nn.CrossEntropyLoss(), problems.sgd(net), **arguments)
        history = trainer.fit(x, y, 3, 9, validation=(x, y), seed=1, verbose=False)
        return {k: a.copy() for k, a in net.state_dict().items()}, {k: v for k, v in history.items() if k != "seconds"}

    weights, history = run(lambda net: net)
    for wrap, arguments in ((DataParallel, {}), (lambda net: net, {"distributed": True})):
        other, numbers = run(wrap, **arguments)
        assert problems.same_bits(other, weights) and numbers == history


def test_names_modes_and_state_are_the_models_own():
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    parallel = DataParallel(net)
    assert [n for n, _ in parallel.named_parameters()] == [n for n, _ in net.named_parameters()]
    assert list(parallel.state_dict()) == list(net.state_dict())
    parallel.eval()
    assert not net[1].training and not parallel.training
    parallel.train()
    assert net.training and parallel.training
    parallel.load_state_dict({name: np.zeros_like(a) for name, a in net.state_dict().items()})
    assert not net[0].weight.data.any()
    assert parallel.predict(np.ones((4, 2))).shape == (4, 3)
    assert "SerialCommunicator(rank=0, size=1)" in repr(parallel)


def test_serial_communicator():
    comm = SerialCommunicator()
    a = np.array([1.0, 2.0])
    comm.allreduce(a)
    comm.broadcast(a)
    comm.sum_in_order(a)
    np.testing.assert_array_equal(a, [1, 2])
    np.testing.assert_array_equal(comm.allgather(a), [[1, 2]])
    assert comm.broadcast_text("x") == "x" and comm.any(True) and not comm.any(False)
    comm.barrier()
    assert comm.split_by_node().size == 1
    assert set_threads_of_rank(comm) == nnx.get_num_threads()


def test_serial_abort(capsys):
    with pytest.raises(SystemExit) as caught:
        SerialCommunicator().abort("no more")
    assert caught.value.code == 1
    assert capsys.readouterr().err == "nnx: rank 0 of 1, after step 0: no more\n"


# -- start -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environment, several",
    [
        ({}, False),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"PMI_SIZE": "16"}, True),
        ({"MV2_COMM_WORLD_SIZE": "x"}, False),
    ],
)
def test_is_distributed(monkeypatch, environment, several):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_distributed() == several


def test_without_mpi_the_world_is_one_rank_and_mpi4py_is_not_loaded():
    code = (
        "import sys, nnx; from nnx import nn; assert not any(m.startswith('nnx.distributed') for m in sys.modules);"
        "t = nnx.train.Trainer(nn.Linear(1, 1), nn.MSELoss()); assert t.ranks == 1 and t.rank == 0;"
        "nnx.distributed.DataParallel(nn.Linear(1, 1)); print('mpi4py' in sys.modules, 'cupy' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(nnx.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["False", "False"]
    assert world().size == 1 and world() is world()


def test_without_mpi4py_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    expected = r'nnx.distributed: expected mpi4py and an MPI library, got: .*pip install "nnx-core\[mpi\]"'
    with pytest.raises(ImportError, match=expected):
        MPICommunicator()
    with pytest.raises(ImportError, match=expected):
        DataParallel(nn.Linear(1, 1))
    with pytest.raises(ImportError, match=expected):
        Trainer(nn.Linear(1, 1), nn.MSELoss())
    assert Trainer(nn.Linear(1, 1), nn.MSELoss(), distributed=False).ranks == 1


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error, words, make",
    [
        (TypeError, "expected module to be a Module, got int", lambda: DataParallel(3)),
        (TypeError, "got a DataParallel", lambda: DataParallel(DataParallel(nn.Linear(1, 1)))),
        (TypeError, "expected comm to be a Communicator or None", lambda: DataParallel(nn.Linear(1, 1), 3)),
        (ValueError, "expected sync to be one of 'grad', 'params'", lambda: DataParallel(nn.Linear(1, 1), sync="x")),
        (ValueError, "expected every to be an integer >= 1", lambda: DataParallel(nn.Linear(1, 1), every=0)),
        (ValueError, 'expected every=1 with sync="grad", got 2', lambda: DataParallel(nn.Linear(1, 1), every=2)),
        (ValueError, "bucket_bytes to be an integer >= 1", lambda: DataParallel(nn.Linear(1, 1), bucket_bytes=0)),
        (
            ValueError,
            "expected bucket_bytes=None with synchronised batch norm",
            lambda: DataParallel(nn.BatchNorm1d(1), bucket_bytes=8, sync_batch_norm=True),
        ),
        (RuntimeError, 'average: expected sync="params"', lambda: DataParallel(nn.Linear(1, 1)).average()),
    ],
)
def test_arguments_of_data_parallel(error, words, make):
    with pytest.raises(error, match="^DataParallel.*" + words):
        make()


@pytest.mark.parametrize(
    "error, words, call",
    [
        (TypeError, "allreduce: expected an array, got list", lambda c: c.allreduce([1])),
        (TypeError, "broadcast: expected an array of numbers", lambda c: c.broadcast(np.array(["a"]))),
        (ValueError, "allreduce: expected a C-contiguous array", lambda c: c.allreduce(np.ones((2, 2)).T)),
        (ValueError, "allreduce: expected a writeable array", lambda c: c.allreduce(np.broadcast_to(1.0, (1,)))),
        (
            ValueError,
            "expected op to be one of 'sum', 'max', 'min', got 'prod'",
            lambda c: c.allreduce(np.ones(1), "prod"),
        ),
        (ValueError, "expected root below 1, got 1", lambda c: c.broadcast(np.ones(1), 1)),
    ],
)
def test_arguments_of_a_communicator(error, words, call):
    with pytest.raises(error, match="^SerialCommunicator.*" + words):
        call(SerialCommunicator())


def test_timeout_of_the_environment(monkeypatch):
    from nnx.distributed.mpi import _seconds

    assert _seconds("0.5") == 0.5
    with pytest.raises(ValueError, match="NNX_TIMEOUT: expected a number of seconds, got 'soon'"):
        _seconds("soon")
    with pytest.raises(ValueError, match="MPICommunicator: expected timeout to be a number in"):
        _seconds(-1)


def test_a_communicator_has_every_method():
    with pytest.raises(TypeError, match="abstract.*allgather"):
        Communicator()


# -- ranks that are threads ------------------------------------------------------------------------


class Threads(Communicator):
    """A rank that is a thread: enough of a communicator to try the arithmetic without MPI."""

    def __init__(self, rank: int, size: int, shared: dict) -> None:
        self.rank, self.size, self._shared = rank, size, shared

    def allgather(self, array):
        barrier, parts = self._shared["barrier"], self._shared["parts"]
        parts[self.rank] = array.copy()
        barrier.wait()
        everyone = np.stack(parts)
        barrier.wait()
        return everyone

    def allreduce(self, array, op="sum"):
        array[...] = getattr(self.allgather(array), op)(0)

    def broadcast(self, array, root=0):
        parts, barrier = self._shared["parts"], self._shared["barrier"]
        parts[self.rank] = array.copy()
        barrier.wait()
        array[...] = parts[root]
        barrier.wait()

    def barrier(self):
        self._shared["barrier"].wait()

    def abort(self, message):
        raise SystemExit(message)

    def split_by_node(self):
        return self


def on_threads(size, function):
    """Call ``function(comm)`` on each rank; what each returned."""
    shared = {"barrier": threading.Barrier(size, timeout=20), "parts": [None] * size}
    found = [None] * size

    def run(rank):
        try:
            found[rank] = function(Threads(rank, size, shared))
        except BaseException as error:
            found[rank] = error
            shared["barrier"].abort()

    workers = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for result in found:
        if isinstance(result, BaseException):
            raise result
    return found


def shared_gradient(comm):
    """The gradient of a mean over 5 samples of which three ranks have 1, 2 and 2."""
    x = np.arange(10.0).reshape(5, 2)
    net = regression()
    mine = problems.part(5, comm.rank, comm.size)
    (DataParallel(net, comm)(x[mine]) ** 2).mean().backward()
    return net.weight.grad


def regression():
    net = nn.Linear(2, 1, dtype=np.float64)
    net.weight.data[...] = 1
    net.bias.data[...] = 0
    return net


def test_unequal_shares_weigh_as_many_samples_as_they_have(monkeypatch):
    net = regression()
    (net(np.arange(10.0).reshape(5, 2)) ** 2).mean().backward()
    for gradient in on_threads(3, shared_gradient):
        np.testing.assert_allclose(gradient, net.weight.grad, rtol=1e-14)

    # the check can fail: every rank weighs the same
    honest = DataParallel._reduce
    monkeypatch.setattr(DataParallel, "_reduce", lambda self, bucket, samples: honest(self, bucket, 1))
    assert not np.allclose(on_threads(3, shared_gradient)[0], net.weight.grad)


def test_the_first_input_must_have_samples():
    def forward(comm):
        with pytest.raises(ValueError, match=r"DataParallel: expected a first input of shape \(N, ...\), got nothing"):
            DataParallel(regression(), comm)(input=np.ones((2, 2)))
        with pytest.raises(
            ValueError, match=r"DataParallel: expected a first input of shape \(N, ...\), got shape \(\)"
        ):
            DataParallel(regression(), comm)(np.float64(3))

    on_threads(2, forward)


def test_outputs_of_any_structure_are_averaged():
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = regression(), regression()

        def forward(self, x):
            return {"a": (self.one(x), [self.two(x)]), "b": 3}

    def gradients(comm):
        x = np.arange(10.0).reshape(5, 2)
        net = Several()
        found = DataParallel(net, comm)(x[problems.part(5, comm.rank, comm.size)])
        assert found["b"] == 3
        ((found["a"][0] ** 2).mean() + (found["a"][1][0] ** 3).mean()).backward()
        return [p.grad for p in net.parameters()]

    whole = on_threads(1, gradients)[0]
    for found in on_threads(3, gradients):
        for g, w in zip(found, whole, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-12)


# -- staging ---------------------------------------------------------------------------------------


def test_buckets_go_from_the_last_parameter_to_the_first_and_by_type():
    sizes = [3, 5, 2, 4]
    params = [nnx.Parameter(np.zeros(n, np.float64)) for n in sizes]
    single = nnx.Parameter(np.zeros(6, np.float32))
    (bucket,) = make_buckets(params, None)
    assert bucket.parameters == params and bucket.flat.size == sum(sizes) + len(sizes) + 1
    buckets = make_buckets([*params, single], 6 * 8)
    assert [[p.size for p in b.parameters] for b in buckets] == [[6], [4, 2], [5], [3]]


def test_a_gradient_that_is_not_the_engines_is_not_written_to():
    p = nnx.Parameter(np.zeros(3))
    mine = np.array([2.0, 4.0, 6.0])
    p.grad = mine
    (bucket,) = make_buckets([p], None)
    bucket.read_gradients(2)
    bucket.flat[-1] = 4  # another rank had two samples, and gradient 0
    bucket.write_gradients()
    np.testing.assert_array_equal(mine, [2, 4, 6])
    np.testing.assert_array_equal(p.grad, [1, 2, 3])


def test_no_samples_weigh_nothing_not_nan():
    p = nnx.Parameter(np.zeros(2))
    p.grad = np.full(2, np.nan)
    (bucket,) = make_buckets([p], None)
    bucket.read_gradients(0)
    assert not bucket.flat.any()


# -- watchdog --------------------------------------------------------------------------------------


class Watched(SerialCommunicator):
    size = 2
    timeout = 0.05

    def abort(self, message):
        self.message = message
        raise SystemExit(1)


def test_the_watchdog_names_who_has_not_come(tmp_path):
    board = Board.create(2)
    comm = Watched()
    comm.size = 1  # no thread: the test looks itself
    dog = Watchdog(comm, board, [0, 1])
    comm.size = 2
    assert dog.look(False)
    with dog.waiting("allreduce"):
        time.sleep(0.06)
        with pytest.raises(SystemExit):
            dog.look(False)
    assert comm.message.startswith("allreduce has waited 0.05 s for rank 1 (after step 0): the job ends.")
    board.lines[1, 0] = 1
    with dog.waiting("barrier"):
        board.lines[1, 0] = 2
        assert "all here" in dog._missing()
        comm.size = 3
        assert "a rank on another machine" in dog._missing()
    board.forget()
    assert not os.path.exists(board.path)
    assert dog.look(False)


# -- synchronised batch norm -----------------------------------------------------------------------


def test_convert_keeps_parameters_and_buffers():
    comm = SerialCommunicator()
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Sequential(nn.BatchNorm2d(2, affine=False)))
    before = dict(net.named_parameters()), {k: id(b) for k, b in net.named_buffers()}
    assert SyncBatchNorm.convert(net, comm) is net
    assert isinstance(net[1], SyncBatchNorm) and isinstance(net[2][0], SyncBatchNorm)
    after = dict(net.named_parameters()), {k: id(b) for k, b in net.named_buffers()}
    assert before[1] == after[1] and all(before[0][k] is after[0][k] for k in before[0])
    single = SyncBatchNorm.convert(nn.BatchNorm1d(3), comm)
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    plain = nn.BatchNorm1d(3)
    assert single(x).data.tobytes() == plain(x).data.tobytes()
    assert single.running_var.tobytes() == plain.running_var.tobytes()
    with pytest.raises(ValueError, match=r"SyncBatchNorm: expected input of shape \(N, C\) or \(N, C, L\)"):
        single(x[:, :, None, None])


# -- NCCL ------------------------------------------------------------------------------------------


def test_nccl_without_cupy_says_what_to_install():
    if importlib.util.find_spec("cupy") is not None:
        pytest.skip("CuPy is installed")
    with pytest.raises(ImportError, match=r'NCCLCommunicator: expected CuPy.*pip install "nnx-core\[cuda12\]"'):
        NCCLCommunicator(SerialCommunicator())


def test_nccl_on_a_gpu():
    cupy = pytest.importorskip("cupy", reason="needs CuPy and a GPU")
    from nnx import cuda

    if cuda.device_count() == 0:
        pytest.skip("needs a GPU")
    comm = NCCLCommunicator(SerialCommunicator())
    a = cupy.arange(4, dtype=cupy.float32)
    comm.allreduce(a)
    comm.broadcast(a)
    np.testing.assert_array_equal(cupy.asnumpy(a), np.arange(4))
    np.testing.assert_array_equal(cupy.asnumpy(comm.allgather(a)), np.arange(4)[None])
    comm.sum_in_order(a)
    host = np.ones(3)
    comm.allreduce(host)
    comm.barrier()
    with pytest.raises(TypeError, match="NCCLCommunicator.allreduce: expected an array, got list"):
        comm.allreduce([1])
