"""Numbers worked out by hand or by a course's literal formulas, on f = 5 x^2 + y^2 / 2 from (1, 1).

The formulas are the textbook ones with eps = 1e-7 outside of the root and accumulators that start
at zero; three steps each.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import nnx


def gradient(p):
    return np.array([10.0, 1.0]) * p


def descend(name, steps=3, **options):
    p = nnx.Parameter(np.array([1.0, 1.0]))
    optimizer = getattr(nnx.optim, name)([p], **options)
    for _ in range(steps):
        p.grad = gradient(p.data)
        optimizer.step()
    return p.data


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("SGD", {"lr": 0.01}, (0.729, 0.970299)),
        ("SGD", {"lr": 0.01, "momentum": 0.9}, (0.486, 0.944379)),
        ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}, (0.327321, 0.920893941)),
        ("Adagrad", {"lr": 0.1, "eps": 1e-7}, (0.780456183089, 0.780456198761)),
        ("RMSprop", {"lr": 0.1, "alpha": 0.9, "eps": 1e-7}, (0.369180567428, 0.36918069588)),
        ("Adam", {"lr": 0.1, "eps": 1e-7}, (0.701586274504, 0.701586302555)),
        (
            "Adam",
            {"lr": 0.1, "eps": 1e-7, "bias_correction": False},
            (-0.1621412074, -0.162138762622),
        ),
    ],
)
def test_three_steps(name, options, expected):
    # printed with 12 digits
    np.testing.assert_allclose(descend(name, **options), expected, rtol=0, atol=6e-13)


def test_the_golden_numbers_see_a_wrong_setting():
    right = descend("Adam", lr=0.1, eps=1e-7)
    wrong = descend("Adam", lr=0.1, eps=1e-7, betas=(0.9, 0.9991))
    assert np.abs(right - wrong).max() > 1e-7


def test_adams_first_step_without_correction_is_too_long():
    step = 1 - descend("Adam", steps=1, lr=0.1, eps=0, bias_correction=False)
    np.testing.assert_allclose(step, 0.1 * math.sqrt(10), rtol=1e-12)
    np.testing.assert_allclose(1 - descend("Adam", steps=1, lr=0.1, eps=0), 0.1, rtol=1e-12)


def test_nesterov_equals_the_look_ahead_form():
    """The gradient at ``x + mu v``: x of the rewritten form is the look-ahead point."""
    lr, mu = 0.01, 0.9
    x, v = np.array([1.0, 1.0]), np.zeros(2)
    for steps in range(1, 8):
        v = mu * v - lr * gradient(x + mu * v)
        x = x + v
        ours = descend("SGD", steps, lr=lr, momentum=mu, nesterov=True)
        np.testing.assert_allclose(ours, x + mu * v, rtol=1e-13)


def test_adagrad_makes_ever_shorter_steps():
    """A constant gradient: step t has the length lr / sqrt(t)."""
    p = nnx.Parameter(np.zeros(1))
    optimizer = nnx.optim.Adagrad([p], lr=0.1, eps=0)
    for t in range(1, 20):
        before = p.data.copy()
        p.grad = np.array([3.0])
        optimizer.step()
        np.testing.assert_allclose(before - p.data, 0.1 / math.sqrt(t), rtol=1e-12)


def test_newton_takes_one_step_on_a_quadratic():
    p = nnx.Parameter(np.array([1.0, 1.0]))

    def closure():
        loss = (nnx.tensor(np.array([5.0, 0.5])) * p * p).sum()
        loss.backward()
        return loss

    result = nnx.optim.minimize(
        [p],
        closure,
        method="trust-exact",
        hess=lambda x: np.diag([10.0, 1.0]),
        options={"maxiter": 1, "initial_trust_radius": 10.0},
    )
    assert result.nit == 1
    np.testing.assert_allclose(p.data, [0, 0], atol=1e-12)


def test_schedules_at_ten_steps():
    for make, expected in [
        (lambda o: nnx.optim.lr_scheduler.ExponentialLR(o, math.exp(-0.1)), 0.1 * math.exp(-1)),
        (lambda o: nnx.optim.lr_scheduler.InverseTimeLR(o, 0.1), 0.05),
        (lambda o: nnx.optim.lr_scheduler.StepLR(o, 5, 0.5), 0.025),
    ]:
        optimizer = nnx.optim.SGD([nnx.Parameter(np.zeros(1))], lr=0.1)
        scheduler = make(optimizer)
        for _ in range(10):
            optimizer.step()
            scheduler.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-12)
    assert 0.1 * math.exp(-1) == pytest.approx(0.0368, abs=1e-4)
