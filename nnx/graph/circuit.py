"""Wires between gates: Input, Node, the Graph that orders them, and ComputationalGraph, which runs them both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nnx.autograd import unbroadcast


class Node:
    """A gate with the nodes that feed it, its value and the gradient of the output with respect to this value.

    gate:    object with ``forward(x, ...)`` and ``backward(dz)``, which returns one gradient per input
    inputs:  the nodes whose values the gate is given
    name:    how messages and `repr` call it; None means the gate's class

    `forward` computes `value` from the inputs' values. `backward` adds to each input's `grad`, so that a value used by
    several gates collects the sum: the multivariate chain rule.
    """

    def __init__(self, gate: Any, *inputs: Node, name: str | None = None) -> None:
        if not callable(getattr(gate, "forward", None)) or not callable(getattr(gate, "backward", None)):
            raise TypeError(f"Node: expected a gate with methods forward and backward, got {gate!r}")
        for node in inputs:
            if not isinstance(node, Node):
                raise TypeError(
                    f"Node: expected inputs to be nodes, got {type(node).__name__}. Wrap a value: Input(name)"
                )
        self.gate = gate
        self.inputs = inputs
        self.name = type(gate).__name__ if name is None else name
        self.value: Any = None
        self.grad: Any = 0.0

    def forward(self) -> Any:
        """Compute and keep the value."""
        self.value = self.gate.forward(*(node.value for node in self.inputs))
        return self.value

    def backward(self) -> None:
        """Pass the gradient on to the inputs."""
        grads = self.gate.backward(self.grad)
        if not isinstance(grads, (list, tuple)):
            grads = [grads]
        if len(grads) != len(self.inputs):
            raise ValueError(
                f"{self.name}: expected backward to return {len(self.inputs)} gradients, one per input, "
                f"got {len(grads)}"
            )
        for node, grad in zip(self.inputs, grads, strict=True):
            if isinstance(node.value, np.ndarray) or isinstance(grad, np.ndarray):
                grad = unbroadcast(np.asarray(grad), np.shape(node.value))[()]
            node.grad = node.grad + grad

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}, value={self.value}, grad={self.grad})"


class Input(Node):
    """A value that comes from outside, under a name."""

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f"Input: expected a name, got {name!r}")
        super().__init__(self, name=name)

    def forward(self) -> Any:
        return self.value

    def backward(self) -> None:
        """Nothing lies behind an input."""


class Graph:
    """All nodes that a node needs, in order: every node behind those that feed it.

    output:  the last node
    """

    def __init__(self, output: Node) -> None:
        if not isinstance(output, Node):
            raise TypeError(f"Graph: expected output to be a Node, got {type(output).__name__}")
        self.output = output
        self._order = _sorted(output)
        self.inputs = {node.name: node for node in self._order if isinstance(node, Input)}
        if len(self.inputs) < sum(isinstance(node, Input) for node in self._order):
            raise ValueError(f"Graph: expected inputs with different names, got {[n.name for n in self._order]}")

    def nodes_topologically_sorted(self) -> list[Node]:
        """The nodes, inputs of a gate always before the gate."""
        return list(self._order)

    def feed(self, inputs: Mapping[str, Any]) -> None:
        """Give every input its value: a number or an array (integers in an array become float64)."""
        if set(inputs) != set(self.inputs):
            raise KeyError(f"Graph: expected values for the inputs {sorted(self.inputs)}, got {sorted(inputs)}")
        values = {name: _value(name, value) for name, value in inputs.items()}
        for name, value in values.items():
            self.inputs[name].value = value


class ComputationalGraph:
    """A circuit of gates: forward from inputs to output, backward from output to inputs.

    output:  the node whose value is the result (the loss)

    >>> x, y, z = Input("x"), Input("y"), Input("z")
    >>> from nnx.graph.gates import AddGate, MultiplyGate
    >>> circuit = ComputationalGraph(Node(MultiplyGate(), Node(AddGate(), x, y), z))
    >>> circuit.forward({"x": -2, "y": 5, "z": -4})
    -12
    >>> circuit.backward()
    {'x': -4.0, 'y': -4.0, 'z': 3.0}
    """

    def __init__(self, output: Node) -> None:
        self.graph = Graph(output)
        self._ready = False

    def forward(self, inputs: Mapping[str, Any]) -> Any:
        """Feed the inputs, run every gate and return the output's value.

        Raises KeyError if a name is missing or unknown.
        """
        self.graph.feed(inputs)
        self._ready = False
        for node in self.graph.nodes_topologically_sorted():
            node.forward()
        self._ready = True
        return self.graph.output.value

    def backward(self, gradient: Any = None) -> dict[str, Any]:
        """Run every gate backward and return the gradient of the output with respect to every input.

        gradient:  what arrives at the output; None means 1, for an output that is one number

        Raises RuntimeError before a forward.
        """
        owner = "ComputationalGraph.backward"
        if not self._ready:
            raise RuntimeError(f"{owner}: expected forward to run before, got none. Call forward(inputs)")
        value = self.graph.output.value
        if gradient is None and np.size(value) != 1:
            raise ValueError(f"{owner}: expected gradient for an output of shape {np.shape(value)}, got None")
        seed = np.ones(np.shape(value))[()] if gradient is None else np.asarray(gradient, np.float64)[()]
        if np.shape(seed) != np.shape(value):
            raise ValueError(f"{owner}: expected gradient of shape {np.shape(value)}, got {np.shape(seed)}")
        order = self.graph.nodes_topologically_sorted()
        for node in order:
            node.grad = 0.0
        self.graph.output.grad = float(seed) if np.ndim(seed) == 0 else seed
        for node in reversed(order):
            node.backward()
        return {name: node.grad for name, node in self.graph.inputs.items()}


def _sorted(output: Node) -> list[Node]:
    """Depth first, a node behind all of its inputs; without recursion, so that a long chain is no problem."""
    order: list[Node] = []
    done: set[int] = set()
    open_: set[int] = set()  # on the path from the output: meeting one again is a cycle
    stack = [(output, False)]
    while stack:
        node, behind_inputs = stack.pop()
        if behind_inputs:
            open_.discard(id(node))
            done.add(id(node))
            order.append(node)
        elif id(node) not in done:
            if id(node) in open_:
                raise ValueError(f"Graph: expected no cycle, got one through {node.name}")
            open_.add(id(node))
            stack.append((node, True))
            stack += [(n, False) for n in reversed(node.inputs) if id(n) not in done]
    return order


def _value(name: str, value: Any) -> Any:
    if isinstance(value, (int, float)):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"Graph: expected {name} to be a number or an array of numbers, got {type(value).__name__}")
    return array if array.dtype.kind == "f" else array.astype(np.float64)
