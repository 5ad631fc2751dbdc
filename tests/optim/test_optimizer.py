"""What all optimizers share: groups, errors, steps that fail, state dicts, layouts, closures."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import nnx
from cases._optim import EVERY_ID, OWN, ROWS, SHAPES, draw, make, set_gradients
from nnx.optim import SGD, Adam

table = pytest.mark.parametrize(("name", "options"), ROWS + OWN, ids=EVERY_ID)


def snapshot(params, optimizer):
    return [p.data.copy() for p in params], optimizer.state_dict()


def assert_same(a, b):
    """Two nested structures of dicts, lists, arrays and numbers are equal, bit for bit."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b


# -- the step --------------------------------------------------------------------------------------


@table
def test_parameters_are_updated_in_their_own_storage(name, options, rng):
    params, optimizer = make(name, draw(rng, np.float64), options)
    arrays = [p.data for p in params]
    before = [a.copy() for a in arrays]
    set_gradients(params, 0, draw(rng, np.float64))
    optimizer.step()
    for i, (p, a, b) in enumerate(zip(params, arrays, before, strict=True)):
        assert p.data is a
        assert (a != b).all() if i != 4 else a.size == 0


@table
def test_a_parameter_without_gradient_stays_and_gets_no_state(name, options, rng):
    params, optimizer = make(name, draw(rng, np.float64), options)
    params[0].grad = rng.standard_normal(params[0].shape)
    before = [p.data.copy() for p in params]
    optimizer.step()
    for p, b in list(zip(params, before, strict=True))[1:]:
        np.testing.assert_array_equal(p.data, b)
    assert set(optimizer.state_dict()["state"]) <= {0}


def layouts(rng, dtype):
    """The same numbers in several memory layouts; parameter and gradient differ in theirs."""
    big = rng.standard_normal((6, 8, 4, 3)).astype(dtype)
    plain = [np.ascontiguousarray(big[::2, ::2]) for _ in range(6)]
    holes = big[::2, ::2]
    reverse = np.ascontiguousarray(plain[0][::-1])[::-1]
    last = np.ascontiguousarray(plain[0].transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    fortran = np.asfortranarray(plain[0])
    return plain, [plain[0].copy(), holes, reverse, last, fortran, last.copy(order="K")]


@table
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_memory_layout_gives_the_same(name, options, dtype, rng):
    plain, others = layouts(rng, dtype)
    params, optimizer = make(name, plain, options)
    strided = [nnx.Parameter(a) for a in others]
    theirs = getattr(nnx.optim, name)(strided, **options)
    for _ in range(4):
        g = rng.standard_normal(plain[0].shape).astype(dtype)
        _, grads = layouts(rng, dtype)
        for p, q, a in zip(params, strided, grads[::-1], strict=True):
            p.grad = g.copy()
            a[...] = g
            q.grad = a
        optimizer.step()
        theirs.step()
        assert all(q.data is a for q, a in zip(strided, others, strict=True))
    # the compiled kernel may fuse a multiplication and an addition where NumPy rounds twice
    bound = 1e-13 if dtype is np.float64 else 1e-5
    for p, q in zip(params, strided, strict=True):
        np.testing.assert_allclose(q.data, p.data, rtol=bound, atol=bound)


@table
def test_a_gradient_that_is_the_parameters_own_array(name, options, rng):
    """f = x^2 / 2 has the gradient x; nothing may be read after it was overwritten."""
    a = rng.standard_normal(50)
    (p, q), optimizer = make(name, [a, a], options)
    for _ in range(3):
        p.grad = p.data
        q.grad = q.data.copy()
        optimizer.step()
    np.testing.assert_allclose(p.data, q.data, rtol=1e-12)


@table
def test_two_parameters_on_one_array_are_updated_one_after_the_other(name, options, rng):
    a = rng.standard_normal(30_000)
    first = nnx.Parameter(a.copy())
    second = nnx.Parameter(first.data)
    both = getattr(nnx.optim, name)([first, second], **options)
    single = nnx.Parameter(a.copy())
    one, two = (getattr(nnx.optim, name)([single], **options) for _ in range(2))
    for _ in range(3):
        first.grad, second.grad = rng.standard_normal((2, a.size))
        both.step()
        for optimizer, g in ((one, first.grad), (two, second.grad)):
            single.grad = g
            optimizer.step()
    np.testing.assert_allclose(first.data, single.data, rtol=0, atol=1e-13)


@table
def test_bits_do_not_depend_on_the_number_of_threads(name, options, rng):
    arrays = draw(rng, np.float32, [(100_003,), (5, 3), (40_000, 2)])
    grads = [draw(rng, np.float32, [a.shape for a in arrays]) for _ in range(3)]
    results = []
    for threads in (1, 2, 3):
        nnx.set_num_threads(threads)
        params, optimizer = make(name, arrays, options)
        for g in grads:
            set_gradients(params, 0, g)
            optimizer.step()
        results.append([p.data for p in params])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@table
def test_float16_parameters_go_through_the_base_backend(name, options):
    p = nnx.Parameter(np.ones(3, np.float32), requires_grad=False)
    p.data = np.ones(3, np.float16)
    optimizer = getattr(nnx.optim, name)([p], **options)
    p.grad = np.array([1, -2, 0.5], np.float16)
    optimizer.step()
    assert p.data.dtype == np.float16
    assert (p.data != 1).all()


def test_both_types_in_one_group(rng):
    a, b = rng.standard_normal((2, 10))
    p, q = nnx.Parameter(a.copy()), nnx.Parameter(b.astype(np.float32))
    optimizer = Adam([p, q], lr=0.1)
    p.grad, q.grad = np.ones(10), np.ones(10, np.float32)
    optimizer.step()
    np.testing.assert_allclose(p.data, a - 0.1, rtol=1e-7)
    np.testing.assert_allclose(q.data, b.astype(np.float32) - np.float32(0.1), rtol=1e-5)
    assert q.data.dtype == np.float32


def test_steps_are_counted_per_parameter(rng):
    (p, q), optimizer = make("Adam", [np.ones(2), np.ones(3)], {})
    for step in range(5):
        p.grad = np.ones(2)
        q.grad = np.ones(3) if step >= 3 else None
        optimizer.step()
    state = optimizer.state_dict()["state"]
    assert (state[0]["step"], state[1]["step"]) == (5, 2)


def test_momentum_that_is_switched_on_later_starts_with_the_gradient():
    (p,), optimizer = make("SGD", [np.zeros(1)], {"lr": 1.0})
    p.grad = np.array([1.0])
    optimizer.step()
    optimizer.param_groups[0]["momentum"] = 0.5
    optimizer.step()
    optimizer.step()
    np.testing.assert_array_equal(p.data, [-1 - 1 - 1.5])


def test_frozen_layers_train_on_when_they_are_thawed(rng):
    model = [nnx.Parameter(rng.standard_normal(3)) for _ in range(2)]
    model[0].requires_grad = False
    optimizer = SGD(model, lr=0.1)

    def loss():
        return (model[0] * model[1]).sum()

    loss().backward()
    optimizer.step()
    assert model[0].grad is None
    model[0].requires_grad = True
    optimizer.zero_grad()
    before = model[0].data.copy()
    loss().backward()
    optimizer.step()
    assert (model[0].data != before).all()


def test_a_network_of_one_layer_learns(rng):
    """End to end with the tape: a line through points."""
    w, b = nnx.Parameter(np.zeros((1, 3))), nnx.Parameter(np.zeros(1))
    optimizer = nnx.optim.LBFGS([w, b], line_search_fn="strong_wolfe")
    x = rng.standard_normal((50, 3))
    y = x @ np.array([[1.0], [-2.0], [3.0]]) + 0.5

    def closure():
        optimizer.zero_grad()
        error = (nnx.tensor(x) * w).sum(dim=1, keepdim=True) + b - y
        loss = (error * error).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    np.testing.assert_allclose(w.data, [[1, -2, 3]], atol=1e-5)
    np.testing.assert_allclose(b.data, [0.5], atol=1e-5)


# -- closures and zero_grad ------------------------------------------------------------------------


def test_step_returns_the_closures_loss_and_records_in_it():
    p = nnx.Parameter(np.array([3.0]))
    optimizer = SGD([p], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with nnx.no_grad():
        loss = optimizer.step(closure)
        assert not nnx.is_grad_enabled()
    assert loss.item() == 9.0
    np.testing.assert_allclose(p.data, [2.4])
    assert optimizer.step() is None


def test_closure_must_be_callable():
    optimizer = SGD([nnx.Parameter(np.ones(1))])
    with pytest.raises(TypeError, match=r"SGD.step: expected closure to be callable, got int"):
        optimizer.step(3)


def test_zero_grad():
    (p, q), optimizer = make("SGD", [np.ones(2), np.ones(3)], {})
    p.grad = np.ones(2)
    held = p.grad
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is held
    np.testing.assert_array_equal(held, 0)
    assert q.grad is None
    p.grad = np.broadcast_to(1.0, 2)
    optimizer.zero_grad(set_to_none=False)
    np.testing.assert_array_equal(p.grad, 0)
    optimizer.zero_grad()
    assert p.grad is None


# -- groups ----------------------------------------------------------------------------------------


def test_groups_take_what_they_do_not_set_from_the_defaults():
    p, q, r = (nnx.Parameter(np.ones(i + 1)) for i in range(3))
    given = {"params": p, "lr": 0.5, "tag": "head"}
    optimizer = Adam([given, {"params": [q]}], lr=0.1)
    optimizer.add_param_group({"params": iter([r]), "betas": [0.5, 0.6]})
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.1, 0.1]
    assert optimizer.param_groups[0]["tag"] == "head"
    assert optimizer.param_groups[2]["betas"] == (0.5, 0.6)
    assert given == {"params": p, "lr": 0.5, "tag": "head"}  # the caller's dict is left alone
    assert "betas: (0.5, 0.6)" in repr(optimizer)


def test_an_empty_group_may_stand_beside_others():
    optimizer = SGD([{"params": []}, {"params": [nnx.Parameter(np.ones(1))]}])
    optimizer.step()


def test_named_parameters_are_named_in_errors():
    p, q = nnx.Parameter(np.ones(2)), nnx.Parameter(np.ones(3))
    optimizer = SGD([("fc.weight", p), ("fc.bias", q)])
    assert optimizer.param_groups[0]["param_names"] == ["fc.weight", "fc.bias"]
    q.grad = np.ones(4)
    with pytest.raises(ValueError, match=r"\.grad of parameter 1 \(fc\.bias\) to have its shape"):
        optimizer.step()


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ([], ValueError, "SGD: expected params to hold at least one Parameter, got none"),
        ([{"params": []}], ValueError, "SGD: expected params to hold at least one Parameter"),
        (np.ones(3), TypeError, "SGD: expected params to be an iterable .*, got one ndarray"),
        (nnx.Parameter(np.ones(3)), TypeError, "got one Parameter. Pass a list"),
        (3, TypeError, "SGD: expected params to be an ordered iterable .*, got int"),
        ({nnx.Parameter(np.ones(3))}, TypeError, "ordered iterable .*, got set. Pass a list"),
        ([np.ones(3)], TypeError, "SGD: expected params to be Parameters, got ndarray as .* 0"),
        ([{"lr": 1}], TypeError, "SGD: expected a parameter group, a dict with the key 'params'"),
        ([nnx.tensor([1])], TypeError, "SGD: expected params of a float type, got int64"),
        (
            [nnx.Parameter(np.ones(3)) * 2],
            ValueError,
            "SGD: expected params to be leaves, got the result of an operation as parameter 0",
        ),
        (
            [("a", nnx.Parameter(np.ones(3))), nnx.Parameter(np.ones(3))],
            ValueError,
            "SGD: expected all params with names or all without, got a mixture",
        ),
    ],
)
def test_wrong_parameter_lists(params, error, message):
    with pytest.raises(error, match=message):
        SGD(params)


def test_a_parameter_that_comes_twice():
    p, q = nnx.Parameter(np.ones(3)), nnx.Parameter(np.ones(3))
    message = "expected every parameter once, got parameter 0 again as parameter 2"
    with pytest.raises(ValueError, match=f"Adam: {message}"):
        Adam([p, q, p])
    optimizer = Adam([p, q])
    with pytest.raises(ValueError, match=f"Adam: {message}"):
        optimizer.add_param_group({"params": [p]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("SGD", {"lr": -0.1}, r"SGD: expected lr to be a number in \[0, inf\), got -0.1"),
        ("SGD", {"lr": float("nan")}, "SGD: expected lr to be a number"),
        ("SGD", {"momentum": -1}, "SGD: expected momentum to be a number"),
        ("SGD", {"weight_decay": -1}, "SGD: expected weight_decay to be a number"),
        ("SGD", {"nesterov": True}, "SGD: expected nesterov with momentum > 0 and dampening 0"),
        ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "and dampening 0.1"),
        ("SGD", {"nesterov": "yes"}, "SGD: expected nesterov to be one of False, True, got 'yes'"),
        ("Adagrad", {"lr_decay": -1}, "Adagrad: expected lr_decay to be a number"),
        ("Adagrad", {"eps": -1}, "Adagrad: expected eps to be a number"),
        ("Adagrad", {"initial_accumulator_value": -1}, "expected initial_accumulator_value"),
        ("Adadelta", {"rho": 1.1}, r"Adadelta: expected rho to be a number in \[0, 1\], got 1.1"),
        ("RMSprop", {"alpha": -1}, "RMSprop: expected alpha to be a number"),
        ("RMSprop", {"momentum": -1}, "RMSprop: expected momentum to be a number"),
        ("Adam", {"betas": (1.0, 0.9)}, r"Adam: expected betas\[0\] to be a number in \[0, 1\)"),
        ("Adam", {"betas": (0.9, -1)}, r"Adam: expected betas\[1\] to be a number in \[0, 1\)"),
        ("AdamW", {"weight_decay": -1}, "AdamW: expected weight_decay to be a number"),
        ("LBFGS", {"max_iter": 0}, "LBFGS: expected max_iter to be an integer >= 1, got 0"),
        ("LBFGS", {"history_size": 0}, "LBFGS: expected history_size to be an integer >= 1"),
        ("LBFGS", {"tolerance_grad": -1}, "LBFGS: expected tolerance_grad to be a number"),
        ("LBFGS", {"line_search_fn": "armijo"}, "expected line_search_fn to be one of None, 'str"),
        ("SGD", {"fused": True}, "SGD: expected fused to be left at its default, got True"),
        ("SGD", {"foreach": True}, "SGD: expected foreach to be left at its default"),
        ("Adam", {"capturable": True}, "Adam: expected capturable to be left at its default"),
        ("AdamW", {"fused": True}, "AdamW: expected fused to be left at its default"),
        ("Adagrad", {"foreach": True}, "Adagrad: expected foreach to be left"),
        ("RMSprop", {"differentiable": True}, "RMSprop: expected differentiable to be left"),
        ("Adadelta", {"capturable": True}, "Adadelta: expected capturable to be left"),
    ],
)
def test_wrong_settings(name, options, message):
    kind = getattr(nnx.optim, name)
    with pytest.raises(ValueError, match=message):
        kind([nnx.Parameter(np.ones(2))], **options)
    with pytest.raises(ValueError, match=message):
        kind([{"params": [nnx.Parameter(np.ones(2))], **options}])


def test_settings_of_a_wrong_type():
    params = [nnx.Parameter(np.ones(2))]
    with pytest.raises(TypeError, match=r"SGD: expected lr to be a number in \[0, inf\), got '1'"):
        SGD(params, lr="1")
    with pytest.raises(TypeError, match=r"Adam: expected betas to be two numbers, got 0.9"):
        Adam(params, betas=0.9)
    with pytest.raises(TypeError, match=r"SGD: expected lr to be a number"):
        SGD(params, lr=None)
    assert SGD(params, lr=nnx.tensor(0.5)).param_groups[0]["lr"] == 0.5


# -- steps that fail -------------------------------------------------------------------------------


def wrong_shape(p):
    p.grad = np.ones((2, 2))


def wrong_type(p):
    p.grad = p.grad.astype(np.float32)


def no_array(p):
    p.grad = nnx.tensor(p.grad)


def read_only(p):
    p.data = p.data.copy()
    p.data.flags.writeable = False


def other_type(p):
    p.data, p.grad = p.data.astype(np.float32), p.grad.astype(np.float32)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (wrong_shape, ValueError, r".grad of parameter 3 to have its shape \(2, 3, 4\), got \(2, "),
        (wrong_type, TypeError, ".grad of parameter 3 to have its dtype float64, got float32"),
        (no_array, TypeError, ".grad of parameter 3 to be an array or None, got Tensor"),
        (read_only, ValueError, "the array of parameter 3 to be writeable, got a read-only array"),
        (other_type, ValueError, "of parameter 3 to be float32 of shape .* got float64 of shape"),
    ],
)
@table
def test_a_failing_step_leaves_everything_as_it_was(name, options, spoil, error, message, rng):
    if spoil is other_type and name == "SGD" and "momentum" not in options:
        pytest.skip("plain SGD has no state that could be of another type")
    params, optimizer = make(name, draw(rng, np.float64), options)
    for step in range(2):
        set_gradients(params, step, draw(rng, np.float64))
        optimizer.step()
    set_gradients(params, 0, draw(rng, np.float64))
    spoil(params[3])
    data, state = snapshot(params, optimizer)
    with pytest.raises(error, match=f"{name}.step: expected .*{message}"):
        optimizer.step()
    after, state_after = snapshot(params, optimizer)
    assert_same(data, after)
    assert_same(state, state_after)


def test_a_setting_that_became_wrong_is_named_by_the_step():
    (p,), optimizer = make("SGD", [np.ones(2)], {})
    p.grad = np.ones(2)
    optimizer.param_groups[0]["lr"] = -1
    with pytest.raises(ValueError, match=r"SGD.step: expected lr to be a number in \[0, inf\)"):
        optimizer.step()
    np.testing.assert_array_equal(p.data, 1)


# -- state dicts -----------------------------------------------------------------------------------


@table
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_training_goes_on_with_the_same_bits(name, options, dtype, rng):
    arrays = draw(rng, dtype)
    arrays[3] = np.asfortranarray(arrays[3])
    params, optimizer = make(name, arrays, options)
    grads = [draw(rng, dtype) for _ in range(8)]
    for step in range(4):
        set_gradients(params, step, grads[step])
        optimizer.step()
    resumed, other = make(name, [p.data for p in params], {})
    other.load_state_dict(optimizer.state_dict())
    for step in range(4, 8):
        for target, o in ((params, optimizer), (resumed, other)):
            set_gradients(target, step, grads[step])
            o.step()
    for p, q in zip(params, resumed, strict=True):
        np.testing.assert_array_equal(p.data, q.data)
    assert_same(optimizer.state_dict(), other.state_dict())


def test_a_state_dict_is_a_snapshot(rng):
    (p,), optimizer = make("Adam", [np.ones(3)], {})
    p.grad = np.ones(3)
    optimizer.step()
    state = optimizer.state_dict()
    before = copy.deepcopy(state)
    optimizer.step()
    assert_same(state, before)
    optimizer.load_state_dict(state)
    optimizer.step()
    assert_same(state, before)


def plain(value):
    if isinstance(value, dict):
        return all(isinstance(k, (str, int)) and plain(v) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return all(plain(v) for v in value)
    return value is None or type(value) in (bool, int, float, str, np.ndarray)


@table
def test_a_state_dict_holds_plain_values(name, options, rng):
    params, optimizer = make(name, draw(rng, np.float32), {**options, "lr": np.float64(0.1)})
    set_gradients(params, 0, draw(rng, np.float32))
    optimizer.step()
    assert plain(optimizer.state_dict())


def spoiled_states():
    def state():
        params, optimizer = make("Adam", [np.ones(s) for s in SHAPES], {})
        set_gradients(params, 0, [np.ones(s) for s in SHAPES])
        optimizer.step()
        return optimizer.state_dict()

    s = state()
    s["state"][2]["exp_avg"] = np.ones(3)
    yield (
        s,
        ValueError,
        r"expected exp_avg of parameter 2 to be an array of shape \(\), got float64",
    )
    s = state()
    s["state"][5]["step"] = 1.5
    yield s, ValueError, "expected step of parameter 5 to be a whole number >= 0, got 1.5"
    s = state()
    del s["state"][5]["step"]
    yield s, ValueError, "expected state of parameter 5 with step, got exp_avg, exp_avg_sq"
    s = state()
    s["state"][1] = {"step": 1, "sum": np.ones(7)}
    yield s, ValueError, "expected state of parameter 1 with exp_avg, .*, got sum. Was it saved by"
    s = state()
    s["state"][17] = s["state"][1]
    yield s, ValueError, r"expected state for parameters that are in param_groups .* for \[17\]"
    s = state()
    s["param_groups"][0]["params"] = [0]
    yield s, ValueError, r"expected parameter groups of sizes \[6\], got \[1\]"
    s = state()
    del s["param_groups"][0]["betas"]
    yield s, ValueError, "expected a parameter group with betas, got one with lr, eps"
    s = state()
    s["param_groups"][0]["lr"] = -1
    yield s, ValueError, "expected lr to be a number"
    s = state()
    s["param_groups"][0] = [3]
    yield s, TypeError, "expected param_groups to be dicts with the key 'params'"
    yield {"state": {}}, TypeError, r"expected a dict with the keys 'state' .*, got \['state'\]"
    yield None, TypeError, "expected a dict with the keys 'state' and 'param_groups', got .*None"


@pytest.mark.parametrize(("state", "error", "message"), list(spoiled_states()))
def test_a_state_dict_that_does_not_fit_changes_nothing(state, error, message, rng):
    params, optimizer = make("Adam", draw(rng, np.float64), {"lr": 0.3})
    set_gradients(params, 0, draw(rng, np.float64))
    optimizer.step()
    before = optimizer.state_dict()
    with pytest.raises(error, match=f"Adam.load_state_dict: {message}"):
        optimizer.load_state_dict(state)
    assert_same(before, optimizer.state_dict())


def test_loading_keeps_the_group_a_caller_holds():
    (p,), optimizer = make("SGD", [np.ones(1)], {"lr": 0.5})
    group = optimizer.param_groups[0]
    state = optimizer.state_dict()
    group["lr"] = 0.1
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0] is group
    assert group["lr"] == 0.5 and group["params"] == [p]


def test_arrays_are_cast_to_the_parameters_type():
    (p,), optimizer = make("SGD", [np.ones(2)], {"momentum": 0.9})
    p.grad = np.ones(2)
    optimizer.step()
    (q,), other = make("SGD", [np.ones(2, np.float32)], {"momentum": 0.9})
    other.load_state_dict(optimizer.state_dict())
    assert other.state[q]["momentum_buffer"].dtype == np.float32


def test_a_base_optimizer_needs_a_subclass():
    optimizer = nnx.optim.Optimizer([nnx.Parameter(np.ones(1))], {"lr": 1})
    optimizer.param_groups[0]["params"][0].grad = np.ones(1)
    with pytest.raises(NotImplementedError, match="Optimizer: expected a subclass"):
        optimizer.step()
