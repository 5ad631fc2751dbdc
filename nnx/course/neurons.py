"""Neurons: threshold units, gates made of them, Hebb's rule, and the unit with a sigmoid.

Prints the truth tables of McCulloch and Pitts's units and of the gates that NAND builds, stores patterns by Hebb's rule
and counts how many survive, and computes one neuron at a time what a layer computes at once.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

import nnx.functional as F
from nnx import viz
from nnx.classic import Hebb, McCullochPittsUnit, gates
from nnx.course import picture

ROWS = ("F001", "F002", "F005", "F010")

PAIRS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
MCCULLOCH_PITTS = {
    "AND": McCullochPittsUnit(2),
    "OR": McCullochPittsUnit(1),
    "NOT": McCullochPittsUnit(0, inhibitory=[0]),
    "a AND NOT b": McCullochPittsUnit(1, inhibitory=[1]),
}
GATES = {
    "NAND": gates.nand,
    "AND": gates.and_,
    "OR": gates.or_,
    "NOR": gates.nor,
    "XOR": gates.xor,
    "XNOR": gates.xnor,
}


class Neuron:
    """One unit that takes a weighted sum and squashes it: ``sigmoid(w x + b)``, number by number.

    >>> Neuron([1.0, -2.0], 1.0).neuron_tick([3.0, 2.0])
    0.5
    """

    def __init__(self, weights: Any, bias: float) -> None:
        self.weights = list(weights)
        self.bias = bias

    def neuron_tick(self, inputs: Any) -> float:
        """The firing rate for one set of inputs."""
        total = self.bias
        for w, x in zip(self.weights, inputs, strict=True):
            total += w * x
        return 1 / (1 + math.exp(-total))


def layer(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """All neurons for all samples at once: ``sigmoid(x W' + b)``."""
    return F.sigmoid(F.linear(x, weight, bias)).data


def capacity(units: int, stored: list[int], seed: int) -> list[float]:
    """The part of the elements that a Hebbian memory of `units` inputs recalls, for each number of random patterns."""
    rng = np.random.default_rng(seed)
    recalled = []
    for count in stored:
        patterns = rng.choice([-1, 1], (count, units))
        recalled.append(Hebb().fit(patterns, patterns).score(patterns, patterns))
    return recalled


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Print truth tables, the memory's recall, and the difference between neurons and the layer."""
    tables: dict[str, list[int]] = {}
    for name, unit in MCCULLOCH_PITTS.items():
        inputs = PAIRS[[0, 2], :1] if name == "NOT" else PAIRS
        tables[f"McCulloch-Pitts {name}"] = unit(inputs).tolist()
    sums = gates.NAND.sums(PAIRS)
    print("inputs 00 01 10 11: the NAND unit sums up to", *(f"{s:+g}" for s in sums))
    for name, gate in GATES.items():
        tables[name] = gate(PAIRS[:, 0], PAIRS[:, 1]).tolist()
    for name, table in tables.items():
        print(f"  {name:28} {table}")

    units = 64 if small else 256
    stored = [units // 32, units // 16, units // 8, units // 4, units // 2, units]
    recalled = capacity(units, stored, seed)
    for count, part in zip(stored, recalled, strict=True):
        print(f"Hebb: {count:3} patterns of {units} units: {100 * part:.2f} % of the elements recalled")

    rng = np.random.default_rng(seed)
    x, weight, bias = rng.standard_normal((20, 6)), rng.standard_normal((4, 6)), rng.standard_normal(4)
    one_by_one = np.array([[Neuron(w, b).neuron_tick(row) for w, b in zip(weight, bias, strict=True)] for row in x])
    difference = float(np.abs(one_by_one - layer(x, weight, bias)).max())
    print(f"80 neurons one by one and as a layer: largest difference {difference:.1e}")

    if path := picture(out, "neurons-xor"):
        viz.decision_regions(_xor_of_the_plane, PAIRS, gates.xor(*PAIRS.T), path=path, title="XOR of four NAND units")
    if path := picture(out, "neurons-hebb"):
        viz.lines({"recalled": (stored, recalled)}, "patterns stored", "part recalled", path=path)
    return {
        "nand_sums": sums.tolist(),
        "tables": tables,
        "stored": stored,
        "recalled": recalled,
        "difference": difference,
    }


def _xor_of_the_plane(points: np.ndarray) -> np.ndarray:
    """The circuit with real inputs: each NAND is a straight line, together they cut out a band."""
    first = gates.NAND(points)
    left = gates.NAND(np.stack([points[:, 0], first], axis=1))
    right = gates.NAND(np.stack([points[:, 1], first], axis=1))
    return gates.nand(left, right)
