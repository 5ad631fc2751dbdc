"""Learning machines from before deep learning, and the simple ones it is measured against.

* units: `ThresholdUnit`, `McCullochPittsUnit`, the `gates`, `Hebb`
* perceptrons: `Perceptron`, `perceptron_learning`, `MarkOne`
* neighbours: `KNeighborsClassifier`, `nearest`
* classifiers by gradient descent: `LinearSVM`, `SoftmaxClassifier`, `TwoLayerClassifier`
* regression: `LinearRegression`, `PolynomialRegression`

Estimators follow scikit-learn's conventions without needing it: parameters are given to the constructor and kept as
they are, ``fit(x, y)`` returns the estimator, what was learned ends in an underscore, and ``get_params``,
``set_params``, ``predict`` and ``score`` mean what they mean there.
"""

from nnx.classic import gates
from nnx.classic._estimator import Estimator
from nnx.classic.hebb import Hebb
from nnx.classic.linear import LinearSVM, SoftmaxClassifier, TwoLayerClassifier
from nnx.classic.mark_one import MarkOne
from nnx.classic.neighbors import KNeighborsClassifier, nearest
from nnx.classic.perceptron import Perceptron, perceptron_learning
from nnx.classic.regression import LinearRegression, PolynomialRegression
from nnx.classic.threshold import McCullochPittsUnit, ThresholdUnit, step

__all__ = [
    "Estimator",
    "Hebb",
    "KNeighborsClassifier",
    "LinearRegression",
    "LinearSVM",
    "MarkOne",
    "McCullochPittsUnit",
    "Perceptron",
    "PolynomialRegression",
    "SoftmaxClassifier",
    "ThresholdUnit",
    "TwoLayerClassifier",
    "gates",
    "nearest",
    "perceptron_learning",
    "step",
]
