"""Linear classifiers: one row of weights per class, seen as a formula, as a template and as a line.

Computes scores with a bias and with the bias as one more column, trains a support vector machine and a softmax
classifier on the digits and looks at their templates, and shows that weights which reach a hinge loss of zero may be
doubled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
import nnx.functional as F
from nnx import viz
from nnx.classic import LinearSVM, SoftmaxClassifier
from nnx.course import picture

ROWS = ("F040", "F041", "F044")

# scores of the lecture's three pictures (rows) for the classes cat, car and frog, and their right classes
SCORES = np.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
LABELS = np.array([0, 1, 2])


def bias_trick(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scores ``x W' + b``, and the same from ``[x 1] [W b]'``: x (N, d), weight (C, d), bias (C,)."""
    longer = np.hstack([x, np.ones((len(x), 1), x.dtype)])
    wider = np.hstack([weight, bias[:, None]])
    return F.linear(x, weight, bias).data, F.linear(longer, wider).data


def doubled() -> list[tuple[float, float]]:
    """The hinge loss of each picture, with W and with 2 W, which doubles the scores."""
    once = F.multiclass_hinge_loss(SCORES, LABELS, reduction="none").data
    twice = F.multiclass_hinge_loss(2 * SCORES, LABELS, reduction="none").data
    return [(float(a), float(b)) for a, b in zip(once, twice, strict=True)]


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Print the two forms, the accuracies of both classifiers, and the losses for W and 2 W."""
    rng = np.random.default_rng(seed)
    x, weight, bias = rng.standard_normal((5, 3072)), 0.01 * rng.standard_normal((10, 3072)), rng.standard_normal(10)
    plain, joined = bias_trick(x, weight, bias)
    difference = float(np.abs(plain - joined).max())
    print(f"scores of 5 pictures, {plain.shape}: W of 3072 columns and a bias, or of 3073: differ by {difference:.1e}")
    for name, scores in zip(("first", "second"), plain[:2], strict=True):
        print(f"  {name} picture:", " ".join(f"{s:+.2f}" for s in scores))

    data = nnx.data.digits()
    mean = data.x_train.mean(axis=0)
    train, test = data.x_train - mean, data.x_test - mean
    epochs = 5 if small else 40
    models = {
        "SVM": LinearSVM(learning_rate=0.01, batch_size=50, epochs=epochs, random_state=seed),
        "SVM, squared hinge": LinearSVM(
            "squared hinge", learning_rate=0.003, batch_size=50, epochs=epochs, random_state=seed
        ),
        "softmax": SoftmaxClassifier(learning_rate=0.1, batch_size=50, epochs=epochs, random_state=seed),
    }
    accuracy = {}
    for name, model in models.items():
        model.fit(train, data.y_train)
        accuracy[name] = model.score(test, data.y_test)
        print(f"digits, {name}: loss {model.loss_curve_[-1]:.4f}, test accuracy {accuracy[name]:.4f}")

    losses = doubled()
    for (once, twice), label in zip(losses, ("cat", "car", "frog"), strict=True):
        print(f"hinge loss of the {label}: {once:.1f} with W, {twice:.1f} with 2 W")

    for name, model in (("svm", models["SVM"]), ("softmax", models["softmax"])):
        if path := picture(out, f"linear_classifiers-{name}-templates"):
            templates = model.templates().transpose(0, 3, 1, 2)
            viz.images(templates, titles=list(range(10)), columns=5, path=path, title=f"templates, {name}")
    if path := picture(out, "linear_classifiers-losses"):
        viz.lines({name: model.loss_curve_ for name, model in models.items()}, "epoch", "loss", log="y", path=path)
    return {"difference": difference, "accuracy": accuracy, "doubled": [list(pair) for pair in losses]}
