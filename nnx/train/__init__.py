"""Training: a loop that shows what it does, keeps what it has done, and goes on where it was stopped.

* `Trainer`: ``fit``, ``evaluate``, ``save_checkpoint``, ``load_checkpoint``
* callbacks: `EarlyStopping`, `Checkpoint`, `LRSchedule`, `StopOnNaN`, `ProgressBar`, and `Callback` to write your own
* `History`: what was measured, epoch by epoch, as plain lists
"""

from nnx.train.callbacks import Callback, EarlyStopping, LRSchedule, ProgressBar, StopOnNaN
from nnx.train.checkpoint import Checkpoint, latest_checkpoint
from nnx.train.history import History
from nnx.train.metrics import accuracy
from nnx.train.trainer import Trainer

__all__ = [
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "History",
    "LRSchedule",
    "ProgressBar",
    "StopOnNaN",
    "Trainer",
    "accuracy",
    "latest_checkpoint",
]
