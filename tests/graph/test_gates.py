"""Gates: values, gradients against differences, and the class form of the course documents."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import graph
from nnx.testing import eval_numerical_gradient

PAIRS = [graph.AddGate, graph.MultiplyGate, graph.MaxGate, lambda: graph.OperationGate(nnx.maximum)]
SINGLES = [
    lambda: graph.AddConstantGate(2.5),
    lambda: graph.MultiplyConstantGate(-3.0),
    graph.ExpGate,
    graph.ReciprocalGate,
    graph.SigmoidGate,
    graph.TanhGate,
    graph.ReLUGate,
    lambda: graph.OperationGate(nnx.functional.softplus),
]


def numeric(make, inputs, dz, which):
    """The gradient of ``sum(dz z)`` with respect to input number `which`, by centred differences."""

    def f(v):
        values = list(inputs)
        values[which] = v
        return np.sum(dz * make().forward(*values))

    return eval_numerical_gradient(f, inputs[which], 1e-6, centered=True)


@pytest.mark.parametrize("make", PAIRS + SINGLES)
def test_gradients_equal_differences(make, rng):
    inputs = [rng.uniform(0.2, 2, (3, 4)) * rng.choice([-1, 1], (3, 4)) for _ in range(2 if make in PAIRS else 1)]
    gate = make()
    z = gate.forward(*inputs)
    dz = rng.standard_normal(z.shape)
    grads = gate.backward(dz)
    assert isinstance(grads, list) and len(grads) == len(inputs)
    for i, grad in enumerate(grads):
        # centred differences with h = 1e-6: rounding 1e-16 / 1e-6, and curvature far below it
        np.testing.assert_allclose(grad, numeric(make, inputs, dz, i), rtol=1e-7, atol=1e-8)


def test_matmul_gate(rng):
    inputs = [rng.standard_normal((3, 4)), rng.standard_normal((4, 2))]
    gate = graph.MatMulGate()
    dz = rng.standard_normal(gate.forward(*inputs).shape)
    for i, grad in enumerate(gate.backward(dz)):
        np.testing.assert_allclose(grad, numeric(graph.MatMulGate, inputs, dz, i), rtol=1e-7, atol=1e-8)
    with pytest.raises(ValueError, match=r"MatMulGate: expected two matrices, got shapes \(3,\) and \(3, 4\)"):
        gate.forward(np.ones(3), np.ones((3, 4)))


def test_the_comparison_sees_a_wrong_gate(rng):
    class Wrong(graph.MultiplyGate):
        def backward(self, dz):
            return [self.x * dz, self.y * dz]

    inputs = [rng.standard_normal(4), rng.standard_normal(4)]
    gate = Wrong()
    gate.forward(*inputs)
    assert np.abs(gate.backward(1.0)[0] - numeric(Wrong, inputs, 1.0, 0)).max() > 0.1


def test_numbers_in_numbers_out():
    gate = graph.MaxGate()
    assert gate.forward(3, 5) == 5 and gate.backward(2) == [0, 2]
    assert gate.forward(5, 5) == 5 and gate.backward(2) == [2, 0]
    assert np.ndim(graph.SigmoidGate().forward(1.0)) == 0


@pytest.mark.parametrize("x", [1e4, -1e4])
def test_the_sigmoid_gate_does_not_overflow(x):
    gate = graph.SigmoidGate()
    assert gate.forward(x) == (x > 0)
    assert gate.backward(1.0) == [0.0]


def test_nan_is_passed_on():
    for make in SINGLES:
        assert np.isnan(make().forward(np.array([np.nan]))).all()
    assert np.isnan(graph.MaxGate().forward(1.0, np.nan))


def test_an_operation_gate_runs_backward_more_than_once():
    gate = graph.OperationGate(nnx.square)
    assert gate.forward(3) == 9
    assert gate.backward(1) == gate.backward(1) == [6]
    assert repr(gate) == "OperationGate(square)" and repr(graph.AddConstantGate(2)) == "AddConstantGate(2)"
    constant = graph.OperationGate(lambda x: nnx.tensor(2.0))
    assert constant.forward(1.0) == 2 and constant.backward(1.0) == [0]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: graph.OperationGate(3), TypeError, "OperationGate: expected function to be callable, got int"),
        (lambda: graph.OperationGate(lambda x: 3).forward(1), TypeError,
         "OperationGate: expected function to return a Tensor, got int"),
        (lambda: graph.AddConstantGate("c"), TypeError, "AddConstantGate: expected c to be a number"),
        (lambda: graph.MultiplyConstantGate(None), TypeError, "MultiplyConstantGate: expected a to be a number"),
        (lambda: graph.Gate().forward(), NotImplementedError, "Gate: expected a forward method"),
        (lambda: graph.Gate().backward(1), NotImplementedError, "Gate: expected a backward method"),
    ],
)  # fmt: skip
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()
