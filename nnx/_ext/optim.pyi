from collections.abc import Sequence

from numpy import ndarray

_Arrays = Sequence[ndarray]

def fit(columns: tuple[_Arrays | None, ...]) -> int: ...
def sgd_step(
    params: _Arrays,
    grads: _Arrays,
    buffers: _Arrays | None,
    first: bool,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    num_threads: int,
) -> bool: ...
def adagrad_step(
    params: _Arrays,
    grads: _Arrays,
    sums: _Arrays,
    rate: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
    num_threads: int,
) -> bool: ...
def adadelta_step(
    params: _Arrays,
    grads: _Arrays,
    square_avgs: _Arrays,
    acc_deltas: _Arrays,
    lr: float,
    rho: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
    num_threads: int,
) -> bool: ...
def rmsprop_step(
    params: _Arrays,
    grads: _Arrays,
    square_avgs: _Arrays,
    grad_avgs: _Arrays | None,
    buffers: _Arrays | None,
    lr: float,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
    maximize: bool,
    num_threads: int,
) -> bool: ...
def adam_step(
    params: _Arrays,
    grads: _Arrays,
    exp_avgs: _Arrays,
    exp_avg_sqs: _Arrays,
    max_exp_avg_sqs: _Arrays | None,
    rate: float,
    root: float,
    keep: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
    num_threads: int,
) -> bool: ...
def square_sum(arrays: _Arrays, num_threads: int) -> float: ...
def scale(arrays: _Arrays, factor: float, num_threads: int) -> bool: ...
