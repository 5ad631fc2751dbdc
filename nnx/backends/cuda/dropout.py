"""Dropout: masks drawn on the device by counter-based random numbers, and their use.

The library's generator on the host gives one number for each mask, and the kernel makes the mask of it: the stream of
Philox-4x32-10 with this key. So `nnx.manual_seed` decides all masks, and the layout of memory none. A captured graph
gets a new key before each replay, the one that the same step would get without a graph (`_capture.py`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnx import _random
from nnx.backends.base.dropout import DropoutOps, host_mask, threshold
from nnx.backends.cuda import _capture
from nnx.backends.cuda._arrays import channels_last, contiguous, dense, empty_channels_last, has_kernel, like
from nnx.backends.cuda._kernels import Kernels, blocks_for

_KEYS = 2**53  # whole numbers that are exact as a double
_MOST_SAMPLES = 65535  # of a grid's second dimension
_F32 = np.dtype(np.float32)
_k = Kernels("dropout")


class DropoutCUDA(DropoutOps):
    """Overrides for float32 and float64, and masks of elements and of channels."""

    xp: Any

    def draw_mask(self, shape: tuple[int, ...], p: float, generator: Any = None) -> Any:
        """A generator that the caller made draws on the host, so that the mask is the same one as on the CPU."""
        capture = _capture.current()
        if generator is not None:
            if capture is not None:
                raise RuntimeError(
                    "cuda.graph: expected dropout with the library's random stream, got a generator of its own, which "
                    "draws on the host. Leave generator out"
                )
            return self.xp.asarray(host_mask(shape, p, generator))
        if p == 1:
            return self.xp.zeros(shape, bool)
        key = _new_key()
        keep = self.xp.empty(shape, bool)
        live = None
        if capture is not None:
            live = capture.numbers((key,))
            capture.when_replayed(lambda: capture.numbers((_new_key(),)))
        n = math.prod(shape)
        if n:
            blocks = blocks_for(-(-n // 4))
            _k.launch("draw_mask", _F32, blocks, 256, keep, n, threshold(p), key, live)
        return keep

    def dropout(self, x: Any, keep: Any, scale: float) -> Any:
        y = self._masked(x, keep, scale)
        return super().dropout(x, keep, scale) if y is None else y

    def dropout_backward(self, gy: Any, keep: Any, scale: float) -> Any:
        gx = self._masked(gy, keep, scale)
        return super().dropout_backward(gy, keep, scale) if gx is None else gx

    def _masked(self, x: Any, keep: Any, scale: float) -> Any:
        """None where there is no kernel."""
        if not has_kernel(x) or keep.dtype != bool or not x.size:
            return None
        if keep.shape == x.shape:
            x = dense(x)
            y = self.xp.empty_like(x)
            if not (x.flags.c_contiguous and keep.flags.c_contiguous):  # else they lie alike, in steps of other sizes
                keep = like(keep, x)
            _k.launch("apply_mask", x.dtype, blocks_for(x.size), 256, x, keep, y, x.size, scale)
            return y
        if not 3 <= x.ndim <= 5 or keep.shape != x.shape[:2] + (1,) * (x.ndim - 2):
            return None
        samples, channels = x.shape[:2]
        x = channels_last(x)
        y = empty_channels_last(x.shape, x.dtype)
        numbers = x.size // samples
        grid = (blocks_for(numbers), min(samples, _MOST_SAMPLES))
        _k.launch(
            "apply_channel_mask", x.dtype, grid, 256, x, contiguous(keep), y, samples, numbers, channels, scale
        )  # fmt: skip
        return y


def _new_key() -> int:
    return int(_random.generator().integers(_KEYS))
