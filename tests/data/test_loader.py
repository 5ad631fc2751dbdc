"""The batch loader: contents, order, threads, resuming."""

import gc
import json
import os
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnx.data import ArrayDataset, Compose, DataLoader, GaussianNoise, RandomCrop, Subset


def threads():
    return [t for t in threading.enumerate() if t.name == "nnx-data"]


@pytest.fixture(autouse=True)
def no_thread_is_left_behind():
    yield
    assert not threads()


def add_noise(x, rng):
    return x + rng.standard_normal(x.shape).astype(x.dtype)


def arrays(n=23):
    rng = np.random.default_rng(0)
    return rng.random((n, 3), np.float32), np.arange(n)


def epoch(loader):
    return [tuple(part.copy() for part in batch) for batch in loader]


def assert_same(one, two):
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert type(a) is type(b) is tuple
        for left, right in zip(a, b, strict=True):
            np.testing.assert_array_equal(left, right)


class Samples:
    """A data set without gather(), which may fail at one index."""

    def __init__(self, n, bad=None, error=RuntimeError):
        self.n, self.bad, self.error = n, bad, error

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i == self.bad:
            raise self.error("sample is broken")
        return np.full(2, i, np.float32), i


# ------------------------------------------------------------------------------------- contents


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("size", [1, 5, 23, 24, 100])
def test_each_sample_once(size, drop_last, shuffle, prefetch):
    x, y = arrays()
    loader = DataLoader((x, y), size, shuffle, drop_last=drop_last, prefetch=prefetch, transform=lambda x, rng: x)
    batches = epoch(loader)
    assert len(batches) == len(loader) == (23 // size if drop_last else -(-23 // size))
    assert all(len(bx) == len(by) == size for bx, by in batches[: 23 // size])
    seen = np.concatenate([by for _, by in batches]) if batches else np.zeros(0, int)
    assert len(seen) == (23 // size * size if drop_last else 23)
    assert len(set(seen.tolist())) == len(seen)
    if not shuffle:
        np.testing.assert_array_equal(seen, np.arange(len(seen)))
    for bx, by in batches:
        np.testing.assert_array_equal(bx, x[by])


def test_what_may_be_a_data_set():
    x, y = arrays(4)
    for dataset in (x, (x,), ArrayDataset(x), Subset(ArrayDataset(x), range(4))):
        (batch,) = DataLoader(dataset, 4)
        assert type(batch) is tuple and len(batch) == 1
        np.testing.assert_array_equal(batch[0], x)
    ((bx, by),) = DataLoader((x.tolist(), y), 4)
    np.testing.assert_array_equal(by, y)
    import nnx

    for dataset in (nnx.tensor(x), (nnx.tensor(x, requires_grad=True),)):
        ((bx,),) = DataLoader(dataset, 4)
        assert type(bx) is np.ndarray
        np.testing.assert_array_equal(bx, x)
    # A list is a data set of samples, as everything else with len() and [].
    ((bx, by),) = DataLoader([(x[i], i) for i in range(4)], 4)
    np.testing.assert_array_equal(bx, x)
    ((bx, by),) = DataLoader(Samples(4), 4, collate_fn=lambda s: [len(s), s[2][1]])
    assert (bx, by) == (4, 2)
    (batch,) = DataLoader(Samples(2), 2, collate_fn=lambda s: {"n": len(s)})
    assert batch == {"n": 2}
    ((same,),) = DataLoader(Samples(4), 4, collate_fn=lambda s: np.stack([a for a, _ in s]))
    assert same.shape == (4, 2)


def test_empty():
    for prefetch in (0, 2):
        loader = DataLoader((np.zeros((0, 3)), np.zeros(0)), 4, shuffle=True, prefetch=prefetch)
        assert len(loader) == 0 and list(loader) == list(loader) == []


def test_memory_map(tmp_path):
    x, y = arrays(50)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    want = epoch(DataLoader((x, y), 8, shuffle=True, seed=1))
    assert_same(epoch(DataLoader((mapped, y), 8, shuffle=True, seed=1)), want)


def test_batches_are_copies():
    x, y = arrays()
    before = x.copy()
    for prefetch in (0, 2):
        for bx, by in DataLoader((x, y), 4, prefetch=prefetch):
            bx[:] = -1
            by[:] = -1
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(y, np.arange(23))


# ------------------------------------------------------------------------------ order and seeds


def test_shuffling_changes_with_epoch_and_seed():
    def orders(seed):
        loader = DataLoader((np.arange(100),), 10, shuffle=True, seed=seed)
        return [np.concatenate([b for (b,) in loader]).tolist() for _ in range(3)]

    assert orders(5) == orders(5)
    first, second, third = orders(5)
    assert first != second != third and first != third
    assert orders(6)[0] != first and first != list(range(100))


def test_seed_from_a_generator_and_from_the_library():
    import nnx

    one = DataLoader(np.arange(50), 5, True, generator=np.random.default_rng(3))
    two = DataLoader(np.arange(50), 5, True, generator=np.random.default_rng(3))
    assert_same(epoch(one), epoch(two))
    nnx.manual_seed(1)
    three = DataLoader(np.arange(50), 5, True)
    nnx.manual_seed(1)
    DataLoader(np.arange(50), 5)  # without randomness nothing is drawn
    DataLoader(np.arange(50), 5, True, seed=3)
    assert DataLoader(np.arange(50), 5, True).seed == three.seed != one.seed


def test_numpys_global_state_is_left_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    epoch(DataLoader(arrays(), 4, True, transform=add_noise, seed=0))
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize("dataset", [arrays(), Samples(23)])
def test_prefetching_changes_nothing(dataset):
    def read(prefetch):
        loader = DataLoader(dataset, 4, shuffle=True, seed=7, prefetch=prefetch, transform=add_noise)
        return epoch(loader) + epoch(loader)

    want = read(0)
    for prefetch in (1, 2, 10):
        assert_same(read(prefetch), want)


def test_augmentation_with_a_seed():
    images = np.random.default_rng(0).random((20, 3, 8, 8), np.float32)
    transform = Compose([RandomCrop(8, padding=2), GaussianNoise(0.1)])
    loaders = [DataLoader(images, 6, True, seed=2, transform=transform) for _ in range(2)]
    assert_same(epoch(loaders[0]), epoch(loaders[1]))
    first, second = ([b for (b,) in DataLoader(images, 6, seed=s, transform=transform)] for s in (1, 2))
    assert not np.array_equal(first[0], second[0])


def test_every_batch_of_every_epoch_has_its_own_randomness():
    loader = DataLoader(np.zeros((8, 3)), 2, seed=2, transform=add_noise)
    first = [tuple(x.ravel()) for _ in range(3) for (x,) in loader]
    assert len(set(first)) == 12


def test_interleaved_iterations_are_independent():
    loader = DataLoader(arrays(), 4, shuffle=True, seed=0, transform=add_noise)
    pairs = [(a[1].tolist(), [b[1].tolist() for b in loader]) for a in loader]
    assert len(pairs) == 6 and len({str(inner) for _, inner in pairs}) == 6
    assert sorted(sum((outer for outer, _ in pairs), [])) == list(range(23))


# ------------------------------------------------------------------------------------- resuming


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 30),
    size=st.integers(1, 8),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    prefetch=st.sampled_from([0, 1, 2]),
    consumed=st.integers(0, 40),
)
def test_resuming_yields_the_remaining_batches(n, size, shuffle, drop_last, prefetch, consumed):
    def build(prefetch, seed):
        return DataLoader(
            arrays(n),
            size,
            shuffle,
            drop_last=drop_last,
            seed=seed,
            prefetch=prefetch,
            transform=add_noise,
        )

    straight = build(0, 11)
    whole = [batch for _ in range(3) for batch in epoch(straight)]
    consumed = min(consumed, len(whole))
    interrupted, seen = build(prefetch, 11), []
    for _ in range(3):
        if len(seen) == consumed:
            break
        for batch in interrupted:
            seen.append(batch)
            if len(seen) == consumed:
                break
    state = json.loads(json.dumps(interrupted.state_dict()))
    resumed = build(2 - prefetch, 99)
    resumed.load_state_dict(state)
    while resumed.epoch < 3 and len(straight):
        seen += epoch(resumed)
    assert_same(seen, whole)


def test_state_is_what_the_consumer_has_seen():
    loader = DataLoader(arrays(), 4, True, seed=3, prefetch=5, transform=add_noise)
    assert loader.state_dict() == {
        "seed": 3,
        "epoch": 0,
        "position": 0,
        "samples": 23,
        "batch_size": 4,
        "shuffle": True,
        "drop_last": False,
    }
    for i, _ in enumerate(loader):
        assert (loader.epoch, loader.position) == (0, i + 1)
    assert (loader.epoch, loader.position) == (1, 0)
    next(iter(loader))
    assert (loader.epoch, loader.position) == (1, 1)
    next(iter(loader))  # not resumed: a new epoch
    assert (loader.epoch, loader.position) == (2, 1)


def test_state_after_the_last_batch_leaves_an_empty_rest():
    loader = DataLoader(arrays(), 10, True, seed=3)
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    state = loader.state_dict()
    assert state["position"] == 3
    other = DataLoader(arrays(), 10, True)
    other.load_state_dict(state)
    assert list(other) == [] and other.epoch == 1


def test_loading_a_state_makes_an_open_iteration_let_go():
    loader = DataLoader(arrays(), 4, True, seed=3)
    old = iter(loader)
    next(old)
    state = {**loader.state_dict(), "epoch": 5, "position": 2}
    loader.load_state_dict(state)
    list(old)
    assert loader.state_dict() == state


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"batch_size": 5}, "expected state with batch_size 4, got 5. Build the loader as it was"),
        ({"samples": 22}, "expected state with samples 23, got 22"),
        ({"shuffle": False}, "expected state with shuffle True, got False"),
        ({"drop_last": True}, "expected state with drop_last False, got True"),
        ({"position": 7}, "expected position to be at most 6 batches, got 7"),
        ({"position": -1}, "expected position to be an integer >= 0, got -1"),
        ({"epoch": 1.5}, "expected epoch to be an integer >= 0, got 1.5"),
        ({"seed": None}, "expected seed to be an integer >= 0, got None"),
    ],
)
def test_wrong_state(change, text):
    loader = DataLoader(arrays(), 4, True, seed=3)
    before = loader.state_dict()
    with pytest.raises((TypeError, ValueError), match=f"DataLoader: {text}"):
        loader.load_state_dict({**before, **change})
    assert loader.state_dict() == before


def test_incomplete_state():
    loader = DataLoader(arrays(), 4)
    with pytest.raises(ValueError, match=r"DataLoader: expected state with \['batch_size', .*got keys \["):
        loader.load_state_dict({"position": 1, "seed": 0})


# ------------------------------------------------------------------------ errors and the thread


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("error", [KeyError, ZeroDivisionError, OSError, KeyboardInterrupt])
def test_exceptions_arrive_as_they_are_after_the_batches_before(prefetch, error):
    loader = DataLoader(Samples(12, bad=9, error=error), 2, prefetch=prefetch)
    seen = []
    with pytest.raises(error, match="sample is broken"):
        for _, y in loader:
            seen.append(y.tolist())
    assert seen == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert loader.position == 4


def test_transform_errors():
    def broken(x, rng):
        raise LookupError("transform is broken")

    for prefetch in (0, 2):
        with pytest.raises(LookupError, match="transform is broken"):
            list(DataLoader(arrays(), 4, prefetch=prefetch, transform=broken))
        loader = DataLoader(Samples(4), 2, prefetch=prefetch, collate_fn=lambda s: 0, transform=broken)
        with pytest.raises(TypeError, match="batches to be tuples of arrays for transform, got int"):
            list(loader)


def test_stop_iteration_does_not_end_an_epoch_silently():
    for prefetch in (0, 2):
        with pytest.raises(RuntimeError, match="StopIteration"):
            list(DataLoader(Samples(12, bad=9, error=StopIteration), 2, prefetch=prefetch))


def test_breaking_off_stops_the_thread():
    loader = DataLoader(arrays(), 2, prefetch=2, transform=add_noise)
    for _ in loader:
        assert len(threads()) == 1
        break
    gc.collect()
    assert not threads()
    with pytest.raises(ZeroDivisionError):
        for _ in loader:
            raise ZeroDivisionError
    gc.collect()
    assert not threads()


def test_an_abandoned_iterator_frees_thread_and_data():
    x = np.zeros((1000, 10))
    gone = weakref.ref(x)
    iterator = iter(DataLoader(x, 2, transform=add_noise))
    next(iterator)
    del x
    assert gone() is not None and threads()
    del iterator
    gc.collect()
    assert gone() is None and not threads()


def test_no_more_than_prefetch_batches_ahead():
    made = []

    def count(x, rng):
        made.append(len(made))
        return x

    reached = threading.Event()

    def count_and_tell(x, rng):
        count(x, rng)
        if len(made) == 4:
            reached.set()
        return x

    iterator = iter(DataLoader(arrays(), 2, prefetch=3, transform=count_and_tell))
    next(iterator)
    assert reached.wait(30)  # one handed out, three ahead
    iterator.close()
    assert len(made) == 4


def test_small_copies_need_no_thread(tmp_path):
    x, y = arrays()
    iterator = iter(DataLoader((x, y), 2))
    next(iterator)
    assert not threads()
    np.save(tmp_path / "x.npy", x)
    for dataset in (Samples(9), Subset(Samples(9), range(9)), np.load(tmp_path / "x.npy", "r")):
        iterator = iter(DataLoader(dataset, 2))
        next(iterator)
        assert len(threads()) == 1
        iterator.close()
    iterator = iter(DataLoader(np.zeros((8, 1 << 17)), 2))
    next(iterator)
    assert len(threads()) == 1
    iterator.close()


def run(code):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_interpreter_exit_with_an_open_iterator():
    result = run(
        "import numpy as np; from nnx.data import DataLoader\n"
        "it = iter(DataLoader(np.zeros((99, 4)), 2, transform=lambda x, rng: x))\n"
        "next(it); print('done')"
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


@pytest.mark.skipif(not hasattr(os, "kill") or sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_while_waiting_for_a_batch():
    result = run(
        "import os, signal, threading, time, numpy as np\n"
        "from nnx.data import DataLoader\n"
        "def slow(x, rng):\n"
        "    os.kill(os.getpid(), signal.SIGINT); time.sleep(1); return x\n"
        "try:\n"
        "    for _ in DataLoader(np.zeros((9, 4)), 2, transform=slow): print('a batch came')\n"
        "except KeyboardInterrupt:\n"
        "    left = [t.name for t in threading.enumerate() if t.name == 'nnx-data']\n"
        "    print('interrupted', left)"
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "interrupted []\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_an_iterator_does_not_hang_after_a_fork():
    result = run(
        "import os, warnings, numpy as np; from nnx.data import DataLoader\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "it = iter(DataLoader(np.zeros((99, 4)), 2, prefetch=1, transform=lambda x, rng: x))\n"
        "next(it)\n"
        "import time; time.sleep(0.2)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try:\n"
        "        for _ in it: pass\n"
        "    except RuntimeError as error:\n"
        "        os._exit(7 if 'does not survive a fork' in str(error) else 1)\n"
        "    os._exit(2)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])); it.close()"
    )
    assert (result.stdout, result.stderr) == ("7\n", "")


# ------------------------------------------------------------------------------------ arguments


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"batch_size": 0}, "expected batch_size to be an integer >= 1, got 0"),
        ({"batch_size": 2.0}, "expected batch_size to be an integer >= 1, got 2.0"),
        ({"prefetch": -1}, "expected prefetch to be an integer >= 0, got -1"),
        ({"seed": -1}, "expected seed to be an integer >= 0, got -1"),
        ({"seed": "a", "shuffle": True}, "expected seed to be an integer >= 0, got 'a'"),
        ({"seed": 1, "generator": np.random.default_rng(0)}, "seed or generator, got both"),
        ({"generator": np.random}, "generator to be a numpy.random.Generator, got module"),
        ({"transform": 3}, "expected transform to be callable, got 3"),
        ({"collate_fn": 3}, "expected collate_fn to be callable, got 3"),
        ({"num_workers": 4}, "expected no argument 'num_workers', got one. One thread prepares"),
        ({"sampler": []}, "expected no argument 'sampler', got one. Choose and order"),
        ({"shufle": True}, "expected no argument 'shufle', got one. There is no such argument"),
    ],
)
def test_argument_errors(arguments, text):
    with pytest.raises((TypeError, ValueError), match=f"DataLoader: .*{text}"):
        DataLoader(np.zeros(5), **arguments)


def test_dataset_errors():
    with pytest.raises(TypeError, match=r"dataset to be arrays or to have len\(\) and .* got int"):
        DataLoader(5)
    with pytest.raises(ValueError, match=r"ArrayDataset: expected arrays of equal length"):
        DataLoader((np.zeros(3), np.zeros(4)))


def test_repr():
    assert repr(DataLoader(np.zeros(5), 2, seed=1)) == (
        "DataLoader(ArrayDataset(float64 (5,)), batch_size=2, shuffle=False, drop_last=False, seed=1, prefetch=2)"
    )


# -- shares of several processes -------------------------------------------------------------------


def shares(ranks, build, epochs=1):
    """What each rank reads, batch by batch."""
    found = []
    for rank in range(ranks):
        loader = build().shard(rank, ranks)
        found.append([[x.tolist() for x, *_ in loader] for _ in range(epochs)])
    return found


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("n", [0, 1, 4, 23])
def test_shares_put_together_are_the_batches_of_one_process(ranks, n):
    def build():
        return DataLoader((np.arange(n), np.arange(n)), 7, shuffle=True, seed=3)

    found = shares(ranks, build, epochs=2)
    loader = build()
    for epoch in range(2):
        for step, (x, _) in enumerate(loader):
            parts = [found[rank][epoch][step] for rank in range(ranks)]
            assert sum(parts, []) == x.tolist()
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert all(len(found[rank][epoch]) == len(loader) for rank in range(ranks))


def test_a_state_is_the_same_place_for_any_number_of_ranks():
    def build():
        return DataLoader(np.arange(20), 6, shuffle=True, seed=3)

    whole = build()
    it = iter(whole)
    next(it), next(it)
    rest = [x.tolist() for (x,) in it]
    parts = []
    for rank in range(3):
        two = build().shard(0, 2)
        it = iter(two)
        next(it), next(it)
        three = build().shard(rank, 3)
        three.load_state_dict(two.state_dict())
        parts.append([x.tolist() for (x,) in three])
    assert [sum(step, []) for step in zip(*parts, strict=True)] == rest


def test_an_empty_share_has_the_types_of_the_others():
    x, y = np.zeros((3, 2, 2), np.float32), np.zeros(3, np.int16)

    def jitter(x, rng):
        return (x + rng.standard_normal(x.shape)).astype(np.float64)

    class Items:
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return x[i], y[i]

    for dataset in ((x, y), Items()):
        (a, b), *_ = DataLoader(dataset, 2, seed=0, transform=jitter).shard(0, 3)
        assert (a.shape, a.dtype, b.shape, b.dtype) == ((0, 2, 2), np.float64, (0,), np.int16)
    batch = next(iter(DataLoader(Items(), 2, collate_fn=lambda s: {"x": np.stack([v for v, _ in s])}).shard(0, 3)))
    assert batch["x"].shape == (0, 2, 2)


def test_ranks_augment_differently_and_one_rank_as_always():
    def noise(x, rng):
        return rng.standard_normal(len(x))

    def build():
        return DataLoader(np.zeros(8), 8, seed=0, transform=noise)

    whole, again = next(iter(build()))[0], next(iter(build().shard(0, 1)))[0]
    np.testing.assert_array_equal(whole, again)
    first, second = (next(iter(build().shard(rank, 2)))[0] for rank in (0, 1))
    assert not np.array_equal(first, second)


def test_arguments_of_shard():
    loader = DataLoader(np.arange(3))
    with pytest.raises(ValueError, match=r"DataLoader.shard: expected rank below ranks 2, got 2"):
        loader.shard(2, 2)
    with pytest.raises(ValueError, match=r"DataLoader.shard: expected ranks to be an integer >= 1, got 0"):
        loader.shard(0, 0)
    with pytest.raises(ValueError, match=r"DataLoader.shard: expected rank to be an integer >= 0, got -1"):
        loader.shard(-1, 2)
