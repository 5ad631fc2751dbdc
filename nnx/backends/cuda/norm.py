"""Normalisation by norm.cu: images channels-last in memory, rows one behind the other."""

from __future__ import annotations

from typing import Any

from nnx.backends.base.norm import Gradients, NormOps
from nnx.backends.cuda._arrays import channels_last, contiguous, empty_channels_last, has_kernel, nhwc
from nnx.backends.cuda._kernels import Kernels, blocks_for

_k = Kernels("norm")

_BLOCKS = 512  # that share a sum: enough to fill a device, few enough to add up their parts
_STEPS = 8  # pixels that a thread takes at once: STEPS in norm.cu
_MOST_BLOCKS = 2048  # of kernels over all elements, whose threads keep a channel's parameters
_MOST_ROWS = 2**20  # blocks of the kernels over rows


class NormCUDA(NormOps):
    """Overrides for float32 and float64 with at least one element."""

    # -- per channel: batch norm -------------------------------------------------------------------

    def batch_moments(self, x: Any) -> tuple[Any, Any]:
        if not _takes_images(x):
            return super().batch_moments(x)
        mean, var, _ = self._moments(nhwc(channels_last(x)), 1.0)
        return mean, var

    def batch_norm(self, x: Any, weight: Any, bias: Any, eps: float, relu: bool = False) -> tuple[Any, Any, Any, Any]:
        if not _takes_images(x, weight, bias):
            return super().batch_norm(x, weight, bias, eps, relu)
        x = channels_last(x)
        mean, var, rstd = self._moments(nhwc(x), eps)
        return _normalized(x, mean, rstd, weight, bias, 0, 0.0, relu), mean, var, rstd

    def batch_norm_backward(
        self,
        gy: Any,
        x: Any,
        weight: Any,
        mean: Any,
        rstd: Any,
        needs: tuple[bool, bool, bool],
        y: Any = None,
        bias: Any = None,
    ) -> Gradients:
        if not _takes_images(x, gy, weight, mean, rstd, y):
            return super().batch_norm_backward(gy, x, weight, mean, rstd, needs, y, bias)
        return self._channel_gradients(gy, x, y, weight, mean, rstd, None, needs)

    def batch_norm_infer(
        self, x: Any, mean: Any, var: Any, weight: Any, bias: Any, eps: float, relu: bool = False
    ) -> Any:
        if not _takes_images(x, mean, var, weight, bias):
            return super().batch_norm_infer(x, mean, var, weight, bias, eps, relu)
        return _normalized(channels_last(x), contiguous(mean), contiguous(var), weight, bias, 1, eps, relu)

    def batch_norm_infer_backward(
        self, gy: Any, x: Any, mean: Any, var: Any, weight: Any, eps: float, needs: tuple[bool, bool, bool]
    ) -> Gradients:
        if not _takes_images(x, gy, mean, var, weight):
            return super().batch_norm_infer_backward(gy, x, mean, var, weight, eps, needs)
        return self._channel_gradients(gy, x, None, weight, mean, var, eps, needs)

    # -- per row: layer, group and instance norm ---------------------------------------------------

    def row_norm(self, x: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any, Any, Any]:
        if not _takes(x, weight, bias):
            return super().row_norm(x, weight, bias, eps)
        x = contiguous(x)
        rows, width = x.shape
        period = next((a.shape[0] for a in (weight, bias) if a is not None), 1)
        y = self.xp.empty_like(x)
        mean, var, rstd = self.xp.empty((3, rows), x.dtype)
        blocks, lanes = _rows(rows, width)
        sizes = rows, width, period, lanes, float(eps)
        parameters = _or(weight, x), _or(bias, x)
        flags = int(weight is not None), int(bias is not None)
        _k.launch("row_norm", x.dtype, blocks, 256, *sizes, x, *parameters, y, mean, var, rstd, *flags)
        return y, mean, var, rstd

    def row_norm_backward(
        self, gy: Any, x: Any, weight: Any, mean: Any, rstd: Any, period: int, needs: tuple[bool, bool, bool]
    ) -> Gradients:
        if not _takes(x, gy, weight, mean, rstd):
            return super().row_norm_backward(gy, x, weight, mean, rstd, period, needs)
        x, gy, mean, rstd = contiguous(x), contiguous(gy), contiguous(mean), contiguous(rstd)
        rows, width = x.shape
        gx = gw = gb = None
        if needs[1] or needs[2]:
            count, columns = rows // period, period * width
            partial, grid, block, chunk = self._partial_sums(count, columns)
            sizes = count, period, width, chunk
            _k.launch("sums_by_row", x.dtype, grid, block, *sizes, gy, x, mean, rstd, partial)
            gb, gw = (a.reshape(period, width) for a in self._channel_sums(partial, x.dtype))
        if needs[0]:
            gx = self.xp.empty_like(x)
            blocks, lanes = _rows(rows, width)
            arrays = gy, x, _or(weight, x), mean, rstd, gx
            _k.launch(
                "row_norm_backward", x.dtype, blocks, 256, rows, width, period, lanes, *arrays, int(weight is not None)
            )
        return gx, gw if needs[1] else None, gb if needs[2] else None

    # -- across channels: local response norm ------------------------------------------------------

    def local_response_norm(self, x: Any, size: int, alpha: float, beta: float, k: float) -> tuple[Any, Any]:
        if not _takes_images(x):
            return super().local_response_norm(x, size, alpha, beta, k)
        pixels, channels = x.size // x.shape[1], x.shape[1]
        y, scale = empty_channels_last(x.shape, x.dtype), empty_channels_last(x.shape, x.dtype)
        window = min(size // 2, channels), min((size - 1) // 2, channels)
        numbers = pixels, channels, *window, float(alpha / size), float(k), float(beta)
        grid, block = _elements(pixels, channels, 1)
        _k.launch("response", x.dtype, grid, block, *numbers, nhwc(channels_last(x)), nhwc(y), nhwc(scale))
        return y, scale

    def local_response_norm_backward(self, gy: Any, x: Any, scale: Any, size: int, alpha: float, beta: float) -> Any:
        if not _takes_images(x, gy, scale):
            return super().local_response_norm_backward(gy, x, scale, size, alpha, beta)
        pixels, channels = x.size // x.shape[1], x.shape[1]
        arrays = tuple(nhwc(channels_last(a)) for a in (gy, x, scale))
        gx, term = empty_channels_last(x.shape, x.dtype), self.xp.empty_like(arrays[0])
        _k.launch("response_term", x.dtype, blocks_for(x.size), 256, pixels, channels, float(beta), *arrays, term)
        window = min((size - 1) // 2, channels), min(size // 2, channels)
        numbers = pixels, channels, *window, float(2 * alpha * beta / size), float(beta)
        grid, block = _elements(pixels, channels, 1)
        _k.launch("response_backward", x.dtype, grid, block, *numbers, *arrays, term, nhwc(gx))
        return gx

    # -- helpers -----------------------------------------------------------------------------------

    def _moments(self, image: Any, eps: float) -> tuple[Any, Any, Any]:
        """Mean, variance and rstd of the channels of an image batch (N, spatial..., C)."""
        channels = image.shape[-1]
        pixels = image.size // channels
        mean, var, rstd = self.xp.empty((3, channels), image.dtype)
        partial, grid, block, chunk = self._partial_sums(pixels, channels)
        _k.launch("moments_partial", image.dtype, grid, block, pixels, channels, chunk, image, partial)
        sizes = pixels, channels, partial.shape[1], float(eps)
        _k.launch(
            "moments_finish", image.dtype, *_finish(channels, partial.shape[1]), *sizes, image, partial, mean, var, rstd
        )
        return mean, var, rstd

    def _channel_gradients(
        self,
        gy: Any,
        x: Any,
        y: Any,
        weight: Any,
        mean: Any,
        spread: Any,
        eps: float | None,
        needs: tuple[bool, bool, bool],
    ) -> Gradients:
        """`spread` is rstd with the batch's moments, or with `eps` the variance, and both are constants.

        y: the positive part that was taken of the result, or None
        """
        channels = x.shape[1]
        pixels = x.size // channels
        gy, x, mean, spread = nhwc(channels_last(gy)), nhwc(channels_last(x)), contiguous(mean), contiguous(spread)
        masked = int(y is not None)
        y = x if y is None else nhwc(channels_last(y))
        variance = int(eps is not None), float(eps or 0)
        gx = gw = gb = None
        if needs[1] or needs[2] or (needs[0] and eps is None):
            partial, grid, block, chunk = self._partial_sums(pixels, channels)
            sizes = pixels, channels, chunk
            _k.launch(
                "sums_by_channel", x.dtype, grid, block, *sizes, gy, x, y, mean, spread, *variance, masked, partial
            )
            gb, gw = self._channel_sums(partial, x.dtype)
        if needs[0]:
            gx = empty_channels_last((x.shape[0], channels, *x.shape[1:-1]), x.dtype)
            grid, block = _elements(pixels, channels, 16 // x.itemsize)
            arrays = gy, x, y, mean, spread, _or(weight, mean), _or(gb, mean), _or(gw, mean), nhwc(gx)
            flags = *variance, int(weight is not None), int(eps is None), masked
            _k.launch("normalize_channels_backward", x.dtype, grid, block, pixels, channels, *arrays, *flags)
        return gx, gw if needs[1] else None, gb if needs[2] else None

    def _partial_sums(self, count: int, columns: int) -> tuple[Any, tuple[int, int], tuple[int, int], int]:
        """For sums over the rows of a matrix (count, columns): the array of two partial sums for each chunk, grid and
        block, and the rows of a chunk. All depends on the shape alone."""
        wide = _wide(columns, 32)
        while wide < min(columns, 256) and 256 // wide > -(-count // _STEPS):
            wide *= 2  # few rows: lanes would have nothing to do
        tiles, lanes = -(-columns // wide), 256 // wide
        chunks = min(-(-count // (_STEPS * lanes)), max(1, _BLOCKS // tiles))
        chunk = -(-count // chunks)
        chunks = -(-count // chunk)
        return self.xp.empty((2, chunks, columns), "float64"), (tiles, chunks), (wide, lanes), chunk

    def _channel_sums(self, partial: Any, dtype: Any) -> Any:
        """The two sums of each column, (2, columns)."""
        _, chunks, columns = partial.shape
        sums = self.xp.empty((2, columns), dtype)
        _k.launch("sums_finish", dtype, *_finish(columns, chunks), columns, chunks, partial, sums[0], sums[1])
        return sums


def _takes(x: Any, *others: Any) -> bool:
    return x.size > 0 and has_kernel(x, *[a for a in others if a is not None])


def _takes_images(x: Any, *others: Any) -> bool:
    return 2 <= x.ndim <= 5 and _takes(x, *others)


def _or(a: Any, other: Any) -> Any:
    """`a` as the kernels take it; instead of None something that they do not read."""
    return other if a is None else contiguous(a)


def _wide(columns: int, most: int) -> int:
    """How many columns a block takes beside each other: a power of two."""
    return min(most, 1 << (columns - 1).bit_length())


def _finish(columns: int, chunks: int) -> tuple[tuple[int], tuple[int, int]]:
    """Grid and block of the kernels that add up the chunks of each column, about sixteen a thread."""
    lanes = min(32, 1 << (-(-chunks // 16) - 1).bit_length())
    wide = _wide(columns, 256 // lanes)
    return (-(-columns // wide),), (wide, lanes)


def _elements(pixels: int, channels: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Grid and block of kernels over all elements, where threads take `width` channels if these come out even."""
    columns = channels // width if channels % width == 0 else channels
    wide = _wide(columns, 32)
    tiles, lanes = -(-columns // wide), 256 // wide
    return (tiles, min(-(-pixels // lanes), max(1, _MOST_BLOCKS // tiles))), (wide, lanes)


def _rows(rows: int, width: int) -> tuple[int, int]:
    """The blocks of the kernels over rows, and the threads of a row: about four elements each, if they are few."""
    lanes = min(256, 1 << (max(width // 4, 1) - 1).bit_length())
    return min(-(-rows * lanes // 256), _MOST_ROWS), lanes


def _normalized(x: Any, mean: Any, spread: Any, weight: Any, bias: Any, is_var: int, eps: float, relu: bool) -> Any:
    """x, channels-last, normalised: `spread` is rstd or, with `is_var`, the variance."""
    channels = x.shape[1]
    pixels = x.size // channels
    y = empty_channels_last(x.shape, x.dtype)
    grid, block = _elements(pixels, channels, 16 // x.itemsize)
    arrays = nhwc(x), mean, spread, _or(weight, mean), _or(bias, mean), nhwc(y)
    flags = is_var, float(eps), int(weight is not None), int(bias is not None), int(relu)
    _k.launch("normalize_channels", x.dtype, grid, block, pixels, channels, *arrays, *flags)
    return y
