"""L-BFGS: what it finds, when it stops, and how it fails."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx.optim import LBFGS


def rosenbrock(p):
    x, y = p[0], p[1]
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2


def closure_of(optimizer, function, *params):
    calls = []

    def closure():
        optimizer.zero_grad()
        loss = function(*params)
        loss.backward()
        calls.append(loss.item())
        return loss

    closure.calls = calls
    return closure


def start():
    return nnx.Parameter(np.array([-1.2, 1.0]))


def test_strong_wolfe_finds_the_minimum_of_rosenbrocks_function():
    p = start()
    optimizer = LBFGS([p], max_iter=100, tolerance_change=1e-14, line_search_fn="strong_wolfe")
    closure = closure_of(optimizer, rosenbrock, p)
    loss = optimizer.step(closure)
    assert loss.item() == closure.calls[0] == pytest.approx(24.2)
    np.testing.assert_allclose(p.data, [1, 1], atol=1e-6)
    assert optimizer.state[p]["func_evals"] == len(closure.calls)


def test_a_quadratic_without_line_search():
    p = nnx.Parameter(np.array([3.0, -2.0, 1.0]))
    scale = nnx.tensor(np.array([1.0, 4.0, 9.0]))
    optimizer = LBFGS([p], max_iter=50, tolerance_change=1e-14)
    optimizer.step(closure_of(optimizer, lambda p: (scale * p * p).sum(), p))
    np.testing.assert_allclose(p.data, 0, atol=1e-6)


@pytest.mark.parametrize("line_search_fn", [None, "strong_wolfe"])
def test_limits_on_iterations_and_evaluations(line_search_fn):
    p = start()
    optimizer = LBFGS([p], lr=0.01, max_iter=7, max_eval=5, line_search_fn=line_search_fn)
    closure = closure_of(optimizer, rosenbrock, p)
    optimizer.step(closure)
    # a line search that has begun may make one evaluation more than is left
    assert 5 <= len(closure.calls) <= 6
    optimizer = LBFGS([p], lr=0.01, max_iter=3, max_eval=500)
    closure = closure_of(optimizer, rosenbrock, p)
    optimizer.step(closure)
    assert len(closure.calls) == 3
    assert optimizer.param_groups[0]["max_eval"] == 500
    assert LBFGS([p], max_iter=8).param_groups[0]["max_eval"] == 10


def test_nothing_happens_at_a_minimum():
    p = nnx.Parameter(np.array([1.0, 1.0]))
    optimizer = LBFGS([p])
    optimizer.step(closure_of(optimizer, rosenbrock, p))
    np.testing.assert_array_equal(p.data, 1)
    assert optimizer.state[p]["func_evals"] == 1


def test_several_parameters_types_and_layouts(rng):
    """A frozen one, one that the loss does not use, one with strides, one in float32, an empty one."""
    target = rng.standard_normal((3, 4))
    memory = np.zeros((3, 8))
    a = nnx.Parameter(memory[:, ::2])
    b = nnx.Parameter(np.ones(2, np.float32))
    unused, empty = nnx.Parameter(np.ones(3)), nnx.Parameter(np.ones(0))
    optimizer = LBFGS([a, b, unused, empty], max_iter=40, line_search_fn="strong_wolfe")
    closure = closure_of(optimizer, lambda a, b: ((a - target) ** 2).sum() + (b * b).sum().double(), a, b)
    optimizer.step(closure)
    np.testing.assert_allclose(memory[:, ::2], target, atol=1e-6)
    np.testing.assert_array_equal(memory[:, 1::2], 0)
    np.testing.assert_allclose(b.data, 0, atol=1e-6)
    assert b.data.dtype == np.float32
    np.testing.assert_array_equal(unused.data, 1)


@pytest.mark.parametrize("line_search_fn", [None, "strong_wolfe"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_training_goes_on_with_the_same_bits(line_search_fn, dtype):
    p = nnx.Parameter(np.array([-1.2, 1.0], dtype))
    options = {"max_iter": 4, "lr": 0.1, "line_search_fn": line_search_fn, "history_size": 3}
    optimizer = LBFGS([p], **options)
    closure = closure_of(optimizer, rosenbrock, p)
    for _ in range(3):
        optimizer.step(closure)
    q = nnx.Parameter(p.data.copy())
    other = LBFGS([q])
    other.load_state_dict(optimizer.state_dict())
    assert len(other.state[q]["old_dirs"]) == 3
    for _ in range(3):
        optimizer.step(closure)
        other.step(closure_of(other, rosenbrock, q))
    np.testing.assert_array_equal(p.data, q.data)
    assert optimizer.state[p]["func_evals"] == other.state[q]["func_evals"]


def test_a_state_dict_is_a_snapshot():
    p = start()
    optimizer = LBFGS([p], max_iter=4, line_search_fn="strong_wolfe")
    closure = closure_of(optimizer, rosenbrock, p)
    optimizer.step(closure)
    state = optimizer.state_dict()["state"][0]
    arrays = [state["d"].copy(), [a.copy() for a in state["old_dirs"]], list(state["ro"])]
    optimizer.step(closure)
    np.testing.assert_array_equal(state["d"], arrays[0])
    np.testing.assert_array_equal(state["old_dirs"], arrays[1])
    assert state["ro"] == arrays[2]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"d": np.ones(3)}, r"expected d to have shape \(2,\), got \(3,\)"),
        ({"old_dirs": [np.ones(2)] * 9}, "old_dirs, old_stps and ro of one length, got"),
        ({"exp_avg": np.ones(2)}, "expected state of parameter 0 alone, with .*, got state of par"),
    ],
)
def test_a_state_dict_that_does_not_fit_changes_nothing(spoil, message):
    p = start()
    optimizer = LBFGS([p], max_iter=4)
    optimizer.step(closure_of(optimizer, rosenbrock, p))
    state = optimizer.state_dict()
    state["param_groups"][0]["lr"] = 0.5
    state["state"][0].update(spoil)
    with pytest.raises(ValueError, match=f"LBFGS.load_state_dict: .*{message}"):
        optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 1.0
    assert optimizer.state[p]["func_evals"] == 4


@pytest.mark.parametrize("line_search_fn", [None, "strong_wolfe"])
@pytest.mark.parametrize("failure", [ZeroDivisionError, KeyboardInterrupt])
def test_a_closure_that_raises_leaves_everything_as_it_was(line_search_fn, failure):
    p = start()
    optimizer = LBFGS([p], max_iter=5, line_search_fn=line_search_fn)
    closure = closure_of(optimizer, rosenbrock, p)
    optimizer.step(closure)
    before, state = p.data.copy(), optimizer.state_dict()

    def failing():
        if len(closure.calls) >= 9:
            raise failure
        return closure()

    with pytest.raises(failure):
        optimizer.step(failing)
    np.testing.assert_array_equal(p.data, before)
    assert optimizer.state_dict()["state"][0]["n_iter"] == state["state"][0]["n_iter"]
    np.testing.assert_array_equal(optimizer.state_dict()["state"][0]["d"], state["state"][0]["d"])


def test_a_step_too_far_into_nan_is_shortened():
    """log(x) - x has its maximum at 1; the first trial step leaves the domain."""
    p = nnx.Parameter(np.array([3.0]))
    optimizer = LBFGS([p], lr=30.0, max_iter=30, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        with np.errstate(invalid="ignore", divide="ignore"):
            loss = (p - p.log()).sum()
            loss.backward()
        return loss

    optimizer.step(closure)
    np.testing.assert_allclose(p.data, 1, atol=1e-5)


def test_errors():
    p = start()
    optimizer = LBFGS([p])
    with pytest.raises(TypeError, match="LBFGS.step: expected closure, got None. L-BFGS evaluates"):
        optimizer.step()
    with pytest.raises(ValueError, match="LBFGS: expected one parameter group, got a second one"):
        optimizer.add_param_group({"params": [nnx.Parameter(np.ones(1))]})
    with pytest.raises(ValueError, match="LBFGS: expected one parameter group"):
        LBFGS([{"params": [p]}, {"params": [nnx.Parameter(np.ones(1))]}])
    with pytest.raises(TypeError, match="LBFGS.step: expected closure to return the loss, a number"):
        optimizer.step(lambda: None)
    with pytest.raises(TypeError, match="LBFGS.step: expected closure to be callable, got int"):
        optimizer.step(1)

    def closure():
        p.grad = np.ones(3)
        return 1.0

    with pytest.raises(ValueError, match=r"LBFGS.step: expected .grad of parameter 0 to have its"):
        optimizer.step(closure)
    assert optimizer.state_dict()["state"] == {}
