"""Every optimizer against PyTorch's, step by step."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from cases._optim import IDS, ROWS, draw, make, set_gradients

torch = pytest.importorskip("torch")

STEPS = 15


def run(name, options, theirs, dtype, rng, steps=STEPS):
    """Parameters of both libraries after every step, with the same gradients."""
    arrays = draw(rng, dtype)
    params, optimizer = make(name, arrays, options)
    tensors = [torch.nn.Parameter(torch.tensor(a)) for a in arrays]
    reference = getattr(torch.optim, name)(tensors, **theirs)
    for step in range(steps):
        set_gradients(params, step, draw(rng, dtype))
        for p, t in zip(params, tensors, strict=True):
            t.grad = None if p.grad is None else torch.tensor(p.grad)
        optimizer.step()
        reference.step()
        yield params, tensors, optimizer, reference


def last(steps):
    """The last item of an iterator."""
    for item in steps:
        result = item
    return result


def error(params, tensors):
    """The largest difference, relative to the largest value of its parameter."""
    errors = [0.0]
    for p, t in zip(params, tensors, strict=True):
        expected = t.detach().numpy()
        assert p.data.dtype == expected.dtype
        assert p.data.shape == expected.shape
        if expected.size:
            errors.append(float(np.max(np.abs(p.data - expected)) / np.max(np.abs(expected))))
    assert not np.isnan(errors).any()
    return max(errors)


# Both libraries round every operation: the bounds are a few hundred roundings of the type.
@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-13), (np.float32, 2e-5)])
@pytest.mark.parametrize(("name", "options"), ROWS, ids=IDS)
def test_steps_equal_pytorch(name, options, dtype, bound, rng):
    for params, tensors, _, _ in run(name, options, options, dtype, rng):
        assert error(params, tensors) < bound


@pytest.mark.parametrize(
    ("name", "options", "theirs"),
    [
        ("SGD", {"lr": 0.1, "momentum": 0.9}, {"lr": 0.1, "momentum": 0.9001}),
        ("SGD", {"lr": 0.1, "momentum": 0.9}, {"lr": 0.1, "momentum": 0.9, "dampening": 1e-4}),
        ("Adagrad", {"lr": 0.1}, {"lr": 0.1, "lr_decay": 1e-4}),
        ("Adadelta", {}, {"rho": 0.9001}),
        ("RMSprop", {}, {"alpha": 0.9901}),
        ("Adam", {}, {"betas": (0.9001, 0.999)}),
        ("Adam", {}, {"betas": (0.9, 0.99901)}),
        ("Adam", {"weight_decay": 0.01}, {"weight_decay": 0.01, "decoupled_weight_decay": True}),
        ("AdamW", {}, {"weight_decay": 0.0101}),
    ],
)
def test_the_comparison_sees_a_slightly_wrong_setting(name, options, theirs, rng):
    params, tensors, _, _ = last(run(name, options, theirs, np.float64, rng))
    assert error(params, tensors) > 1e-10  # a thousand times the bound above


@pytest.mark.parametrize(("name", "options"), ROWS, ids=IDS)
def test_state_dict_has_the_names_and_values_of_pytorch(name, options, rng):
    _, _, optimizer, reference = last(run(name, options, options, np.float64, rng))
    ours, theirs = optimizer.state_dict(), reference.state_dict()
    assert set(ours) == set(theirs)
    extra = {"foreach", "fused", "capturable", "differentiable", "bias_correction"}
    for group, expected in zip(ours["param_groups"], theirs["param_groups"], strict=True):
        assert {k: v for k, v in group.items() if k not in extra} == {
            k: v for k, v in expected.items() if k not in extra
        }
    for number in range(6):
        expected = {k: v for k, v in theirs["state"].get(number, {}).items() if v is not None}
        state = ours["state"].get(number, {})
        assert set(state) == set(expected)
        for key, value in expected.items():
            np.testing.assert_allclose(state[key], value.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), ROWS, ids=IDS)
def test_training_goes_on_from_a_state_dict_of_pytorch(name, options, rng):
    _, tensors, _, reference = last(run(name, options, options, np.float64, rng, 7))
    params, optimizer = make(name, [t.detach().numpy() for t in tensors], {})
    optimizer.load_state_dict(reference.state_dict())
    for _ in range(5):
        for p, t in zip(params, tensors, strict=True):
            p.grad = np.asarray(rng.standard_normal(p.shape))
            t.grad = torch.tensor(p.grad)
        optimizer.step()
        reference.step()
    assert error(params, tensors) < 1e-13


@pytest.mark.parametrize(("name", "options"), ROWS, ids=IDS)
def test_pytorch_loads_our_state_dict(name, options, rng):
    params, tensors, optimizer, _ = last(run(name, options, options, np.float64, rng, 7))
    state = optimizer.state_dict()
    for entry in state["state"].values():
        for key, value in entry.items():
            entry[key] = torch.as_tensor(value, dtype=torch.float32 if key == "step" else None)
    fresh = getattr(torch.optim, name)(tensors)
    fresh.load_state_dict(state)
    for p, t in zip(params, tensors, strict=True):
        p.grad = np.asarray(rng.standard_normal(p.shape))
        t.grad = torch.tensor(p.grad)
    optimizer.step()
    fresh.step()
    assert error(params, tensors) < 1e-13


def test_groups_and_settings_that_change_between_steps(rng):
    arrays = draw(rng, np.float64)
    params = [nnx.Parameter(a.copy()) for a in arrays]
    tensors = [torch.nn.Parameter(torch.tensor(a)) for a in arrays]
    ours = nnx.optim.Adam([{"params": params[:2]}, {"params": params[2:], "lr": 0.01}], lr=0.1)
    theirs = torch.optim.Adam([{"params": tensors[:2]}, {"params": tensors[2:], "lr": 0.01}], lr=0.1)
    for step in range(12):
        for optimizer in (ours, theirs):
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
            optimizer.param_groups[1]["betas"] = (0.5 + 0.01 * step, 0.9)
            optimizer.param_groups[1]["weight_decay"] = 0.0 if step < 6 else 0.1
        for p, t in zip(params, tensors, strict=True):
            p.grad = np.asarray(rng.standard_normal(p.shape))
            t.grad = torch.tensor(p.grad)
        ours.step()
        theirs.step()
        assert error(params, tensors) < 1e-13


def test_nan_and_infinity_go_where_they_go_in_pytorch():
    bad = np.array([1.0, np.nan, np.inf, -np.inf, 0.0, 1e300])
    for name, options in ROWS:
        params, optimizer = make(name, [np.ones(6)], options)
        tensors = [torch.nn.Parameter(torch.ones(6, dtype=torch.float64))]
        reference = getattr(torch.optim, name)(tensors, **options)
        for _ in range(3):
            params[0].grad = bad.copy()
            tensors[0].grad = torch.tensor(bad)
            optimizer.step()
            reference.step()
        np.testing.assert_allclose(params[0].data, tensors[0].detach().numpy(), rtol=1e-12, err_msg=f"{name} {options}")


def test_defaults_and_argument_order_are_those_of_pytorch():
    import inspect

    for name in ("SGD", "Adagrad", "Adadelta", "RMSprop", "Adam", "AdamW", "LBFGS"):
        ours = inspect.signature(getattr(nnx.optim, name)).parameters
        theirs = inspect.signature(getattr(torch.optim, name)).parameters
        assert [k for k in ours if k != "bias_correction"] == list(theirs)
        for key, parameter in theirs.items():
            assert ours[key].default == parameter.default
            assert ours[key].kind == parameter.kind
