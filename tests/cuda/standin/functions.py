"""CuPy's functions and methods by their signatures; the values are NumPy's."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from standin.array import find_memory, forbid_in_capture, from_host, keys_of, ndarray, place, run, spoil, state

# Signatures of CuPy 14.2, as `inspect.signature` prints them; test_standin.py compares them with the real ones.
_FUNCTIONS = """
zeros(shape, dtype=float, order='C')
zeros_like(a, dtype=None, order='K', subok=None, shape=None)
full(shape, fill_value, dtype=None, order='C')
full_like(a, fill_value, dtype=None, order='K', subok=None, shape=None)
ones(shape, dtype=float, order='C')
ones_like(a, dtype=None, order='K', subok=None, shape=None)
arange(start, stop=None, step=1, dtype=None)
linspace(start, stop, num=50, endpoint=True, retstep=False, dtype=None, axis=0)
eye(N, M=None, k=0, dtype=float, order='C')
identity(n, dtype=float)
tril(m, k=0)
triu(m, k=0)
diag(v, k=0)
copyto(dst, src, casting='same_kind', where=None)
concatenate(tup, axis=0, out=None, *, dtype=None, casting='same_kind')
stack(tup, axis=0, out=None, *, dtype=None, casting='same_kind')
vstack(tup, *, dtype=None, casting='same_kind')
hstack(tup, *, dtype=None, casting='same_kind')
split(ary, indices_or_sections, axis=0)
array_split(ary, indices_or_sections, axis=0)
moveaxis(a, source, destination)
swapaxes(a, axis1, axis2)
transpose(a, axes=None)
broadcast_to(array, shape)
broadcast_arrays(*args)
expand_dims(a, axis)
squeeze(a, axis=None)
repeat(a, repeats, axis=None)
tile(A, reps)
clip(a, a_min, a_max, out=None)
argmax(a, axis=None, dtype=None, out=None, keepdims=False)
argmin(a, axis=None, dtype=None, out=None, keepdims=False)
argsort(a, axis=-1, kind=None)
sort(a, axis=-1, kind=None)
argpartition(a, kth, axis=-1)
partition(a, kth, axis=-1)
argwhere(a)
nonzero(a)
flatnonzero(a)
take(a, indices, axis=None, out=None)
take_along_axis(a, indices, axis)
put_along_axis(arr, indices, values, axis)
bincount(x, weights=None, minlength=None)
count_nonzero(a, axis=None)
dot(a, b, out=None)
tensordot(a, b, axes=2)
einsum(*operands, **kwargs)
vdot(a, b)
inner(a, b)
outer(a, b, out=None)
sum(a, axis=None, dtype=None, out=None, keepdims=False)
max(a, axis=None, out=None, keepdims=False)
min(a, axis=None, out=None, keepdims=False)
amax(a, axis=None, out=None, keepdims=False)
amin(a, axis=None, out=None, keepdims=False)
mean(a, axis=None, dtype=None, out=None, keepdims=False)
var(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False)
std(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False)
prod(a, axis=None, dtype=None, out=None, keepdims=False)
cumsum(a, axis=None, dtype=None, out=None)
cumprod(a, axis=None, dtype=None, out=None)
any(a, axis=None, out=None, keepdims=False)
all(a, axis=None, out=None, keepdims=False)
may_share_memory(a, b, max_work=None)
shares_memory(a, b, max_work=None)
roll(a, shift, axis=None)
flip(a, axis=None)
pad(array, pad_width, mode='constant', **kwargs)
copy(a, order='K')
diagonal(a, offset=0, axis1=0, axis2=1)
trace(a, offset=0, axis1=0, axis2=1, dtype=None, out=None)
ravel(a, order='C')
reshape(a, newshape, order='C', *, copy=None)
atleast_1d(*arys)
atleast_2d(*arys)
array_equal(a1, a2, equal_nan=False)
allclose(a, b, rtol=1e-05, atol=1e-08, equal_nan=False)
isclose(a, b, rtol=1e-05, atol=1e-08, equal_nan=False)
ptp(a, axis=None, out=None, keepdims=False)
searchsorted(a, v, side='left', sorter=None)
nan_to_num(x, copy=True, nan=0.0, posinf=None, neginf=None)
nansum(a, axis=None, dtype=None, out=None, keepdims=False)
meshgrid(*xi, **kwargs)
unravel_index(indices, dims, order='C')
ndim(a)
shape(a)
size(a, axis=None)
result_type(*arrays_and_dtypes)
can_cast(from_, to, casting='safe')
isscalar(element)
unique(ar, return_index=False, return_inverse=False, return_counts=False, axis=None, *, equal_nan=True)
round(a, decimals=0, out=None)
around(a, decimals=0, out=None)
lexsort(keys)
matrix_transpose(x, /)
matmul(x1, x2, /, out=None, **kwargs)
linalg.norm(x, ord=None, axis=None, keepdims=False)
lib.stride_tricks.as_strided(x, shape=None, strides=None)
"""
# written by hand below: empty empty_like where array asarray asanyarray ascontiguousarray asfortranarray asnumpy

_METHODS = """
all(axis=None, out=None, keepdims=False)
any(axis=None, out=None, keepdims=False)
argmax(axis=None, out=None, dtype=None, keepdims=False)
argmin(axis=None, out=None, dtype=None, keepdims=False)
argsort(axis=-1, kind=None)
astype(dtype, order='K', casting=None, subok=None, copy=True)
clip(min=None, max=None, out=None)
copy(order='C')
cumprod(axis=None, dtype=None, out=None)
cumsum(axis=None, dtype=None, out=None)
diagonal(offset=0, axis1=0, axis2=1)
dot(b, out=None)
fill(value)
flatten(order='C')
max(axis=None, out=None, keepdims=False)
mean(axis=None, dtype=None, out=None, keepdims=False)
min(axis=None, out=None, keepdims=False)
nonzero()
prod(axis=None, dtype=None, out=None, keepdims=None)
ravel(order='C')
repeat(repeats, axis=None)
reshape(*shape, order='C', copy=None)
round(decimals=0, out=None)
searchsorted(v, side='left', sorter=None)
sort(axis=-1, kind=None)
squeeze(axis=None)
std(axis=None, dtype=None, out=None, ddof=0, keepdims=False)
sum(axis=None, dtype=None, out=None, keepdims=False)
swapaxes(axis1, axis2)
take(indices, axis=None, out=None)
trace(offset=0, axis1=0, axis2=1, dtype=None, out=None)
transpose(*axes)
var(axis=None, dtype=None, out=None, ddof=0, keepdims=False)
view(dtype=None, type=None)
"""

_UFUNCS = """abs absolute add arccos arccosh arcsin arcsinh arctan arctan2 arctanh bitwise_and bitwise_or bitwise_xor
cbrt ceil copysign cos cosh divide equal exp exp2 expm1 fabs floor floor_divide fmax fmin fmod greater greater_equal
hypot invert isfinite isinf isnan left_shift less less_equal log log10 log1p log2 logaddexp logical_and logical_not
logical_or logical_xor maximum minimum mod multiply negative nextafter not_equal positive power reciprocal remainder
right_shift rint sign signbit sin sinh sqrt square subtract tan tanh true_divide trunc"""

_CONSTANTS = """bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128
inf nan pi e newaxis dtype integer floating number generic signedinteger unsignedinteger inexact intp iinfo finfo
promote_types broadcast_shapes ndindex issubdtype"""

# the layout that NumPy chooses is CuPy's, too; results of all others are in C order
_KEEP_LAYOUT = {"zeros", "full", "ones", "zeros_like", "full_like", "ones_like", "copy", "astype", "eye"}
_WAIT = {"argwhere", "nonzero", "flatnonzero", "bincount", "unique"}  # CuPy reads a number back for these
_FIRST_IS_WRITTEN = {"copyto", "put_along_axis", "fill", "sort!"}
# those that copy from one device to another, or compute nothing
_CROSS_DEVICES = """copy copyto transpose swapaxes moveaxis reshape ravel squeeze expand_dims broadcast_to view diagonal
split may_share_memory shares_memory ndim shape size result_type""".split()
_NO_ARRAY = {"may_share_memory", "shares_memory", "ndim", "shape", "size", "result_type", "can_cast", "isscalar"}

table: dict[str, Any] = {}  # "sum" or "linalg.norm" -> function, as the module has them


def _parse(line: str) -> tuple[str, inspect.Signature]:
    name, _, rest = line.partition("(")
    return name, inspect.signature(eval(f"lambda {rest[:-1]}: None", {"float": float}))


def _numpy(name: str) -> Any:
    function: Any = np
    for part in name.split("."):
        function = getattr(function, part)
    return function


def _given(name: str, signature: inspect.Signature, args: Any, kwargs: Any) -> tuple[tuple, dict[str, Any]]:
    """The arguments as NumPy takes them: unknown ones are refused, those without a counterpart left out."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name}() {error}") from None
    if bound.arguments.get("subok") is not None:
        raise TypeError("subok is not supported yet")
    named = {k: v for k, v in bound.kwargs.items() if v is not None or k not in ("subok", "where", "copy", "minlength")}
    return bound.args, named


def _function(name: str, signature: inspect.Signature, compute: Any, method: bool) -> Any:
    key = f"{name}!" if method else name

    def call(*args: Any, **kwargs: Any) -> Any:
        own, args = (args[:1], args[1:]) if method else ((), args)
        positional, named = _given(name, signature, args, kwargs)
        if name in _WAIT:
            forbid_in_capture()
        out = named.get("out")
        if out is not None and not isinstance(out, ndarray):
            raise TypeError(f"{name}() out must be cupy.ndarray, got {type(out)}")
        arguments = [*own, *positional]
        writes = [out] if out is not None else arguments[:1] if {key, name} & _FIRST_IS_WRITTEN else []
        keep, scalars, any_device = name in _KEEP_LAYOUT, name not in _NO_ARRAY, name in _CROSS_DEVICES
        return run(compute, arguments, named, writes=writes, keep=keep, scalars=scalars, any_device=any_device)

    call.__name__, call.__qualname__, call.__signature__ = name, name, signature  # type: ignore[attr-defined]
    return call


class ufunc:  # noqa: N801 (CuPy's name)
    """An elementwise function; no `where`, no `initial`, and of the arrays only device arrays."""

    def __init__(self, name: str) -> None:
        self._numpy = getattr(np, name)
        self.name, self.__name__ = f"cupy_{name}", name
        self.nin, self.nout, self.nargs = self._numpy.nin, self._numpy.nout, self._numpy.nargs

    def __repr__(self) -> str:
        return f"<ufunc '{self.name}'>"

    def __call__(self, *args: Any, out: Any = None, casting: str = "same_kind", dtype: Any = None) -> Any:
        if len(args) == self.nin + 1 and out is None:
            *args, out = args
        if len(args) != self.nin:
            raise TypeError(f"Wrong number of arguments for {self!r}")
        for a in args:
            if not isinstance(a, (ndarray, bool, int, float, complex, np.generic)):
                raise TypeError(f"Unsupported type {type(a)}")
        named: dict[str, Any] = {"casting": casting}
        if dtype is not None:
            named["dtype"] = dtype
        if out is None:
            return run(self._numpy, args, named)
        if not isinstance(out, ndarray):
            raise TypeError("Output arguments type must be cupy.ndarray")
        return run(self._numpy, args, {**named, "out": out}, writes=[out])

    def at(self, a: ndarray, indices: Any, b: Any = None) -> None:
        """In place, repeated indices included; CuPy does it with atomics, in any order, for a few functions."""
        if self.__name__ not in ("add", "subtract", "maximum", "minimum"):
            raise NotImplementedError(f"`{self.name}.at` is not supported")
        run(lambda x, v, *k: self._numpy.at(x, k, v), [a, b, *keys_of(indices)], writes=[a])


# -- by hand -------------------------------------------------------------------------------------


def empty(shape, dtype=float, order="C"):
    return ndarray(shape, float if dtype is None else dtype, order=order)


def empty_like(prototype, dtype=None, order="K", subok=None, shape=None):
    if subok is not None:
        raise TypeError("subok is not supported yet")
    if not isinstance(prototype, ndarray):
        raise AttributeError(f"'{type(prototype).__name__}' object has no attribute of a cupy.ndarray")
    model = np.empty_like(prototype._host, dtype, order, shape=shape)
    spoil(model)
    return place(model, keep=True)


def where(condition, x=None, y=None):
    if (x is None) != (y is None):
        raise ValueError("Must provide both 'x' and 'y' or neither.")
    if x is None:
        return table["nonzero"](condition)
    if not isinstance(condition, ndarray):
        raise AttributeError(f"'{type(condition).__name__}' object has no attribute 'astype' of a cupy.ndarray")
    return run(np.where, [condition, x, y])


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    if subok:
        raise NotImplementedError
    order = "K" if order is None else order
    if isinstance(obj, ndarray):
        if obj.device.id != state.device:
            obj, copy = obj.copy(), False
        result = obj.astype(obj.dtype if dtype is None else dtype, order=order, copy=bool(copy))
        return result if result.ndim >= ndmin else result.reshape(*(1,) * (ndmin - result.ndim), *result.shape)
    if isinstance(obj, (list, tuple)) and any(isinstance(o, ndarray) for o in obj):
        return table["stack"]([array(o, dtype) for o in obj])
    host = np.array(obj, dtype, order=order, ndmin=ndmin)
    if host.dtype.kind not in "?biufc":
        raise ValueError(f"Unsupported dtype {host.dtype}")
    return from_host(host, keep=True)


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    return array(a, dtype, copy=bool(copy), order=order)


def asanyarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    return array(a, dtype, copy=bool(copy), order=order)


def ascontiguousarray(a, dtype=None):
    return _at_least_1d(array(a, dtype, copy=False, order="C"))


def asfortranarray(a, dtype=None):
    return _at_least_1d(array(a, dtype, copy=False, order="F"))


def _at_least_1d(a: ndarray) -> ndarray:
    return a if a.ndim else a.reshape(1)


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    if isinstance(a, ndarray):
        return a.get(stream=stream, order=order, out=out, blocking=blocking)
    if out is None:
        return np.asarray(a, order=order)
    out[...] = a
    return out


def from_dlpack(array, *, device=None, copy=None):
    """Device memory stays where it is; memory of the host is refused, as CuPy does without `device`."""
    if isinstance(array, ndarray):
        return array.view()
    raise BufferError("CPU arrays cannot be directly imported to CuPy. Use `cupy.array(numpy.from_dlpack(input))`.")


def scatter_add(a, slices, value):
    a.scatter_add(slices, value)


def get_array_module(*args):
    import sys

    return sys.modules["cupy"] if any(isinstance(a, ndarray) for a in args) else np


def _bounded_strides(x, shape=None, strides=None):
    """NumPy's, but an element outside of the array's memory is an error rather than a surprise."""
    view = np.lib.stride_tricks.as_strided(x, shape, strides)
    low, high = np.lib.array_utils.byte_bounds(view)
    if view.size and find_memory(low, high - low) is None:
        raise AssertionError(f"as_strided: shape {shape}, strides {strides} leave the memory of the array")
    return view


def _view_as(x, dtype=None, type=None):
    return x.view() if dtype is None else x.view(dtype)


def _astype(x, dtype, order="K", casting=None, subok=None, copy=True):
    return x.astype(dtype, order, copy=copy)


_OWN = {"lib.stride_tricks.as_strided": _bounded_strides}
_OWN_METHODS = {"view": _view_as, "astype": _astype}
_BY_HAND = (
    empty, empty_like, where, array, asarray, asanyarray, ascontiguousarray, asfortranarray, asnumpy, from_dlpack,
    get_array_module,
)  # fmt: skip


def _operators() -> None:
    pairs = """add:add sub:subtract mul:multiply truediv:true_divide floordiv:floor_divide mod:remainder pow:power
    and:bitwise_and or:bitwise_or xor:bitwise_xor lshift:left_shift rshift:right_shift matmul:matmul"""
    for pair in pairs.split():
        short, name = pair.split(":")
        setattr(ndarray, f"__{short}__", lambda a, b, f=table[name]: _binary(f, a, b, a))
        setattr(ndarray, f"__r{short}__", lambda a, b, f=table[name]: _binary(f, b, a, a))
        if name != "matmul":
            setattr(ndarray, f"__i{short}__", lambda a, b, f=table[name]: f(a, b, out=a))
    for pair in "eq:equal ne:not_equal lt:less le:less_equal gt:greater ge:greater_equal".split():
        short, name = pair.split(":")
        setattr(ndarray, f"__{short}__", lambda a, b, f=table[name]: _binary(f, a, b, a))
    for short, name in (("neg", "negative"), ("abs", "absolute"), ("invert", "invert"), ("pos", "positive")):
        setattr(ndarray, f"__{short}__", lambda a, f=table[name]: f(a))


def _binary(function: Any, a: Any, b: Any, own: ndarray) -> Any:
    other = b if a is own else a
    if not isinstance(other, (ndarray, np.ndarray, np.generic, bool, int, float, complex)):
        if getattr(other, "__array_ufunc__", own) is None or getattr(other, "__array_priority__", 0) > 100:
            return NotImplemented
    return function(a, b)


def _fill() -> None:
    for line in _FUNCTIONS.split("\n"):
        if line:
            name, signature = _parse(line)
            table[name] = _function(name, signature, _OWN.get(name) or _numpy(name), method=False)
    for line in _METHODS.split("\n"):
        if line:
            name, signature = _parse(line)
            compute = _OWN_METHODS.get(name) or getattr(np.ndarray, name)
            setattr(ndarray, name, _function(name, signature, compute, method=True))
    for name in _UFUNCS.split():
        table[name] = ufunc(name)
    for function in _BY_HAND:
        table[function.__name__] = function
    _operators()


_fill()
constants = {name: getattr(np, name) for name in _CONSTANTS.split()}
