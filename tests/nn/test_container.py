"""Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

from nnx import nn


def test_sequential_runs_in_order_and_takes_names():
    net = nn.Sequential(OrderedDict(a=nn.Linear(2, 3), b=nn.ReLU()))
    assert list(net.state_dict()) == ["a.weight", "a.bias"]
    x = np.ones((1, 2), np.float32)
    expected = np.maximum(x @ net.a.weight.data.T + net.a.bias.data, 0)
    np.testing.assert_allclose(net(x).data, expected, rtol=1e-6)


def test_sequential_as_a_list():
    layers = [nn.Linear(2, 2), nn.ReLU(), nn.Tanh(), nn.Sigmoid()]
    net = nn.Sequential(*layers)
    assert len(net) == 4 and list(net) == layers and net[-1] is layers[3]
    assert list(net[1:3]) == layers[1:3] and isinstance(net[1:3], nn.Sequential)
    net[1] = nn.ELU()
    assert isinstance(net[1], nn.ELU)
    del net[0]
    assert [n for n, _ in net.named_children()] == ["0", "1", "2"]
    net.insert(0, layers[0]).append(nn.Identity())
    assert [type(m).__name__ for m in net] == ["Linear", "ELU", "Tanh", "Sigmoid", "Identity"]
    assert [n for n, _ in net.named_children()] == list("01234")
    del net[1:4]
    assert [type(m).__name__ for m in net] == ["Linear", "Identity"]
    net.extend([nn.ReLU(), nn.ReLU()])
    assert len(net) == 4


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda: nn.Sequential(nn.ReLU(), 3), TypeError, "Sequential: expected every item to be a Module, got int"),
        (lambda: nn.Sequential(nn.ReLU())[1], IndexError, r"Sequential: expected an index in \[-1, 1\), got 1"),
        (lambda: nn.ModuleList([nn.ReLU(), "x"]), TypeError, "ModuleList: expected every item to be a Module, got str"),
        (lambda: nn.ModuleList()(1), NotImplementedError, "ModuleList: expected a forward method"),
        (lambda: nn.ModuleDict({"a": 1}), TypeError, "expected 'a' to be a Module or None, got int"),
        (lambda: nn.ModuleDict({"keys": nn.ReLU()}), KeyError, "expected a new name, got 'keys'"),
        (lambda: nn.ParameterList([np.ones(1)]), TypeError, "ParameterList: expected every item to be a Parameter"),
        (
            lambda: nn.ParameterDict({"a": 1}),
            TypeError,
            "ParameterDict: expected every item to be a Parameter, got int",
        ),
    ],
)
def test_errors(action, error, message):
    with pytest.raises(error, match=message):
        action()


def test_a_failed_extend_adds_nothing():
    net = nn.ModuleList([nn.ReLU()])
    with pytest.raises(TypeError):
        net.extend([nn.ReLU(), 3])
    assert len(net) == 1


def test_module_list_and_dict_register():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(2))
            self.heads = nn.ModuleDict({"a": nn.Linear(2, 1, bias=False)})

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return self.heads["a"](x)

    net = Net()
    assert list(net.state_dict()) == ["blocks.0.weight", "blocks.1.weight", "heads.a.weight"]
    assert net(np.ones((3, 2))).shape == (3, 1)
    assert "a" in net.heads and list(net.heads) == ["a"] and len(net.heads) == 1
    head = net.heads.pop("a")
    assert isinstance(head, nn.Linear) and list(net.heads.keys()) == []


def test_parameter_containers_register():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.list = nn.ParameterList([nn.Parameter(np.ones(2, np.float32))])
            self.dict = nn.ParameterDict({"w": nn.Parameter(np.ones(3, np.float32))})

    net = Net()
    net.list.append(nn.Parameter(np.zeros(1, np.float32)))
    assert list(net.state_dict()) == ["list.0", "list.1", "dict.w"]
    assert len(net.list) == 2 and net.list[-1].size == 1 and [p.size for p in net.list] == [2, 1]
    assert "w" in net.dict and net.dict["w"].size == 3
