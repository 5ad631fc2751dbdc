"""The lectures' own trainer: a dict of arrays, a function that returns cost and gradients, named update rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nnx import _check, _random
from nnx.autograd import Parameter

Model = dict[str, np.ndarray]
LossFunction = Callable[[Any, Any, Model, float], tuple[float, Model]]

UPDATES = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam")


def init_two_layer_model(
    input_size: int, hidden_size: int, output_size: int, std: float = 1e-4, rng: np.random.Generator | None = None
) -> Model:
    """The weights of a two-layer network: W1, W2 normal with deviation `std`, b1, b2 zero; float64.

    Course document S2, checking the cost function. `rng`: None draws from the library's stream.

    >>> {name: array.shape for name, array in init_two_layer_model(4, 3, 2).items()}
    {'W1': (4, 3), 'b1': (3,), 'W2': (3, 2), 'b2': (2,)}
    """
    owner = "init_two_layer_model"
    inputs = _check.integer(owner, "input_size", input_size, 1)
    hidden = _check.integer(owner, "hidden_size", hidden_size, 1)
    outputs = _check.integer(owner, "output_size", output_size, 1)
    scale = _check.real(owner, "std", std, 0)
    draw = _random.generator(rng)
    return {
        "W1": scale * draw.standard_normal((inputs, hidden)),
        "b1": np.zeros(hidden),
        "W2": scale * draw.standard_normal((hidden, outputs)),
        "b2": np.zeros(outputs),
    }


def two_layer_net(X: Any, y: Any, model: Mapping[str, Any], reg: float = 0.0, l2_half: bool = True) -> Any:
    """A two-layer network: cost and gradients, or the scores where y is None.

    ``scores = max(0, X W1 + b1) W2 + b2``, ``cost = cross-entropy + 0.5 reg (sum(W1^2) + sum(W2^2))``.

    X:        (N, ...), flattened to (N, D)
    y:        classes (N,), or None
    model:    "W1" (D, H), "b1" (H,), "W2" (H, C), "b2" (C,); see `init_two_layer_model`
    l2_half:  False leaves out the factor 0.5, as S2's formula does; the number printed there has it

    Returns ``(cost, gradients)``, the gradients under the names of the weights.
    """
    from nnx import functional as F

    weights = {name: Parameter(np.asarray(array)) for name, array in model.items()}
    if {*weights} != {"W1", "b1", "W2", "b2"}:
        raise KeyError(f"two_layer_net: expected model with W1, b1, W2 and b2, got {', '.join(weights)}")
    x = np.asarray(X)
    x = x.reshape(len(x), -1).astype(weights["W1"].dtype, copy=False)
    if x.shape[1] != weights["W1"].shape[0]:
        raise ValueError(
            f"two_layer_net: expected X with {weights['W1'].shape[0]} numbers per example, got {x.shape[1]}"
        )
    hidden = F.relu(F.linear(x, weights["W1"].T, weights["b1"]))
    scores = F.linear(hidden, weights["W2"].T, weights["b2"])
    if y is None:
        return scores.data
    squares = (weights["W1"] ** 2).sum() + (weights["W2"] ** 2).sum()
    cost = F.cross_entropy(scores, np.asarray(y)) + (0.5 if l2_half else 1.0) * reg * squares
    cost.backward()
    return float(cost.item()), {name: p.grad for name, p in weights.items()}


class ClassifierTrainer:
    """Gradient descent on a dict of arrays, with the call and the argument names of the lectures.

    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.standard_normal((20, 8)), rng.integers(0, 3, 20)
    >>> model = init_two_layer_model(8, 30, 3, std=0.1, rng=rng)
    >>> trainer = ClassifierTrainer()
    >>> best_model, stats = trainer.train(X, y, X, y, model, two_layer_net, num_epochs=200, learning_rate=1e-1,
    ...                                   update='momentum', learning_rate_decay=1, sample_batches=False)
    >>> stats["train"][-1]
    1.0

    Course document S2, from preliminary training to the search for hyper-parameters.
    """

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # a cost that explodes is shown, not warned of
    def train(
        self,
        X: Any,
        y: Any,
        X_val: Any,
        y_val: Any,
        model: Mapping[str, Any],
        loss_function: LossFunction,
        reg: float = 0.0,
        learning_rate: float = 1e-2,
        momentum: float = 0.9,
        learning_rate_decay: float = 0.95,
        update: str = "momentum",
        sample_batches: bool = True,
        num_epochs: int = 30,
        batch_size: int = 100,
        verbose: bool = False,
        seed: int | None = None,
    ) -> tuple[Model, dict[str, list[float]]]:
        """Train, and return the model of the epoch with the best validation accuracy, and what was measured.

        X, y, X_val, y_val:   examples and classes for training and validation
        model:                names to arrays; it is not changed
        loss_function:        ``loss_function(X, y, model, reg)`` returns ``(cost, gradients)``, and the scores
                              (N, C) where y is None; such as `two_layer_net`
        reg:                  strength of the regularisation, handed on
        momentum:             of the updates "momentum" and "nesterov"
        learning_rate_decay:  the learning rate is multiplied by this after each epoch
        update:               "sgd", "momentum", "nesterov", "adagrad", "rmsprop" or "adam", with eps = 1e-7
        sample_batches:       steps on random batches of `batch_size`, N / batch_size of them an epoch; False: one step
                              an epoch, on everything
        verbose:              print a line for each epoch
        seed:                 of the batches; None draws from the library's stream

        In the second result: "cost" (of the epoch's last step, before its update), "train", "val" (accuracies, on at
        most 1000 examples of the training data) and "lr", a number for each epoch; and "costs", one for each step.
        A cost that is not finite is no error: training goes on, as the lectures show it.
        """
        owner = "ClassifierTrainer.train"
        _check.choice(owner, "update", update, UPDATES)
        epochs = _check.integer(owner, "num_epochs", num_epochs, 1)
        size = _check.integer(owner, "batch_size", batch_size, 1)
        rate = _check.real(owner, "learning_rate", learning_rate, 0)
        decay = _check.real(owner, "learning_rate_decay", learning_rate_decay, 0, open_low=True)
        strength = _check.real(owner, "reg", reg, 0)
        friction = _check.real(owner, "momentum", momentum, 0, 1)
        X, y, X_val, y_val = (np.asarray(a) for a in (X, y, X_val, y_val))
        for name, a, b in (("X", X, y), ("X_val", X_val, y_val)):
            if len(a) != len(b) or len(a) == 0:
                raise ValueError(f"{owner}: expected a class for each of {name}, at least one, got {len(b)}, {len(a)}")
        if not callable(loss_function):
            raise TypeError(f"{owner}: expected loss_function to be a function, got {type(loss_function).__name__}")
        rng = _random.generator() if seed is None else np.random.default_rng(_check.integer(owner, "seed", seed, 0))
        params = {name: Parameter(np.array(array)) for name, array in model.items()}
        optimizer = _optimizer(update, params.values(), rate, friction)
        current = {name: p.data for name, p in params.items()}  # the optimizer changes these arrays in place
        steps = max(1, len(X) // size) if sample_batches else 1
        stats: dict[str, list[float]] = {"cost": [], "train": [], "val": [], "lr": [], "costs": []}
        best, best_accuracy = {name: a.copy() for name, a in current.items()}, -1.0
        for epoch in range(1, epochs + 1):
            for _ in range(steps):
                rows = rng.integers(0, len(X), size) if sample_batches else slice(None)
                cost, gradients = loss_function(X[rows], y[rows], current, strength)
                stats["costs"].append(float(cost))
                _set_gradients(owner, params, gradients)
                optimizer.step()
            shown = rng.choice(len(X), 1000, replace=False) if len(X) > 1000 else slice(None)
            stats["cost"].append(stats["costs"][-1])
            stats["train"].append(self._accuracy(X[shown], y[shown], current, loss_function, strength))
            stats["val"].append(self._accuracy(X_val, y_val, current, loss_function, strength))
            stats["lr"].append(rate)
            if stats["val"][-1] > best_accuracy:
                best, best_accuracy = {name: a.copy() for name, a in current.items()}, stats["val"][-1]
            if verbose:
                print(
                    f"Finished epoch {epoch} / {epochs}: cost {stats['cost'][-1]:f}, train: {stats['train'][-1]:f}, "
                    f"val {stats['val'][-1]:f}, lr {rate:e}"
                )
            rate *= decay
            optimizer.param_groups[0]["lr"] = rate
        if verbose:
            print(f"finished optimization. best validation accuracy: {best_accuracy:f}")
        return best, stats

    @staticmethod
    def _accuracy(X: Any, y: Any, model: Model, loss_function: Any, reg: float) -> float:
        scores = np.asarray(loss_function(X, None, model, reg))
        return float((scores.argmax(axis=1) == y).mean())


def _optimizer(update: str, params: Any, rate: float, momentum: float) -> Any:
    """The update rule of that name over the arrays."""
    from nnx import optim

    if update in ("sgd", "momentum", "nesterov"):
        friction = 0.0 if update == "sgd" else momentum
        return optim.SGD(params, lr=rate, momentum=friction, nesterov=update == "nesterov" and friction > 0)
    if update == "adagrad":
        return optim.Adagrad(params, lr=rate, eps=1e-7)
    if update == "rmsprop":
        return optim.RMSprop(params, lr=rate, alpha=0.9, eps=1e-7)
    return optim.Adam(params, lr=rate, eps=1e-7)


def _set_gradients(owner: str, params: dict[str, Parameter], gradients: Mapping[str, Any]) -> None:
    for name, p in params.items():
        if name not in gradients:
            raise KeyError(f"{owner}: expected loss_function to return a gradient for {name!r}, got none")
        gradient = np.asarray(gradients[name], p.dtype)
        if gradient.shape != p.shape:
            raise ValueError(f"{owner}: expected the gradient of {name!r} of shape {p.shape}, got {gradient.shape}")
        p.grad = gradient
