"""Gradient descent: why not random search, how long a step, how many examples, and where it may end.

A linear classifier of the digits with the multiclass hinge loss is found by guessing and by following the slope; the
step size and the batch size are varied; and two small landscapes show a saddle point and a minimum that is only local.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

import nnx
import nnx.functional as F
from nnx import nn, optim, viz
from nnx.course import picture
from nnx.train import StopOnNaN, Trainer

ROWS = ("F060", "F063", "F064", "F065", "F078")


def rows_with_bias(images: np.ndarray) -> np.ndarray:
    """Images as rows of pixels in 0..255 with a 1 behind them, which makes the bias a column of W."""
    pixels = images.reshape(len(images), -1) * 255.0
    return np.concatenate([pixels, np.ones((len(images), 1))], axis=1)


def hinge(w: Any, x: np.ndarray, y: np.ndarray) -> nnx.Tensor:
    """The loss of a linear classifier with weights (C, D), without regularisation."""
    return F.multiclass_hinge_loss(nnx.tensor(x) @ nnx.tensor(w).T if isinstance(w, np.ndarray) else x @ w.T, y)


def random_search(x: np.ndarray, y: np.ndarray, tries: int, seed: int) -> tuple[np.ndarray, list[float]]:
    """Draw weights 0.0001 * normal, keep the best: its weights, and the best loss after each try."""
    rng = np.random.default_rng(seed)
    best_loss, best_w, history = math.inf, np.zeros((10, x.shape[1])), []
    for _ in range(tries):
        w = rng.standard_normal(best_w.shape) * 0.0001
        loss = hinge(w, x, y).item()
        if loss < best_loss:
            best_loss, best_w = loss, w
        history.append(best_loss)
    return best_w, history


def gradient_descent(x: np.ndarray, y: np.ndarray, steps: int, step_size: float, seed: int) -> tuple[Any, list[float]]:
    """Vanilla gradient descent from the same kind of start: the weights and the loss before each step."""
    weights = nnx.Parameter(np.random.default_rng(seed).standard_normal((10, x.shape[1])) * 0.0001)
    data, history = nnx.tensor(x), []
    for _ in range(steps):
        loss = F.multiclass_hinge_loss(data @ weights.T, y)
        weights.grad = None
        loss.backward()
        weights.data += -step_size * weights.grad
        history.append(loss.item())
    return weights.data, history


def step_sizes(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[float, dict[int, float]]:
    """The loss at random weights, and after one step of ``10^e`` against the gradient, for e from -10 to -1."""
    weights = nnx.Parameter(np.random.default_rng(seed).random((10, x.shape[1])) * 0.001)
    loss = F.multiclass_hinge_loss(nnx.tensor(x) @ weights.T, y)
    loss.backward()
    moved = {e: hinge(weights.data - 10.0**e * weights.grad, x, y).item() for e in range(-10, 0)}
    return loss.item(), moved


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """How many updates one pass over the data makes, counted by running it."""
    return sum(1 for _ in nnx.data.DataLoader(np.zeros(samples, np.float32), batch_size, prefetch=0))


def learning_curves(rates: dict[str, float], epochs: int, seed: int) -> dict[str, Any]:
    """Train one small network per learning rate: its loss by epoch, or what stopped it."""
    digits = nnx.data.digits()
    curves: dict[str, Any] = {}
    for name, lr in rates.items():
        nnx.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=lr), metrics=())
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # this is what one of them is here for
                history = trainer.fit(
                    digits.x_train, digits.y_train, epochs, 64, callbacks=[StopOnNaN()], seed=seed, verbose=False
                )
            curves[name] = history.loss
        except FloatingPointError as error:
            curves[name] = str(error)
    return curves


def saddle(p: Any) -> Any:
    """``x^2 - y^2 + y^4 / 4``: a saddle point at (0, 0) between minima at (0, sqrt 2) and (0, -sqrt 2)."""
    return p[0] ** 2 - p[1] ** 2 + p[1] ** 4 / 4


def valleys(p: Any) -> Any:
    """``y^2 + x^4 / 4 - x^2 / 2 + x / 5``: the left valley is deeper than the right one."""
    return p[1] ** 2 + p[0] ** 4 / 4 - p[0] ** 2 / 2 + p[0] / 5


def descend(f: Any, start: tuple[float, float], steps: int = 200, lr: float = 0.05, momentum: float = 0) -> np.ndarray:
    """The way (steps + 1, 2) of SGD over a function of two numbers."""
    p = nnx.Parameter(np.array(start, np.float64))
    optimizer = optim.SGD([p], lr=lr, momentum=momentum)
    way = [p.data.copy()]
    for _ in range(steps):
        optimizer.zero_grad()
        f(p).backward()
        optimizer.step()
        way.append(p.data.copy())
    return np.array(way)


def curvatures(f: Any, point: np.ndarray) -> list[float]:
    """The eigenvalues of the Hessian: all positive at a minimum, of both signs at a saddle point."""
    p = nnx.Parameter(np.array(point))

    def closure() -> nnx.Tensor:
        loss = f(p)
        loss.backward()
        return loss

    return [float(v) for v in np.linalg.eigvalsh(optim.hessian([p], closure))]


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Search at random and by the slope, sweep step size, batch size and learning rate, visit a saddle point."""
    digits = nnx.data.digits("float64")
    x, y = rows_with_bias(digits.x_train), digits.y_train
    x_test, y_test = rows_with_bias(digits.x_test), digits.y_test

    def accuracy(w: np.ndarray) -> float:
        return float(np.mean((x_test @ w.T).argmax(axis=1) == y_test))

    guessed, guesses = random_search(x, y, 100 if small else 1000, seed)
    found, descent = gradient_descent(x, y, 100, 1e-6, seed)
    print(f"best of {len(guesses)} guesses: loss {guesses[-1]:.3f}, test accuracy {accuracy(guessed):.3f}")
    print(f"after {len(descent)} steps along the slope: loss {descent[-1]:.3f}, test accuracy {accuracy(found):.3f}")

    start, sweep = step_sizes(x, y, seed)
    print(f"one step from loss {start:.6f}:")
    for e, loss in sweep.items():
        print(f"  step size 1e{e}: {loss:.6f}")

    n = len(x)
    counts = {size: steps_per_epoch(n, size) for size in (1, 32, 256, n)}
    for size, count in counts.items():
        print(f"batches of {size}: {count} steps per epoch of {n}")

    curves = learning_curves({"too low": 1e-4, "good": 0.5, "too high": 1e9}, 3 if small else 15, seed)
    for name, curve in curves.items():
        print(f"learning rate {name}: {curve if isinstance(curve, str) else [round(v, 3) for v in curve]}")

    ridge, beside = descend(saddle, (1.0, 0.0)), descend(saddle, (1.0, 1e-6))
    left, right = descend(valleys, (-0.2, 0.8)), descend(valleys, (0.6, 0.8))
    rolled = descend(valleys, (1.9, 0.8), lr=0.02, momentum=0.95, steps=600)
    print(f"from the ridge to {_point(ridge[-1])}, curvatures {[round(v, 2) for v in curvatures(saddle, ridge[-1])]}")
    print(f"from 0.000001 beside it to {_point(beside[-1])}")
    for name, way in (("left", left), ("right", right), ("far right, with momentum", rolled)):
        print(f"two valleys, from the {name}: {_point(way[-1])}, height {valleys(way[-1]):.3f}")

    if path := picture(out, "gradient_descent-search"):
        viz.lines(
            {"guessing": guesses[: len(descent)], "gradient descent": descent}, "tries or steps", "loss", path=path
        )
    if path := picture(out, "gradient_descent-steps"):
        sizes = [10.0**e for e in sweep]
        viz.lines({"after one step": (sizes, list(sweep.values()))}, "step size", "loss", log="xy", path=path)
    if path := picture(out, "gradient_descent-rates"):
        viz.lines({k: v for k, v in curves.items() if not isinstance(v, str)}, "epoch", "loss", path=path)
    if path := picture(out, "gradient_descent-saddle"):
        viz.paths(saddle, {"on the ridge": ridge, "beside it": beside}, path, limits=(-1.2, 1.2, -0.5, 2.0))
    if path := picture(out, "gradient_descent-valleys"):
        ways = {"from the left": left, "from the right": right, "with momentum": rolled}
        viz.paths(valleys, ways, path, limits=(-2.0, 2.0, -1.0, 1.0))
    return {
        "guesses": guesses,
        "guessed_accuracy": accuracy(guessed),
        "descent": descent,
        "descent_accuracy": accuracy(found),
        "start": start,
        "sweep": {str(e): loss for e, loss in sweep.items()},
        "steps_per_epoch": {str(size): count for size, count in counts.items()},
        "curves": curves,
        "saddle": ridge[-1].tolist(),
        "beside": beside[-1].tolist(),
        "valleys": [left[-1].tolist(), right[-1].tolist(), rolled[-1].tolist()],
    }


def _point(p: np.ndarray) -> str:
    return f"({p[0]:.3f}, {p[1]:.3f})"
