"""The cache of large blocks: results own their memory, and what a user holds is never handed out again."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from nnx._ext import memory

BIG = (512, 512)


@pytest.fixture(autouse=True)
def _empty_cache():
    previous = memory.set_cache_limit(1 << 30)  # NNX_CACHE_LIMIT may have said something else
    memory.empty_cache()
    yield
    memory.empty_cache()
    memory.set_cache_limit(previous)


def address(a):
    return a.__array_interface__["data"][0]


def test_a_freed_block_is_used_again():
    first = memory.empty(BIG, np.float32)
    where = address(first)
    del first
    assert memory.cached_bytes() >= 512 * 512 * 4
    assert address(memory.empty(BIG, np.float32)) == where


def test_an_array_is_an_ordinary_one():
    a = memory.empty(BIG, np.float64)
    assert type(a) is np.ndarray and a.base is None and a.flags.owndata and a.flags.writeable
    a[...] = 3
    a.resize((600, 700), refcheck=False)
    assert (a.ravel()[: 512 * 512] == 3).all()


@pytest.mark.parametrize("keep", [lambda a: a[3:5, ::2], lambda a: a.T, np.from_dlpack, memoryview])
def test_a_view_keeps_its_block(keep):
    a = memory.empty(BIG, np.float32)
    a[...] = 7
    view = keep(a)
    del a
    gc.collect()
    others = [memory.empty(BIG, np.float32) for _ in range(3)]
    for other in others:
        other[...] = 0
    assert (np.asarray(view) == 7).all()


def test_empty_like_keeps_the_memory_order():
    a = np.empty((4, 50, 60, 20), np.float32).transpose(0, 3, 1, 2)
    b = memory.empty_like(a)
    assert b.strides == a.strides and b.shape == a.shape
    assert memory.empty_like(a, dtype=bool).dtype == bool
    assert memory.empty_like(a[:0]).shape == (0, 20, 50, 60)


def test_numpy_is_left_alone():
    """Only arrays made here come from the cache: the handler is not left in force."""
    from numpy._core.multiarray import get_handler_name

    assert get_handler_name(memory.empty(BIG, np.float32)) == "nnx"
    assert get_handler_name(np.empty(BIG, np.float32)) == "default_allocator"
    assert get_handler_name(memory.empty((3,), np.float32)) == "default_allocator"


def test_the_limit_holds_and_a_call_empties_the_cache():
    previous = memory.set_cache_limit(4 << 20)
    try:
        arrays = [memory.empty(BIG, np.float32) for _ in range(10)]
        del arrays
        assert 0 < memory.cached_bytes() <= 4 << 20
        assert memory.empty_cache() > 0
        assert memory.cached_bytes() == 0
        memory.set_cache_limit(0)
        a = memory.empty(BIG, np.float32)
        del a
        assert memory.cached_bytes() == 0
    finally:
        memory.set_cache_limit(previous)


@pytest.mark.parametrize(
    ("limit", "error"), [(-1, ValueError), (1 << 63, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_limit_errors(limit, error):
    with pytest.raises(error, match="set_cache_limit: expected limit to be an integer >= 0"):
        memory.set_cache_limit(limit)


def test_a_size_that_overflows_is_refused():
    with pytest.raises((MemoryError, ValueError)):
        memory.empty((1 << 40, 1 << 20), np.float64)


def test_threads_share_the_cache(rng):
    failures = []

    def work(seed):
        own = np.random.default_rng(seed)
        for _ in range(200):
            n = int(own.integers(100, 600))
            a = memory.empty((n, n), np.float32)
            a[...] = seed
            b = memory.empty_like(a)
            b[...] = -seed
            if not ((a == seed).all() and (b == -seed).all()):
                failures.append(seed)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures
