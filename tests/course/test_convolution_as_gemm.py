"""Loops, columns and kernels compute one convolution; a 1x1 convolution is a product."""

from __future__ import annotations

import numpy as np
import pytest

import nnx.functional as F
from nnx.backends import Backend
from nnx.backends.cpu import CPUBackend
from nnx.course.convolution_as_gemm import by_columns, naive, pointwise, run
from nnx.testing import base_backend

RNG = np.random.default_rng(0)


def test_F146_a_1x1_convolution_is_a_matrix_product():
    x, w = RNG.standard_normal((2, 64, 7, 6)), RNG.standard_normal((32, 64))
    y = F.conv2d(x, w[:, :, None, None]).data
    assert y.shape == (2, 32, 7, 6)
    np.testing.assert_allclose(y, np.einsum("kc,nchw->nkhw", w, x), atol=1e-11)
    np.testing.assert_allclose(pointwise(x, w), y, atol=1e-11)


@pytest.mark.parametrize("base", [False, True])
def test_F146_a_1x1_convolution_copies_no_columns(base, monkeypatch):
    x, w = RNG.standard_normal((1, 64, 7, 6)).astype(np.float32), RNG.standard_normal((32, 64, 1, 1)).astype(np.float32)
    expected = F.conv2d(x, w).data

    def copies(self, x, *rest, _original=Backend.im2col):
        columns = _original(self, x, *rest)
        assert np.shares_memory(columns, x), "the columns were copied"
        return columns

    for backend in (Backend, CPUBackend):
        monkeypatch.setattr(backend, "im2col", copies)
    if base:
        with base_backend():
            np.testing.assert_allclose(F.conv2d(x, w).data, expected, atol=1e-4)  # other order of 64 products
    else:
        np.testing.assert_array_equal(F.conv2d(x, w).data, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_F155_loops_columns_and_kernel_agree(dtype):
    x, w = RNG.standard_normal((2, 3, 6, 7)).astype(dtype), RNG.standard_normal((4, 3, 3, 2)).astype(dtype)
    expected = naive(x.astype(np.float64), w.astype(np.float64))
    tolerance = (1e-5 if dtype == np.float32 else 1e-12) * np.abs(expected).max()
    np.testing.assert_allclose(F.conv2d(x, w).data, expected, atol=tolerance)
    np.testing.assert_allclose(by_columns(x, w), expected, atol=tolerance)


def test_F155_the_topic_times_three_ways():
    result = run(small=True)
    assert set(result["seconds"]) == {"loops", "columns", "conv2d"}
    assert max(result["difference"].values()) < 1e-5
    assert result["columns"] == 2 * 36 * 3 * 9 and result["image"] == 2 * 3 * 64
