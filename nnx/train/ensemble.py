"""Several networks that decide together: a vote, and the mean over dropout masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nnx import _check
from nnx.autograd import Tensor, no_grad
from nnx.nn.dropout import AlternatingDropout


class VotingEnsemble:
    """Classify by the vote of several models.

    models:  Modules or functions that turn a batch into class scores (N, C); Modules are put into
             evaluation mode for the call
    voting:  "hard": each model gives one vote to its best class, and the class with most votes wins
             (the lowest of equals); "soft": the mean of the models' softmax probabilities decides

    ValueError for no models, for scores of another shape than (N, C), or where models disagree about
    it.

    >>> ensemble = VotingEnsemble([lambda x: x, lambda x: 3 - x, lambda x: x + 1])
    >>> ensemble.votes(np.array([[0.0, 1.0]])).tolist(), ensemble.predict(np.array([[0.0, 1.0]])).tolist()
    ([[1, 2]], [1])
    """

    def __init__(self, models: Sequence[Callable[..., Any]], voting: str = "hard") -> None:
        self.models = list(models)
        if not self.models:
            raise ValueError("VotingEnsemble: expected at least one model, got none")
        for model in self.models:
            if not callable(model):
                raise TypeError(f"VotingEnsemble: expected models to be callable, got {type(model).__name__}")
        self.voting = _check.choice("VotingEnsemble", "voting", voting, ("hard", "soft"))

    def predict(self, x: Any) -> np.ndarray:
        """The winning class of each sample: int64 (N,)."""
        scores = self.votes(x) if self.voting == "hard" else self.predict_proba(x)
        return scores.argmax(axis=1)

    def votes(self, x: Any) -> np.ndarray:
        """How many models chose each class: int64 (N, C)."""
        scores = self._scores(x)
        return (scores.argmax(axis=2)[:, :, None] == np.arange(scores.shape[2])).sum(axis=0)

    def predict_proba(self, x: Any) -> np.ndarray:
        """The mean of the models' class probabilities (N, C)."""
        return _softmax(self._scores(x)).mean(axis=0)

    def score(self, x: Any, y: Any) -> float:
        """The share of samples whose winning class is `y`."""
        return float(np.mean(self.predict(x) == np.asarray(y)))

    def _scores(self, x: Any) -> np.ndarray:
        """What every model says: (models, N, C)."""
        scores = [_evaluated(model, x) for model in self.models]
        for s in scores:
            if s.ndim != 2 or s.shape != scores[0].shape:
                raise ValueError(
                    f"VotingEnsemble: expected models that return scores of one shape (N, C), got shapes "
                    f"{', '.join(str(s.shape) for s in scores)}"
                )
        return np.stack(scores)

    def __repr__(self) -> str:
        return f"VotingEnsemble({len(self.models)} models, voting={self.voting!r})"


def mc_dropout(model: Any, x: Any, samples: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of a network's output over random dropout masks.

    The dropout layers stay in training mode, everything else (such as batch norm) is in evaluation
    mode; afterwards each module is in the mode it was in. Each forward pass is one of the networks
    that dropout trained; their mean is what the one scaled network of ordinary evaluation
    approximates, and the deviation says how much they disagree.

    model:    a Module with a layer that drops at random (not by halves), such as Dropout or an LSTM with dropout
    samples:  number of passes, at least 2; masks come from the library's stream (`nnx.manual_seed`)

    Returns arrays of the output's shape. ValueError if nothing in the model drops anything. Gal and
    Ghahramani 2016, arXiv:1506.02142.
    """
    samples = _check.integer("mc_dropout", "samples", samples, 2)
    modules = list(model.modules()) if hasattr(model, "modules") else []
    before = [(m, m.training) for m in modules]
    try:
        for m in modules:
            m.training = True
        layers = [m for m in modules if getattr(m, "draws_noise", False) and not isinstance(m, AlternatingDropout)]
        if not layers:
            raise ValueError(f"mc_dropout: expected model with a dropout layer, got {type(model).__name__} without one")
        model.eval()
        for m in layers:
            m.training = True
        with no_grad():
            outputs = np.stack([np.asarray(model(x).data) for _ in range(samples)])
    finally:
        for m, training in before:
            m.training = training
    return outputs.mean(axis=0), outputs.std(axis=0)


def _evaluated(model: Any, x: Any) -> np.ndarray:
    """The output of a model in evaluation mode, which afterwards is in the mode it was in."""
    modules = [(m, m.training) for m in model.modules()] if hasattr(model, "modules") else []
    try:
        if modules:
            model.eval()
        with no_grad():
            y = model(x)
    finally:
        for m, training in modules:
            m.training = training
    return y.data if isinstance(y, Tensor) else np.asarray(y)


def _softmax(scores: np.ndarray) -> np.ndarray:
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
