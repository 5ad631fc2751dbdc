"""Dropout: train parts of a network, use all of it; plain, inverted, by halves, and as a vote.

Every training step leaves out random units, so that no unit can rely on another one. In evaluation all units work, and
the next layer would get more than it is used to: something has to be scaled, once. What is scaled, and when, is the
difference between the forms. Since every mask makes a network of its own, evaluation stands for the mean of them all.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx import nn, viz
from nnx.course import picture
from nnx.data import digits
from nnx.train import Trainer, VotingEnsemble, mc_dropout

ROWS = ("F130", "F131", "F132", "F133")

FORMS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "inverted": lambda: nn.Dropout(0.5),
    "plain": lambda: nn.PlainDropout(0.5),
    "halves": nn.AlternatingDropout,
}


def mean_over_masks(w: Any, x: Any, keep: float = 0.5) -> float:
    """The mean of ``sum of w_i m_i x_i`` over all masks m of zeros and ones, each one with probability `keep`.

    It equals ``keep * sum of w_i x_i``:

    >>> mean_over_masks([2.0, -1.0], [3.0, 4.0])
    1.0
    """
    total = 0.0
    for mask in product((0, 1), repeat=len(w)):
        probability = float(np.prod([keep if m else 1 - keep for m in mask]))
        total += probability * float(np.sum(np.multiply(w, x) * mask))
    return total


def halve_outgoing(layer: nn.Linear) -> None:
    """Halve the weights of the layer behind a dropped one, and leave its bias alone.

    A sum over half of the units has half the size; the bias is added afterwards, whatever was dropped.
    """
    layer.weight.data *= 0.5


def network(form: str, width: int = 128) -> nn.Sequential:
    """64 - width - 10 with ReLU and a form of dropout on the hidden layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), FORMS[form](), nn.Linear(width, 10))


def trained(form: str, x: np.ndarray, y: np.ndarray, epochs: int, seed: int) -> nn.Sequential:
    nnx.manual_seed(seed)
    model = network(form)
    optimizer = nnx.optim.Adam(model.parameters(), lr=2e-3)
    Trainer(model, nn.CrossEntropyLoss(), optimizer).fit(x, y, epochs, batch_size=32, verbose=False)
    return model


def accuracy(model: nn.Module, x: np.ndarray, y: np.ndarray) -> float:
    return float((model.predict(x).argmax(axis=1) == y).mean())


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train 206 digits with each form of dropout; then let ten networks, and one network's masks, vote."""
    x, y, x_test, y_test = digits()
    x, y = x[::7], y[::7]
    epochs, members = (5, 3) if small else (100, 10)
    print(f"mean over the four masks of 2*3 - 1*4: {mean_over_masks([2.0, -1.0], [3.0, 4.0])}, half of 2")

    result: dict[str, Any] = {}
    models = {form: trained(form, x, y, epochs, seed) for form in FORMS}
    for form, model in models.items():
        result[form] = accuracy(model, x_test, y_test)
        print(f"dropout {form:9s} training accuracy {accuracy(model, x, y):.3f}  test accuracy {result[form]:.3f}")

    ensemble = VotingEnsemble([trained("none", x, y, epochs, seed + i) for i in range(members)])
    single = [accuracy(model, x_test, y_test) for model in ensemble.models]  # type: ignore[arg-type]
    result["single"], result["vote"] = float(np.mean(single)), ensemble.score(x_test, y_test)
    print(f"{members} networks: {result['single']:.3f} each on average, {result['vote']:.3f} as a vote")
    votes = ensemble.votes(x_test)
    unsure = int(votes.max(axis=1).argmin())
    print(f"the least sure test digit is a {y_test[unsure]}; votes for 0 to 9: {votes[unsure].tolist()}")

    nnx.manual_seed(seed)
    probabilities = nn.Sequential(models["inverted"], nn.Softmax(dim=1))
    mean, deviation = mc_dropout(probabilities, x_test, samples=10 if small else 100)
    answer = mean.argmax(axis=1)
    result["mc_dropout"] = float((answer == y_test).mean())
    spread = deviation[np.arange(len(answer)), answer]  # of the probability of the class that is chosen
    result["spread_right"] = float(spread[answer == y_test].mean())
    result["spread_wrong"] = float(spread[answer != y_test].mean())
    print(
        f"mean over random masks: test accuracy {result['mc_dropout']:.3f}; the masks disagree by "
        f"{result['spread_right']:.3f} where it is right and {result['spread_wrong']:.3f} where it is wrong"
    )

    if path := picture(out, "dropout-accuracy"):
        viz.bars({k: result[k] for k in (*FORMS, "single", "vote", "mc_dropout")}, "test accuracy", path=path)
    if path := picture(out, "dropout-least_sure"):
        order = votes.max(axis=1).argsort(kind="stable")[:12]
        titles = [f"{y_test[i]}, votes {votes[i].max()}" for i in order]
        viz.images(x_test[order], titles, columns=6, path=path)
    return result
