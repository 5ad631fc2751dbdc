"""Computational graphs: circuits of gates, run forward for the value and backward for the gradients.

Each gate knows only its own operation and its own derivative; the chain rule joins them. The circuits are the
lecture's: ``(x + y) z``, and a sigmoid neuron taken apart into additions, multiplications, exp and 1/x.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nnx import graph, viz
from nnx.course import picture
from nnx.graph import (
    AddConstantGate,
    AddGate,
    ComputationalGraph,
    ExpGate,
    Input,
    MaxGate,
    MultiplyConstantGate,
    MultiplyGate,
    Node,
    ReciprocalGate,
    SigmoidGate,
)

ROWS = ("F080", "F081", "F082", "F083")


def product_of_sum() -> ComputationalGraph:
    """``f = (x + y) z`` with the node q for the sum."""
    x, y, z = Input("x"), Input("y"), Input("z")
    q = Node(AddGate(), x, y, name="q = x + y")
    return ComputationalGraph(Node(MultiplyGate(), q, z, name="f = q z"))


def neuron(in_one_gate: bool = False) -> ComputationalGraph:
    """``1 / (1 + exp(-(w0 x0 + w1 x1 + w2)))``, the sigmoid from four small gates or as one."""
    w0, x0, w1, x1, w2 = (Input(name) for name in ("w0", "x0", "w1", "x1", "w2"))
    products = Node(
        AddGate(), Node(MultiplyGate(), w0, x0, name="w0 x0"), Node(MultiplyGate(), w1, x1, name="w1 x1"), name="sum"
    )
    dot = Node(AddGate(), products, w2, name="dot")
    if in_one_gate:
        return ComputationalGraph(Node(SigmoidGate(), dot, name="sigmoid"))
    negative = Node(MultiplyConstantGate(-1), dot, name="times -1")
    plus_one = Node(AddConstantGate(1), Node(ExpGate(), negative, name="exp"), name="plus 1")
    return ComputationalGraph(Node(ReciprocalGate(), plus_one, name="1/x"))


NEURON = {"w0": 2.0, "x0": -1.0, "w1": -3.0, "x1": -2.0, "w2": -3.0}


def patterns() -> dict[str, dict[str, float]]:
    """What a gradient of 2 becomes behind each gate, with the inputs 3 and -1; and where a value forks."""
    result = {}
    for name, gate in (("add", AddGate()), ("multiply", MultiplyGate()), ("max", MaxGate())):
        circuit = ComputationalGraph(Node(gate, Input("x"), Input("y")))
        circuit.forward({"x": 3.0, "y": -1.0})
        result[name] = {k: float(v) for k, v in circuit.backward(2.0).items()}
    x = Input("x")
    fork = ComputationalGraph(Node(AddGate(), Node(MultiplyConstantGate(3), x), Node(MultiplyConstantGate(4), x)))
    fork.forward({"x": 3.0})
    result["fork"] = {k: float(v) for k, v in fork.backward(2.0).items()}
    return result


def draw(circuit: ComputationalGraph, path: Path, title: str = "") -> Any:
    """Draw a circuit that has run both ways: values above the nodes, gradients below them, as the lecture does."""
    from nnx.viz._figure import finish, new_figure

    nodes = circuit.graph.nodes_topologically_sorted()
    depth: dict[int, int] = {}
    for node in nodes:
        depth[id(node)] = 1 + max((depth[id(i)] for i in node.inputs), default=-1)
    columns: dict[int, list[graph.Node]] = {}
    for node in nodes:
        columns.setdefault(depth[id(node)], []).append(node)
    place = {
        id(node): (column, (len(members) - 1) / 2 - row)
        for column, members in columns.items()
        for row, node in enumerate(members)
    }
    figure = new_figure("draw", path, 1.7 * len(columns), 1.1 * max(map(len, columns.values())) + 0.8)
    axes = figure.subplots()
    for node in nodes:
        x, y = place[id(node)]
        for source in node.inputs:
            axes.annotate(
                "",
                (x, y),
                place[id(source)],
                arrowprops={"arrowstyle": "->", "shrinkA": 22, "shrinkB": 22, "alpha": 0.5},
            )
        shape = "square" if isinstance(node, Input) else "round"
        axes.text(x, y, node.name, ha="center", va="center", bbox={"boxstyle": shape, "facecolor": "white"})
        axes.text(x, y + 0.25, f"{node.value:.2f}", ha="center", color="tab:green")
        axes.text(x, y - 0.36, f"{node.grad:.2f}", ha="center", color="tab:red")
    axes.set_xlim(-0.6, len(columns) - 0.4)
    high = max(y for _, y in place.values())
    axes.set_ylim(-high - 0.7, high + 0.6)
    axes.set_axis_off()
    axes.set_title(title)
    return finish("draw", figure, path)


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Run the lecture's circuits both ways and print every value and gradient."""
    circuit = product_of_sum()
    value = circuit.forward({"x": -2.0, "y": 5.0, "z": -4.0})
    grads = circuit.backward()
    print("f = (x + y) z at (-2, 5, -4):")
    _table(circuit)

    apart, whole = neuron(), neuron(in_one_gate=True)
    fired = apart.forward(NEURON)
    slopes = {name: float(g) for name, g in apart.backward().items()}
    print("a sigmoid neuron of small gates:")
    _table(apart)
    whole.forward(NEURON)
    in_one = {name: float(g) for name, g in whole.backward().items()}
    difference = max(abs(slopes[name] - in_one[name]) for name in slopes)
    print(f"largest difference from one sigmoid gate: {difference:.1e}")

    found = patterns()
    print("a gradient of 2 at the output, inputs 3 and -1:", found)

    if path := picture(out, "computational_graph-product"):
        draw(circuit, path, "values above, gradients below")
    if path := picture(out, "computational_graph-neuron"):
        draw(apart, path, "a sigmoid neuron")
    if path := picture(out, "computational_graph-sigmoid"):
        x = np.linspace(-6, 6, 121)
        gate = SigmoidGate()
        value_curve = gate.forward(x)
        curves = {"sigmoid": (x, value_curve), "its local gradient": (x, gate.backward(1.0)[0])}
        viz.lines(curves, "x", path=path)
    return {
        "f": float(value),
        "grads": {name: float(g) for name, g in grads.items()},
        "neuron": float(fired),
        "slopes": slopes,
        "difference": difference,
        "patterns": found,
    }


def _table(circuit: ComputationalGraph) -> None:
    for node in circuit.graph.nodes_topologically_sorted():
        print(f"  {node.name:12s} value {node.value:9.6f}   gradient {node.grad:9.6f}")
