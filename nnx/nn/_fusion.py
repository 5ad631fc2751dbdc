"""What Sequential runs as one: a layer and the ReLU behind it, and the max pooling behind that.

Nothing can be observed but the time. Only modules of exactly these types are taken together, without hooks and without
a `forward` of their own, so that nobody sees the Tensor in between.

* Conv, Linear or BatchNorm, then ReLU: the positive part is stored at once.
* Conv, ReLU, MaxPool: the maximum of a positive part passes its gradient to a positive number or, if it is 0, nothing.
  So the gradient is cut off behind the pooling, where there are fewer numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnx.nn.activation import ReLU
from nnx.nn.conv import Conv1d, Conv2d, Conv3d
from nnx.nn.linear import Linear
from nnx.nn.norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from nnx.nn.pool import MaxPool1d, MaxPool2d, MaxPool3d

_CONVS = frozenset({Conv1d, Conv2d, Conv3d})
_POOLS = frozenset({MaxPool1d, MaxPool2d, MaxPool3d})
_BEFORE_RELU = _CONVS | {Linear, BatchNorm1d, BatchNorm2d, BatchNorm3d}


def run(modules: Sequence[Any], x: Any) -> Any:
    """Apply the modules one after the other."""
    i, n = 0, len(modules)
    while i < n:
        module = modules[i]
        i += 1
        if i == n or type(modules[i]) is not ReLU or type(module) not in _BEFORE_RELU or not _plain(module, modules[i]):
            x = module(x)
            continue
        i += 1
        pool = modules[i] if i < n and type(module) in _CONVS and type(modules[i]) in _POOLS else None
        if pool is not None and not pool.return_indices and _plain(pool):
            x = pool._forward(module._forward(x, relu=True, masked=False), of_relu=True)
            i += 1
        else:
            x = module._forward(x, relu=True)
    return x


def _plain(*modules: Any) -> bool:
    """Whether calling these modules is calling their forward, and that is their class's."""
    for module in modules:
        if module._forward_pre_hooks or module._forward_hooks or "forward" in module.__dict__:
            return False
    return True
