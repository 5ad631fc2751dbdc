"""`jacobian` against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx.graph import jacobian

torch = pytest.importorskip("torch")


def test_jacobians_equal_pytorch(rng):
    w, x = rng.standard_normal((4, 3)), rng.standard_normal((2, 3))
    ours = jacobian(lambda t: nnx.functional.softmax(nnx.tanh(t @ nnx.tensor(w.T)), dim=1), x)
    theirs = torch.autograd.functional.jacobian(
        lambda t: torch.softmax(torch.tanh(t @ torch.tensor(w.T)), dim=1), torch.tensor(x)
    ).numpy()
    assert ours.shape == theirs.shape == (2, 4, 2, 3)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
