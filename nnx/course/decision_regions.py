"""Decision regions: what a classifier decides where, with more and more hidden units.

Trains networks with 3, 6 and 20 hidden units on two interleaved spirals, then one with 20 units under ever stronger
regularisation, and draws what each decides in the plane. `LinearDemo` is the other half: a linear classifier of points
that is trained one step at a time, with everything open to the hand: points, weights, loss, regularisation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
import nnx.functional as F
from nnx import _check, course, nn, viz

ROWS = ("F009", "F055")

HIDDEN = (3, 6, 20)
DECAYS = (0.0, 0.0002, 0.001)


def spirals(per_class: int = 80, noise: float = 0.03, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points (2 per_class, 2) of two spiral arms that wind about each other, a turn and a half, and their class."""
    rng = np.random.default_rng(seed)
    turn = np.linspace(0.15, 1, per_class)
    arms = []
    for start in (0, np.pi):
        angle = start + 3 * np.pi * turn
        arms.append(np.stack([turn * np.cos(angle), turn * np.sin(angle)], axis=1))
    x = np.concatenate(arms) + rng.normal(0, noise, (2 * per_class, 2))
    return x.astype(np.float32), np.repeat([0, 1], per_class)


def train(
    hidden: int, x: np.ndarray, y: np.ndarray, steps: int, weight_decay: float = 0.0, seed: int = 0
) -> tuple[nn.Module, float]:
    """Train one hidden layer of tanh units on all points at once; returns the network and its training accuracy.

    weight_decay:  lambda of the penalty lambda / 2 * sum(w**2)
    """
    nnx.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 2))
    optimizer = nnx.optim.Adam(model.parameters(), lr=0.03, weight_decay=weight_decay)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, float(np.mean(model.predict(x).argmax(axis=1) == y))


class LinearDemo:
    """A linear classifier of points in the plane that is trained by hand, step by step.

    x, y:  points (N, 2) and classes (N,); None takes three clouds of three points
    loss:  "hinge" (sum over the wrong classes, margin 1), "squared hinge" or "softmax"
    reg:   lambda of the penalty lambda * sum(W**2)
    lr:    step size

    Everything may be changed between steps: ``demo.x[0] = 0.2, 0.9`` moves a point, ``demo.weight[1] = 1, -1`` turns a
    line, ``demo.loss = "softmax"``. The loss is ``mean(L_i) + reg * sum(W**2)`` with ``W`` of shape (C, 2).

    >>> demo = LinearDemo(seed=1)
    >>> before = demo.losses()["total"]
    >>> demo.step(100)["total"] < before
    True
    """

    LOSSES = ("hinge", "squared hinge", "softmax")

    def __init__(
        self, x: Any = None, y: Any = None, loss: str = "hinge", reg: float = 0.01, lr: float = 0.1, seed: int = 0
    ) -> None:
        if (x is None) != (y is None):
            raise ValueError("LinearDemo: expected x and y together, got only one of them")
        rng = np.random.default_rng(seed)
        if x is None:
            centres = np.array([[0.5, 0.5], [-0.5, 0.4], [0.0, -0.6]])
            x, y = np.repeat(centres, 3, axis=0) + rng.normal(0, 0.15, (9, 2)), np.repeat([0, 1, 2], 3)
        self.x = np.array(x, np.float64)
        self.y = np.array(y)
        points = self.x.ndim == 2 and self.x.shape[1] == 2
        if not points or self.y.shape != self.x.shape[:1] or self.y.dtype.kind not in "iu":
            raise ValueError(
                "LinearDemo: expected x of shape (N, 2) and integer classes y of shape (N,), "
                f"got {self.x.shape} and {self.y.dtype} {self.y.shape}"
            )
        self.loss = loss
        self.reg = _check.real("LinearDemo", "reg", reg, 0)
        self.lr = _check.real("LinearDemo", "lr", lr, 0)
        self.weight = rng.normal(0, 1, (int(self.y.max()) + 1, 2))
        self.bias = np.zeros(len(self.weight))
        self.steps = 0

    def _forward(self) -> tuple[nnx.Tensor, nnx.Tensor, tuple[nnx.Tensor, nnx.Tensor]]:
        _check.choice("LinearDemo", "loss", self.loss, self.LOSSES)
        weight, bias = (nnx.tensor(a, dtype=np.float64, requires_grad=True) for a in (self.weight, self.bias))
        scores = nnx.tensor(self.x, dtype=np.float64) @ weight.transpose(0, 1) + bias
        if self.loss == "softmax":
            each = F.cross_entropy(scores, self.y, reduction="none")
        else:
            margins = nnx.relu(scores - nnx.gather(scores, 1, self.y[:, None]) + 1)
            if self.loss == "squared hinge":
                margins = margins * margins
            each = margins.sum(1) - 1  # the right class is not summed over: its margin is 1
        return each, self.reg * (weight * weight).sum(), (weight, bias)

    def losses(self) -> dict[str, Any]:
        """The loss now: "each" point's, their mean "data", the penalty "reg", and the "total"."""
        each, penalty, _ = self._forward()
        data = each.mean().item()
        return {"each": each.numpy().tolist(), "data": data, "reg": penalty.item(), "total": data + penalty.item()}

    def step(self, count: int = 1) -> dict[str, Any]:
        """Take `count` steps down the gradient; returns `losses` afterwards."""
        for _ in range(_check.integer("LinearDemo.step", "count", count, 0)):
            each, penalty, (weight, bias) = self._forward()
            (each.mean() + penalty).backward()
            self.weight -= self.lr * weight.grad
            self.bias -= self.lr * bias.grad
            self.steps += 1
        return self.losses()

    def predict(self, points: Any) -> np.ndarray:
        """The class with the largest score for each of the points (n, 2)."""
        scores = np.asarray(points)[:, None, :] * self.weight
        return (scores.sum(axis=2) + self.bias).argmax(axis=1)

    def draw(self, path: Path | None = None) -> Any:
        """Draw the regions and the points as they are now; returns the figure."""
        losses = self.losses()
        title = f"{self.loss}, step {self.steps}: {losses['data']:.3f} + {losses['reg']:.3f} = {losses['total']:.3f}"
        return viz.decision_regions(self.predict, self.x, self.y, path=path, limits=(-1.2, 1.2, -1.2, 1.2), title=title)


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train the networks and step the demo; print accuracies and losses."""
    x, y = spirals(seed=seed)
    steps = 300 if small else 1000
    capacity, decay = {}, {}
    for hidden in HIDDEN:
        model, capacity[hidden] = train(hidden, x, y, steps, seed=seed)
        print(f"{hidden:>2} hidden units: {capacity[hidden]:.3f} of the training points right")
        if path := course.picture(out, f"decision_regions-hidden-{hidden:02}"):
            viz.decision_regions(model, x, y, path=path, title=f"{hidden} hidden units: {capacity[hidden]:.3f}")
    for weight_decay in DECAYS:
        model, decay[weight_decay] = train(HIDDEN[-1], x, y, steps, weight_decay, seed)
        print(f"{HIDDEN[-1]} hidden units, lambda {weight_decay:g}: {decay[weight_decay]:.3f}")
        if path := course.picture(out, f"decision_regions-lambda-{weight_decay:g}"):
            viz.decision_regions(model, x, y, path=path, title=f"lambda {weight_decay:g}: {decay[weight_decay]:.3f}")
    demos = {loss: _demonstrate(loss, None if small and loss != "hinge" else out, seed) for loss in LinearDemo.LOSSES}
    return {
        "hidden": list(HIDDEN),
        "accuracy": [capacity[hidden] for hidden in HIDDEN],
        "lambda": list(DECAYS),
        "accuracy_by_lambda": [decay[weight_decay] for weight_decay in DECAYS],
        "demo": demos,
    }


def _demonstrate(loss: str, out: Path | None, seed: int) -> list[list[float]]:
    """Step one demo, printing and drawing on the way; returns (step, total loss)."""
    demo = LinearDemo(loss=loss, seed=seed)
    table = []
    for count in (0, 1, 9, 90):
        losses = demo.step(count)
        table.append([demo.steps, losses["total"]])
        print(
            f"linear demo, {loss}, step {demo.steps:>3}: "
            f"data {losses['data']:.4f} + penalty {losses['reg']:.4f} = {losses['total']:.4f}"
        )
        if path := course.picture(out, f"decision_regions-{loss.replace(' ', '-')}-{demo.steps:03}"):
            demo.draw(path)
    return table
