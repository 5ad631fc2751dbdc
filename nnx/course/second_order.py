"""Second-order methods: Newton, BFGS and L-BFGS, and why the noise must be off.

Newton's method jumps to the bottom of the parabola that fits the loss best. It needs the Hessian, which BFGS estimates
from gradients and L-BFGS remembers only in part. All of them compare losses, so nothing in the loss may be random.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
import nnx.functional as F
from nnx import nn, optim, viz
from nnx.course import picture

ROWS = ("F073", "F074")


def newton(start: tuple[float, ...], function: Any, steps: int, damping: float = 0.0) -> np.ndarray:
    """The way (steps + 1, n) of Newton's method over a function of a Parameter with n numbers."""
    p = nnx.Parameter(np.array(start, np.float64))
    optimizer = optim.Newton([p], damping=damping)

    def closure() -> nnx.Tensor:
        optimizer.zero_grad()
        loss = function(p)
        loss.backward()
        return loss

    way = [p.data.copy()]
    for _ in range(steps):
        optimizer.step(closure)
        way.append(p.data.copy())
    return np.array(way)


def bowl(p: Any) -> Any:
    """``5 x^2 + y^2 / 2``, a quadratic: its Hessian is the same everywhere."""
    return 5 * p[0] ** 2 + p[1] ** 2 / 2


def rosenbrock(p: Any) -> Any:
    """``100 (y - x^2)^2 + (1 - x)^2``, a bent valley with its minimum at (1, 1)."""
    return 100 * (p[1] - p[0] ** 2) ** 2 + (1 - p[0]) ** 2


def logistic_problem(count: int, weight_decay: float = 1e-2) -> tuple[nn.Module, Any]:
    """A softmax classifier of the first `count` digits with L2 decay: a convex loss with one minimum."""
    digits = nnx.data.digits("float64")
    x, y = digits.x_train[:count].reshape(count, -1), digits.y_train[:count]
    model = nn.Linear(64, 10).double()
    for p in model.parameters():
        p.data[...] = 0

    def closure() -> nnx.Tensor:
        model.zero_grad()
        loss = F.cross_entropy(model(x), y) + weight_decay / 2 * sum((p * p).sum() for p in model.parameters())
        loss.backward()
        return loss

    return model, closure


def minimise(method: str, count: int, iterations: int) -> tuple[float, list[float]]:
    """Fit the classifier with one of SciPy's methods, or "gradient descent": the last loss, and that of every call."""
    model, closure = logistic_problem(count)
    seen: list[float] = []

    def watched() -> nnx.Tensor:
        loss = closure()
        seen.append(loss.item())
        return loss

    if method == "gradient descent":
        optimizer = optim.SGD(model.parameters(), lr=0.5)
        for _ in range(iterations):
            optimizer.step(watched)
    else:
        optim.minimize(model, watched, method=method, options={"maxiter": iterations})
    return closure().item(), [float(v) for v in np.minimum.accumulate(seen)]


def noise_message() -> str:
    """What `optim.minimize` says about a model whose dropout is on."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))

    def closure() -> nnx.Tensor:
        loss = (model(np.ones((3, 4), np.float32)) ** 2).mean()
        loss.backward()
        return loss

    try:
        optim.minimize(model, closure)
    except ValueError as error:
        return str(error)
    return ""


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Newton on a quadratic and in a bent valley; BFGS and L-BFGS against gradient descent on the digits."""
    nnx.manual_seed(seed)
    quadratic = newton((1.0, 1.0), bowl, 1)
    valley = newton((-1.2, 1.0), rosenbrock, 7)
    print("Newton, one step on the bowl from (1, 1):", [round(v, 9) + 0.0 for v in quadratic[-1].tolist()])
    errors = np.abs(valley - 1).max(axis=1).tolist()
    print("Newton in Rosenbrock's valley, distance from the minimum:", [float(f"{e:.2g}") for e in errors])

    count, iterations = (100, 15) if small else (500, 60)
    results = {m: minimise(m, count, iterations) for m in ("BFGS", "L-BFGS-B", "gradient descent")}
    print(f"softmax classifier of {count} digits, at most {iterations} iterations:")
    for method, (loss, seen) in results.items():
        print(f"  {method:17s} loss {loss:.8f} after {len(seen)} gradients")
    message = noise_message()
    print("with dropout on:", message)

    if path := picture(out, "second_order-paths"):
        viz.paths(rosenbrock, {"Newton": valley}, path, limits=(-1.6, 1.6, -3.5, 2.0), log=True)
    if path := picture(out, "second_order-losses"):
        viz.lines({m: seen for m, (_, seen) in results.items()}, "gradients", "loss", log="y", path=path)
    return {
        "quadratic": quadratic[-1].tolist(),
        "valley": errors,
        "losses": {m: loss for m, (loss, _) in results.items()},
        "gradients": {m: len(seen) for m, (_, seen) in results.items()},
        "noise": message,
    }
