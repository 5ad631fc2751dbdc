"""The Mark I perceptron, the machine of 1958: 400 photocells, 512 association units, 8 responses."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx import _check
from nnx.classic._estimator import Classifier, numbered, product, samples
from nnx.classic.perceptron import Perceptron
from nnx.classic.threshold import step


class MarkOne(Classifier):
    """Fixed random association units before response units that learn by the perceptron rule.

    The retina of ``side x side`` photocells is on or off. Each association unit is wired at random to some cells, with
    sign +1 or -1, and fires when their sum reaches its threshold; the wiring is never trained. The response units, one
    for each class, are a `Perceptron` of the association units.

    side:          20 as in the machine: 400 cells
    association:   512
    responses:     8; that many classes at most
    connections:   cells per association unit
    threshold:     of the association units
    max_iter:      passes of the perceptron rule at most
    random_state:  seed of the wiring

    Attributes: `wiring_` (association, cells) of -1, 0 and 1, `response_` (the `Perceptron`), `classes_`.
    """

    wiring_: np.ndarray
    response_: Perceptron

    def __init__(
        self,
        side: int = 20,
        association: int = 512,
        responses: int = 8,
        connections: int = 40,
        threshold: int = 3,
        max_iter: int = 100,
        random_state: int = 0,
    ) -> None:
        self.side = side
        self.association = association
        self.responses = responses
        self.connections = connections
        self.threshold = threshold
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, x: Any, y: Any) -> MarkOne:
        """Wire the machine and learn from retinas x (N, side, side) of zeros and ones and labels y (N,)."""
        owner = "MarkOne"
        cells = _check.integer(owner, "side", self.side, 1) ** 2
        association = _check.integer(owner, "association", self.association, 1)
        connections = _check.integer(owner, "connections", self.connections, 1)
        if connections > cells:
            raise ValueError(f"{owner}: expected connections to be at most {cells}, the cells, got {connections}")
        a = samples(owner, x, cells)
        classes, _ = numbered(owner, y, len(a), at_least=2)
        if len(classes) > _check.integer(owner, "responses", self.responses, 1):
            raise ValueError(f"{owner}: expected at most {self.responses} classes, as responses, got {len(classes)}")
        rng = np.random.default_rng(self.random_state)
        self.wiring_ = np.zeros((association, cells), np.int64)
        for unit in self.wiring_:
            unit[rng.choice(cells, connections, replace=False)] = rng.choice([-1, 1], connections)
        self.classes_ = classes
        self.response_ = Perceptron(self.max_iter).fit(self.associate(x), y)
        return self

    def associate(self, x: Any) -> np.ndarray:
        """Which association units fire: (N, association) of zeros and ones."""
        wiring = self._fitted("wiring_")
        a = samples("MarkOne", x, wiring.shape[1])
        if not ((a == 0) | (a == 1)).all():
            raise ValueError("MarkOne: expected x of zeros and ones, got other values. Compare pixels with a threshold")
        return step(product(a, wiring.T) - self.threshold)

    def predict(self, x: Any) -> np.ndarray:
        """The label of each retina."""
        self._fitted("response_")
        return self.response_.predict(self.associate(x))
