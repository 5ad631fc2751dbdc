"""Cases of max, average, sum and adaptive average pooling."""

from __future__ import annotations

from typing import Any

from cases._case import Case, distinct, normal, torch_f
from nnx import functional as F


def _max(name: str, x: tuple, id: str = "", large: tuple | None = None, **kwargs: Any) -> Case:
    return Case(
        f"{name}-{id}" if id else name,
        getattr(F, name),
        distinct(x),
        torch_f(name),
        kwargs,
        batch=(0,) if len(x) == int(name[-2]) + 2 else (),
        large=None if large is None else normal(large),
    )


def _mean(name: str, x: tuple, id: str = "", large: tuple | None = None, torch: Any = None, **kwargs: Any) -> Case:
    return Case(
        f"{name}-{id}" if id else name,
        getattr(F, name),
        normal(x),
        torch or torch_f(name),
        kwargs,
        batch=(0,) if len(x) == int(name[-2]) + 2 else (),
        large=None if large is None else normal(large),
    )


def _torch_sum(x, kernel_size, **kwargs):
    """The mean of all elements, padded ones included, times their number."""
    import torch.nn.functional as tf

    if x.ndim == 3:
        return tf.avg_pool1d(x, kernel_size, **kwargs) * kernel_size
    return getattr(tf, f"avg_pool{x.ndim - 2}d")(x, kernel_size, divisor_override=1, **kwargs)


CASES = [
    # -- maximum -------------------------------------------------------------------------------
    _max("max_pool1d", (2, 3, 9), kernel_size=3),
    _max("max_pool1d", (2, 3, 9), id="all", kernel_size=3, stride=2, padding=1, dilation=2),
    _max("max_pool1d", (3, 9), id="one-sample", kernel_size=2),
    _max("max_pool2d", (2, 3, 5, 6), large=(3, 70, 24, 25), kernel_size=2),
    _max("max_pool2d", (2, 3, 7, 6), id="overlap", large=(3, 70, 24, 25), kernel_size=3, stride=2),
    _max("max_pool2d", (2, 2, 5, 6), id="gaps", kernel_size=2, stride=3),
    _max("max_pool2d", (2, 5, 5, 6), id="padding", kernel_size=(3, 2), stride=1, padding=1),
    _max("max_pool2d", (2, 2, 6, 7), id="dilation", kernel_size=2, stride=1, dilation=(2, 3)),
    _max("max_pool2d", (2, 2, 5, 6), id="ceil", kernel_size=2, stride=(3, 4), ceil_mode=True),
    _max(
        "max_pool2d",
        (2, 2, 6, 5),
        id="ceil-padding",
        kernel_size=3,
        stride=2,
        padding=1,
        ceil_mode=True,
    ),
    _max("max_pool2d", (2, 3, 4, 5), id="kernel-of-input-size", kernel_size=(4, 5)),
    _max("max_pool2d", (2, 3, 4, 5), id="1x1", kernel_size=1),
    _max("max_pool2d", (2, 17, 4, 4), id="17-channels", kernel_size=3, stride=1),
    _max("max_pool2d", (1, 2, 17, 18), id="window-of-272", kernel_size=(16, 17), stride=1),
    _max("max_pool2d", (2, 3, 6, 5), id="indices", kernel_size=2, padding=1, return_indices=True),
    _max("max_pool2d", (3, 6, 5), id="one-sample", kernel_size=2, return_indices=True),
    _max("max_pool3d", (2, 3, 4, 3, 5), large=(2, 19, 8, 9, 10), kernel_size=2),
    _max(
        "max_pool3d",
        (2, 2, 5, 4, 6),
        id="all",
        kernel_size=(2, 3, 2),
        stride=(1, 2, 2),
        padding=(1, 1, 0),
        dilation=(2, 1, 2),
        ceil_mode=True,
        return_indices=True,
    ),
    # -- mean ----------------------------------------------------------------------------------
    _mean("avg_pool1d", (2, 3, 9), kernel_size=3),
    _mean("avg_pool1d", (2, 3, 8), id="ceil", kernel_size=3, stride=2, padding=1, ceil_mode=True),
    _mean("avg_pool1d", (3, 9), id="one-sample", kernel_size=2),
    _mean("avg_pool2d", (2, 3, 5, 6), large=(3, 70, 24, 25), kernel_size=2),
    _mean("avg_pool2d", (2, 3, 7, 6), id="overlap", large=(3, 70, 24, 25), kernel_size=3, stride=2),
    _mean("avg_pool2d", (2, 5, 5, 6), id="padding", kernel_size=(3, 2), stride=1, padding=1),
    _mean(
        "avg_pool2d",
        (2, 5, 5, 6),
        id="padding-not-counted",
        kernel_size=(3, 2),
        stride=1,
        padding=1,
        count_include_pad=False,
    ),
    _mean(
        "avg_pool2d",
        (2, 2, 6, 5),
        id="ceil-padding",
        kernel_size=3,
        stride=2,
        padding=1,
        ceil_mode=True,
    ),
    _mean(
        "avg_pool2d",
        (2, 2, 6, 5),
        id="ceil-padding-not-counted",
        kernel_size=3,
        stride=2,
        padding=1,
        ceil_mode=True,
        count_include_pad=False,
    ),
    _mean("avg_pool2d", (2, 3, 5, 4), id="divisor", kernel_size=2, divisor_override=-3),
    _mean("avg_pool3d", (2, 3, 4, 3, 5), large=(2, 19, 8, 9, 10), kernel_size=2),
    _mean(
        "avg_pool3d",
        (2, 2, 5, 4, 6),
        id="all",
        kernel_size=(2, 3, 2),
        stride=(1, 2, 2),
        padding=(1, 1, 0),
        ceil_mode=True,
        count_include_pad=False,
    ),
    # -- sum -----------------------------------------------------------------------------------
    _mean("sum_pool1d", (2, 3, 9), torch=_torch_sum, kernel_size=3, padding=1),
    _mean("sum_pool2d", (2, 3, 5, 6), torch=_torch_sum, kernel_size=(3, 2), stride=2, padding=1),
    _mean("sum_pool3d", (2, 3, 4, 3, 5), torch=_torch_sum, kernel_size=2, ceil_mode=True),
    # -- adaptive mean -------------------------------------------------------------------------
    _mean("adaptive_avg_pool1d", (2, 3, 7), output_size=3),
    _mean("adaptive_avg_pool2d", (2, 3, 6, 9), output_size=3),
    _mean("adaptive_avg_pool2d", (2, 3, 5, 4), id="global", large=(3, 70, 9, 8), output_size=1),
    _mean("adaptive_avg_pool2d", (2, 3, 5, 7), id="uneven", output_size=(3, 4)),
    _mean("adaptive_avg_pool2d", (2, 3, 2, 3), id="enlarged", output_size=(5, 4)),
    _mean("adaptive_avg_pool2d", (2, 3, 5, 4), id="kept", output_size=(None, 2)),
    _mean("adaptive_avg_pool2d", (3, 5, 4), id="one-sample", output_size=2),
    _mean("adaptive_avg_pool3d", (2, 3, 4, 3, 5), output_size=(2, 3, 2)),
]
