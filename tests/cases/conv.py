"""Cases of convolution, transposed convolution, their columns (unfold, fold) and padding."""

from __future__ import annotations

from typing import Any

from cases._case import Case, constant, mixed, normal, torch_f
from nnx import functional as F
from nnx.functional.conv import conv_nd

_SUMS = "float32 sums of up to 2,000 products (the large draw), errors grow with the length"


def _conv(name: str, x: tuple, w: tuple, bias: bool = True, id: str = "", torch: Any = None, **kwargs: Any) -> Case:
    """A convolution of random numbers with all three gradients."""
    transposed = "transpose" in name
    channels = w[1] * kwargs.get("groups", 1) if transposed else w[0]
    spatial = int(name[-2])
    return Case(
        f"{name}-{id}" if id else name,
        getattr(F, name),
        normal(x, w, (channels,)) if bias else mixed(normal(x, w), constant(None)),
        torch or torch_f(name),
        kwargs,
        grad=(0, 1, 2) if bias else (0, 1),
        batch=(0,) if len(x) == spatial + 2 else (),
        # in the input only: whether an infinite weight meets a padded zero is the algorithm's choice
        nonfinite=(0,),
    )


def _large(name: str, x: tuple, w: tuple, id: str, **kwargs: Any) -> Case:
    """A convolution whose large draw has several tiles."""
    channels = w[1] * kwargs.get("groups", 1) if "transpose" in name else w[0]
    small = (2, x[1], *(5,) * (len(x) - 2))
    return Case(
        f"{name}-{id}",
        getattr(F, name),
        normal(small, w, (channels,)),
        torch_f(name),
        kwargs,
        grad=(0, 1, 2),
        large=normal(x, w, (channels,)),
        rtol32=1e-4,
        reason=_SUMS,
    )


def _same(x, w, b, **kwargs):
    """PyTorch warns, once, that an even kernel costs it a copy."""
    import warnings

    import torch.nn.functional as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(tf, f"conv{x.ndim - 2}d")(x, w, b, **kwargs)


def _padded_first(pad: tuple[int, ...]) -> Any:
    """What padding that differs between the sides is in PyTorch."""

    def call(x, w, b, padding):
        import torch.nn.functional as tf

        return getattr(tf, f"conv{x.ndim - 2}d")(tf.pad(x, pad), w, b)

    return call


def _pooled(x, w, b):
    """What a Sequential makes of Conv2d, ReLU and MaxPool2d."""
    return conv_nd("conv2d", 2, x, w, b, 1, 1, 1, 1, relu=True, pool=("max_pool2d", 2, 2, 0, 1, False))


def _pooled_torch(x, w, b):
    import torch.nn.functional as tf

    return tf.max_pool2d(tf.relu(tf.conv2d(x, w, b, padding=1)), 2)


CASES = [
    # -- convolution ---------------------------------------------------------------------------
    _conv("conv1d", (3, 4, 9), (5, 4, 3)),
    _conv("conv1d", (2, 4, 11), (6, 2, 3), id="all", stride=2, padding=3, dilation=2, groups=2),
    _conv("conv1d", (2, 3, 5), (2, 3, 5), id="kernel-of-input-size"),
    _conv("conv1d", (3, 7), (2, 3, 4), id="one-sample"),
    _conv("conv1d", (2, 2, 7), (3, 2, 4), id="same", torch=_same, padding="same"),
    _conv(
        "conv1d",
        (2, 2, 6),
        (3, 2, 3),
        id="causal",
        torch=_padded_first((2, 0)),
        padding=((2, 0),),
    ),
    _conv("conv2d", (2, 3, 5, 6), (4, 3, 3, 2)),
    _conv("conv2d", (2, 3, 5, 6), (4, 3, 3, 2), bias=False, id="no-bias"),
    _conv("conv2d", (2, 2, 7, 6), (3, 2, 3, 3), id="stride", stride=2),
    _conv("conv2d", (2, 2, 7, 6), (3, 2, 3, 3), id="stride-padding", stride=(2, 3), padding=(1, 2)),
    _conv("conv2d", (2, 2, 4, 5), (3, 2, 2, 3), id="much-padding", padding=(4, 3)),
    _conv("conv2d", (2, 2, 7, 8), (3, 2, 3, 2), id="dilation", dilation=(2, 3)),
    _conv("conv2d", (2, 4, 5, 5), (6, 2, 3, 3), id="groups", groups=2),
    _conv("conv2d", (2, 3, 5, 5), (6, 1, 3, 3), id="depthwise", groups=3, padding=1),
    _conv("conv2d", (2, 5, 4, 3), (7, 5, 1, 1), id="1x1"),
    _conv("conv2d", (2, 3, 5, 7), (2, 3, 1, 1), id="1x1-stride", stride=2),
    _conv("conv2d", (2, 1, 5, 4), (3, 1, 2, 2), id="one-channel"),
    _conv("conv2d", (2, 3, 4, 5), (2, 3, 4, 5), id="kernel-of-input-size"),
    _conv("conv2d", (2, 2, 5, 6), (3, 2, 4, 3), id="same", torch=_same, padding="same", dilation=(1, 2)),
    _conv("conv2d", (2, 2, 5, 6), (3, 2, 2, 3), id="valid", padding="valid"),
    _conv("conv2d", (3, 5, 6), (4, 3, 3, 3), id="one-sample", padding=1),
    _conv(
        "conv2d",
        (2, 2, 4, 5),
        (3, 2, 3, 3),
        id="per-side",
        torch=_padded_first((2, 0, 1, 3)),
        padding=((1, 3), (2, 0)),
    ),
    _conv("conv3d", (2, 2, 3, 4, 5), (3, 2, 2, 3, 2)),
    _conv(
        "conv3d",
        (1, 4, 4, 3, 5),
        (2, 2, 2, 2, 3),
        id="all",
        stride=(2, 1, 2),
        padding=(1, 0, 2),
        dilation=(1, 2, 1),
        groups=2,
    ),
    _large("conv2d", (3, 16, 24, 25), (40, 16, 3, 3), id="3x3", padding=1),
    _large("conv2d", (3, 24, 23, 24), (24, 1, 3, 3), id="depthwise-3x3", padding=1, groups=24),
    _large("conv1d", (4, 20, 301), (34, 10, 5), id="long", stride=2, padding=2, groups=2),
    _large("conv3d", (2, 8, 9, 10, 11), (20, 8, 3, 3, 3), id="3x3x3", padding=1),
    Case(
        "conv2d-relu-max_pool2d",
        _pooled,
        normal((2, 3, 7, 6), (4, 3, 3, 3), (4,)),
        _pooled_torch,
        grad=(0, 1, 2),
        nonfinite=(),  # zero times an infinite input is left out where only sums are wanted
        large=normal((3, 3, 24, 25), (20, 3, 5, 5), (20,)),
    ),
    # -- transposed convolution ----------------------------------------------------------------
    _conv("conv_transpose1d", (2, 3, 5), (3, 4, 3), stride=2),
    _conv("conv_transpose1d", (3, 5), (3, 2, 2), id="one-sample"),
    _conv("conv_transpose2d", (2, 3, 3, 4), (3, 2, 3, 2)),
    _conv("conv_transpose2d", (2, 3, 3, 4), (3, 2, 2, 2), bias=False, id="no-bias", stride=2),
    _conv(
        "conv_transpose2d",
        (2, 4, 3, 4),
        (4, 3, 3, 3),
        id="all",
        stride=(2, 3),
        padding=(2, 1),
        output_padding=(1, 2),
        groups=2,
        dilation=(2, 1),
    ),
    _conv(
        "conv_transpose2d",
        (2, 2, 3, 2),
        (2, 3, 2, 2),
        id="output-padding-beyond-stride",
        stride=1,
        padding=(1, 0),
        output_padding=(2, 2),
        dilation=3,
    ),
    _conv("conv_transpose2d", (2, 3, 4, 4), (3, 2, 1, 1), id="1x1-stride", stride=3),
    _conv("conv_transpose3d", (2, 2, 2, 3, 2), (2, 2, 2, 2, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
    _large("conv_transpose2d", (3, 24, 13, 12), (24, 20, 4, 4), id="4x4", stride=2, padding=1),
    # -- columns -------------------------------------------------------------------------------
    Case("unfold", F.unfold, normal((2, 3, 5, 6)), torch_f("unfold"), {"kernel_size": (2, 3)}),
    Case(
        "unfold-all",
        F.unfold,
        normal((2, 2, 7, 6)),
        torch_f("unfold"),
        {"kernel_size": 3, "dilation": (2, 1), "padding": (1, 2), "stride": (1, 2)},
    ),
    Case("unfold-1x1", F.unfold, normal((2, 3, 4, 5)), torch_f("unfold"), {"kernel_size": 1}),
    Case(
        "unfold-one-sample",
        F.unfold,
        normal((3, 4, 5)),
        torch_f("unfold"),
        {"kernel_size": 2},
        batch=(),
    ),
    Case(
        "fold",
        F.fold,
        normal((2, 12, 20)),
        torch_f("fold"),
        {"output_size": (5, 6), "kernel_size": 2},
    ),
    Case(
        "fold-all",
        F.fold,
        normal((2, 18, 20)),
        torch_f("fold"),
        {
            "output_size": (7, 6),
            "kernel_size": 3,
            "dilation": (2, 1),
            "padding": (1, 2),
            "stride": (1, 2),
        },
    ),
    Case(
        "fold-one-sample",
        F.fold,
        normal((8, 6)),
        torch_f("fold"),
        {"output_size": (3, 4), "kernel_size": 2},
        batch=(),
    ),
    # -- padding -------------------------------------------------------------------------------
    Case("pad", F.pad, normal((2, 3, 4, 5)), torch_f("pad"), {"pad": (1, 2, 0, 3)}),
    Case("pad-value", F.pad, normal((2, 3)), torch_f("pad"), {"pad": (1, 2), "value": 3.5}),
    Case("pad-negative", F.pad, normal((2, 4, 6)), torch_f("pad"), {"pad": (-2, 1, 1, -3)}),
    Case("pad-nothing", F.pad, normal((2, 4)), torch_f("pad"), {"pad": (0, 0)}),
    *[
        Case(
            f"pad-{mode}{len(pad) // 2}d",
            F.pad,
            normal((2, 3, 3, 4, 5)[: 2 + len(pad) // 2]),
            torch_f("pad"),
            {"pad": pad, "mode": mode},
        )
        for mode in ("reflect", "replicate", "circular")
        for pad in ((2, 1), (2, 1, 0, 2), (2, 1, 0, 2, 1, 1))
    ],
]
