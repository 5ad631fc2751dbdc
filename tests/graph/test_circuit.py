"""Computational graphs: order, forward, backward, forks, arrays, errors."""

from __future__ import annotations

import numpy as np
import pytest

from nnx import graph
from nnx.graph import AddGate, ComputationalGraph, ExpGate, Graph, Input, MultiplyGate, Node
from nnx.testing import eval_numerical_gradient


def product_of_sum():
    x, y, z = Input("x"), Input("y"), Input("z")
    return ComputationalGraph(Node(MultiplyGate(), Node(AddGate(), x, y, name="q"), z, name="f"))


def test_every_node_comes_behind_its_inputs():
    circuit = product_of_sum()
    order = circuit.graph.nodes_topologically_sorted()
    assert [node.name for node in order] == ["x", "y", "q", "z", "f"]
    for node in order:
        assert all(order.index(i) < order.index(node) for i in node.inputs)
    order.clear()  # a copy
    assert circuit.forward({"x": 1, "y": 2, "z": 3}) == 9


def test_what_the_output_does_not_need_is_left_out():
    x = Input("x")
    Node(ExpGate(), x)
    assert len(Graph(Node(ExpGate(), x)).nodes_topologically_sorted()) == 2


def test_a_fork_sums_and_a_second_backward_does_not():
    x = Input("x")
    circuit = ComputationalGraph(Node(AddGate(), Node(MultiplyGate(), x, x), x))
    assert circuit.forward({"x": 3.0}) == 12
    assert circuit.backward() == circuit.backward() == {"x": 7.0}
    assert circuit.backward(2.0) == {"x": 14.0}


def test_a_long_chain_needs_no_recursion():
    node = x = Input("x")
    for _ in range(5000):
        node = Node(graph.AddConstantGate(1), node)
    circuit = ComputationalGraph(node)
    assert circuit.forward({"x": 0}) == 5000
    assert circuit.backward() == {"x": 1.0}
    assert x.value == 0


def test_arrays_that_are_broadcast_get_gradients_of_their_shape(rng):
    x, w, b = rng.standard_normal((5, 3)), rng.standard_normal((3, 2)), rng.standard_normal(2)
    nodes = [Input("x"), Input("w"), Input("b")]
    z = Node(AddGate(), Node(graph.MatMulGate(), nodes[0], nodes[1]), nodes[2])
    circuit = ComputationalGraph(Node(graph.TanhGate(), z))
    value = circuit.forward({"x": x, "w": w, "b": b})
    gy = rng.standard_normal(value.shape)
    grads = circuit.backward(gy)
    assert {k: g.shape for k, g in grads.items()} == {"x": (5, 3), "w": (3, 2), "b": (2,)}
    for name, point in {"x": x, "w": w, "b": b}.items():
        values = {"x": x, "w": w, "b": b}
        numeric = eval_numerical_gradient(
            lambda v, name=name, values=values: np.sum(gy * circuit.forward({**values, name: v})), point, 1e-6, True
        )
        np.testing.assert_allclose(grads[name], numeric, rtol=1e-7, atol=1e-8)


def test_a_number_that_meets_an_array_gets_a_number():
    a, x = Input("a"), Input("x")
    circuit = ComputationalGraph(Node(MultiplyGate(), a, x))
    circuit.forward({"a": 2.0, "x": np.arange(3)})
    grads = circuit.backward(np.ones(3))
    assert grads["a"] == 3 and np.ndim(grads["a"]) == 0
    np.testing.assert_array_equal(grads["x"], [2, 2, 2])


def test_integer_arrays_do_not_wrap_and_inputs_stay():
    x = np.array([200], np.uint8)
    circuit = ComputationalGraph(Node(AddGate(), Input("x"), Input("y")))
    assert circuit.forward({"x": x, "y": x}) == 400
    assert x == 200


def test_any_object_with_the_two_methods_is_a_gate():
    class Square:
        def forward(self, x):
            self.x = x
            return x * x

        def backward(self, dz):
            return 2 * self.x * dz  # one input: a bare gradient will do

    circuit = ComputationalGraph(Node(Square(), Input("x")))
    assert circuit.forward({"x": 3}) == 9
    assert circuit.backward() == {"x": 6}
    assert "Square, value=9" in repr(circuit.graph.output)


class _OneGradient(MultiplyGate):
    def backward(self, dz):
        return [dz]


def cycle():
    x = Input("x")
    first = Node(ExpGate(), x)
    second = Node(ExpGate(), first)
    first.inputs = (second,)
    return Graph(second)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: Node(3), TypeError, "Node: expected a gate with methods forward and backward, got 3"),
        (lambda: Node(ExpGate(), 3.0), TypeError, "Node: expected inputs to be nodes, got float"),
        (lambda: Input(3), TypeError, "Input: expected a name, got 3"),
        (lambda: Graph(ExpGate()), TypeError, "Graph: expected output to be a Node, got ExpGate"),
        (lambda: Graph(Node(AddGate(), Input("x"), Input("x"))), ValueError, "inputs with different names"),
        (cycle, ValueError, "Graph: expected no cycle, got one through ExpGate"),
        (lambda: product_of_sum().forward({"x": 1}), KeyError, r"for the inputs \['x', 'y', 'z'\], got \['x'\]"),
        (lambda: product_of_sum().forward({"x": 1, "y": "2", "z": 3}), TypeError,
         "Graph: expected y to be a number or an array of numbers, got str"),
        (lambda: product_of_sum().backward(), RuntimeError, "expected forward to run before"),
    ],
)  # fmt: skip
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_errors_of_backward():
    circuit = product_of_sum()
    circuit.forward({"x": np.ones(2), "y": 1, "z": 1})
    with pytest.raises(ValueError, match=r"expected gradient for an output of shape \(2,\), got None"):
        circuit.backward()
    with pytest.raises(ValueError, match=r"expected gradient of shape \(2,\), got \(3,\)"):
        circuit.backward(np.ones(3))
    wrong = ComputationalGraph(Node(_OneGradient(), Input("x"), Input("y")))
    wrong.forward({"x": 1, "y": 2})
    with pytest.raises(ValueError, match="_OneGradient: expected backward to return 2 gradients, one per input, got 1"):
        wrong.backward()
