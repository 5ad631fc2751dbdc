"""Module: registration, state, modes, hooks, prediction."""

from __future__ import annotations

import copy
import gc
import threading
import weakref

import numpy as np
import pytest

import nnx
from nnx import nn


class Scale(nn.Module):
    """One parameter, one buffer that is kept and one that is not."""

    def __init__(self, n=3):
        super().__init__()
        self.weight = nn.Parameter(np.arange(1, n + 1, dtype=np.float32))
        self.register_buffer("seen", np.zeros((), np.int64))
        self.register_buffer("scratch", np.zeros(2, np.float32), persistent=False)

    def forward(self, x):
        return nnx.functional.relu(nnx.tensor(x, dtype=self.weight.dtype)) * self.weight


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Scale()
        self.rest = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
        self.plain = 5

    def forward(self, x):
        return self.rest(self.first(x))


def test_registration_and_names():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == [
        "first.weight",
        "rest.0.weight",
        "rest.0.bias",
        "rest.2.weight",
        "rest.2.bias",
    ]
    assert [n for n, _ in net.named_modules()] == ["", "first", "rest", "rest.0", "rest.1", "rest.2"]
    assert [n for n, _ in net.named_buffers()] == ["first.seen", "first.scratch"]
    assert [n for n, _ in net.named_children()] == ["first", "rest"]
    assert "first.seen" in net.state_dict() and "first.scratch" not in net.state_dict()
    assert net.get_submodule("rest.0") is net.rest[0]
    assert {"first", "rest"} <= set(dir(net))


def test_attributes_move_between_groups():
    net = Net()
    net.first = nn.Parameter(np.ones(2, np.float32))  # a module becomes a parameter
    assert "first" in dict(net.named_parameters()) and "first" not in dict(net.named_children())
    net.first = None
    assert net.first is None and "first" not in dict(net.named_parameters())
    del net.rest
    assert not hasattr(net, "rest")
    net.plain = nn.Linear(1, 1)  # a plain attribute becomes a module
    assert "plain" in dict(net.named_children())


def test_a_shared_parameter_is_listed_once_and_saved_under_both_names():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    assert len(list(net.parameters())) == 3
    assert {"0.weight", "1.weight"} <= set(net.state_dict())
    net(np.ones((2, 3))).sum().backward()
    once = net[0].weight.grad.copy()
    assert net[1].weight.grad is net[0].weight.grad and np.abs(once).sum() > 0


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (
            lambda n: setattr(n.first, "weight", 3),
            TypeError,
            "Scale: expected a Parameter or None for 'weight', got int",
        ),
        (lambda n: setattr(n, "first", 3), TypeError, "Net: expected a Module or None for 'first', got int"),
        (lambda n: n.missing, AttributeError, "Net has no attribute 'missing'"),
        (lambda n: n.register_buffer("a.b", np.ones(1)), ValueError, "expected a name without dots, got 'a.b'"),
        (lambda n: n.register_buffer("plain", np.ones(1)), KeyError, "expected a new name, got 'plain'"),
        (
            lambda n: n.register_buffer("new", np.array(["x"])),
            TypeError,
            "expected buffer 'new' to be an array of numbers",
        ),
        (lambda n: n.register_parameter("new", np.ones(1)), TypeError, "expected 'new' to be a Parameter or None"),
        (lambda n: n.add_module("new", 3), TypeError, "expected 'new' to be a Module or None, got int"),
        (lambda n: n.get_submodule("rest.9"), AttributeError, "no module named 'rest.9'"),
        (lambda n: n.train("yes"), TypeError, "Net.train: expected mode to be a bool, got 'yes'"),
        (lambda n: n.to("cuda:x"), ValueError, "Net.to: expected device to be .cpu., .cuda. or .cuda:0., got 'cuda:x'"),
        (lambda n: n.to(np.int32), TypeError, "Net.to: expected dtype to be float32 or float64"),
        (lambda n: n.register_forward_hook(3), TypeError, "hook: expected a callable, got int"),
        (
            lambda n: n.predict(3.0),
            ValueError,
            r"Net.predict: expected an array of shape \(N, ...\), got a single number",
        ),
        (lambda n: n.predict(np.ones((2, 3)), 0), ValueError, "Net.predict: expected batch_size to be an integer >= 1"),
        (lambda n: nn.Module()(1), NotImplementedError, "Module: expected a forward method, got none"),
    ],
)
def test_errors(action, error, message):
    with pytest.raises(error, match=message):
        action(Net())


def test_assignment_before_init_is_explained():
    class Early(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"Early: expected super\(\).__init__\(\) before 'layer' is assigned"):
        Early()


# -- state -----------------------------------------------------------------------------------------


def test_load_state_dict_copies_into_existing_storage():
    a, b = Net(), Net()
    storage = b.rest[0].weight.data
    state = {k: v.astype(np.float64) for k, v in a.state_dict().items()}
    assert b.load_state_dict(state) == ([], [])
    assert b.rest[0].weight.data is storage and storage.dtype == np.float32
    x = np.ones((2, 3))
    np.testing.assert_array_equal(a.predict(x), b.predict(x))
    state["rest.0.weight"][...] = 0  # nothing is shared
    assert np.abs(b.rest[0].weight.data).sum() > 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rest.0.bias": None}, KeyError, "missing: 'rest.0.bias'; unexpected: none"),
        ({"extra": np.ones(1)}, KeyError, "missing: none; unexpected: 'extra'"),
        ({"rest.2.bias": np.ones(3)}, ValueError, r"expected 'rest.2.bias' of shape \(2,\), got \(3,\)"),
        ({"rest.2.bias": np.array(["a", "b"])}, TypeError, "expected 'rest.2.bias' to be numbers"),
    ],
)
def test_load_state_dict_is_all_or_nothing(change, error, message):
    net = Net()
    before = {k: v.copy() for k, v in net.state_dict().items()}
    state = {k: v + 1 for k, v in before.items()} | change
    state = {k: v for k, v in state.items() if v is not None}
    with pytest.raises(error, match=message):
        net.load_state_dict(state)
    assert all(np.array_equal(before[k], v) for k, v in net.state_dict().items())


def test_load_state_dict_not_strict():
    net = Net()
    missing, unexpected = net.load_state_dict({"first.weight": np.zeros(3), "x": np.ones(1)}, strict=False)
    assert "rest.0.weight" in missing and unexpected == ["x"]
    assert (net.first.weight.data == 0).all()


def test_loading_a_models_own_state_in_another_order_is_safe():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    a, b = (m.weight.data.copy() for m in net)
    state = net.state_dict()
    net.load_state_dict({"0.weight": state["1.weight"], "1.weight": state["0.weight"]})
    np.testing.assert_array_equal(net[0].weight.data, b)
    np.testing.assert_array_equal(net[1].weight.data, a)


def test_types():
    net = Net()
    weight = net.first.weight
    assert net.double() is net and net.first.weight is weight
    assert weight.dtype == np.float64 and net.first.seen.dtype == np.int64
    assert net.first.scratch.dtype == np.float64
    assert net.predict(np.ones((1, 3), np.float32)).dtype == np.float64
    assert net.float().to("cpu", None) is net and weight.dtype == np.float32


def test_deepcopy_is_independent():
    net = Net()
    other = copy.deepcopy(net)
    other.first.weight.data[...] = 0
    assert net.first.weight.data.sum() == 6
    assert other.first.weight is not net.first.weight


# -- modes, gradients, hooks -----------------------------------------------------------------------


def test_train_calls_that_of_each_child():
    """As in PyTorch: a child may keep a mode of its own."""

    class Frozen(nn.BatchNorm1d):
        def train(self, mode=True):
            return super().train(False)

    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(Frozen(2), nn.Dropout()))
    model.train()
    assert model.training and model[1].training and model[1][1].training and not model[1][0].training
    with pytest.raises(TypeError, match="Sequential.train: expected mode to be a bool, got 1"):
        model.train(1)


def test_train_and_eval_reach_every_module():
    net = Net()
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert net.train() is net and all(m.training for m in net.modules())


def test_freezing_and_zero_grad():
    net = Net()
    net.first.requires_grad_(False)
    x = np.ones((2, 3), np.float32)
    net(x).sum().backward()
    assert net.first.weight.grad is None and net.rest[0].weight.grad is not None
    net.zero_grad(set_to_none=False)
    assert (net.rest[0].weight.grad == 0).all()
    net.zero_grad()
    assert net.rest[0].weight.grad is None


def test_apply_visits_children_first():
    seen = []
    Net().apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["Scale", "Linear", "Dropout", "Linear", "Sequential", "Net"]


def test_hooks_see_and_replace():
    net, seen = Scale(), []
    before = net.register_forward_pre_hook(lambda m, inputs: (inputs[0] * 2,))
    after = net.register_forward_hook(lambda m, inputs, output: seen.append(output.shape))
    changed = net.register_forward_hook(lambda m, inputs, output: output + 1)
    x = nnx.tensor(np.ones((1, 3), np.float32))
    np.testing.assert_array_equal(net(x).data, [[3, 5, 7]])
    assert seen == [(1, 3)]
    for handle in (before, after, changed, changed):
        handle.remove()
    np.testing.assert_array_equal(net(x).data, [[1, 2, 3]])


# -- prediction ------------------------------------------------------------------------------------


def test_predict_batches_without_tape_and_in_evaluation_mode(rng):
    net = Net()
    x = rng.standard_normal((10, 3))
    kept = x.copy()
    whole = net.predict(x)
    assert type(whole) is np.ndarray and whole.shape == (10, 2) and whole.dtype == np.float32
    np.testing.assert_allclose(net.predict(x, batch_size=3), whole, atol=1e-6)
    assert net.training and net.rest[1].training
    np.testing.assert_array_equal(x, kept)
    assert net.predict(x[:0]).shape == (0, 2)
    assert net.predict(nnx.tensor(x.astype(np.float32))).shape == (10, 2)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ">f8", np.uint8, np.int64, bool])
def test_arrays_of_any_type_enter_a_model_whose_first_layer_has_no_parameters(dtype, rng):
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    x = rng.integers(0, 2, (4, 2, 3)).astype(dtype)
    expected = net.predict(x.astype(np.float32))
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(net.predict(x), expected)
    np.testing.assert_array_equal(net(x).data, expected)
    with pytest.raises(TypeError, match="Linear: expected input of dtype float32"):
        net(nnx.tensor(np.ones((4, 2, 3))))  # a Tensor's type is the user's choice


def test_predict_joins_several_outputs(rng):
    class Two(nn.Module):
        def forward(self, x):
            x = nnx.tensor(x)
            return x, x * 2

    a, b = Two().predict(rng.standard_normal((5, 2)), batch_size=2)
    assert a.shape == b.shape == (5, 2)


def test_two_threads_predict_with_one_model_in_training_mode(rng):
    net = nn.Sequential(nn.Linear(20, 50), nn.BatchNorm1d(50), nn.Dropout(0.5), nn.Linear(50, 3))
    x = rng.standard_normal((200, 20)).astype(np.float32)
    expected = net.predict(x)
    results = []

    def work():
        results.extend(net.predict(x, batch_size=20) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(results) == 40 and net.training
    assert all(np.allclose(r, expected, atol=1e-5) for r in results)


def test_an_error_inside_predict_leaves_the_mode_alone():
    net = Net()
    with pytest.raises(ValueError, match="Linear"):
        net.rest.predict(np.ones((2, 7)))
    assert net.training and nnx.is_grad_enabled()


def test_summary_lists_layers_and_counts():
    text = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)).summary((1, 4, 4))
    lines = text.splitlines()
    assert lines[0].split() == ["name", "layer", "output", "shape", "parameters"]
    assert lines[1].split()[:2] == ["0", "Conv2d"] and lines[1].endswith("40")
    assert "(1, 4, 2, 2)" in lines[1]
    assert lines[-1] == "parameters: 74 (trainable: 74)"


def test_repr_shows_the_tree():
    assert repr(Net()) == (
        "Net(\n"
        "  (first): Scale()\n"
        "  (rest): Sequential(\n"
        "    (0): Linear(in_features=3, out_features=4, bias=True)\n"
        "    (1): Dropout(p=0.5)\n"
        "    (2): Linear(in_features=4, out_features=2, bias=True)\n"
        "  )\n"
        ")"
    )


def test_a_step_leaves_no_cycle_behind(rng):
    net = Net()
    gc.collect()
    gc.disable()
    try:
        loss = net(rng.standard_normal((4, 3))).sum()
        node = weakref.ref(loss)
        loss.backward()
        del loss
        assert node() is None, "the graph outlived its last reference"
    finally:
        gc.enable()


def test_a_subclass_may_make_weight_and_bias_anew(rng):
    """As properties over the parameters of the same names, or as plain attributes: what a layer uses is what it has."""

    class Doubled(nn.Linear):
        @property
        def weight(self):
            return 2 * self._parameters["weight"]

    class Inherits(Doubled):
        pass

    class Twice:
        weight = Doubled.__dict__["weight"]

    class Mixed(Twice, nn.Linear):
        """The property comes from a class that is no Module."""

    x = rng.standard_normal((3, 4)).astype(np.float32)
    for kind in (Doubled, Inherits, Mixed):
        layer = kind(4, 2)
        layer._parameters["weight"].data[...] = rng.standard_normal((2, 4))  # what was drawn went into a property
        expected = x @ (2 * layer._parameters["weight"].data).T + layer.bias.data
        nnx.testing.assert_close(layer(x).data, expected, 1e-6)
    layer = nn.Conv1d(4, 2, 1, bias=False)
    weight = layer.weight
    del layer.weight
    layer.weight = 3 * weight
    nnx.testing.assert_close(layer(x[:, :, None]).data[..., 0], x @ (3 * weight.data[..., 0]).T, 1e-6)
