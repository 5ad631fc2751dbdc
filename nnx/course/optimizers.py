"""Optimizers: momentum, Nesterov in both forms, AdaGrad, Adadelta, RMSProp, Adam, and learning rates that decay.

The lectures' update rules, each a few lines of NumPy, beside the optimizers of `nnx.optim`, on the bowl
``5 x^2 + y^2 / 2`` and on a longer one. Both come to the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx import optim, viz
from nnx.course import picture

ROWS = ("F066", "F067", "F068", "F069", "F070", "F071", "F072", "F077")

Gradient = Callable[[np.ndarray], np.ndarray]
START = (1.0, 1.0)


def bowl(p: Any) -> Any:
    """``5 x^2 + y^2 / 2``: ten times steeper in x than in y."""
    return 5 * p[0] ** 2 + p[1] ** 2 / 2


def bowl_gradient(p: np.ndarray) -> np.ndarray:
    return np.array([10.0, 1.0]) * p


def long_bowl(p: Any) -> Any:
    """``50 x^2 + y^2 / 2``: a hundred times steeper in x than in y, the picture of a badly scaled problem."""
    return 50 * p[0] ** 2 + p[1] ** 2 / 2


# -- the update rules as the slides write them, one generator of points each ---------------------------


def sgd(x: np.ndarray, gradient: Gradient, lr: float) -> Iterator[np.ndarray]:
    while True:
        x = x - lr * gradient(x)
        yield x


def momentum(x: np.ndarray, gradient: Gradient, lr: float, mu: float = 0.9) -> Iterator[np.ndarray]:
    v = np.zeros_like(x)
    while True:
        v = mu * v - lr * gradient(x)  # integrate velocity
        x = x + v  # integrate position
        yield x


def nesterov_look_ahead(x: np.ndarray, gradient: Gradient, lr: float, mu: float = 0.9) -> Iterator[np.ndarray]:
    v = np.zeros_like(x)
    while True:
        v = mu * v - lr * gradient(x + mu * v)
        x = x + v
        yield x


def nesterov_rewrite(x: np.ndarray, gradient: Gradient, lr: float, mu: float = 0.9) -> Iterator[np.ndarray]:
    v = np.zeros_like(x)
    while True:
        v_prev = v
        v = mu * v - lr * gradient(x)
        x = x - mu * v_prev + (1 + mu) * v
        yield x


def adagrad(x: np.ndarray, gradient: Gradient, lr: float) -> Iterator[np.ndarray]:
    cache = np.zeros_like(x)
    while True:
        dx = gradient(x)
        cache = cache + dx**2
        x = x - lr * dx / (np.sqrt(cache) + 1e-7)
        yield x


def rmsprop(x: np.ndarray, gradient: Gradient, lr: float, decay_rate: float = 0.9) -> Iterator[np.ndarray]:
    cache = np.zeros_like(x)
    while True:
        dx = gradient(x)
        cache = decay_rate * cache + (1 - decay_rate) * dx**2
        x = x - lr * dx / (np.sqrt(cache) + 1e-7)
        yield x


def adadelta(x: np.ndarray, gradient: Gradient, lr: float = 1.0, rho: float = 0.9) -> Iterator[np.ndarray]:
    cache, moved = np.zeros_like(x), np.zeros_like(x)
    while True:
        dx = gradient(x)
        cache = rho * cache + (1 - rho) * dx**2
        step = np.sqrt(moved + 1e-6) / np.sqrt(cache + 1e-6) * dx
        moved = rho * moved + (1 - rho) * step**2
        x = x - lr * step
        yield x


def adam(
    x: np.ndarray, gradient: Gradient, lr: float, beta1: float = 0.9, beta2: float = 0.999, corrected: bool = True
) -> Iterator[np.ndarray]:
    m, v, t = np.zeros_like(x), np.zeros_like(x), 0
    while True:
        t += 1
        dx = gradient(x)
        m = beta1 * m + (1 - beta1) * dx  # first moment
        v = beta2 * v + (1 - beta2) * dx**2  # second moment
        mb = m / (1 - beta1**t) if corrected else m
        vb = v / (1 - beta2**t) if corrected else v
        x = x - lr * mb / (np.sqrt(vb) + 1e-7)
        yield x


def adam_without_correction(x: np.ndarray, gradient: Gradient, lr: float) -> Iterator[np.ndarray]:
    return adam(x, gradient, lr, corrected=False)


# name: the rule, the class of nnx.optim, and what both are given; three steps of these give the golden numbers
METHODS: dict[
    str, tuple[Callable[..., Iterator[np.ndarray]], type[optim.Optimizer], dict[str, Any], dict[str, Any]]
] = {
    "SGD": (sgd, optim.SGD, {"lr": 0.01}, {}),
    "momentum": (momentum, optim.SGD, {"lr": 0.01}, {"momentum": 0.9}),
    "Nesterov, look-ahead": (nesterov_look_ahead, optim.Nesterov, {"lr": 0.01}, {"momentum": 0.9}),
    "Nesterov, rewrite": (nesterov_rewrite, optim.SGD, {"lr": 0.01}, {"momentum": 0.9, "nesterov": True}),
    "AdaGrad": (adagrad, optim.Adagrad, {"lr": 0.1}, {"eps": 1e-7}),
    "RMSProp": (rmsprop, optim.RMSprop, {"lr": 0.1}, {"alpha": 0.9, "eps": 1e-7}),
    "Adadelta": (adadelta, optim.Adadelta, {"lr": 1.0}, {}),
    "Adam, not corrected": (adam_without_correction, optim.Adam, {"lr": 0.1}, {"eps": 1e-7, "bias_correction": False}),
    "Adam": (adam, optim.Adam, {"lr": 0.1}, {"eps": 1e-7}),
}


def by_rule(
    name: str, steps: int, gradient: Gradient = bowl_gradient, start: Any = START, **options: Any
) -> np.ndarray:
    """The way (steps + 1, 2) that the slides' formula takes."""
    rule, _, defaults, _ = METHODS[name]
    x = np.array(start, np.float64)
    points = rule(x, gradient, **{**defaults, **options})
    return np.array([x, *(next(points) for _ in range(steps))])


def by_library(name: str, steps: int, function: Callable[[Any], Any] = bowl, start: Any = START, **options: Any) -> Any:
    """The way (steps + 1, 2) that the class of `nnx.optim` takes."""
    _, make, defaults, extra = METHODS[name]
    p = nnx.Parameter(np.array(start, np.float64))
    optimizer = make([p], **{**defaults, **extra, **options})
    way = [p.data.copy()]

    def closure() -> nnx.Tensor:
        optimizer.zero_grad()
        loss = function(p)
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
        way.append(p.data.copy())
    return np.array(way)


# -- learning rates that decay -------------------------------------------------------------------------


def schedules(lr: float, k: float, steps: int) -> dict[str, list[float]]:
    """The learning rate at steps 0, 1, ... under step decay (half every 5), ``lr e^(-kt)`` and ``lr / (1 + kt)``."""
    rates = {}
    for name, make in {
        "step": lambda o: optim.lr_scheduler.StepLR(o, 5, 0.5),
        "exponential": lambda o: optim.lr_scheduler.ExponentialLR(o, math.exp(-k)),
        "1/t": lambda o: optim.lr_scheduler.InverseTimeLR(o, k),
    }.items():
        optimizer = optim.SGD([nnx.Parameter(np.zeros(1))], lr=lr)
        scheduler = make(optimizer)
        rates[name] = [optimizer.param_groups[0]["lr"]]
        for _ in range(steps):
            optimizer.step()
            scheduler.step()
            rates[name].append(optimizer.param_groups[0]["lr"])
    return rates


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Three steps of every method by formula and by library, ways over a long bowl, and decaying learning rates."""
    three = {name: by_library(name, 3)[-1] for name in METHODS}
    agree = {name: float(np.abs(three[name] - by_rule(name, 3)[-1]).max()) for name in METHODS}
    print("three steps from (1, 1), and how far formula and library are apart:")
    for name, point in three.items():
        print(f"  {name:22s} ({point[0]:.12g}, {point[1]:.12g})   {agree[name]:.0e}")

    first = {name: 1 - by_library(name, 1)[1][0] for name in ("Adam", "Adam, not corrected")}
    print(f"first step of Adam: {first['Adam']:.4f} with and {first['Adam, not corrected']:.4f} without correction")
    shrink = [0.1 / math.sqrt(t) for t in (1, 100, 10_000)]
    print("AdaGrad's step under a constant gradient, at t = 1, 100, 10000:", *(f"{s:.4f}" for s in shrink))

    steps = 30 if small else 100
    rates = {
        "SGD": 0.019, "momentum": 0.01, "Nesterov, rewrite": 0.01, "AdaGrad": 0.5, "RMSProp": 0.05, "Adam": 0.3,
    }  # fmt: skip
    start = (-1.0, 4.0)
    ways = {name: by_library(name, steps, long_bowl, start, lr=lr) for name, lr in rates.items()}
    heights = {name: [float(long_bowl(p)) for p in way] for name, way in ways.items()}
    print(f"height on the long bowl after {steps} steps, from {heights['SGD'][0]:.0f}:")
    for name, height in heights.items():
        print(f"  {name:22s} {height[-1]:.3g}")

    decay = schedules(0.1, 0.1, 30)
    print("learning rate 0.1 after 10 steps:", ", ".join(f"{k} {v[10]:.4f}" for k, v in decay.items()))

    if path := picture(out, "optimizers-paths"):
        viz.paths(long_bowl, ways, path, limits=(-1.5, 1.5, -2.0, 4.5))
    if path := picture(out, "optimizers-heights"):
        viz.lines(heights, "step", "height", log="y", path=path)
    if path := picture(out, "optimizers-rates"):
        viz.lines(decay, "step", "learning rate", path=path)
    return {
        "three_steps": {name: point.tolist() for name, point in three.items()},
        "difference": agree,
        "first_step": {name: float(step) for name, step in first.items()},
        "heights": {name: height[-1] for name, height in heights.items()},
        "rates": {name: values[10] for name, values in decay.items()},
    }
