"""Optimizers with PyTorch's names, SciPy's minimizers and a genetic algorithm over a model, learning-rate schedules."""

from nnx.optim import lr_scheduler
from nnx.optim.adadelta import Adadelta
from nnx.optim.adagrad import Adagrad
from nnx.optim.adam import Adam
from nnx.optim.adamw import AdamW
from nnx.optim.genetic import GeneticResult, genetic
from nnx.optim.lbfgs import LBFGS
from nnx.optim.minimize import minimize
from nnx.optim.nesterov import Nesterov
from nnx.optim.newton import Newton, hessian
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
    "GeneticResult",
    "Nesterov",
    "Newton",
    "Optimizer",
    "RMSprop",
    "genetic",
    "hessian",
    "lr_scheduler",
    "minimize",
]
