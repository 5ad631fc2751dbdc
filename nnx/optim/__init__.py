"""Optimizers with PyTorch's names, SciPy's minimizers over a model, and learning-rate schedules."""

from nnx.optim import lr_scheduler
from nnx.optim.adadelta import Adadelta
from nnx.optim.adagrad import Adagrad
from nnx.optim.adam import Adam
from nnx.optim.adamw import AdamW
from nnx.optim.lbfgs import LBFGS
from nnx.optim.minimize import minimize
from nnx.optim.optimizer import Optimizer
from nnx.optim.rmsprop import RMSprop
from nnx.optim.sgd import SGD

__all__ = [
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "lr_scheduler",
    "minimize",
]
