"""Losses. The formulas of elements and rows, and their gradients, are in
`nnx/backends/base/loss.py`.

Reductions: "none" returns the loss of each element or sample, "sum" their sum, "mean" their mean
(of nothing: NaN). Every target is checked before anything is computed; of one on a CUDA device,
dtype and shape. A class label out of range cannot be an error there: its loss is NaN.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnx import _check
from nnx._device import is_device_array
from nnx.autograd import Tensor, as_tensor, record
from nnx.backends import backend_of
from nnx.functional._floats import beside
from nnx.functional._loss_checks import (
    REDUCTIONS,
    class_labels,
    class_weight,
    factors_for,
    probabilities,
    refuse_deprecated,
    same_shape,
    scores,
    target_like,
)

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "multiclass_hinge_loss",
    "nll_loss",
    "smooth_l1_loss",
]

# -- elementwise losses ----------------------------------------------------------------------------


def mse_loss(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    weight: Any = None,
) -> Tensor:
    """``(x - t)^2`` for each element.

    target:  the shape of `input` (nothing is broadcast)
    weight:  factors in the shape of `input`; the mean divides by their sum

    >>> mse_loss([1.0, 2.0], [1.0, 4.0]).item()
    2.0
    """
    refuse_deprecated("mse_loss", size_average, reduce)
    return mse_loss_as("mse_loss", input, target, reduction, weight)


def mse_loss_as(owner: str, input: Any, target: Any, reduction: str, weight: Any = None) -> Tensor:
    """`mse_loss` for a layer, whose name the messages carry; likewise all functions ending in `_as`."""
    x, t, be = same_shape(owner, input, target, reduction)
    w = factors_for(owner, weight, x, exact=True)
    y, scale = _reduce(be.squared_error(x.data, t.data), w, reduction, _total(w))
    return record(y, _mse_loss_grad, (x, t), be, x.data, t.data, scale)


def _mse_loss_grad(needs, gy, be, x, t, scale):
    return _opposite(needs, be.squared_error_backward(_scaled(gy, scale), x, t))


def l1_loss(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    weight: Any = None,
) -> Tensor:
    """``|x - t|`` for each element; arguments as for `mse_loss`."""
    refuse_deprecated("l1_loss", size_average, reduce)
    return l1_loss_as("l1_loss", input, target, reduction, weight)


def l1_loss_as(owner: str, input: Any, target: Any, reduction: str, weight: Any = None) -> Tensor:
    x, t, be = same_shape(owner, input, target, reduction)
    w = factors_for(owner, weight, x, exact=True)
    y, scale = _reduce(be.absolute_error(x.data, t.data), w, reduction, _total(w))
    return record(y, _l1_loss_grad, (x, t), be, x.data, t.data, scale)


def _l1_loss_grad(needs, gy, be, x, t, scale):
    return _opposite(needs, be.absolute_error_backward(_scaled(gy, scale), x, t))


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None) -> Tensor:
    """``d^2 / 2`` for ``d = |x - t| < delta``, else ``delta (d - delta / 2)``: Huber (1964).

    weight:  factors in the shape of `input`; the mean divides by the number of elements
    """
    return huber_loss_as("huber_loss", input, target, reduction, delta, weight)


def huber_loss_as(owner: str, input: Any, target: Any, reduction: str, delta: float, weight: Any = None) -> Tensor:
    delta = _check.real(owner, "delta", delta, 0, open_low=True)
    x, t, be = same_shape(owner, input, target, reduction)
    w = factors_for(owner, weight, x, exact=True)
    y, scale = _reduce(be.huber(x.data, t.data, delta), w, reduction)
    return record(y, _huber_loss_grad, (x, t), be, x.data, t.data, delta, scale)


def _huber_loss_grad(needs, gy, be, x, t, delta, scale):
    return _opposite(needs, be.huber_backward(_scaled(gy, scale), x, t, delta))


def smooth_l1_loss(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """``d^2 / (2 beta)`` for ``d = |x - t| < beta``, else ``d - beta / 2``: Girshick (2015), "Fast
    R-CNN".

    It is `huber_loss` with delta = beta, divided by beta; beta = 0 gives `l1_loss`.
    """
    refuse_deprecated("smooth_l1_loss", size_average, reduce)
    return smooth_l1_loss_as("smooth_l1_loss", input, target, reduction, beta)


def smooth_l1_loss_as(owner: str, input: Any, target: Any, reduction: str, beta: float) -> Tensor:
    beta = _check.real(owner, "beta", beta, 0)
    if beta == 0:
        return l1_loss_as(owner, input, target, reduction)
    return huber_loss_as(owner, input, target, reduction, beta) / beta


def binary_cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """``-(t log(x) + (1 - t) log(1 - x))`` for probabilities x and t; the logarithms are cut at
    -100.

    weight:  factors that broadcast to `input`; the mean divides by the number of elements

    Raises ValueError if an element of `input` or `target` is outside of [0, 1] (NaN passes; on a CUDA
    device, NaN is the loss of an `input` outside, and `target` is taken as it is).
    """
    refuse_deprecated("binary_cross_entropy", size_average, reduce)
    return binary_cross_entropy_as("binary_cross_entropy", input, target, weight, reduction)


def binary_cross_entropy_as(owner: str, input: Any, target: Any, weight: Any, reduction: str) -> Tensor:
    x, t, be = same_shape(owner, input, target, reduction)
    probabilities(owner, "input", x.data, ". For scores use binary_cross_entropy_with_logits")
    probabilities(owner, "target", t.data)
    w = factors_for(owner, weight, x)
    y, scale = _reduce(be.bce(x.data, t.data), w, reduction)
    return record(y, _binary_cross_entropy_grad, (x, t), be, x.data, t.data, scale)


def _binary_cross_entropy_grad(needs, gy, be, x, t, scale):
    return be.bce_backward(_scaled(gy, scale), x, t, needs)


def binary_cross_entropy_with_logits(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    pos_weight: Any = None,
) -> Tensor:
    """`binary_cross_entropy` of the sigmoid of the scores `input`, in one stable formula.

    weight:      factors that broadcast to `input`; the mean divides by the number of elements
    pos_weight:  factors of the term of t alone, broadcast to `input`: above 1 they raise recall
    """
    owner = "binary_cross_entropy_with_logits"
    refuse_deprecated(owner, size_average, reduce)
    return binary_cross_entropy_with_logits_as(owner, input, target, weight, reduction, pos_weight)


def binary_cross_entropy_with_logits_as(
    owner: str, input: Any, target: Any, weight: Any, reduction: str, pos_weight: Any
) -> Tensor:
    x, t, be = same_shape(owner, input, target, reduction)
    w = factors_for(owner, weight, x)
    p = factors_for(owner, pos_weight, x, "pos_weight")
    y, scale = _reduce(be.bce_with_logits(x.data, t.data, p), w, reduction)
    return record(y, _bce_with_logits_grad, (x, t), be, x.data, t.data, p, scale)


def _bce_with_logits_grad(needs, gy, be, x, t, pos_weight, scale):
    return be.bce_with_logits_backward(_scaled(gy, scale), x, t, pos_weight, needs)


def kl_div(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """``t (log(t) - x)`` for log-probabilities x and probabilities t, 0 where t = 0.

    reduction:   also "batchmean", the sum divided by the first dimension: the Kullback-Leibler
                 divergence per sample
    log_target:  the target holds log-probabilities too
    """
    refuse_deprecated("kl_div", size_average, reduce)
    return kl_div_as("kl_div", input, target, reduction, log_target)


def kl_div_as(owner: str, input: Any, target: Any, reduction: str, log_target: bool) -> Tensor:
    x, t, be = same_shape(owner, input, target, reduction, (*REDUCTIONS, "batchmean"))
    loss = be.kl(x.data, t.data, bool(log_target))
    if reduction == "batchmean":
        y, scale = _reduce(loss, None, "mean", x.shape[0] if x.ndim else 1)
    else:
        y, scale = _reduce(loss, None, reduction)
    return record(y, _kl_div_grad, (x, t), be, x.data, t.data, bool(log_target), scale)


def _kl_div_grad(needs, gy, be, x, t, log_target, scale):
    return be.kl_backward(_scaled(gy, scale), x, t, log_target, needs)


# -- losses over class scores ----------------------------------------------------------------------


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """``-log(softmax(x)[target])`` for each sample, for scores x of any size.

    input:            (N, C), (N, C, d1, ...) or (C,)
    target:           class labels, integers in [0, C) in the shape of `input` without C; or floats
                      in the shape of `input`, a probability for each class
    weight:           (C,), a factor for each class; with labels, the mean divides by the sum of the
                      factors
    ignore_index:     samples with this label count nothing
    label_smoothing:  this share of the target is spread evenly over all classes: Szegedy et al.
                      (2015)

    Raises IndexError for a label out of range, TypeError and ValueError for wrong types and shapes.

    >>> round(cross_entropy([[3.2, 5.1, -1.7]], [0]).item(), 5)
    2.04035
    """
    refuse_deprecated("cross_entropy", size_average, reduce)
    return cross_entropy_as("cross_entropy", input, target, weight, ignore_index, reduction, label_smoothing)


def cross_entropy_as(
    owner: str,
    input: Any,
    target: Any,
    weight: Any,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Tensor:
    smoothing = _check.real(owner, "label_smoothing", label_smoothing, 0, 1)
    x = scores(owner, input, reduction)
    axis = min(x.ndim - 1, 1)
    w = class_weight(owner, weight, x.shape[axis], x)
    t = target if isinstance(target, Tensor) else beside(owner, "target", target, x.data)
    if t.dtype.kind == "f" and t.shape == x.shape:
        return _soft_cross_entropy(owner, x, t, w, axis, reduction, smoothing)
    labels = class_labels(owner, t, x, ignore_index)
    if w is not None and smoothing:
        q = _smoothed(labels, w, x, axis, smoothing)
        return _reduce_tensor(_soft_rows(x, q, axis), reduction, _count(labels, w))
    be = backend_of(x.data)
    rows = _rows(x.data)
    losses, top, total = be.softmax_cross_entropy(rows, labels.reshape(-1), smoothing)
    y, scale = _reduce_rows(be, losses, labels, w, reduction)
    saved = (rows, labels.reshape(-1), smoothing, top, total)
    return record(_shaped(y, labels), _cross_entropy_grad, (x,), be, x.shape, scale, saved)


def _cross_entropy_grad(needs, gy, be, shape, scale, saved):
    gx = be.softmax_cross_entropy_backward(_scaled(gy.reshape(-1), scale), *saved)
    return (_unrows(gx, shape),)


def _soft_cross_entropy(
    owner: str, x: Tensor, target: Any, w: Any, axis: int, reduction: str, smoothing: float
) -> Tensor:
    """Probabilities as the target. The mean divides by the number of samples, also where classes have weights."""
    t = target_like(owner, target, x)
    if smoothing:
        t = t * (1 - smoothing) + smoothing / x.shape[axis]
    if w is not None:
        t = t * w.reshape((-1,) + (1,) * (x.ndim - 1 - axis))
    return _reduce_tensor(_soft_rows(x, t, axis), reduction, x.size // max(x.shape[axis], 1))


def _soft_rows(x: Tensor, t: Tensor, axis: int) -> Tensor:
    be = backend_of(x.data)
    y = be.soft_cross_entropy(x.data, t.data, axis)
    return record(y, _soft_cross_entropy_grad, (x, t), be, x.data, t.data, axis)


def _soft_cross_entropy_grad(needs, gy, be, x, t, axis):
    return be.soft_cross_entropy_backward(gy, x, t, axis, needs)


def _smoothed(labels: Any, w: Any, x: Tensor, axis: int, smoothing: float) -> Tensor:
    """The target weights of class labels: w[label] (1 - smoothing) there, w smoothing / C for all classes."""
    classes = x.shape[axis]
    xp = backend_of(x.data).xp
    q = xp.empty((labels.size, classes), x.dtype)
    q[...] = w * (smoothing / classes)
    flat = labels.reshape(-1)
    q += np.where(flat[:, None] == xp.arange(classes), (1 - smoothing) * w, 0)
    q[flat < 0] = 0
    q[flat >= classes] = math.nan
    return as_tensor(_unrows(q, x.shape))


def nll_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """``-x[target]`` for each sample, for log-probabilities x such as those of `log_softmax`.

    Arguments as for `cross_entropy`; the target is class labels.
    """
    refuse_deprecated("nll_loss", size_average, reduce)
    return nll_loss_as("nll_loss", input, target, weight, ignore_index, reduction)


def nll_loss_as(owner: str, input: Any, target: Any, weight: Any, ignore_index: int, reduction: str) -> Tensor:
    x = scores(owner, input, reduction)
    axis = min(x.ndim - 1, 1)
    w = class_weight(owner, weight, x.shape[axis], x)
    labels = class_labels(owner, target, x, ignore_index)
    be = backend_of(x.data)
    rows, flat = _rows(x.data), labels.reshape(-1)
    y, scale = _reduce_rows(be, be.nll(rows, flat), labels, w, reduction)
    return record(_shaped(y, labels), _nll_loss_grad, (x,), be, x.shape, scale, flat, rows.shape)


def _nll_loss_grad(needs, gy, be, shape, scale, labels, rows_shape):
    gx = be.nll_backward(_scaled(gy.reshape(-1), scale), labels, rows_shape)
    return (_unrows(gx, shape),)


def multiclass_hinge_loss(
    input: Any,
    target: Any,
    p: int = 1,
    margin: float = 1.0,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """``sum(max(0, margin + x[j] - x[target])^p)`` over the wrong classes j, for each sample:
    Weston & Watkins (1999).

    PyTorch's `multi_margin_loss` is this divided by the number of classes.

    input:   scores (N, C) or (C,)
    target:  class labels (N,) or one
    p:       1 or 2
    weight:  (C,), a factor for each class; the mean divides by the number of samples

    >>> round(multiclass_hinge_loss([[3.2, 5.1, -1.7]], [0]).item(), 5)
    2.9
    """
    refuse_deprecated("multiclass_hinge_loss", size_average, reduce)
    return multiclass_hinge_loss_as("multiclass_hinge_loss", input, target, p, margin, weight, reduction)


def multiclass_hinge_loss_as(
    owner: str, input: Any, target: Any, p: int, margin: float, weight: Any, reduction: str
) -> Tensor:
    _check.choice(owner, "p", p, (1, 2))
    margin = _check.real(owner, "margin", margin)
    x = scores(owner, input, reduction)
    if x.ndim > 2:
        raise ValueError(f"{owner}: expected input of shape (N, C) or (C,), got shape {x.shape}")
    w = class_weight(owner, weight, x.shape[-1], x)
    labels = class_labels(owner, target, x, None)
    be = backend_of(x.data)
    rows, flat = _rows(x.data), labels.reshape(-1)
    losses = be.multiclass_hinge(rows, flat, int(p), margin)
    y, scale = _reduce(losses, _factors(labels, w), reduction)
    saved = (rows, flat, int(p), margin)
    return record(_shaped(y, labels), _multiclass_hinge_grad, (x,), be, x.shape, scale, saved)


def _multiclass_hinge_grad(needs, gy, be, shape, scale, saved):
    gx = be.multiclass_hinge_backward(_scaled(gy.reshape(-1), scale), *saved)
    return (_unrows(gx, shape),)


# -- reductions ------------------------------------------------------------------------------------

_quiet = np.errstate(all="ignore")


@_quiet
def _reduce(loss: Any, weight: Any, reduction: str, divisor: Any = None) -> tuple[Any, tuple[Any, Any]]:
    """The reduced loss, and what `_scaled` needs to undo the reduction.

    divisor:  of the mean; None is the number of elements
    """
    if weight is not None:
        loss = loss * weight
    if reduction == "none":
        return loss, (None, weight)
    total = loss.sum()
    if reduction == "sum":
        return total, (None, weight)
    if is_device_array(divisor):
        divisor = divisor.astype(loss.dtype)
    else:
        divisor = loss.dtype.type(loss.size if divisor is None else divisor)
    return total / divisor, (divisor, weight)


def _reduce_rows(be: Any, losses: Any, labels: Any, weight: Any, reduction: str) -> tuple[Any, tuple[Any, Any]]:
    """`_reduce` of the losses of labelled samples, whose mean leaves out those that are ignored."""
    if reduction == "mean" and weight is None and is_device_array(losses):
        mean, count = be.labelled_mean(losses, labels.reshape(-1))
        return mean, (count, None)
    return _reduce(losses, _factors(labels, weight), reduction, _count(labels, weight))


@_quiet
def _scaled(gy: Any, scale: tuple[Any, Any]) -> Any:
    """The gradient of each unreduced loss: a single number if all have the same."""
    divisor, weight = scale
    if divisor is not None:
        gy = gy / divisor
    return gy if weight is None else gy * weight


def _total(weight: Any) -> Any:
    return None if weight is None else weight.sum()


def _reduce_tensor(loss: Tensor, reduction: str, divisor: Any) -> Tensor:
    if reduction == "none":
        return loss
    if is_device_array(divisor):
        divisor = divisor.astype(loss.dtype)
    return loss.sum() if reduction == "sum" else loss.sum() / divisor


def _opposite(needs: tuple, gx: Any) -> tuple:
    """The gradients of a function of ``x - t``."""
    return gx if needs[0] else None, -gx if needs[1] else None


def _rows(x: Any) -> Any:
    """Scores (N, C), (N, C, d1, ...) or (C,) as a matrix with one row of C scores per sample."""
    if x.ndim == 2:
        return x
    if x.ndim == 1:
        return x.reshape(1, -1)
    last = np.moveaxis(x, 1, -1)
    return last.reshape(x.size // max(x.shape[1], 1), x.shape[1])


def _unrows(rows: Any, shape: tuple[int, ...]) -> Any:
    """The inverse of `_rows`."""
    if len(shape) <= 2:
        return rows.reshape(shape)
    return np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def _shaped(y: Any, labels: Any) -> Any:
    """Losses of rows in the shape of the labels; a reduced loss as it is."""
    return y.reshape(labels.shape) if y.ndim else y


def _factors(labels: Any, weight: Any) -> Any:
    """The class weight of each row, 0 for rows that are ignored."""
    if weight is None:
        return None
    flat = labels.reshape(-1)
    # on a CUDA device a label may be out of range; the loss that its factor multiplies is NaN
    place = np.minimum(flat, len(weight) - 1) if is_device_array(flat) else flat
    return np.where(flat < 0, weight.dtype.type(0), weight[place])


def _count(labels: Any, weight: Any) -> Any:
    """What a mean over labelled samples divides by: their number, or the sum of their class weights.

    On a CUDA device it is an array without dimensions, so that nothing waits for it.
    """
    if is_device_array(labels):
        return (labels >= 0).sum() if weight is None else _factors(labels, weight).sum()
    if weight is not None:
        return float(_factors(labels, weight).sum())
    return int(np.count_nonzero(labels >= 0))
