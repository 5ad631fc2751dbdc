"""The checks of `test_cases.py` fail where they should: each is shown an operation with one fault."""

from __future__ import annotations

import numpy as np
import pytest
import test_cases as harness

import nnx
from cases._case import Case, normal
from nnx.autograd import as_tensor, record
from nnx.backends import Backend, backend_of
from nnx.testing import GradientError


def faulty(forward, grad, torch="planted") -> Case:
    def function(x):
        x = as_tensor(x)
        return record(forward(x.data), grad, (x,), x.data)

    return Case("planted", function, normal((4, 3)), torch)


def _sin_grad(needs, gy, x):
    return (gy * np.cos(x),)


def _whole_grad(needs, gy, x):
    return (np.zeros_like(x),)


def _half_grad(needs, gy, x):
    return (gy * np.cos(x) / 2,)


def _saved_grad(needs, gy, x):
    return (x,)


def _writing_grad(needs, gy, x):
    x += 1
    return (gy,)


def in_memory_order(x):
    return np.sin(x.ravel(order="K").reshape(x.shape))


def other_than_base(x):
    return np.sin(x) * (1 if type(backend_of(x)) is Backend else 1.001)


def by_threads(x):
    return np.sin(x) + 1e-15 * nnx.get_num_threads()


def double_precision(x):
    return np.sin(x.astype(np.float64))


def swapped(x):
    return np.sin(x).astype(x.dtype.newbyteorder())


def clean(x):
    return np.nan_to_num(np.sin(x))


def at_least_one_row(x):
    return np.sin(x) if len(x) else np.zeros((1, 3), x.dtype)


def inplace(x):
    return np.sin(x, out=x)


def constant(rng):
    return (np.ones((4, 3)),)


@pytest.fixture
def torch_sin():
    return pytest.importorskip("torch").sin


def test_a_right_operation_passes(rng, every_kernel_threaded):
    case = faulty(np.sin, _sin_grad)
    harness.test_agrees_with_base_backend(case, np.float32, rng)
    harness.test_gradient(case, rng)
    harness.test_float32(case, rng)
    for layout in harness.LAYOUTS:
        harness.test_memory_layout(case, np.float64, layout, rng)
    harness.test_broadcast_input(case, 0, rng)
    harness.test_swapped_byte_order(case, np.float32, rng)
    harness.test_empty_batch(case, np.float32, rng)
    harness.test_nonfinite(case, np.float32, np.nan, rng)
    harness.test_same_bits_for_any_number_of_threads(case, np.float32, None, rng)
    harness.test_tape_rules(case, rng)


def test_wrong_value(rng, torch_sin):
    with pytest.raises(AssertionError, match="output 0"):
        harness.test_agrees_with_base_backend(faulty(other_than_base, _sin_grad), np.float32, rng)
    with pytest.raises(AssertionError, match="output 0"):
        harness.test_agrees_with_torch(faulty(other_than_base, _sin_grad, torch_sin), rng)


def test_wrong_gradient(rng, torch_sin):
    case = faulty(np.sin, _half_grad, torch_sin)
    with pytest.raises(GradientError, match="factor 0.5"):
        harness.test_gradient(case, rng)
    with pytest.raises(AssertionError, match="gradient 0"):
        harness.test_agrees_with_torch(case, rng)


def test_wrong_type(rng):
    with pytest.raises(AssertionError):
        harness.test_float32(faulty(double_precision, _sin_grad), rng)
    with pytest.raises(AssertionError):
        harness.test_swapped_byte_order(faulty(swapped, _sin_grad), np.float32, rng)


def test_memory_order(rng):
    with pytest.raises(AssertionError, match="output 0"):
        harness.test_memory_layout(faulty(in_memory_order, _sin_grad), np.float32, harness.fortran, rng)


def test_input_written_to(rng):
    case = faulty(inplace, _sin_grad)
    with pytest.raises(AssertionError, match="an input was written to"):
        harness.test_agrees_with_base_backend(case, np.float32, rng)
    with pytest.raises(ValueError, match="read-only"):
        harness.test_memory_layout(case, np.float32, harness.readonly, rng)


def test_empty_batch(rng):
    case = faulty(at_least_one_row, _whole_grad)
    with base_is_right(case), pytest.raises(AssertionError, match=r"of shape \(0, 3\), got \(1, 3\)"):
        harness.test_empty_batch(case, np.float32, rng)


def test_swallowed_nan(rng, torch_sin):
    case = faulty(clean, _sin_grad, torch_sin)
    with base_is_right(case), pytest.raises(AssertionError, match="to be .*nan"):
        harness.test_nonfinite(case, np.float32, np.nan, rng)
    with pytest.raises(AssertionError):
        harness.test_nan_is_passed_on(case, rng)


def test_threads(rng):
    with pytest.raises(AssertionError, match="2 threads give other bits than 1"):
        harness.test_same_bits_for_any_number_of_threads(faulty(by_threads, _sin_grad), np.float64, None, rng)


def test_tape_rules(rng):
    with pytest.raises(AssertionError, match="returned a saved array"):
        harness.test_tape_rules(faulty(np.sin, _saved_grad), rng)
    with pytest.raises(AssertionError, match="was written to"):
        harness.test_tape_rules(faulty(np.copy, _writing_grad), rng)


def _eager_grad(needs, gy, a, b):
    return gy * b, gy * a


def test_needless_gradient(rng):
    def function(a, b):
        a, b = as_tensor(a), as_tensor(b)
        return record(a.data * b.data, _eager_grad, (a, b), a.data, b.data)

    case = Case("planted", function, normal((4, 3), (4, 3)), "planted", grad=(0, 1))
    with pytest.raises(AssertionError, match="a gradient was computed that nobody needs"):
        harness.test_tape_rules(case, rng)


def test_constant_draw(rng):
    with pytest.raises(AssertionError):
        harness.test_draws_vary(Case("planted", nnx.sin, constant, "planted"), rng)


def test_tolerance_needs_a_reason():
    with pytest.raises(ValueError, match="Case x: expected a reason for the tolerance"):
        Case("x", nnx.sin, normal((3,)), "planted", rtol32=1e-3)
    with pytest.raises(ValueError, match="Case x: expected a reason why PyTorch has no counterpart"):
        Case("x", nnx.sin, normal((3,)), "")


def test_every_kernel_threaded(every_kernel_threaded):
    from nnx.backends.cpu import gemm

    nnx.set_num_threads(3)
    assert gemm.threads_for(1) == 3


class base_is_right:
    """Inside, the faulty `case` computes the plain sine when the base backend is in force."""

    def __init__(self, case: Case) -> None:
        self.case, self.function = case, case.function

    def __enter__(self) -> None:
        def function(x):
            on_base = type(backend_of(np.zeros(1))) is Backend
            return nnx.sin(x) if on_base else self.function(x)

        object.__setattr__(self.case, "function", function)

    def __exit__(self, *exc: object) -> None:
        object.__setattr__(self.case, "function", self.function)
