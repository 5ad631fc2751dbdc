"""Training: a loop that shows what it does, keeps what it has done, and goes on where it was stopped.

* `Trainer`: ``fit``, ``evaluate``, ``save_checkpoint``, ``load_checkpoint``
* callbacks: `EarlyStopping`, `Checkpoint`, `LRSchedule`, `StopOnNaN`, `StopOnExplosion`, `ProgressBar`, and `Callback`
  to write your own
* `nnx.train.search`: random and grid search for hyper-parameters; `ClassifierTrainer`, the lectures' own trainer
* `VotingEnsemble` and `mc_dropout`: several networks that decide together
* `History`: what was measured, epoch by epoch, as plain lists
"""

from nnx.train.callbacks import Callback, EarlyStopping, LRSchedule, ProgressBar, StopOnExplosion, StopOnNaN
from nnx.train.checkpoint import Checkpoint, latest_checkpoint
from nnx.train.classifier import ClassifierTrainer
from nnx.train.ensemble import VotingEnsemble, mc_dropout
from nnx.train.history import History
from nnx.train.metrics import accuracy
from nnx.train.trainer import Trainer

__all__ = [
    "Callback",
    "Checkpoint",
    "ClassifierTrainer",
    "EarlyStopping",
    "History",
    "LRSchedule",
    "ProgressBar",
    "StopOnExplosion",
    "StopOnNaN",
    "Trainer",
    "VotingEnsemble",
    "accuracy",
    "latest_checkpoint",
    "mc_dropout",
]
