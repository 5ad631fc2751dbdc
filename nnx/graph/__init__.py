"""Computational graphs for teaching: gates with forward and backward, the graph that runs them, deltas and Jacobians.

The library itself differentiates with the tape of `nnx.autograd`. Here the same algorithm is written out in objects
that a lecture draws: one gate per operation, wires between them, and the chain rule walking back along the wires.
"""

from nnx.graph.backprop import LayerDelta, deltas, jacobian
from nnx.graph.circuit import ComputationalGraph, Graph, Input, Node
from nnx.graph.gates import (
    AddConstantGate,
    AddGate,
    ExpGate,
    Gate,
    MatMulGate,
    MaxGate,
    MultiplyConstantGate,
    MultiplyGate,
    OperationGate,
    ReciprocalGate,
    ReLUGate,
    SigmoidGate,
    TanhGate,
)

__all__ = [
    "AddConstantGate",
    "AddGate",
    "ComputationalGraph",
    "ExpGate",
    "Gate",
    "Graph",
    "Input",
    "LayerDelta",
    "MatMulGate",
    "MaxGate",
    "MultiplyConstantGate",
    "MultiplyGate",
    "Node",
    "OperationGate",
    "ReLUGate",
    "ReciprocalGate",
    "SigmoidGate",
    "TanhGate",
    "deltas",
    "jacobian",
]
