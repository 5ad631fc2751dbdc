"""The fixed 3x3 filters of image processing: no learning, the weights are known."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from nnx import _check


def _kernel(*rows: tuple[float, float, float], divisor: float = 1) -> np.ndarray:
    kernel = np.array(rows) / divisor
    kernel.flags.writeable = False
    return kernel


#: Name to float64 kernel (3, 3), read-only. The three edge kernels sum to 0, so flat areas become
#: black; the others sum to 1, so the brightness stays. Each equals itself turned by 180 degrees, so
#: convolution and cross-correlation agree on them.
FILTERS: Mapping[str, np.ndarray] = MappingProxyType(
    {
        "identity": _kernel((0, 0, 0), (0, 1, 0), (0, 0, 0)),
        "edge_diagonal": _kernel((1, 0, -1), (0, 0, 0), (-1, 0, 1)),
        "edge_laplace": _kernel((0, 1, 0), (1, -4, 1), (0, 1, 0)),
        "edge_all": _kernel((-1, -1, -1), (-1, 8, -1), (-1, -1, -1)),
        "sharpen": _kernel((0, -1, 0), (-1, 5, -1), (0, -1, 0)),
        "box_blur": _kernel((1, 1, 1), (1, 1, 1), (1, 1, 1), divisor=9),
        "gaussian_blur": _kernel((1, 2, 1), (2, 4, 2), (1, 2, 1), divisor=16),
    }
)


def filter_image(image: Any, kernel: Any, mode: str = "edge") -> np.ndarray:
    """Slide a kernel over each channel of an image: y[i, j] = sum of kernel[u, v] x[i + u - h, j + v - w].

    h, w: half of the kernel's height and width. `image`: ``(..., H, W)``; all but the last two
    dimensions are channels or samples. `kernel`: a name in `FILTERS` or an array of odd height and
    width. `mode`: how the image goes on beyond its border, "edge" (repeats the outermost pixel),
    "constant" (0), "reflect", "symmetric" or "wrap", each as in `numpy.pad`; "valid" keeps only the
    pixels whose neighbourhood is inside, so that the result is smaller.

    The result is uint8 for uint8 images, rounded and cut off at 0 and 255; otherwise it has the
    image's float type, float64 for other integers.

    Errors: ValueError for an unknown name, an even or empty kernel, or an image too small for it.

    >>> filter_image([[178, 174, 177], [179, 178, 179], [168, 171, 178]], "gaussian_blur", "valid")
    array([[176.1875]])
    """
    owner = "filter_image"
    x, k = np.asarray(image), _weights(kernel)
    if x.ndim < 2 or x.dtype.kind not in "uif":
        raise ValueError(f"{owner}: expected image of numbers of shape (..., H, W), got {x.dtype} of shape {x.shape}")
    _check.choice(owner, "mode", mode, ("edge", "constant", "reflect", "symmetric", "wrap", "valid"))
    smallest = k.shape if mode == "valid" else (1, 1)
    if x.shape[-2] < smallest[0] or x.shape[-1] < smallest[1]:
        raise ValueError(f"{owner}: expected image of at least {smallest} pixels, got shape {x.shape}")
    work = x.astype(x.dtype if x.dtype.kind == "f" else np.float64)
    if mode != "valid":
        around = [(0, 0)] * (x.ndim - 2) + [(n // 2, n // 2) for n in k.shape]
        work = np.pad(work, around, mode=mode)  # type: ignore[call-overload]
    rows, columns = work.shape[-2] - k.shape[0] + 1, work.shape[-1] - k.shape[1] + 1
    y = np.zeros((*x.shape[:-2], rows, columns), work.dtype)
    for (u, v), weight in np.ndenumerate(k):
        if weight:
            y += work.dtype.type(weight) * work[..., u : u + rows, v : v + columns]
    return np.clip(np.rint(y), 0, 255).astype(np.uint8) if x.dtype == np.uint8 else y


def _weights(kernel: Any) -> np.ndarray:
    if isinstance(kernel, str):
        return FILTERS[_check.choice("filter_image", "kernel", kernel, tuple(FILTERS))]
    k = np.asarray(kernel, np.float64)
    if k.ndim != 2 or any(n % 2 == 0 for n in k.shape):
        raise ValueError(f"filter_image: expected kernel of odd height and width, got shape {k.shape}")
    return k
