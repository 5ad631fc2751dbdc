"""Neural networks for people who think in NumPy: arrays in, arrays out, a compiled core in between.

Everything is reached after a bare ``import nnx``, and loaded when it is first used.

>>> import nnx
>>> x = nnx.tensor([1.0, 2.0, 3.0], requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad
array([2., 4., 6.], dtype=float32)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnx import (
        autograd,
        backends,
        classic,
        cli,
        config,
        course,
        cuda,
        data,
        diagnose,
        distributed,
        functional,
        graph,
        io,
        models,
        nn,
        optim,
        testing,
        train,
        viz,
    )
    from nnx._ext.memory import empty_cache
    from nnx._ext.threads import get_num_threads, set_num_threads
    from nnx._random import manual_seed
    from nnx.autograd._tensor import (
        Parameter,
        Tensor,
        enable_grad,
        from_dlpack,
        is_grad_enabled,
        no_grad,
        set_grad_enabled,
        tensor,
    )
    from nnx.autograd.arithmetic import (
        abs,
        add,
        clamp,
        cos,
        div,
        exp,
        log,
        matmul,
        maximum,
        minimum,
        mul,
        neg,
        pow,
        relu,
        sigmoid,
        sign,
        sin,
        sqrt,
        square,
        sub,
        tanh,
        where,
    )
    from nnx.autograd.reduction import (
        amax,
        amin,
        argmax,
        argmin,
        logsumexp,
        max,
        mean,
        min,
        norm,
        std,
        sum,
        var,
    )
    from nnx.autograd.shape import (
        cat,
        chunk,
        clone,
        flatten,
        gather,
        permute,
        reshape,
        split,
        squeeze,
        stack,
        transpose,
        unbind,
        unsqueeze,
    )
    from nnx.backends.precision import get_conv_precision, set_conv_precision
    from nnx.config import show_config
    from nnx.functional import log_softmax, softmax
    from nnx.io import load, save

__version__ = "0.1.0"

_ROOMS = (
    "autograd", "backends", "classic", "cli", "config", "course", "cuda", "data", "diagnose", "distributed",
    "functional", "graph", "io", "models", "nn", "optim", "testing", "train", "viz",
)  # fmt: skip

_HOMES = {
    "nnx._ext.memory": "empty_cache",
    "nnx._ext.threads": "get_num_threads set_num_threads",
    "nnx._random": "manual_seed",
    "nnx.autograd": "Parameter Tensor enable_grad from_dlpack is_grad_enabled no_grad set_grad_enabled tensor",
    "nnx.autograd.arithmetic": (
        "abs add clamp cos div exp log matmul maximum minimum mul neg pow relu sigmoid sign sin sqrt square sub tanh "
        "where"
    ),
    "nnx.autograd.reduction": "amax amin argmax argmin logsumexp max mean min norm std sum var",
    "nnx.autograd.shape": (
        "cat chunk clone flatten gather permute reshape split squeeze stack transpose unbind unsqueeze"
    ),
    "nnx.backends.precision": "get_conv_precision set_conv_precision",
    "nnx.config": "show_config",
    "nnx.functional": "log_softmax softmax",
    "nnx.io": "load save",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

_BUILTINS = {"abs", "max", "min", "pow", "sum"}  # a star import leaves Python's own alone

__all__ = sorted({*_ROOMS, *_HOME_OF} - _BUILTINS)


def __getattr__(name: str) -> Any:
    """Load the room or the function `name` when it is first used, and keep it."""
    if name in _HOME_OF:
        value = getattr(import_module(_HOME_OF[name]), name)
    elif name in _ROOMS:
        value = import_module(f"nnx.{name}")
    else:
        raise AttributeError(f"module 'nnx' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS, *_HOME_OF})
