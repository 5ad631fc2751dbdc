"""`nnx.testing`: that its checks pass what is right and, above all, fail what is wrong."""

from __future__ import annotations

import re

import numpy as np
import pytest

import nnx
from nnx.autograd import Parameter, Tensor, as_tensor, record
from nnx.backends import Backend, backend_of
from nnx.nn.module import Module
from nnx.testing import (
    GradientError,
    assert_close,
    base_backend,
    eval_numerical_gradient,
    gradcheck,
    relative_error,
)

MODES = ("full", "direction")


# -- planted errors --------------------------------------------------------------------------------


def operation(forward, grad):
    """An operation of any number of inputs with this gradient function."""

    def call(*inputs):
        tensors = tuple(as_tensor(x) for x in inputs)
        arrays = [t.data for t in tensors]
        return record(forward(*arrays), grad, tensors, *arrays)

    return call


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _factor_two_grad(needs, gy, x):
    return (2 * gy * np.cos(x),)


def _wrong_sign_grad(needs, gy, x):
    return (-gy * np.cos(x),)


def _missing_term_grad(needs, gy, x):
    return (gy * softmax(x),)  # without - y * sum(gy * y)


def _transposed_grad(needs, gy, a, b):
    return gy @ b.T, (a.T @ gy).T


def _one_element_grad(needs, gy, x):
    g = gy * np.cos(x)
    g[1, 2] *= 1.001
    return (g,)


def _zero_grad(needs, gy, x):
    return (None,)


def _infinite_grad(needs, gy, x):
    return (np.full_like(gy, np.inf),)


def _nan_grad(needs, gy, x):
    return (np.full_like(gy, np.nan),)


PLANTED = {
    "factor two": (operation(np.sin, _factor_two_grad), ((4, 4),), "input 0", "factor 2"),
    "wrong sign": (operation(np.sin, _wrong_sign_grad), ((4, 4),), "input 0", "factor -1"),
    "missing term": (operation(softmax, _missing_term_grad), ((4, 4),), "input 0", ""),
    "transposed": (operation(np.matmul, _transposed_grad), ((4, 4), (4, 4)), "input 1", ""),
    "one element": (operation(np.sin, _one_element_grad), ((4, 4),), r"input 0 at \(1, 2\)", ""),
    "no gradient": (operation(np.sin, _zero_grad), ((4, 4),), "input 0", "factor 0"),
    "infinite": (operation(np.sin, _infinite_grad), ((4, 4),), "input 0", "got inf"),
    "nan": (operation(np.sin, _nan_grad), ((4, 4),), "input 0", "got nan"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PLANTED)
def test_wrong_gradient_is_found_and_named(name, mode, rng):
    function, shapes, place, hint = PLANTED[name]
    with pytest.raises(GradientError, match=place) as caught:
        gradcheck(function, tuple(rng.standard_normal(s) for s in shapes), mode=mode)
    if mode == "full":
        assert hint in str(caught.value)


class Product(Module):
    """``sin(x * a) * b`` where the gradient of `b`, or none, is wrong by a factor."""

    def __init__(self, factor):
        super().__init__()
        self.a = Parameter(np.array([0.3, -0.7, 1.1]))
        self.b = Parameter(np.array([2.0, 0.5, -1.5]))
        self.register_buffer("calls", np.zeros(1, np.int64))
        self.factor = factor

    def forward(self, x):
        self.calls[...] += 1
        y = (as_tensor(x) * self.a).sin()
        return record(y.data * self.b.data, _product_grad, (y, self.b), y.data, self.b.data, self)


def _product_grad(needs, gy, y, b, module):
    return gy * b, (gy * y * module.factor).sum(axis=0)


@pytest.mark.parametrize("mode", MODES)
def test_wrong_parameter_is_named(mode, rng):
    x = rng.standard_normal((4, 3))
    assert gradcheck(Product(1.0), x, mode=mode).checked == (12 + 3 + 3 if mode == "full" else 3)
    with pytest.raises(GradientError, match=r"gradient of b at \(\d,\) to be \S+ \(numeric\), got"):
        gradcheck(Product(1.01), x, mode=mode)


def test_message_has_both_values():
    with pytest.raises(GradientError) as caught:
        gradcheck(operation(np.sin, _factor_two_grad), np.array([0.0, 3.0]))
    assert str(caught.value) == (
        "gradcheck: expected the gradient of input 0 at (0,) to be 1 (numeric), got 2 (analytic); "
        "2 of 4 entries of its Jacobian are wrong, all by the factor 2"
    )


def _greedy_grad(needs, gy, x):
    gy *= np.cos(x)
    return (gy,)


def _unsteady_grad(needs, gy, x, state=[0]):  # noqa: B006 - the state is the point
    state[0] += 1
    return (gy * np.cos(x) * (1 + 1e-12 * state[0]),)


def _sin_grad(needs, gy, x):
    return (gy * np.cos(x),)


def overwrite(x):
    x *= 1.5
    return np.sin(x)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (operation(np.sin, _greedy_grad), "output's gradient to stay as it is"),
        (operation(np.sin, _unsteady_grad), "same bits when backward runs again"),
        (operation(overwrite, _sin_grad), "gradient of input 0|input 0 to stay as it is"),
    ],
    ids=("writes to gy", "unsteady", "writes to input"),
)
def test_side_effects_are_found(function, message, mode, rng):
    with pytest.raises(GradientError, match=message):
        gradcheck(function, rng.standard_normal((3, 2)), mode=mode)


def test_constant_input_that_is_written_to(rng):
    def function(x, index):
        index += 1
        return x * 2

    with pytest.raises(GradientError, match="input 1 to stay as it is"):
        gradcheck(function, (rng.standard_normal(3), np.zeros(2, np.int64)))


def test_own_random_numbers(rng):
    with pytest.raises(GradientError, match="equal results for equal inputs"):
        gradcheck(lambda x: x * rng.random(), rng.standard_normal(3))


def test_library_random_numbers_are_repeated(rng):
    before = nnx.manual_seed(3).bit_generator.state
    gradcheck(lambda x: x * nnx._random.generator().random(x.shape), rng.standard_normal(3))
    assert nnx._random.get_state() == before


# -- kinks -----------------------------------------------------------------------------------------


def _relu_grad(needs, gy, x):
    return (gy * (x > 0),)


relu = operation(lambda x: np.maximum(x, 0), _relu_grad)


def test_kink_is_left_out_and_reported():
    report = gradcheck(relu, np.array([[1.0, -2.0, 0.0], [3.0, 4.0, -1.0]]))
    assert report.kinks == [("input 0", (0, 2))]
    assert report.checked == 6


def test_kink_nearby_is_resolved_by_a_smaller_step():
    report = gradcheck(relu, np.array([1.0, 3e-7, -3e-7, 2.0]))
    assert report.kinks == []


def test_direction_steps_away_from_a_kink():
    report = gradcheck(relu, np.array([1.0, -2.0, 0.0, 3.0]), mode="direction")
    assert report.kinks == [("input 0", ())]
    assert report.checked > 1


def test_kinks_everywhere_are_no_pass():
    with pytest.raises(GradientError, match="got kinks at 3 of 4 elements of input 0"):
        gradcheck(relu, np.array([0.0, 0.0, 0.0, 1.0]))


def _wrong_relu_grad(needs, gy, x):
    return (gy * (x > 0) * 0.5,)


@pytest.mark.parametrize("mode", MODES)
def test_kinks_do_not_excuse_errors_elsewhere(mode):
    with pytest.raises(GradientError, match="input 0 at"):
        gradcheck(
            operation(lambda x: np.maximum(x, 0), _wrong_relu_grad),
            np.array([1.0, 0.0, 2.0, 3.0]),
            mode=mode,
        )


# -- what it takes, what it leaves -----------------------------------------------------------------


def test_several_inputs_and_outputs(rng):
    def function(x, index, flag, y):
        assert flag is None
        return x[index] * 3, (x.sum() * y).exp(), nnx.argmax(y)

    values = (rng.standard_normal((3, 2)), np.array([2, 0, 2]), None, rng.standard_normal(2))
    report = gradcheck(function, values)
    assert report.checked == 8
    assert 0 <= report.error <= 1


def test_wrt_leaves_the_others_alone(rng):
    function = operation(np.matmul, _transposed_grad)
    values = (rng.standard_normal((4, 4)), rng.standard_normal((4, 4)))
    assert gradcheck(function, values, wrt=(0,)).checked == 16
    with pytest.raises(ValueError, match=r"wrt to name float64 inputs \[0, 1\], got 2"):
        gradcheck(function, values, wrt=(2,))


@pytest.mark.parametrize("mode", MODES)
def test_module_is_put_back(mode, rng):
    module = Product(1.0)
    module.b.grad = np.full(3, 7.0)
    data, grad = module.a.data, module.b.grad
    gradcheck(module, rng.standard_normal((2, 3)), mode=mode)
    assert module.a.data is data and module.a.grad is None
    assert module.b.grad is grad and (grad == 7).all()
    assert module.calls == 0
    with pytest.raises(GradientError):
        gradcheck(Product(2.0), rng.standard_normal((2, 3)), mode=mode)
    assert module.a.data is data


def test_module_inside_a_function(rng):
    values = rng.standard_normal((2, 3))
    right, wrong = Product(1.0), Product(2.0)
    assert gradcheck(lambda x: right(x).sum(), values, module=right).checked == 6 + 3 + 3
    with pytest.raises(GradientError, match="gradient of b at"):
        gradcheck(lambda x: wrong(x).sum(), values, module=wrong)
    assert gradcheck(lambda x: wrong(x).sum(), values).checked == 6


def test_frozen_parameters_are_not_checked(rng):
    module = Product(2.0)
    module.b.requires_grad = False
    assert gradcheck(module, rng.standard_normal((2, 3))).checked == 6 + 3


def test_empty_input():
    assert gradcheck(lambda x: x * 2, np.zeros((0, 3))).checked == 0
    assert gradcheck(lambda x: x * 2, np.zeros((0, 3)), mode="direction").checked == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: gradcheck(lambda x: x, np.ones(2, np.float32)),
            TypeError,
            "inputs of dtype float64, got float32 for input 0",
        ),
        (
            lambda: gradcheck(lambda x: x.float(), np.ones(2)),
            TypeError,
            "results of dtype float64, got float32 in output 0",
        ),
        (
            lambda: gradcheck(lambda x: x.data, np.ones(2)),
            TypeError,
            "function to return Tensors, got ndarray",
        ),
        (
            lambda: gradcheck(Product(1.0).float(), np.ones((2, 3))),
            TypeError,
            "parameters of dtype float64, got float32 in 'a'. Call .double()",
        ),
        (
            lambda: gradcheck(lambda x: x, np.ones(2, np.int64)),
            ValueError,
            "an input or parameter to check, got none",
        ),
        (
            lambda: gradcheck(lambda x: x / 0, np.ones(2)),
            ValueError,
            "finite results, got NaN or infinity",
        ),
        (
            lambda: gradcheck(lambda x: x, np.ones(2), mode="quick"),
            ValueError,
            "mode to be one of 'full', 'direction', got 'quick'",
        ),
        (
            lambda: gradcheck(lambda x: x, np.ones(2), eps=0),
            ValueError,
            "eps to be a number in (0, inf), got 0",
        ),
    ],
)
def test_misuse(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


# -- assert_close ----------------------------------------------------------------------------------


def test_assert_close_accepts():
    x = np.array([1.0, -1000.0, np.nan, np.inf, -np.inf])
    assert_close(x + np.array([0, 5e-8, 0, 0, 0]), x)
    assert_close(Tensor(x), Tensor(x.copy()))
    assert_close(np.float32([1, 2]), np.float32([1, 2.00001]))
    assert_close(np.zeros((0, 3)), np.zeros((0, 3)))
    assert_close(np.array([True, False]), np.array([True, False]))
    assert_close(np.array([3, 4]), np.array([3, 4]))


@pytest.mark.parametrize(
    ("actual", "expected", "message"),
    [
        (np.ones(2), np.ones(3), "result of shape (3,), got (2,)"),
        (np.ones(2, np.float32), np.ones(2), "result of dtype float64, got float32"),
        (np.array([1.0, np.nan]), np.array([1.0, 2.0]), "result at (1,)"),
        (np.array([1.0, 2.0]), np.array([1.0, np.nan]), "result at (1,)"),
        (np.array([1.0, np.inf]), np.array([1.0, -np.inf]), "result at (1,)"),
        (np.array([1e300, 1.0]), np.array([np.inf, 1.0]), "result at (0,)"),
        (np.array([[1.0, 2.0], [3.0, 4.1]]), np.array([[1.0, 2.0], [3.1, 4.0]]), "2 of 4 elements"),
        (np.array([3, 4]), np.array([3, 5]), "result at (1,)"),
        (np.array([True]), np.array([False]), "result at (0,)"),
    ],
)
def test_assert_close_refuses(actual, expected, message):
    with pytest.raises(AssertionError, match=re.escape(message)):
        assert_close(actual, expected)


# -- base_backend ----------------------------------------------------------------------------------


def test_base_backend_is_in_force_inside_the_block_only():
    x = np.ones(3)
    outside = backend_of(x)
    with base_backend():
        assert type(backend_of(x)) is Backend
        assert type(backend_of(np.float64(1))) is Backend
    assert backend_of(x) is outside
    with pytest.raises(KeyError), base_backend():
        raise KeyError
    assert backend_of(x) is outside


# -- eval_numerical_gradient and relative_error ----------------------------------------------------


def test_forward_and_centred_differences():
    x = np.array([1.0, -2.0])
    forward = eval_numerical_gradient(lambda v: (v**3).sum(), x, 1e-3)
    centred = eval_numerical_gradient(lambda v: (v**3).sum(), x, 1e-3, centered=True)
    # the errors of x^3: 3 x h + h^2, and h^2 alone; rounding is 1e-15 / 1e-3
    np.testing.assert_allclose(forward - 3 * x**2, 3 * x * 1e-3 + 1e-6, atol=1e-11)
    np.testing.assert_allclose(centred - 3 * x**2, 1e-6, atol=1e-11)


def test_numerical_gradient_takes_any_array_and_changes_none():
    x = np.arange(6).reshape(2, 3).T
    x.flags.writeable = False
    grad = eval_numerical_gradient(lambda v: nnx.tensor(v).square().sum(), x)  # integers: a step of 1e-5 is not lost
    assert grad.dtype == np.float64
    np.testing.assert_allclose(grad, 2 * x, atol=1e-4)
    assert eval_numerical_gradient(lambda v: 3.0, np.zeros((0, 2))).shape == (0, 2)
    assert eval_numerical_gradient(lambda v: 3 * v, 2.0) == pytest.approx(3)
    assert eval_numerical_gradient(lambda v: 3 * v.sum(), nnx.tensor(np.ones(2, np.float32))).dtype == np.float64


def test_numerical_gradient_walks_in_memory_order():
    seen = []

    def f(v):
        seen.append(tuple(int(i) for i in np.argwhere(v != 0)[0]) if v.any() else ())
        return 0.0

    eval_numerical_gradient(f, np.zeros((2, 2), order="F"))
    assert seen == [(), (0, 0), (1, 0), (0, 1), (1, 1)]


def test_numerical_gradient_errors():
    with pytest.raises(ValueError, match=r"eval_numerical_gradient: expected f to return one number, got shape \(2,\)"):
        eval_numerical_gradient(lambda v: v, np.ones(2))
    with pytest.raises(ValueError, match="eval_numerical_gradient: expected h"):
        eval_numerical_gradient(np.sum, np.ones(2), h=0)


def test_relative_error():
    assert relative_error(np.zeros(3), np.zeros(3)) == relative_error([], []) == 0
    assert relative_error([1.0], [-1.0]) == 2
    assert relative_error(nnx.tensor([1.0, 100.0]), np.array([2.0, 100.0])) == 0.01
    assert np.isnan(relative_error([np.nan], [1.0]))
    with pytest.raises(ValueError, match=r"relative_error: expected two arrays of one shape, got \(1,\) and \(2,\)"):
        relative_error([1.0], [1.0, 2.0])
