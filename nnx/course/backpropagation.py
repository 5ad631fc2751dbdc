"""Backpropagation: gradients of vectors, a loss in stages, the four equations, and small networks by hand.

What the tape of nnx does for any network is written out here for small ones, and both come to the same numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
import nnx.functional as F
from nnx import nn, viz
from nnx.course import picture
from nnx.graph import deltas, jacobian

ROWS = ("F084", "F085", "F086", "F088", "F089", "F090")


# -- gradients of vectors ------------------------------------------------------------------------------


def relu_jacobian(x: np.ndarray) -> np.ndarray:
    """The Jacobian of ``max(0, x)``: a diagonal of zeros and ones, which nobody needs to write down."""
    return jacobian(nnx.relu, x)


# -- the loss of a linear SVM in stages ----------------------------------------------------------------


def svm_in_stages(w: np.ndarray, x: np.ndarray, y: np.ndarray, reg: float) -> tuple[float, np.ndarray]:
    """Loss and gradient of a linear classifier with the multiclass hinge loss, in the slide's stages.

    w (C, D), x (N, D), y (N,);  ``loss = mean of sum max(0, s_j - s_y + 1) + reg sum w^2``
    """
    n = len(x)
    # forward pass
    scores = x @ w.T
    margins = np.maximum(0, scores - scores[np.arange(n), y][:, None] + 1)
    margins[np.arange(n), y] = 0
    data_loss = margins.sum() / n
    reg_loss = reg * np.sum(w * w)
    loss = data_loss + reg_loss
    # backward pass
    dmargins = (margins > 0) / n
    dscores = dmargins.copy()
    dscores[np.arange(n), y] -= dmargins.sum(axis=1)
    dw = dscores.T @ x + 2 * reg * w
    return float(loss), dw


def svm_by_tape(w: np.ndarray, x: np.ndarray, y: np.ndarray, reg: float) -> tuple[float, np.ndarray]:
    """The same by the library."""
    weights = nnx.Parameter(w.copy())
    loss = F.multiclass_hinge_loss(nnx.tensor(x) @ weights.T, y) + reg * (weights * weights).sum()
    loss.backward()
    return loss.item(), weights.grad


# -- the four equations --------------------------------------------------------------------------------


def four_equations(model: nn.Sequential, x: np.ndarray, y: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Deltas and gradients of Linear and Sigmoid layers for the cost ``|a - y|^2 / 2``, by the equations alone.

    (1) delta_L = (a_L - y) s'(z_L);  (2) delta_l = (delta_(l+1) W_(l+1)) s'(z_l);  (3) dC/db = delta;
    (4) dC/dW = delta a_(l-1);  (3) and (4) are summed over the batch. The layers run back, l = L-1, ..., 1.
    """
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    activations, slopes = [x], []
    for layer in linear:
        assert layer.bias is not None
        a = 1 / (1 + np.exp(-(activations[-1] @ layer.weight.data.T + layer.bias.data)))
        activations.append(a)
        slopes.append(a * (1 - a))
    delta = (activations[-1] - y) * slopes[-1]
    layers = []
    for i in reversed(range(len(linear))):
        if i < len(linear) - 1:
            delta = (delta @ linear[i + 1].weight.data) * slopes[i]
        layers.append({"delta": delta, "bias": delta.sum(axis=0), "weight": delta.T @ activations[i]})
    return layers[::-1]


def compare_four_equations(seed: int) -> dict[str, float]:
    """The largest difference between the equations and what `nnx.graph.deltas` finds, over all layers."""
    nnx.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = nn.Sequential(
        nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 2), nn.Sigmoid()
    ).double()
    x, y = rng.standard_normal((6, 5)), rng.random((6, 2))
    by_hand = four_equations(model, x, y)
    by_tape = deltas(model, x, lambda a: 0.5 * ((a - y) ** 2).sum())
    differences = {"delta": 0.0, "bias": 0.0, "weight": 0.0}
    for ours, theirs in zip(by_hand, by_tape, strict=True):
        for name, found in (("delta", theirs.delta), ("bias", theirs.bias_grad), ("weight", theirs.weight_grad)):
            differences[name] = max(differences[name], float(np.abs(ours[name] - found).max()))
    return differences


# -- two layers in eleven lines ------------------------------------------------------------------------

X = np.array([[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]], np.float64)
Y = np.array([[0, 1, 1, 0]], np.float64).T


def eleven_lines(steps: int, seed: int = 1, every: int = 10_000) -> tuple[dict[int, float], list[np.ndarray]]:
    """The lecture's network on its four rows: the mean absolute error by step, and the two weights at the end.

    seed:   of NumPy's old generator, whose numbers are those that ``np.random.seed(seed)`` gives
    every:  how many steps lie between the errors that are kept; that of the last step is kept too, under `steps`
    """
    random = np.random.RandomState(seed).random_sample
    syn0 = 2 * random((3, 4)) - 1
    syn1 = 2 * random((4, 1)) - 1
    errors = {}
    for j in range(steps):
        l1 = 1 / (1 + np.exp(-(X @ syn0)))
        l2 = 1 / (1 + np.exp(-(l1 @ syn1)))
        if j % every == 0:
            errors[j] = float(np.mean(np.abs(Y - l2)))
        l2_delta = (Y - l2) * (l2 * (1 - l2))
        l1_delta = l2_delta @ syn1.T * (l1 * (1 - l1))
        syn1 += l1.T @ l2_delta
        syn0 += X.T @ l1_delta
    errors[steps] = float(np.mean(np.abs(Y - l2)))  # of the last forward pass, like the lecture's printout
    return errors, [syn0, syn1]


def eleven_lines_by_tape(steps: int, seed: int = 1) -> list[np.ndarray]:
    """The same with autograd: gradient descent with step 1 on half the squared error."""
    random = np.random.RandomState(seed).random_sample
    syn0, syn1 = nnx.Parameter(2 * random((3, 4)) - 1), nnx.Parameter(2 * random((4, 1)) - 1)
    optimizer = nnx.optim.SGD([syn0, syn1], lr=1.0)
    for _ in range(steps):
        optimizer.zero_grad()
        output = nnx.sigmoid(nnx.sigmoid(nnx.tensor(X) @ syn0) @ syn1)
        (0.5 * ((nnx.tensor(Y) - output) ** 2).sum()).backward()
        optimizer.step()
    return [syn0.data, syn1.data]


# -- three layers, shapes, and parameters --------------------------------------------------------------


def three_layers(seed: int) -> dict[str, Any]:
    """The slide's forward pass on a column of three numbers: shapes, and the difference from three Linear layers."""
    rng = np.random.default_rng(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 1)).double()
    (w1, b1), (w2, b2), (w3, b3) = ((model[i].weight.data, model[i].bias.data[:, None]) for i in (0, 2, 4))

    def f(x: np.ndarray) -> np.ndarray:
        return 1.0 / (1.0 + np.exp(-x))

    x = rng.standard_normal((3, 1))
    h1 = f(np.dot(w1, x) + b1)
    h2 = f(np.dot(w2, h1) + b2)
    out = np.dot(w3, h2) + b3
    difference = float(np.abs(model(x.T).data.T - out).max())
    return {"shapes": [list(a.shape) for a in (h1, h2, out)], "difference": difference}


def small_convnet() -> nn.Sequential:
    """Images (3, 32, 32) by 12 filters 3 x 3, ReLU and pooling to 10 scores."""
    return nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3072, 10))


def pipeline() -> list[list[int]]:
    """The shapes of an image behind each layer of `small_convnet`, without the batch."""
    x, shapes = nnx.tensor(np.zeros((1, 3, 32, 32), np.float32)), []
    for layer in small_convnet():
        x = layer(x)
        shapes.append(list(x.shape[1:]))
    return shapes


def count(model: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(p.size for p in model.parameters())


def two_layer_net() -> nn.Module:
    """Three inputs, four hidden units, two outputs."""
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def three_layer_net() -> nn.Module:
    """Three inputs, twice four hidden units, one output."""
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Compare hand-written gradients with the tape's, train the eleven lines, count shapes and parameters."""
    nnx.manual_seed(seed)
    rng = np.random.default_rng(seed)
    diagonal = np.diag(relu_jacobian(np.array([1.0, -2.0, 3.0, -1.0]))).tolist()
    print("Jacobian of max(0, x) at (1, -2, 3, -1), diagonal:", diagonal)

    w, x, y = rng.standard_normal((3, 5)), rng.standard_normal((8, 5)), rng.integers(0, 3, 8)
    (loss, dw), (tape_loss, tape_dw) = svm_in_stages(w, x, y, 0.1), svm_by_tape(w, x, y, 0.1)
    staged = max(abs(loss - tape_loss), float(np.abs(dw - tape_dw).max()))
    print(f"SVM in stages: loss {loss:.6f}; largest difference from the tape {staged:.1e}")

    equations = compare_four_equations(seed)
    print("four equations against the tape:", {name: f"{d:.1e}" for name, d in equations.items()})

    steps = 3000 if small else 60_000
    errors, _ = eleven_lines(steps)
    print(f"eleven lines, {steps} steps:")
    for step, error in errors.items():
        print(f"  step {step:6d}: mean absolute error {error:.12f}")

    forward, shapes = three_layers(seed), pipeline()
    print("three layers:", forward["shapes"], " convnet:", shapes)
    counts = {"3-4-2": count(two_layer_net()), "3-4-4-1": count(three_layer_net()), "convnet": count(small_convnet())}
    print("parameters:", counts)
    print(two_layer_net().summary(3))

    if path := picture(out, "backpropagation-errors"):
        curve, _ = eleven_lines(3000, every=20)
        viz.lines({"eleven lines": (list(curve), list(curve.values()))}, "step", "mean absolute error", path=path)
    return {
        "relu_jacobian": diagonal,
        "svm_difference": staged,
        "equations": equations,
        "errors": {str(step): error for step, error in errors.items()},
        "shapes": forward["shapes"],
        "pipeline": shapes,
        "parameters": counts,
    }
