"""Large 3x3 convolutions on a CUDA device against PyTorch, and the ceilings of the card: products and copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks._cuda_device import Device, Side, host, interleave, need_torch
from benchmarks._cuda_networks import tidy
from benchmarks.layers import Shape, last, square
from nnx.backends import backend_of

LAYERS = [
    square(n, channels, channels, size, 3)
    for n, sizes in ((64, (56, 28, 14, 7)), (32, (112, 56, 28, 14)))
    for channels, size in zip((64, 128, 256, 512), sizes, strict=True)
]
SMALL = [square(2, 8, 8, 6, 3)]
TOLERANCE = {"float32": 3e-4, "TF32": 5e-3}  # of a result, relative to the largest


@dataclass
class Row:
    """Milliseconds of one pass of one layer, by side."""

    layer: str
    what: str
    precision: str
    milliseconds: dict[str, float]
    work: float  # floating-point operations of a direct convolution

    @property
    def ratio(self) -> float:
        """PyTorch's better layout over nnx: above 1 nnx is faster."""
        return min(v for k, v in self.milliseconds.items() if k != "nnx") / self.milliseconds["nnx"]

    @property
    def teraflops(self) -> float:
        return 1e-9 * self.work / self.milliseconds["nnx"]


def compare(device: Device, shape: Shape, precision: str, quick: bool = False) -> list[Row]:
    """Forward, data gradient and weight gradient: the results agree, then they are timed."""
    torch = need_torch(device)
    torch.backends.cudnn.benchmark = True
    work = 2.0 * shape.n * float(np.prod(shape.size)) * shape.c * shape.f * float(np.prod(shape.kernel))
    rows = []
    try:
        with device.precision(precision):
            for what, sides in layer_sides(device, shape).items():
                results = {key: host(first(side())) for key, side in sides.items()}
                expected = results["PyTorch"]
                for key, result in results.items():
                    atol = TOLERANCE[precision] * float(np.abs(expected).max())
                    np.testing.assert_allclose(result, expected, rtol=0, atol=atol, err_msg=f"{shape}, {what}: {key}")
                seconds = interleave(device, sides, *((2, 0.001) if quick else (5, 0.04)))
                rows.append(Row(str(shape), what, precision, {k: 1e3 * v for k, v in seconds.items()}, work))
    finally:
        torch.backends.cudnn.benchmark = False
        tidy(device)
    return rows


def first(result: Any) -> Any:
    """The one gradient that was asked for, of the three that PyTorch returns."""
    return next(r for r in result if r is not None) if isinstance(result, tuple) else result


def layer_sides(device: Device, shape: Shape) -> dict[str, dict[str, Side]]:
    """For each pass, the sides: nnx channels-last, as its layers leave images, and PyTorch in both layouts."""
    torch = need_torch(device)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((shape.n, shape.c, *shape.size)).astype(np.float32)
    w = (0.1 * rng.standard_normal((shape.f, shape.c, *shape.kernel))).astype(np.float32)
    gy = rng.standard_normal((shape.n, shape.f, *shape.size)).astype(np.float32)
    one, padding = (1, 1), (shape.padding, shape.padding)
    pairs = tuple((p, p) for p in padding)
    ours = [device.ours(a) for a in (last(x), w, last(gy))]
    be = backend_of(ours[0])
    found: dict[str, dict[str, Side]] = {
        "forward": {"nnx": lambda: be.conv(ours[0], ours[1], None, one, pairs, one, 1)},
        "data gradient": {"nnx": lambda: be.conv_data_grad(ours[2], ours[1], x.shape, one, pairs, one, 1)},
        "weight gradient": {"nnx": lambda: be.conv_weight_grad(ours[2], ours[0], w.shape, one, pairs, one, 1)},
    }
    for name, layout in (("PyTorch", torch.contiguous_format), ("channels_last", torch.channels_last)):
        tensors = [device.theirs(a).contiguous(memory_format=layout) for a in (x, w, gy)]
        found["forward"][name] = _torch_forward(torch, tensors, padding)
        found["data gradient"][name] = _torch_backward(torch, tensors, padding, [True, False, False])
        found["weight gradient"][name] = _torch_backward(torch, tensors, padding, [False, True, False])
    return found


def _torch_forward(torch: Any, tensors: list[Any], padding: tuple[int, int]) -> Side:
    return lambda: torch.nn.functional.conv2d(tensors[0], tensors[1], None, 1, padding)


def _torch_backward(torch: Any, tensors: list[Any], padding: tuple[int, int], wanted: list[bool]) -> Side:
    x, w, gy = tensors
    return lambda: torch.ops.aten.convolution_backward(
        gy, x, w, None, (1, 1), padding, (1, 1), False, (0, 0), 1, wanted
    )


# -- ceilings --------------------------------------------------------------------------------------


@dataclass
class Ceiling:
    """What the card gives at best, measured through both libraries."""

    what: str
    unit: str
    values: dict[str, float]
    error: float | None = None  # of nnx's product, relative to the largest number of the exact one


def products(device: Device, precision: str, quick: bool = False) -> Ceiling:
    """TFLOP/s of a product of square float32 matrices; for "bfloat16" nnx's only."""
    torch = need_torch(device)
    n = 128 if quick else 8192
    with device.precision(precision):
        rng = np.random.default_rng(0)
        a, b = (rng.standard_normal((n, n), dtype=np.float32) for _ in range(2))
        ours, theirs = [device.ours(m) for m in (a, b)], [device.theirs(m) for m in (a, b)]
        backend = backend_of(ours[0])
        sides: dict[str, Side] = {"nnx": lambda: backend.matmul(*ours)}
        if precision in device.precisions:
            sides["PyTorch"] = lambda: torch.mm(*theirs)
        rows = slice(0, 16)  # enough to see the error; all of them in float64 would take the host a minute
        exact = a[rows].astype(np.float64) @ b.astype(np.float64)
        error = float(np.abs(host(sides["nnx"]())[rows] - exact).max() / np.abs(exact).max())
        seconds = interleave(device, sides, *((2, 0.001) if quick else (5, 0.1)))
    tidy(device)
    return Ceiling(f"product of {n} x {n}, {precision}", "TFLOP/s", _rates(2e-12 * n**3, seconds), error)


def copies(device: Device, quick: bool = False) -> Ceiling:
    """GB/s of a copy on the card: bytes read and bytes written."""
    need_torch(device)
    source = np.zeros(1 << (16 if quick else 28), np.float32)
    ours, theirs = device.ours(source), device.theirs(source)
    mine, other = ours.copy(), theirs.clone()
    sides: dict[str, Callable[[], Any]] = {
        "nnx": lambda: mine.__setitem__(..., ours),
        "PyTorch": lambda: other.copy_(theirs),
    }
    seconds = interleave(device, sides, *((2, 0.001) if quick else (5, 0.05)))
    gigabytes = 2e-9 * source.nbytes
    tidy(device)
    return Ceiling(f"copy of {source.nbytes >> 20} MiB", "GB/s", _rates(gigabytes, seconds))


def _rates(work: float, seconds: dict[str, float]) -> dict[str, float]:
    return {key: work / value for key, value in seconds.items()}
