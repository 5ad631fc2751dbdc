"""What goes wrong in training, measured: each function returns plain data, readable as text, with a ``plot()``.

* before the first long run: `initial_loss`, `regularisation`, `overfit`, `learning_rate`
* inside the model: `activation_statistics`, `dead_units`, `saturation`, `gradient_norms`
* during training: the callback `UpdateRatio`; afterwards `fit_report`
* the architecture: `receptive_field`, `stacked_field`, `measured_field`
* the experiment with ten layers of 500 units: `initialisation_experiment`, `initialisation_tables`

>>> import numpy as np
>>> from nnx import nn
>>> model = nn.Linear(4, 10)
>>> model.weight.data[...] = model.bias.data[...] = 0
>>> x, y = np.ones((5, 4), np.float32), np.arange(5)
>>> print(initial_loss(model, nn.CrossEntropyLoss(), x, y))
initial loss 2.302585, expected 2.302585 +- 0.100000: passed
"""

from nnx.diagnose.activations import (
    ActivationReport,
    LayerActivations,
    LayerUnits,
    UnitReport,
    activation_statistics,
    dead_units,
    saturation,
)
from nnx.diagnose.field import (
    FieldReport,
    LayerField,
    MeasuredField,
    measured_field,
    receptive_field,
    stacked_field,
)
from nnx.diagnose.fit import FitReport, fit_report
from nnx.diagnose.gradients import GradientReport, LayerGradient, gradient_norms
from nnx.diagnose.initialisation import initialisation_experiment, initialisation_tables, plain_stack
from nnx.diagnose.rates import LearningRateReport, NonFinite, RateRun, learning_rate
from nnx.diagnose.sanity import (
    InitialLoss,
    OverfitReport,
    RegularisationReport,
    initial_loss,
    overfit,
    regularisation,
)
from nnx.diagnose.updates import RatioReport, UpdateRatio, update_ratio

__all__ = [
    "ActivationReport",
    "FieldReport",
    "FitReport",
    "GradientReport",
    "InitialLoss",
    "LayerActivations",
    "LayerField",
    "LayerGradient",
    "LayerUnits",
    "LearningRateReport",
    "MeasuredField",
    "NonFinite",
    "OverfitReport",
    "RateRun",
    "RatioReport",
    "RegularisationReport",
    "UnitReport",
    "UpdateRatio",
    "activation_statistics",
    "dead_units",
    "fit_report",
    "gradient_norms",
    "initial_loss",
    "initialisation_experiment",
    "initialisation_tables",
    "learning_rate",
    "measured_field",
    "overfit",
    "plain_stack",
    "receptive_field",
    "regularisation",
    "saturation",
    "stacked_field",
    "update_ratio",
]
