"""The options that change an embedding's gradient, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import nnx.functional as F
from nnx.autograd import Tensor

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "options", [{}, {"padding_idx": 2}, {"padding_idx": -1}, {"scale_grad_by_freq": True, "padding_idx": 0}]
)
def test_gradient(options, dtype, rng):
    index = rng.integers(0, 6, (7, 3))
    weight, gy = rng.standard_normal((6, 4)).astype(dtype), rng.standard_normal((7, 3, 4)).astype(dtype)
    ours = Tensor(weight, requires_grad=True)
    theirs = torch.tensor(weight, requires_grad=True)
    y = F.embedding(index, ours, **options)
    t = torch.nn.functional.embedding(torch.from_numpy(index), theirs, **options)
    y.backward(gy)
    t.backward(torch.from_numpy(gy))
    np.testing.assert_array_equal(y.data, t.detach().numpy())
    # a handful of additions, perhaps in another order
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-5 if dtype == np.float32 else 1e-12, atol=1e-6)
