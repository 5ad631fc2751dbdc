"""What all estimators share: parameters, checks of data, scores."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any, TypeVar

import numpy as np

from nnx.backends import backend_of

Self = TypeVar("Self", bound="Estimator")


class Estimator:
    """Parameters as scikit-learn's tools expect them: the constructor stores each under its own name, unchanged."""

    _estimator_type: str | None = None

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name; `deep` is there for scikit-learn."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self: Self, **params: Any) -> Self:
        """Change arguments of the constructor; ValueError, and no change, for a name that is none."""
        owner, names = type(self).__name__, self._names()
        unknown = sorted(set(params) - set(names))
        if unknown:
            raise ValueError(f"{owner}: expected parameters among {', '.join(names)}, got {', '.join(unknown)}")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in inspect.signature(cls).parameters]

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn's pipelines, searches and cross-validation ask; only they call it, so it is installed."""
        from sklearn.utils import ClassifierTags, RegressorTags, Tags, TargetTags

        kind = self._estimator_type
        return Tags(
            estimator_type=kind,
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags() if kind == "classifier" else None,
            regressor_tags=RegressorTags() if kind == "regressor" else None,
        )

    def __repr__(self) -> str:
        parameters = inspect.signature(type(self)).parameters
        changed = [f"{k}={v!r}" for k, v in self.get_params().items() if not _same(v, parameters[k].default)]
        return f"{type(self).__name__}({', '.join(changed)})"

    def _fitted(self, attribute: str) -> Any:
        """What `fit` has learned; AttributeError before it."""
        if attribute not in vars(self):
            owner = type(self).__name__
            raise AttributeError(f"{owner}: expected fit to be called first, got an estimator without {attribute}")
        return vars(self)[attribute]


class Classifier(Estimator, ABC):
    """An estimator that predicts one of the labels in `classes_`."""

    _estimator_type = "classifier"
    classes_: np.ndarray

    @abstractmethod
    def predict(self, x: Any) -> np.ndarray:
        """The label of each sample."""

    def score(self, x: Any, y: Any) -> float:
        """The part of the samples whose label is predicted."""
        predicted = self.predict(x)
        y = labels(type(self).__name__, y, len(predicted))
        return float(np.mean(predicted == y))


class Regressor(Estimator, ABC):
    """An estimator that predicts a number."""

    _estimator_type = "regressor"

    @abstractmethod
    def predict(self, x: Any) -> np.ndarray:
        """The number of each sample."""

    def score(self, x: Any, y: Any) -> float:
        """``R^2 = 1 - sum((y - prediction)^2) / sum((y - mean(y))^2)``; of a constant y 1 if it is met, else 0."""
        predicted = self.predict(x)
        y = targets(type(self).__name__, y, len(predicted))
        missed = float(((y - predicted) ** 2).sum())
        spread = float(((y - y.mean(axis=0)) ** 2).sum())
        return 1 - missed / spread if spread else float(missed == 0)


def _same(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and not isinstance(a, np.ndarray) and bool(a == b))


def samples(owner: str, x: Any, features: int | None = None, name: str = "x") -> np.ndarray:
    """Samples as finite numbers (N, features): images and other shapes are flattened, one row for each."""
    a = np.asarray(x)
    if a.dtype.kind not in "buif":
        raise TypeError(f"{owner}: expected {name} to be an array of numbers, got {a.dtype}")
    if a.ndim < 2 or len(a) == 0:
        raise ValueError(
            f"{owner}: expected {name} of shape (N, features) or (N, C, H, W) with N >= 1, got shape {a.shape}. "
            "Reshape one sample with [None], one feature with [:, None]"
        )
    a = a.reshape(len(a), -1)
    if features is not None and a.shape[1] != features:
        raise ValueError(f"{owner}: expected x with {features} features as in fit, got shape {np.shape(x)}")
    if a.dtype.kind == "f" and not np.isfinite(a).all():
        raise ValueError(f"{owner}: expected finite numbers in {name}, got NaN or infinity")
    return a


def floats(a: np.ndarray) -> np.ndarray:
    """The array in float64 if it is that, else in float32."""
    return a if a.dtype in (np.float32, np.float64) else a.astype(np.float32)


def labels(owner: str, y: Any, n: int) -> np.ndarray:
    """Labels (N,), one for each sample: integers, booleans or strings."""
    a = np.asarray(y)
    if a.shape != (n,):
        raise ValueError(f"{owner}: expected y of shape ({n},), a label for each sample, got shape {a.shape}")
    if a.dtype.kind not in "biuUS" and not (a.dtype.kind == "f" and (a == np.round(a)).all()):
        raise TypeError(f"{owner}: expected y to be labels (integers, booleans or strings), got {a.dtype}")
    return a


def numbered(owner: str, y: Any, n: int, at_least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The distinct labels in order, and the number of each sample's label among them."""
    classes, number = np.unique(labels(owner, y, n), return_inverse=True)
    if len(classes) < at_least:
        raise ValueError(f"{owner}: expected y with at least {at_least} classes, got {len(classes)}")
    return classes, number.reshape(-1)


def targets(owner: str, y: Any, n: int) -> np.ndarray:
    """Numbers to predict, (N,) or (N, outputs), as float64."""
    a = np.asarray(y)
    if a.dtype.kind not in "buif":
        raise TypeError(f"{owner}: expected y to be an array of numbers, got {a.dtype}")
    if a.ndim not in (1, 2) or len(a) != n:
        raise ValueError(f"{owner}: expected y of shape ({n},) or ({n}, outputs), got shape {a.shape}")
    if not np.isfinite(a).all():
        raise ValueError(f"{owner}: expected finite numbers in y, got NaN or infinity")
    return a.astype(np.float64)


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a b`` in float64."""
    a, b = a.astype(np.float64, copy=False), b.astype(np.float64, copy=False)
    return backend_of(a).matmul(a, b)
