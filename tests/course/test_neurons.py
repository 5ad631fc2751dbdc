"""Rows of nnx.course.neurons."""

from __future__ import annotations

import numpy as np
import pytest

from nnx.classic import Hebb, McCullochPittsUnit, ThresholdUnit, gates, step
from nnx.course import neurons as topic


def test_F001_threshold_unit_truth_tables():
    tables = {name: unit(topic.PAIRS if name != "NOT" else [[0], [1]]) for name, unit in topic.MCCULLOCH_PITTS.items()}
    assert tables["AND"].tolist() == [0, 0, 0, 1]
    assert tables["OR"].tolist() == [0, 1, 1, 1]
    assert tables["NOT"].tolist() == [1, 0]
    assert tables["a AND NOT b"].tolist() == [0, 0, 1, 0]
    # the same with weights
    assert ThresholdUnit([1, 1], threshold=2)(topic.PAIRS).tolist() == [0, 0, 0, 1]
    assert ThresholdUnit([1, 1], threshold=1)(topic.PAIRS).tolist() == [0, 1, 1, 1]
    assert ThresholdUnit([-1], threshold=0)([[0], [1]]).tolist() == [1, 0]
    assert step([-1e-300, 0.0, 1e-300]).tolist() == [0, 1, 1]


def test_F001_one_inhibitory_input_forbids_whatever_excites():
    unit = McCullochPittsUnit(1, inhibitory=[3])
    assert unit([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]]).tolist() == [1, 0, 0]


def test_F002_hebbs_rule_is_the_sum_of_outer_products(rng):
    x, y = rng.choice([-1, 1], (7, 5)), rng.choice([-1, 1], (7, 3))
    expected = np.zeros((5, 3))
    for a, b in zip(x, y, strict=True):
        expected += np.outer(a, b)
    np.testing.assert_array_equal(Hebb().fit(x, y).coef_, expected)
    np.testing.assert_array_equal(Hebb(0.5).fit(x[:4], y[:4]).partial_fit(x[4:], y[4:]).coef_, expected / 2)


def test_F002_orthogonal_patterns_are_recalled_and_too_many_are_not():
    hadamard = np.array([[1]])
    for _ in range(4):
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    assert Hebb().fit(hadamard, hadamard).score(hadamard, hadamard) == 1
    recalled = topic.capacity(64, [2, 64], seed=0)
    assert recalled[0] == 1 and recalled[1] < 1


def test_F005_nand_has_the_printed_sums():
    assert gates.NAND.weights.tolist() == [-2, -2] and gates.NAND.bias == 3
    assert gates.NAND.sums(topic.PAIRS).tolist() == [3, 1, 1, -1]
    assert gates.NAND(topic.PAIRS).tolist() == [1, 1, 1, 0]


def test_F005_all_gates_of_nand():
    a, b = topic.PAIRS.T
    expected = {
        gates.nand: ~(a & b) & 1,
        gates.and_: a & b,
        gates.or_: a | b,
        gates.nor: ~(a | b) & 1,
        gates.xor: a ^ b,
        gates.xnor: ~(a ^ b) & 1,
    }
    for gate, table in expected.items():
        assert gate(a, b).tolist() == table.tolist(), gate.__name__
    assert gates.not_([0, 1]).tolist() == [1, 0]
    total, carry = gates.full_adder([0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0, 1, 1], [0, 1] * 4)
    assert (total + 2 * carry).tolist() == [0, 1, 1, 2, 1, 2, 2, 3]


def test_F005_xor_takes_four_nands(monkeypatch):
    calls = []
    unit = gates.NAND

    def counted(x):
        calls.append(x)
        return unit(x)

    monkeypatch.setattr(gates, "NAND", counted)
    assert gates.xor([0, 0, 1, 1], [0, 1, 0, 1]).tolist() == [0, 1, 1, 0]
    assert len(calls) == 4


def test_F010_neurons_one_by_one_equal_the_layer(rng):
    x, weight, bias = rng.standard_normal((30, 7)), rng.standard_normal((5, 7)), rng.standard_normal(5)
    loop = [[topic.Neuron(w, b).neuron_tick(row) for w, b in zip(weight, bias, strict=True)] for row in x]
    np.testing.assert_allclose(topic.layer(x, weight, bias), loop, rtol=0, atol=1e-12)


def test_F010_neuron_refuses_other_inputs():
    with pytest.raises(ValueError):
        topic.Neuron([1.0, 2.0], 0.0).neuron_tick([1.0])
