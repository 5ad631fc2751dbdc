"""What Sequential runs as one: a layer, the batch norm behind it, the ReLU behind that, the max pooling behind that.

Nothing can be observed but the time and, where batch norm is folded or behind max pooling, rounding. Only modules of
exactly these types are taken together, without hooks and without a `forward` of their own, so that nobody sees the
Tensor in between.

* Conv, Linear or BatchNorm, then ReLU: the positive part is stored at once.
* Conv, ReLU, MaxPool: one operation. The maximum of a positive part passes its gradient to a positive number or, if it
  is 0, nothing: the gradient is cut off behind the pooling, where there are fewer numbers. The backend may keep what
  lies between in the cache.
* Conv, BatchNorm, with or without ReLU, in evaluation mode and where no gradient is recorded: batch norm is folded. Its
  factor is multiplied into the filters, its shift becomes the bias; anew in each call, so that nothing can be stale,
  and only where there are more pixels than weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnx.autograd import Tensor, is_grad_enabled
from nnx.nn.activation import ReLU
from nnx.nn.conv import Conv1d, Conv2d, Conv3d
from nnx.nn.linear import Linear
from nnx.nn.norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from nnx.nn.pool import MaxPool1d, MaxPool2d, MaxPool3d

_CONVS = frozenset({Conv1d, Conv2d, Conv3d})
_POOLS = frozenset({MaxPool1d, MaxPool2d, MaxPool3d})
_NORMS = {Conv1d: BatchNorm1d, Conv2d: BatchNorm2d, Conv3d: BatchNorm3d}
_BEFORE_RELU = _CONVS | {Linear, BatchNorm1d, BatchNorm2d, BatchNorm3d}


def run(modules: Sequence[Any], x: Any) -> Any:
    """Apply the modules one after the other."""
    i, n = 0, len(modules)
    while i < n:
        module = modules[i]
        kind, behind = type(module), modules[i + 1] if i + 1 < n else None
        i += 1
        if kind not in _BEFORE_RELU or behind is None:
            x = module(x)
        elif type(behind) is ReLU:
            if not _plain(module) or not _plain(behind):
                x = module(x)
                continue
            i += 1
            pool = modules[i] if i < n and kind in _CONVS and type(modules[i]) in _POOLS else None
            if pool is not None and not pool.return_indices and _plain(pool):
                x = module._forward(x, True, None, None, pool)
                i += 1
            else:
                x = module._forward(x, True)
        elif kind in _CONVS and _folds(module, behind, x):
            i += 1
            relu = i < n and type(modules[i]) is ReLU and _plain(modules[i])
            i += relu
            x = module._forward(x, relu, *_folded(module, behind))
        else:
            x = module(x)
    return x


def _folds(conv: Any, norm: Any, x: Any) -> bool:
    """Whether batch norm behind a convolution only scales and shifts, and scaling the filters costs less."""
    if type(norm) is not _NORMS[type(conv)] or is_grad_enabled() or not _plain(conv) or not _plain(norm):
        return False
    mean, var, weight = norm.running_mean, norm.running_var, conv.weight
    return (
        not norm.training
        and norm.track_running_stats
        and mean is not None
        and var is not None
        and mean.shape == weight.shape[:1]
        and mean.dtype == weight.dtype
        and isinstance(x, (np.ndarray, Tensor))
        and len(x.shape) == len(weight.shape)
        and math.prod(x.shape) // max(x.shape[1], 1) > 2 * math.prod(weight.shape[1:]) * math.prod(conv.stride)
    )


def _folded(conv: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that is `conv` and `norm` behind it, which uses its running averages."""
    scale = 1 / np.sqrt(norm.running_var + norm.running_var.dtype.type(norm.eps))
    if norm.weight is not None:
        scale = scale * norm.weight.data
    shift = -norm.running_mean * scale
    if conv.bias is not None:
        shift = shift + conv.bias.data * scale
    if norm.bias is not None:
        shift = shift + norm.bias.data
    weight = conv.weight.data
    return Tensor(weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))), Tensor(shift)


def _plain(module: Any) -> bool:
    """Whether calling this module is calling its forward, and that is its class's."""
    own = module.__dict__
    return not own["_forward_pre_hooks"] and not own["_forward_hooks"] and "forward" not in own
