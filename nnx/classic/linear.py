"""Classifiers trained by gradient descent on minibatches: linear ones, and one with a hidden layer."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeVar

import numpy as np

import nnx.functional as F
from nnx import _check
from nnx.autograd import Parameter, Tensor, no_grad
from nnx.classic._estimator import Classifier, floats, labels, numbered, samples
from nnx.optim.sgd import SGD

_ROWS = 4096  # predicted at a time

Self = TypeVar("Self", bound="_ByGradient")


class _ByGradient(Classifier):
    """The loop that all share. A subclass makes the parameters, turns samples into scores and scores into a loss."""

    loss_curve_: list[float]
    validation_curve_: list[float]
    _parameters: list[Parameter]

    def __init__(
        self,
        learning_rate: float = 1e-2,
        reg: float = 1e-4,
        penalty: str = "l2",
        batch_size: int = 200,
        epochs: int = 20,
        momentum: float = 0.9,
        learning_rate_decay: float = 1.0,
        random_state: int = 0,
    ) -> None:
        self.learning_rate = learning_rate
        self.reg = reg
        self.penalty = penalty
        self.batch_size = batch_size
        self.epochs = epochs
        self.momentum = momentum
        self.learning_rate_decay = learning_rate_decay
        self.random_state = random_state

    @abstractmethod
    def _start(self, features: int, classes: int, dtype: np.dtype, rng: np.random.Generator) -> list[Parameter]:
        """The parameters: weights of two dimensions, which the penalty is for, and biases."""

    @abstractmethod
    def _scores(self, x: Any) -> Tensor:
        """One score for each class, (N, classes)."""

    @abstractmethod
    def _loss(self, scores: Tensor, y: np.ndarray) -> Tensor:
        """The mean loss of scores; y numbers the right classes."""

    def fit(self: Self, x: Any, y: Any, x_val: Any = None, y_val: Any = None) -> Self:
        """Learn from x (N, features) or (N, C, H, W) and labels y (N,).

        x_val, y_val:  other samples, whose accuracy after each epoch goes to `validation_curve_`
        """
        owner = type(self).__name__
        a = floats(samples(owner, x))
        classes, number = numbered(owner, y, len(a), at_least=2)
        if (x_val is None) != (y_val is None):
            raise ValueError(f"{owner}: expected x_val and y_val together, got only one of them")
        if x_val is not None:
            x_val = floats(samples(owner, x_val, a.shape[1]))
            y_val = labels(owner, y_val, len(x_val))
        self._check()
        rng = np.random.default_rng(_check.integer(owner, "random_state", self.random_state, 0))
        self.classes_, self.n_features_in_ = classes, a.shape[1]
        self._shape = np.shape(x)[1:]
        self._parameters = self._start(a.shape[1], len(classes), a.dtype, rng)
        optimizer = SGD(self._parameters, lr=self.learning_rate, momentum=self.momentum)
        self.loss_curve_, self.validation_curve_ = [], []
        for _ in range(self.epochs):
            self.loss_curve_.append(self._epoch(a, number, optimizer, rng))
            for group in optimizer.param_groups:
                group["lr"] *= self.learning_rate_decay
            if x_val is not None:
                self.validation_curve_.append(self.score(x_val, y_val))
        return self

    def _check(self) -> None:
        owner = type(self).__name__
        _check.real(owner, "learning_rate", self.learning_rate, 0)
        _check.real(owner, "reg", self.reg, 0)
        _check.choice(owner, "penalty", self.penalty, ("l2", "l1", "elastic net"))
        _check.integer(owner, "batch_size", self.batch_size, 1)
        _check.integer(owner, "epochs", self.epochs, 0)
        _check.real(owner, "momentum", self.momentum, 0, 1, open_high=True)
        _check.real(owner, "learning_rate_decay", self.learning_rate_decay, 0, 1, open_low=True)

    def _epoch(self, x: np.ndarray, y: np.ndarray, optimizer: SGD, rng: np.random.Generator) -> float:
        """Show every sample once, in a new order; returns the mean loss over the epoch."""
        order = rng.permutation(len(x))
        total = 0.0
        for first in range(0, len(x), self.batch_size):
            batch = order[first : first + self.batch_size]
            optimizer.zero_grad()
            loss = self._loss(self._scores(x[batch]), y[batch]) + self._regularisation()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        return total / len(x)

    def _regularisation(self) -> Tensor:
        weights = [p for p in self._parameters if p.ndim == 2]
        if self.penalty == "l1":
            return F.l1_penalty(weights, self.reg)
        if self.penalty == "l2":
            return F.l2_penalty(weights, self.reg)
        return F.elastic_net_penalty(weights, self.reg)

    def decision_function(self, x: Any) -> np.ndarray:
        """The scores (N, classes), also for two classes."""
        self._fitted("_parameters")
        a = samples(type(self).__name__, x, self.n_features_in_)
        dtype = self._parameters[0].dtype
        with no_grad():
            parts = [self._scores(a[i : i + _ROWS].astype(dtype, copy=False)).data for i in range(0, len(a), _ROWS)]
        return np.concatenate(parts)

    def predict(self, x: Any) -> np.ndarray:
        """The label with the largest score, for each sample."""
        best = self.decision_function(x).argmax(axis=1)
        return self.classes_[best]

    def objective(self, x: Any, y: Any) -> float:
        """The loss that `fit` makes small, over all of these samples: data loss and penalty."""
        scores = self.decision_function(x)
        y = labels(type(self).__name__, y, len(scores))
        number = np.searchsorted(self.classes_, y).clip(0, len(self.classes_) - 1)
        if not (self.classes_[number] == y).all():
            raise ValueError(f"{type(self).__name__}: expected labels that fit has seen, got others in y")
        with no_grad():
            return (self._loss(Tensor(scores), number) + self._regularisation()).item()


class _Linear(_ByGradient):
    """Scores ``x W' + b``."""

    def _start(self, features: int, classes: int, dtype: np.dtype, rng: np.random.Generator) -> list[Parameter]:
        weight = 1e-3 * rng.standard_normal((classes, features))
        return [Parameter(weight.astype(dtype)), Parameter(np.zeros(classes, dtype))]

    def _scores(self, x: Any) -> Tensor:
        return F.linear(x, *self._parameters)

    @property
    def coef_(self) -> np.ndarray:
        """W, (classes, features)."""
        return self._fitted("_parameters")[0].data

    @property
    def intercept_(self) -> np.ndarray:
        """b, (classes,)."""
        return self._fitted("_parameters")[1].data

    def templates(self, shape: tuple[int, int, int] | None = None) -> np.ndarray:
        """Each class's weights as an image of uint8, (classes, H, W, C): 0 is its smallest weight, 255 its largest.

        shape:  (C, H, W); None takes that of the samples in `fit`
        """
        owner = type(self).__name__
        w = self.coef_
        sizes = tuple(self._shape if shape is None else shape)
        if len(sizes) != 3 or int(np.prod(sizes)) != w.shape[1]:
            raise ValueError(f"{owner}: expected shape (C, H, W) of {w.shape[1]} features, got {sizes}")
        low, high = w.min(axis=1, keepdims=True), w.max(axis=1, keepdims=True)
        scaled = 255 * (w - low) / np.where(high > low, high - low, 1)
        return np.rint(scaled).astype(np.uint8).reshape(-1, *sizes).transpose(0, 2, 3, 1)


class _Softmax(_ByGradient):
    """Scores are logarithms of probabilities, up to a constant for each sample."""

    def predict_proba(self, x: Any) -> np.ndarray:
        """The probability of each class, (N, classes)."""
        return F.softmax(self.decision_function(x), dim=1).data

    def _loss(self, scores: Tensor, y: np.ndarray) -> Tensor:
        return F.cross_entropy(scores, y)


class LinearSVM(_Linear):
    """A linear classifier with the multiclass hinge loss, trained by stochastic gradient descent.

    ``mean over samples of sum over wrong classes j of max(0, margin + s_j - s_y)^p  +  reg * sum(W^2)``

    loss:                 "hinge" (p = 1) or "squared hinge" (p = 2)
    margin:               1
    learning_rate:        of the first epoch; after each it is multiplied by `learning_rate_decay`
    reg, penalty:         strength, and "l2", "l1" (``sum |W|``) or "elastic net" (both); the bias is free
    batch_size, epochs:   samples per step; passes over all samples
    momentum:             of `nnx.optim.SGD`
    random_state:         seed of the first weights and of the order of the samples

    Inputs should be centred and of size 1 or so. Attributes: `coef_` (classes, features), `intercept_`, `classes_`,
    `loss_curve_`, `validation_curve_`. J. Weston and C. Watkins, Support vector machines for multi-class pattern
    recognition (1999).
    """

    def __init__(
        self,
        loss: str = "hinge",
        margin: float = 1.0,
        learning_rate: float = 1e-3,
        reg: float = 1e-4,
        penalty: str = "l2",
        batch_size: int = 200,
        epochs: int = 20,
        momentum: float = 0.9,
        learning_rate_decay: float = 1.0,
        random_state: int = 0,
    ) -> None:
        super().__init__(learning_rate, reg, penalty, batch_size, epochs, momentum, learning_rate_decay, random_state)
        self.loss = loss
        self.margin = margin

    def _check(self) -> None:
        super()._check()
        _check.choice("LinearSVM", "loss", self.loss, ("hinge", "squared hinge"))
        _check.real("LinearSVM", "margin", self.margin)

    def _loss(self, scores: Tensor, y: np.ndarray) -> Tensor:
        return F.multiclass_hinge_loss(scores, y, p=1 if self.loss == "hinge" else 2, margin=self.margin)


class SoftmaxClassifier(_Softmax, _Linear):
    """A linear classifier with the cross-entropy loss, trained by stochastic gradient descent.

    ``mean over samples of -log(softmax(s)[y])  +  reg * sum(W^2)``. With two classes this is logistic regression.
    Arguments and attributes as for `LinearSVM`.
    """


class TwoLayerClassifier(_Softmax):
    """A network with one hidden layer of ReLU units and the cross-entropy loss.

    ``scores = W2 max(0, W1 x + b1) + b2``, with the penalty on W1 and W2.

    hidden:     units of the hidden layer
    init_std:   standard deviation of the first weights; None takes sqrt(2 / inputs) for each layer: He et al. (2015)

    The other arguments are those of `LinearSVM`. Attributes: `coefs_` [W1, W2], `intercepts_` [b1, b2], `classes_`,
    `loss_curve_`, `validation_curve_`.
    """

    def __init__(
        self,
        hidden: int = 100,
        init_std: float | None = None,
        learning_rate: float = 1e-2,
        reg: float = 1e-4,
        penalty: str = "l2",
        batch_size: int = 200,
        epochs: int = 20,
        momentum: float = 0.9,
        learning_rate_decay: float = 1.0,
        random_state: int = 0,
    ) -> None:
        super().__init__(learning_rate, reg, penalty, batch_size, epochs, momentum, learning_rate_decay, random_state)
        self.hidden = hidden
        self.init_std = init_std

    def _check(self) -> None:
        super()._check()
        _check.integer("TwoLayerClassifier", "hidden", self.hidden, 1)
        if self.init_std is not None:
            _check.real("TwoLayerClassifier", "init_std", self.init_std, 0)

    def _start(self, features: int, classes: int, dtype: np.dtype, rng: np.random.Generator) -> list[Parameter]:
        parameters = []
        for inputs, outputs in ((features, self.hidden), (self.hidden, classes)):
            std = (2 / inputs) ** 0.5 if self.init_std is None else self.init_std
            parameters.append(Parameter((std * rng.standard_normal((outputs, inputs))).astype(dtype)))
            parameters.append(Parameter(np.zeros(outputs, dtype)))
        return parameters

    def _scores(self, x: Any) -> Tensor:
        w1, b1, w2, b2 = self._parameters
        return F.linear(F.relu(F.linear(x, w1, b1)), w2, b2)

    @property
    def coefs_(self) -> list[np.ndarray]:
        """[W1 (hidden, features), W2 (classes, hidden)]."""
        return [p.data for p in self._fitted("_parameters")[::2]]

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """[b1 (hidden,), b2 (classes,)]."""
        return [p.data for p in self._fitted("_parameters")[1::2]]
