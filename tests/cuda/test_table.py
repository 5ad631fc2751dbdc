"""The operation table on a CUDA device, or on the stand-in where there is none: the same values and gradients.

On the stand-in, the Python half runs as on a device and the kernels run in the emulator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnx
from cases import CASES
from cases._run import cast, compare, cotangent, run

DTYPES = (np.float32, np.float64)

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


@pytest.fixture(params=["stand-in", "GPU"])
def device(request):
    """CuPy on a real device, or the stand-in; each is named in the test's id, and what is not there is skipped."""
    if request.param == "stand-in":
        return request.getfixturevalue("cuda")
    if not nnx.cuda.is_available():
        pytest.skip("needs CuPy and a CUDA device: nothing was run on a GPU")
    import cupy

    return cupy


def moved(cupy: Any, value: Any) -> Any:
    return cupy.asarray(value) if isinstance(value, np.ndarray) else value


def run_there(cupy: Any, case: Any, values: tuple) -> tuple[list, list]:
    """As `cases._run.run`, with every array on the device."""
    args = [moved(cupy, v) for v in values]
    before = [a.get() if isinstance(v, np.ndarray) else None for a, v in zip(args, values, strict=True)]
    plain = list(args)
    leaves = []
    for i in case.grad:
        args[i] = nnx.Tensor(args[i], requires_grad=True)
        leaves.append(args[i])
    result = case.function(*args, **case.kwargs)
    outputs = list(result) if isinstance(result, (tuple, list)) else [result]
    for i, y in enumerate(outputs):
        assert isinstance(y, nnx.Tensor) and y.device.startswith("cuda"), "the result is not on the device"
        if y.requires_grad:
            y.backward(cupy.asarray(cotangent(i, y.shape, y.dtype)), retain_graph=True)
    for a, bits in zip(plain, before, strict=True):
        assert bits is None or a.get().tobytes() == bits.tobytes(), "an input was written to"
    grads = [np.zeros(t.shape, t.dtype) if t.grad is None else t.grad.get() for t in leaves]
    return [y.numpy() for y in outputs], grads


@each_case
@each_dtype
def test_agrees_with_the_cpu(case, dtype, device, rng):
    values = cast(case.inputs(rng), dtype)
    expected = run(case, values)
    compare(run_there(device, case, values), expected, case.rtol32 if dtype == np.float32 else case.rtol64)
