"""Rows of nnx.course.computational_graph."""

from __future__ import annotations

import numpy as np
import pytest

from nnx.course import computational_graph as topic
from nnx.graph import AddGate, ComputationalGraph, Graph, Input, MultiplyGate, Node


def test_F080_product_of_sum():
    circuit = topic.product_of_sum()
    assert circuit.forward({"x": -2, "y": 5, "z": -4}) == -12
    assert circuit.backward() == {"x": -4, "y": -4, "z": 3}
    q = next(n for n in circuit.graph.nodes_topologically_sorted() if n.name.startswith("q"))
    assert (q.value, q.grad) == (3, -4)


def test_F081_sigmoid_neuron_of_small_gates():
    circuit = topic.neuron()
    assert circuit.forward(topic.NEURON) == pytest.approx(0.731059, abs=5e-7)
    grads = circuit.backward()
    expected = {"w0": -0.19661, "w1": -0.39322, "w2": 0.19661, "x0": 0.39322, "x1": -0.58984}
    assert grads == pytest.approx(expected, abs=5e-6)  # printed with five digits
    names = [n.name for n in circuit.graph.nodes_topologically_sorted()]
    assert names[-4:] == ["times -1", "exp", "plus 1", "1/x"]
    dot = next(n for n in circuit.graph.nodes_topologically_sorted() if n.name == "dot")
    assert dot.value == 1
    one = topic.neuron(in_one_gate=True)
    one.forward(topic.NEURON)
    assert one.backward() == pytest.approx(grads, rel=1e-14)


def test_F082_distribute_switch_route_and_sum():
    found = topic.patterns()
    assert found["add"] == {"x": 2, "y": 2}
    assert found["multiply"] == {"x": -2, "y": 6}
    assert found["max"] == {"x": 2, "y": 0}
    assert found["fork"] == {"x": 2 * (3 + 4)}


class DeckMultiplyGate(object):  # noqa: UP004 (the slide's spelling)
    """S2's gate: its text, with `self` among the parameters."""

    def forward(self, x, y):
        z = x * y
        self.x = x  # must keep these around!
        self.y = y
        return z

    def backward(self, dz):
        dx = self.y * dz  # [dz/dx * dL/dz]
        dy = self.x * dz  # [dz/dy * dL/dz]
        return [dx, dy]


class DeckComputationalGraph(object):  # noqa: UP004
    """S2's graph: its two loops, with the parts that the slide only names filled in."""

    def __init__(self, output):
        self.graph = Graph(output)

    def forward(self, inputs):
        # 1. [pass inputs to input gates...]
        self.graph.feed(inputs)
        # 2. forward the computational graph:
        for gate in self.graph.nodes_topologically_sorted():
            gate.forward()
        loss = gate.value
        return loss  # the final gate in the graph outputs the loss

    def backward(self):
        gate = self.graph.nodes_topologically_sorted()[-1]
        gate.grad = 1.0
        for gate in reversed(self.graph.nodes_topologically_sorted()):
            gate.backward()  # little piece of backprop (chain rule applied)
        inputs_gradients = {name: node.grad for name, node in self.graph.inputs.items()}
        return inputs_gradients


@pytest.mark.parametrize("make", [ComputationalGraph, DeckComputationalGraph])
@pytest.mark.parametrize("gate", [MultiplyGate, DeckMultiplyGate])
def test_F083_the_slides_classes_run(make, gate):
    x, y, z = Input("x"), Input("y"), Input("z")
    circuit = make(Node(gate(), Node(AddGate(), x, y), z))
    order = circuit.graph.nodes_topologically_sorted()
    for node in order:
        assert all(order.index(i) < order.index(node) for i in node.inputs)
    assert circuit.forward({"x": -2, "y": 5, "z": -4}) == -12
    assert circuit.backward() == {"x": -4, "y": -4, "z": 3}


def test_F083_the_slides_gate_takes_arrays():
    gate = DeckMultiplyGate()
    x, y = np.arange(3.0), np.array([2.0, -1.0, 4.0])
    circuit = ComputationalGraph(Node(gate, Input("x"), Input("y")))
    np.testing.assert_array_equal(circuit.forward({"x": x, "y": y}), x * y)
    grads = circuit.backward(np.ones(3))
    np.testing.assert_array_equal(grads["x"], y)
    np.testing.assert_array_equal(grads["y"], x)
