"""Linear and Bilinear beside PyTorch's: the same weights, results and gradients."""

from __future__ import annotations

import numpy as np
import pytest

from nnx import nn
from nnx.autograd import Tensor

torch = pytest.importorskip("torch")

# relative to the largest value: a few roundings of sums of up to 30 products
RTOL = {np.float32: 1e-5, np.float64: 1e-12}


def close(a, b, dtype):
    b = b.detach().numpy()
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=0, atol=RTOL[dtype] * max(np.abs(b).max(initial=0), 1))


def compare(ours, theirs, shapes, dtype, rng):
    ours.load_state_dict({name: t.numpy() for name, t in theirs.state_dict().items()})
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    xo = [Tensor(a, requires_grad=True) for a in arrays]
    xt = [torch.tensor(a, requires_grad=True) for a in arrays]
    yo, yt = ours(*xo), theirs(*xt)
    gy = rng.standard_normal(yo.shape).astype(dtype)
    yo.backward(gy)
    yt.backward(torch.from_numpy(gy))
    close(yo.data, yt, dtype)
    for a, b in zip([*xo, *ours.parameters()], [*xt, *theirs.parameters()], strict=True):
        close(a.grad, b.grad, dtype)


def torch_type(dtype):
    return torch.float32 if dtype == np.float32 else torch.float64


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 30), (30,), (2, 3, 4, 30), (0, 30)])
def test_linear(shape, bias, dtype, rng):
    ours, theirs = nn.Linear(30, 7, bias, dtype=dtype), torch.nn.Linear(30, 7, bias, dtype=torch_type(dtype))
    compare(ours, theirs, [shape], dtype, rng)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(5,), (2, 3)])
def test_bilinear(lead, bias, dtype, rng):
    ours = nn.Bilinear(3, 4, 2, bias, dtype=dtype)
    theirs = torch.nn.Bilinear(3, 4, 2, bias, dtype=torch_type(dtype))
    compare(ours, theirs, [(*lead, 3), (*lead, 4)], dtype, rng)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda m: m.Flatten(), (2, 3, 4, 5)),
        (lambda m: m.Flatten(0, 1), (2, 3, 4)),
        (lambda m: m.Flatten(-2), (2, 3, 4)),
        (lambda m: m.Unflatten(1, (2, 3)), (4, 6)),
        (lambda m: m.Unflatten(-1, (2, -1)), (4, 6)),
        (lambda m: m.Identity(), (4, 6)),
    ],
)
def test_reshaping(make, shape, rng):
    compare(make(nn), make(torch.nn), [shape], np.float64, rng)
