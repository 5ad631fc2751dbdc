"""L-BFGS against PyTorch's: the same points, number of evaluations and state."""

from __future__ import annotations

import numpy as np
import pytest

import nnx

torch = pytest.importorskip("torch")

OPTIONS = [
    {"max_iter": 5},
    {"max_iter": 5, "lr": 0.3, "history_size": 2},
    {"max_iter": 1},
    {"max_iter": 8, "max_eval": 3},
    {"max_iter": 6, "line_search_fn": "strong_wolfe"},
    {"max_iter": 6, "lr": 5.0, "line_search_fn": "strong_wolfe", "history_size": 3},
    {"max_iter": 6, "lr": 1e-3, "line_search_fn": "strong_wolfe"},
    {"max_iter": 9, "max_eval": 4, "line_search_fn": "strong_wolfe"},
    {"max_iter": 1, "max_eval": 1, "line_search_fn": "strong_wolfe"},
    {"max_iter": 30, "tolerance_grad": 1e-2, "line_search_fn": "strong_wolfe"},
    {"max_iter": 30, "tolerance_change": 1e-3, "line_search_fn": "strong_wolfe"},
]


def bowl(a, b, q):
    """Convex, not quadratic, ill-conditioned enough that the search brackets and zooms."""
    return (q * a * a).sum() + ((b * b + 1) ** 0.5).sum() + (a.sum() - b.sum()) ** 4 * 0.01


def valley(a, b, q):
    """Rosenbrock's function in the first two elements."""
    return (1 - a[0]) ** 2 + 20 * (a[1] - a[0] * a[0]) ** 2 + (q * b).sum() ** 2 + (b * b).sum()


@pytest.mark.parametrize("function", [bowl, valley])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_steps_equal_pytorch(options, function, rng):
    a, b = rng.standard_normal(4), rng.standard_normal(4)
    q = np.array([0.5, 1.0, 3.0, 10.0])
    ours = [nnx.Parameter(a.copy()), nnx.Parameter(b.copy())]
    theirs = [torch.nn.Parameter(torch.tensor(x)) for x in (a, b)]
    optimizer, reference = nnx.optim.LBFGS(ours, **options), torch.optim.LBFGS(theirs, **options)

    def closure(o, params, q):
        o.zero_grad()
        loss = function(*params, q)
        loss.backward()
        return loss

    for _ in range(4):
        loss = optimizer.step(lambda: closure(optimizer, ours, nnx.tensor(q)))
        expected = reference.step(lambda: closure(reference, theirs, torch.tensor(q)))
        # Curvatures near the minimum are quotients of small differences, which carries the rounding
        # of PyTorch's other order of summation to about half of the digits.
        np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-8, atol=1e-9)
        for p, t in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p.data, t.detach().numpy(), rtol=1e-7, atol=1e-7)
        state, entry = optimizer.state[ours[0]], reference.state[theirs[0]]
        assert state["n_iter"] == entry["n_iter"]
        assert state["func_evals"] == entry["func_evals"]


def test_the_comparison_sees_another_history(rng):
    a = rng.standard_normal(6)
    results = []
    for size in (2, 3):
        p = nnx.Parameter(a.copy())
        optimizer = nnx.optim.LBFGS([p], lr=0.5, max_iter=6, history_size=size)

        def closure(p=p, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (p**4).sum() + (p[1:] * p[:-1]).sum() ** 2
            loss.backward()
            return loss

        optimizer.step(closure)
        results.append(p.data)
    assert np.abs(results[0] - results[1]).max() > 1e-4


def test_state_dicts_go_both_ways(rng):
    a = rng.standard_normal(5)
    p, t = nnx.Parameter(a.copy()), torch.nn.Parameter(torch.tensor(a))
    options = {"max_iter": 3, "lr": 0.2, "history_size": 4}
    optimizer, reference = nnx.optim.LBFGS([p], **options), torch.optim.LBFGS([t], **options)

    def closure(o, x):
        o.zero_grad()
        loss = (x**4).sum() + (x * x).sum()
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(lambda: closure(optimizer, p))
        reference.step(lambda: closure(reference, t))
    q = nnx.Parameter(t.detach().numpy().copy())
    ours = nnx.optim.LBFGS([q])
    ours.load_state_dict(reference.state_dict())
    state = optimizer.state_dict()
    entry = state["state"][0]
    for key in ("d", "prev_flat_grad"):
        entry[key] = torch.as_tensor(entry[key])
    for key in ("old_dirs", "old_stps", "ro"):
        entry[key] = [torch.as_tensor(x) for x in entry[key]]
    u = torch.nn.Parameter(torch.tensor(p.data))
    theirs = torch.optim.LBFGS([u])
    theirs.load_state_dict(state)
    for _ in range(2):
        optimizer.step(lambda: closure(optimizer, p))
        reference.step(lambda: closure(reference, t))
        ours.step(lambda: closure(ours, q))
        theirs.step(lambda: closure(theirs, u))
    for other in (q.data, t.detach().numpy(), u.detach().numpy()):
        np.testing.assert_allclose(other, p.data, rtol=1e-9, atol=1e-12)
