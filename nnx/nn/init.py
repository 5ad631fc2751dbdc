"""Initial values, written in place into a Parameter, a Tensor or an array.

Every function returns what it was given. Those that draw take a `generator` (a
`numpy.random.Generator`); without one they draw from the library's stream (`nnx.manual_seed`). For
a weight of shape (out, in, kernel...), fan_in is
``in * prod(kernel)`` and fan_out is ``out * prod(kernel)``.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

from nnx import _check, _random
from nnx._device import device_of, is_array, is_writeable, move
from nnx.autograd import Tensor

__all__ = [
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

T = TypeVar("T")

_CONVOLUTIONS = tuple(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3))
_LINEAR = ("linear", "sigmoid", *_CONVOLUTIONS)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the scale of activations through a nonlinearity.

    1 for linear maps and sigmoid, 5/3 for tanh, sqrt(2) for relu, sqrt(2 / (1 + slope^2)) for
    leaky_relu (`param` is its slope, 0.01 by default), 3/4 for selu.

    >>> round(calculate_gain("relu"), 4)
    1.4142
    """
    if nonlinearity in _LINEAR:
        return 1.0
    if nonlinearity == "tanh":
        return 5.0 / 3.0
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else _check.real("calculate_gain", "param", param)
        return math.sqrt(2.0 / (1.0 + slope * slope))
    if nonlinearity == "selu":
        return 0.75
    allowed = (*_LINEAR, "tanh", "relu", "leaky_relu", "selu")
    return _check.choice("calculate_gain", "nonlinearity", nonlinearity, allowed)


# -- plain distributions and constants -------------------------------------------------------------


def uniform_(tensor: T, a: float = 0.0, b: float = 1.0, generator: Any = None) -> T:
    """Draw from the uniform distribution on [a, b]."""
    array = _array("uniform_", tensor)
    low = _check.real("uniform_", "a", a)
    high = _check.real("uniform_", "b", b, low)
    _draw_uniform(array, low, high, generator)
    return tensor


def normal_(tensor: T, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> T:
    """Draw from the normal distribution."""
    array = _array("normal_", tensor)
    mean = _check.real("normal_", "mean", mean)
    std = _check.real("normal_", "std", std, 0)
    _draw_normal(array, mean, std, generator)
    return tensor


def trunc_normal_(
    tensor: T,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Any = None,
) -> T:
    """Draw from the normal distribution restricted to [a, b] (values, not standard deviations)."""
    array = _array("trunc_normal_", tensor)
    mean = _check.real("trunc_normal_", "mean", mean)
    std = _check.real("trunc_normal_", "std", std, 0, open_low=True)
    low = _check.real("trunc_normal_", "a", a)
    high = _check.real("trunc_normal_", "b", b, low)
    from scipy.special import ndtr, ndtri

    # quantiles of probabilities drawn uniformly between those of the limits
    p_low, p_high = ndtr((low - mean) / std), ndtr((high - mean) / std)
    p = _random.generator(generator).uniform(p_low, p_high, array.shape)
    _fill(array, np.clip(ndtri(p) * std + mean, low, high))
    return tensor


def constant_(tensor: T, val: float) -> T:
    """Set every element to `val`."""
    array = _array("constant_", tensor)
    array[...] = _check.real("constant_", "val", val)
    return tensor


def zeros_(tensor: T) -> T:
    """Set every element to 0."""
    _array("zeros_", tensor)[...] = 0
    return tensor


def ones_(tensor: T) -> T:
    """Set every element to 1."""
    _array("ones_", tensor)[...] = 1
    return tensor


def eye_(tensor: T) -> T:
    """Set a matrix to the identity (ones on the diagonal also if it is not square)."""
    array = _array("eye_", tensor)
    if array.ndim != 2:
        raise ValueError(f"eye_: expected tensor with 2 dimensions, got shape {array.shape}")
    _fill(array, np.eye(*array.shape))
    return tensor


def dirac_(tensor: T, groups: int = 1) -> T:
    """Set a convolution's weight so that it passes its input through.

    Within each group, kernel (i, i) has a 1 at its centre; everything else is 0.

    tensor:  (out, in, kernel...) with 1 to 3 kernel dimensions; `groups` divides out
    """
    array = _array("dirac_", tensor)
    if not 3 <= array.ndim <= 5:
        raise ValueError(f"dirac_: expected tensor with 3, 4 or 5 dimensions, got shape {array.shape}")
    groups = _check.integer("dirac_", "groups", groups, 1)
    if array.shape[0] % groups:
        raise ValueError(f"dirac_: expected dimension 0 to be divisible by groups={groups}, got shape {array.shape}")
    per_group = array.shape[0] // groups
    centre = tuple(n // 2 for n in array.shape[2:])
    array[...] = 0
    for i in range(min(per_group, array.shape[1])):
        array[(slice(i, None, per_group), i, *centre)] = 1
    return tensor


# -- scaled to the layer ---------------------------------------------------------------------------


def xavier_uniform_(tensor: T, gain: float = 1.0, generator: Any = None) -> T:
    """Uniform on [-a, a], ``a = gain * sqrt(6 / (fan_in + fan_out))``. Glorot and Bengio 2010."""
    array = _array("xavier_uniform_", tensor)
    fan_in, fan_out = _fans("xavier_uniform_", array)
    gain = _check.real("xavier_uniform_", "gain", gain, 0)
    bound = gain * math.sqrt(6.0 / max(fan_in + fan_out, 1))
    _draw_uniform(array, -bound, bound, generator)
    return tensor


def xavier_normal_(tensor: T, gain: float = 1.0, generator: Any = None) -> T:
    """Normal with ``std = gain * sqrt(2 / (fan_in + fan_out))``. Glorot and Bengio 2010."""
    array = _array("xavier_normal_", tensor)
    fan_in, fan_out = _fans("xavier_normal_", array)
    gain = _check.real("xavier_normal_", "gain", gain, 0)
    _draw_normal(array, 0.0, gain * math.sqrt(2.0 / max(fan_in + fan_out, 1)), generator)
    return tensor


def kaiming_uniform_(
    tensor: T,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> T:
    """Uniform on [-b, b] with ``b = gain * sqrt(3 / fan)``. He et al. 2015, arXiv:1502.01852.

    a:     slope of leaky_relu on the negative side
    mode:  "fan_in" keeps the variance forward, "fan_out" backward
    """
    array = _array("kaiming_uniform_", tensor)
    std = _kaiming_std("kaiming_uniform_", array, a, mode, nonlinearity)
    bound = math.sqrt(3.0) * std
    _draw_uniform(array, -bound, bound, generator)
    return tensor


def kaiming_normal_(
    tensor: T,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> T:
    """Normal with ``std = gain / sqrt(fan)``; arguments as in `kaiming_uniform_`."""
    array = _array("kaiming_normal_", tensor)
    std = _kaiming_std("kaiming_normal_", array, a, mode, nonlinearity)
    _draw_normal(array, 0.0, std, generator)
    return tensor


def orthogonal_(tensor: T, gain: float = 1, generator: Any = None) -> T:
    """A random matrix with orthonormal rows or columns (whichever are fewer), times `gain`.

    tensor:  at least 2 dimensions; those after the first are taken as one. Saxe et al. 2013,
             arXiv:1312.6120.
    """
    array = _array("orthogonal_", tensor)
    if array.ndim < 2:
        raise ValueError(f"orthogonal_: expected tensor with at least 2 dimensions, got shape {array.shape}")
    gain = _check.real("orthogonal_", "gain", gain)
    if array.size == 0:
        return tensor
    rows, cols = array.shape[0], array.size // array.shape[0]
    draw = _random.generator(generator).standard_normal((max(rows, cols), min(rows, cols)))
    q, r = np.linalg.qr(draw)
    q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)  # without it the result is not uniformly distributed
    _fill(array, gain * (q.T if rows < cols else q).reshape(array.shape))
    return tensor


def sparse_(tensor: T, sparsity: float, std: float = 0.01, generator: Any = None) -> T:
    """Normal with the given `std`, and in each column a share `sparsity` of zeros. Martens 2010."""
    array = _array("sparse_", tensor)
    if array.ndim != 2:
        raise ValueError(f"sparse_: expected tensor with 2 dimensions, got shape {array.shape}")
    sparsity = _check.real("sparse_", "sparsity", sparsity, 0, 1)
    std = _check.real("sparse_", "std", std, 0)
    rng = _random.generator(generator)
    _draw_normal(array, 0.0, std, rng)
    zeros = math.ceil(sparsity * array.shape[0])
    for column in range(array.shape[1]):
        array[rng.permutation(array.shape[0])[:zeros], column] = 0
    return tensor


# -- helpers ---------------------------------------------------------------------------------------


def _array(owner: str, tensor: Any) -> Any:
    array = tensor.data if isinstance(tensor, Tensor) else tensor
    if not is_array(array):
        raise TypeError(
            f"{owner}: expected tensor to be a Parameter, a Tensor or an array, got {type(tensor).__name__}"
        )
    if array.dtype.kind != "f":
        raise TypeError(f"{owner}: expected tensor of a float dtype, got {array.dtype}")
    if not is_writeable(array):
        raise ValueError(f"{owner}: expected tensor to be writeable, got a read-only array")
    return array


def _fill(array: Any, values: np.ndarray) -> None:
    """Copy what was drawn on the CPU to where the array is: the same numbers on every device."""
    array[...] = move(values, device_of(array))


def _draw_uniform(array: Any, low: float, high: float, generator: Any) -> None:
    rng = _random.generator(generator)
    dtype = np.float32 if array.dtype == np.float32 else np.float64
    draw = rng.random(array.shape, dtype)
    draw *= high - low
    draw += low
    _fill(array, draw)


def _draw_normal(array: Any, mean: float, std: float, generator: Any) -> None:
    rng = _random.generator(generator)
    dtype = np.float32 if array.dtype == np.float32 else np.float64
    draw = rng.standard_normal(array.shape, dtype)
    draw *= std
    draw += mean
    _fill(array, draw)


def _fans(owner: str, array: Any) -> tuple[int, int]:
    """fan_in and fan_out of a weight (out, in, kernel...)."""
    if array.ndim < 2:
        raise ValueError(f"{owner}: expected tensor with at least 2 dimensions (out, in, ...), got shape {array.shape}")
    area = math.prod(array.shape[2:])
    return array.shape[1] * area, array.shape[0] * area


def _kaiming_std(owner: str, array: Any, a: Any, mode: Any, nonlinearity: Any) -> float:
    fan_in, fan_out = _fans(owner, array)
    _check.choice(owner, "mode", mode, ("fan_in", "fan_out"))
    gain = calculate_gain(nonlinearity, _check.real(owner, "a", a))
    return gain / math.sqrt(max(fan_in if mode == "fan_in" else fan_out, 1))
