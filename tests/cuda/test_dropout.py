"""The kernels of dropout, run by the emulator: random numbers against published ones, masks against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import functional as F
from nnx import nn
from nnx.backends.base import Backend

BASE = Backend()
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)


@pytest.fixture
def be(cuda):
    from nnx.backends.cuda import CUDABackend

    return CUDABackend()


def philox(counter, key):
    """Philox-4x32-10 in plain integers: Salmon et al. (2011)."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k0, p1 & 0xFFFFFFFF, p0 >> 32 ^ c[3] ^ k1, p0 & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def test_the_published_numbers():
    """The known answers of the authors' library, Random123."""
    ones, pi = 0xFFFFFFFF, (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0)
    assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox([ones] * 4, [ones] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    assert philox(pi[:4], pi[4:]) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def words(n, key):
    return np.array([philox([i & 0xFFFFFFFF, i >> 32, 0, 0], [key & 0xFFFFFFFF, key >> 32]) for i in range(-(-n // 4))])


@pytest.mark.parametrize("n", [1, 4, 6, 1027])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9999])
def test_a_mask_is_the_stream_of_its_key(cuda, be, n, p):
    nnx.manual_seed(3)
    keep = be.draw_mask((n,), p)
    nnx.manual_seed(3)
    key = int(nnx._random.generator().integers(2**53))
    assert keep.dtype == bool
    assert (keep.get() == (words(n, key).reshape(-1)[:n] >= round(p * 2**32))).all()


def test_more_numbers_than_threads(cuda, be, monkeypatch, rng):
    """As for more than a million numbers: every thread takes several."""
    from nnx.backends.cuda import dropout

    monkeypatch.setattr(dropout, "blocks_for", lambda n: 1)
    monkeypatch.setattr(dropout, "_MOST_SAMPLES", 2)
    test_a_mask_is_the_stream_of_its_key(cuda, be, 1027, 0.5)
    test_masks_are_applied(cuda, be, np.float32, rng)
    test_masks_of_channels(cuda, be, (5, 3, 200), np.float32, rng)


def test_the_first_word_of_key_0(cuda, be, monkeypatch):
    """Thresholds on both sides of the published numbers."""
    from nnx.backends.cuda import dropout

    monkeypatch.setattr(dropout, "_new_key", lambda: 0)
    published = np.array([0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8])
    for word in published:
        for nearby in (word, word + 1):
            monkeypatch.setattr(dropout, "threshold", lambda p, n=nearby: int(n))
            assert (be.draw_mask((4,), 0.5).get() == (published >= nearby)).all()


def test_all_and_nothing(cuda, be):
    assert not be.draw_mask((3, 2), 1.0).get().any()
    assert be.draw_mask((0, 2), 0.5).shape == (0, 2)
    for name in ("dropout", "alpha_dropout", "plain_dropout"):
        assert getattr(F, name)(cuda.zeros((0, 2), np.float32), 0.5, True).shape == (0, 2)


@each_dtype
def test_masks_are_applied(cuda, be, dtype, rng):
    for shape in ((1,), (257,), (3, 5, 7)):
        x = rng.standard_normal(shape).astype(dtype)
        x.flat[0] = np.nan
        keep = rng.random(shape) < 0.5
        keep.flat[0] = False
        expected = BASE.dropout(x, keep, 1.7)
        turned = cuda.asarray(np.ascontiguousarray(x.T)).T
        wide = cuda.zeros((*shape, 2), dtype)
        wide[..., 0] = cuda.asarray(x)
        for xd in (cuda.asarray(x), turned, wide[..., 0]):
            kept = cuda.asarray(np.ascontiguousarray(keep.T)).T
            for method in (be.dropout, be.dropout_backward):
                assert method(xd, kept, 1.7).get().tobytes() == expected.tobytes()


def test_a_mask_in_the_same_order_is_not_copied(cuda, be, monkeypatch):
    from nnx.backends.cuda import dropout

    monkeypatch.setattr(dropout, "like", None)
    keep = cuda.asarray(np.array([[True, False]]))
    assert be.dropout(cuda.ones((1, 2), np.float32), keep, 2.0).get().tolist() == [[2, 0]]


def test_masks_that_have_no_kernel(cuda, be, rng):
    x, keep = rng.standard_normal((4, 3)).astype(np.float32), rng.random((4, 3)) < 0.5
    for mask in (keep[:, :1], keep[:1], keep.astype(np.uint8)):
        got = be.dropout(cuda.asarray(x), cuda.asarray(mask), 2.0)
        assert got.get().tobytes() == BASE.dropout(x, mask, 2.0).tobytes()
    got = be.dropout(cuda.asarray(x).astype(np.float16), cuda.asarray(keep), 2.0)
    assert got.get().tobytes() == BASE.dropout(x.astype(np.float16), keep, 2.0).tobytes()


@each_dtype
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5), (3, 2, 2, 3, 2), (1, 1, 300)], ids=str)
def test_masks_of_channels(cuda, be, shape, dtype, rng):
    x = rng.standard_normal(shape).astype(dtype)
    keep = rng.random(shape[:2] + (1,) * (len(shape) - 2)) < 0.5
    expected = BASE.dropout(x, keep, 2.5)
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    for xd in (cuda.asarray(x), nnx._device.move(last, "cuda:0")):
        y = be.dropout(xd, cuda.asarray(keep), 2.5)
        assert y.get().tobytes() == expected.tobytes()
        assert y.transpose(0, *range(2, y.ndim), 1).flags.c_contiguous, "channels-last in memory"


def test_mean_and_variance(cuda):
    nnx.manual_seed(0)
    n, p = 200_000, 0.3
    y = F.dropout(cuda.ones(n, np.float32), p).numpy()
    # four standard deviations of the mean of n draws, and of their covariance with the neighbour
    assert abs(y.mean() - 1) < 4 * np.sqrt(p / (1 - p) / n)
    d = (y > 0) - (1 - p)
    assert abs(np.mean(d * d) - p * (1 - p)) < 4 * p * (1 - p) / np.sqrt(n)
    for lag in (1, 2, 3, 4):
        assert abs(np.mean(d[lag:] * d[:-lag])) < 4 * p * (1 - p) / np.sqrt(n)


def test_the_seed_decides(cuda):
    x = cuda.ones((40, 30), np.float32)
    turned = cuda.ones((30, 40), np.float32).T
    results = []
    for seed, a in ((1, x), (1, turned), (2, x)):
        nnx.manual_seed(seed)
        results.append([F.dropout(a, 0.5).numpy() for _ in range(2)])
    (first, second), again, other = results
    assert (first != second).any() and (first != other[0]).any()
    assert (first == again[0]).all() and (second == again[1]).all()


def test_a_generator_of_ones_own_is_the_same_everywhere(cuda, rng):
    x = rng.standard_normal((5, 7)).astype(np.float32)
    for name in ("dropout", "alpha_dropout", "plain_dropout"):
        here, there = (
            getattr(F, name)(a, 0.4, True, generator=np.random.default_rng(7)).numpy() for a in (x, cuda.asarray(x))
        )
        np.testing.assert_allclose(here, there, 1e-6)


def test_layers(cuda, rng):
    x = cuda.asarray(rng.standard_normal((4, 6, 5, 5)).astype(np.float32))
    nnx.manual_seed(0)
    for layer in (nn.Dropout(0.5), nn.Dropout2d(0.5), nn.AlphaDropout(0.5), nn.PlainDropout(0.5)):
        t = nnx.Tensor(x, requires_grad=True)
        y = layer(t)
        y.sum().backward()
        kept = t.grad.get() != 0
        assert y.device == "cuda:0" and 0 < kept.mean() < 1
        if not isinstance(layer, nn.AlphaDropout):
            assert (y.numpy()[~kept] == 0).all()
    layer = nn.AlternatingDropout().to("cuda")
    ones = cuda.ones((2, 6), np.float32)
    assert (layer(ones) + layer(ones)).tolist() == [[1.0] * 6] * 2


def test_a_replayed_graph_draws_what_the_step_would_draw(cuda):
    from nnx.backends.cuda._capture import capturing

    x = cuda.ones((50,), np.float32)
    nnx.manual_seed(5)
    expected = [(F.dropout(x, 0.5) * F.dropout(x, 0.2)).numpy() for _ in range(4)]
    nnx.manual_seed(5)
    pool, stream = cuda.cuda.MemoryPool(), cuda.cuda.Stream()
    with stream, cuda.cuda.using_allocator(pool.malloc), capturing() as numbers:
        stream.begin_capture()
        y = F.dropout(x, 0.5) * F.dropout(x, 0.2)
        graph = stream.end_capture()
    for e in expected:
        numbers.before_launch()
        graph.launch()
        assert (y.numpy() == e).all()
    with (
        capturing(),
        pytest.raises(RuntimeError, match=r"cuda\.graph: expected dropout with the library's random stream"),
    ):
        F.dropout(x, 0.5, generator=np.random.default_rng(0))
