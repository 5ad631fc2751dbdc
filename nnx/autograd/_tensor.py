"""Tensor and Parameter, gradient mode, and `record`, through which every operation joins the tape."""

from __future__ import annotations

import builtins
import functools
import inspect
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nnx._device import as_array, device_of, is_device_array, load_cupy, names_device, same_device, to_host
from nnx._device import parse as parse_device
from nnx.autograd import engine
from nnx.autograd.engine import Node
from nnx.backends.base.later import Later, Moments

_DLPACK_HOST, _DLPACK_CUDA = (1, 3), (2, 13)  # plain and pinned or managed memory
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class Tensor:
    """An array that remembers how it was made, so that gradients can flow back.

    `data` shares memory with the array it is given. Float arrays keep their dtype; Python numbers become float32.

    Attributes: `data` (the array), `grad` (an array of the same shape, or None), `requires_grad`.

    The result of a recorded operation belongs to the tape: writing to its `data` makes gradients wrong, and what is
    computed from it later too. (PyTorch raises an error in backward.)

    >>> x = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    array([2., 4.])
    """

    __slots__ = ("__weakref__", "_later", "_moments", "_node", "_own_grad", "data", "grad", "requires_grad")

    __array_ufunc__ = None  # ndarray + Tensor must reach Tensor.__radd__, or the gradient is lost
    __hash__ = object.__hash__

    data: Any
    grad: Any
    requires_grad: bool
    _later: Later | None  # only of an _Unread Tensor
    _moments: Moments  # only where a convolution left them, for a batch norm

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        array = _to_array("Tensor", data)
        if requires_grad and array.dtype not in _FLOATS:
            raise TypeError(f"Tensor: expected float32 or float64 data for requires_grad=True, got {array.dtype}")
        self.data = array
        self.requires_grad = bool(requires_grad)
        self.grad = None
        self._node: Node | None = None
        self._own_grad = None

    # -- facts ---------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        """Number of elements (NumPy's meaning; PyTorch's ``numel()``)."""
        return self.data.size

    @property
    def device(self) -> str:
        """Where the array lives: "cpu" or "cuda:0"."""
        return device_of(self.data)

    @property
    def is_leaf(self) -> bool:
        return self._node is None

    def dim(self) -> int:
        return self.data.ndim

    def numel(self) -> int:
        return self.data.size

    def numpy(self) -> np.ndarray:
        """The array itself, whether a gradient is needed or not: no copy, no error; from a CUDA device, a copy."""
        return self.data if isinstance(self.data, np.ndarray) else to_host(self.data)

    def item(self) -> Any:
        """The only element as a Python number."""
        if self.data.size != 1:
            raise ValueError(f"Tensor.item: expected one element, got shape {self.shape}")
        return self.data.item()

    def tolist(self) -> Any:
        return self.data.tolist()

    def detach(self) -> Tensor:
        """A Tensor on the same memory that needs no gradient and has no history."""
        return _wrap(self.data)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Switch gradient recording for a leaf, in place."""
        if self._node is not None:
            raise RuntimeError("Tensor.requires_grad_: expected a leaf, got the result of an operation. Use detach()")
        if requires_grad and self.dtype not in _FLOATS:
            raise TypeError(f"Tensor.requires_grad_: expected float32 or float64 data, got {self.dtype}")
        self.requires_grad = bool(requires_grad)
        return self

    def retain_grad(self) -> None:
        """Keep `.grad` of this non-leaf when a backward pass goes through it."""
        if self._node is not None:
            self._node.retained = weakref.ref(self)

    # -- backward ------------------------------------------------------------------------------

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Compute the gradient of this Tensor with respect to every leaf that needs one, adding to ``leaf.grad``.

        gradient:      array or Tensor of this shape; may be left out for a single element (it is 1 then)
        retain_graph:  keep what backward needs, so that it can run again

        Raises RuntimeError if this Tensor needs no gradient, or if the graph was used before.
        """
        if not self.requires_grad:
            raise RuntimeError(
                "Tensor.backward: expected a Tensor that needs a gradient, got one without history. "
                "Was it computed under no_grad(), or from arrays and frozen parameters alone?"
            )
        if gradient is None:
            if self.data.size != 1:
                raise RuntimeError(
                    f"Tensor.backward: expected gradient for a Tensor of shape {self.shape}, got None. "
                    "Only a single element has the default gradient 1; reduce with .sum() or .mean()"
                )
            g = np.ones_like(self.data)
        else:
            g = gradient.data if isinstance(gradient, Tensor) else gradient
            g = as_array(g)
            if g.shape != self.shape:
                raise ValueError(f"Tensor.backward: expected gradient of shape {self.shape}, got {g.shape}")
            same_device("Tensor.backward", **{"the Tensor": self.data, "gradient": g})
            g = g.astype(self.dtype, copy=False)
        if self._node is None:
            engine._accumulate(self, g, shared=True)
        else:
            engine.backward(self._node, g, retain_graph)

    # -- NumPy and Python protocols ------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if is_device_array(self.data):
            raise TypeError(f"numpy.asarray: expected a Tensor on cpu, got one on {self.device}. Use .numpy()")
        return np.asarray(self.data, dtype=dtype, copy=copy)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if _any_needs_grad(args) or _any_needs_grad(kwargs.values()):
            raise TypeError(
                f"numpy.{func.__name__}: expected arrays, got a Tensor that needs a gradient, which would "
                f"be lost. Use {_counterpart(func.__name__)} or the Tensor's .detach()"
            )
        plain = _strip(kwargs)
        return func(*_strip(args), **plain)

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.data.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self.data.__dlpack_device__()

    def __len__(self) -> int:
        if self.data.ndim == 0:
            raise TypeError("len: expected a Tensor with at least one dimension, got a 0-d Tensor")
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        if self.data.ndim == 0:
            raise TypeError("iter: expected a Tensor with at least one dimension, got a 0-d Tensor")
        return (self[i] for i in range(len(self.data)))

    def __bool__(self) -> bool:
        return bool(self.data)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return self.data.__index__()

    def __contains__(self, value: Any) -> bool:
        return bool((self.data == (value.data if isinstance(value, Tensor) else value)).any())

    def __repr__(self) -> str:
        text = np.array2string(self.numpy(), separator=", ", prefix="tensor(")
        extra = "" if self.dtype == np.float32 else f", dtype={self.dtype}"
        if is_device_array(self.data):
            extra += f", device={self.device!r}"
        if self._node is not None:
            extra += f", grad_fn={self._node.name}"
        elif self.requires_grad:
            extra += ", requires_grad=True"
        return f"tensor({text}{extra})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    def __deepcopy__(self, memo: dict) -> Tensor:
        if self._node is not None:
            raise RuntimeError("copy.deepcopy: expected a leaf Tensor, got the result of an operation")
        new = type(self)(self.data.copy(order="K"), self.requires_grad)
        new.grad = None if self.grad is None else self.grad.copy(order="K")
        memo[id(self)] = new
        return new

    # -- conversions ---------------------------------------------------------------------------

    def to(self, *args: Any, device: Any = None, dtype: Any = None) -> Tensor:
        """This Tensor in another dtype or on another device, or itself: ``to(np.float64)``, ``to("cuda")``.

        Gradients flow back to where they came from. Errors as in `Module.to`.
        """
        for target in args:
            if names_device(target):
                device = target
            else:
                dtype = target
        moved = self if device is None else shape.to_device(self, parse_device("Tensor.to", device))
        return moved if dtype is None else shape.astype(moved, dtype)

    def float(self) -> Tensor:
        return shape.astype(self, np.float32)

    def double(self) -> Tensor:
        return shape.astype(self, np.float64)

    def astype(self, dtype: Any) -> Tensor:
        return shape.astype(self, dtype)

    def clone(self) -> Tensor:
        return shape.clone(self)

    def contiguous(self) -> Tensor:
        return shape.contiguous(self)

    def cpu(self) -> Tensor:
        return shape.to_device(self, "cpu")

    def cuda(self) -> Tensor:
        return self.to("cuda")

    # -- arithmetic ----------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        return arithmetic.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return arithmetic.add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return arithmetic.sub(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return arithmetic.sub(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return arithmetic.mul(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return arithmetic.mul(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return arithmetic.div(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return arithmetic.div(other, self)

    def __pow__(self, other: Any) -> Tensor:
        return arithmetic.pow(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return arithmetic.pow(other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return arithmetic.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return arithmetic.matmul(other, self)

    def __neg__(self) -> Tensor:
        return arithmetic.neg(self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return arithmetic.abs(self)

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        return arithmetic.compare(np.equal, self, other)

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        return arithmetic.compare(np.not_equal, self, other)

    def __lt__(self, other: Any) -> Tensor:
        return arithmetic.compare(np.less, self, other)

    def __le__(self, other: Any) -> Tensor:
        return arithmetic.compare(np.less_equal, self, other)

    def __gt__(self, other: Any) -> Tensor:
        return arithmetic.compare(np.greater, self, other)

    def __ge__(self, other: Any) -> Tensor:
        return arithmetic.compare(np.greater_equal, self, other)

    def exp(self) -> Tensor:
        return arithmetic.exp(self)

    def log(self) -> Tensor:
        return arithmetic.log(self)

    def sqrt(self) -> Tensor:
        return arithmetic.sqrt(self)

    def sin(self) -> Tensor:
        return arithmetic.sin(self)

    def cos(self) -> Tensor:
        return arithmetic.cos(self)

    def abs(self) -> Tensor:
        return arithmetic.abs(self)

    def sign(self) -> Tensor:
        return arithmetic.sign(self)

    def square(self) -> Tensor:
        return arithmetic.square(self)

    def pow(self, exponent: Any) -> Tensor:
        return arithmetic.pow(self, exponent)

    def clamp(self, min: Any = None, max: Any = None) -> Tensor:
        return arithmetic.clamp(self, min, max)

    clip = clamp

    def relu(self) -> Tensor:
        return arithmetic.relu(self)

    def sigmoid(self) -> Tensor:
        return arithmetic.sigmoid(self)

    def tanh(self) -> Tensor:
        return arithmetic.tanh(self)

    def matmul(self, other: Any) -> Tensor:
        return arithmetic.matmul(self, other)

    mm = matmul

    # -- reductions ----------------------------------------------------------------------------

    def sum(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        return reduction.sum(self, dim, keepdim)

    def mean(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        return reduction.mean(self, dim, keepdim)

    def var(self, dim: Any = None, correction: builtins.float = 1, keepdim: bool = False) -> Tensor:
        return reduction.var(self, dim, correction=correction, keepdim=keepdim)

    def std(self, dim: Any = None, correction: builtins.float = 1, keepdim: bool = False) -> Tensor:
        return reduction.std(self, dim, correction=correction, keepdim=keepdim)

    def max(self, dim: int | None = None, keepdim: bool = False) -> Any:
        return reduction.max(self, dim, keepdim)

    def min(self, dim: int | None = None, keepdim: bool = False) -> Any:
        return reduction.min(self, dim, keepdim)

    def amax(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        return reduction.amax(self, dim, keepdim)

    def amin(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        return reduction.amin(self, dim, keepdim)

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        return reduction.argmax(self, dim, keepdim)

    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        return reduction.argmin(self, dim, keepdim)

    def logsumexp(self, dim: Any, keepdim: bool = False) -> Tensor:
        return reduction.logsumexp(self, dim, keepdim)

    def norm(self, p: builtins.float = 2.0, dim: Any = None, keepdim: bool = False) -> Tensor:
        return reduction.norm(self, p, dim, keepdim)

    # -- shape ---------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Tensor:
        return shape.getitem(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        if self.requires_grad and engine.mode.enabled:
            raise RuntimeError(
                "Tensor.__setitem__: expected a Tensor without gradient, got one that needs one. "
                "Use nnx.where, or write to .data"
            )
        self.data[_strip(index)] = value.data if isinstance(value, Tensor) else value

    def reshape(self, *shape_: Any) -> Tensor:
        return shape.reshape(self, *shape_)

    view = reshape

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        return shape.flatten(self, start_dim, end_dim)

    def permute(self, *dims: Any) -> Tensor:
        return shape.permute(self, *dims)

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        return shape.transpose(self, dim0, dim1)

    def squeeze(self, dim: int | None = None) -> Tensor:
        return shape.squeeze(self, dim)

    def unsqueeze(self, dim: int) -> Tensor:
        return shape.unsqueeze(self, dim)

    def expand(self, *sizes: Any) -> Tensor:
        return shape.expand(self, *sizes)

    def split(self, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
        return shape.split(self, split_size_or_sections, dim)

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        return shape.chunk(self, chunks, dim)

    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]:
        return shape.unbind(self, dim)

    @property
    def T(self) -> Tensor:
        return shape.permute(self, *range(self.ndim - 1, -1, -1))

    @property
    def mT(self) -> Tensor:
        return shape.transpose(self, -2, -1)


class Parameter(Tensor):
    """A Tensor that a Module registers and an optimizer updates; it needs a gradient unless told otherwise."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)

    def __repr__(self) -> str:
        return f"Parameter({super().__repr__()})"


# -- making tensors --------------------------------------------------------------------------------


def tensor(data: Any, requires_grad: bool = False, dtype: Any = None) -> Tensor:
    """Make a Tensor that shares memory with `data` where it can.

    data:  array (float arrays keep their dtype), nested lists or Python numbers (floats become float32)

    >>> tensor([1.0, 2.0]).dtype
    dtype('float32')
    """
    array = _to_array("tensor", data)
    if dtype is not None:
        array = array.astype(dtype, copy=False)
    return Tensor(array, requires_grad)


def from_dlpack(ext_tensor: Any) -> Tensor:
    """A Tensor on the memory of another library's array, such as a `torch.Tensor`, on the CPU or a CUDA device.

    ext_tensor:  any object with ``__dlpack__`` and ``__dlpack_device__``

    TypeError for other objects, ValueError for memory of other devices. The way back is ``torch.from_dlpack(tensor)``.

    >>> from_dlpack(np.ones(2)).tolist()
    [1.0, 1.0]
    """
    if not hasattr(ext_tensor, "__dlpack__") or not hasattr(ext_tensor, "__dlpack_device__"):
        raise TypeError(f"from_dlpack: expected an object with __dlpack__, got {type(ext_tensor).__name__}")
    kind = int(ext_tensor.__dlpack_device__()[0])
    if kind in _DLPACK_CUDA or is_device_array(ext_tensor):
        return Tensor(load_cupy("from_dlpack").from_dlpack(ext_tensor))
    if kind not in _DLPACK_HOST:
        raise ValueError(f"from_dlpack: expected memory of the CPU or of a CUDA device, got DLPack device type {kind}")
    return Tensor(np.from_dlpack(ext_tensor))


def _wrap(array: Any) -> Tensor:
    """A Tensor around an array that is known to be good."""
    t = Tensor.__new__(Tensor)
    t.data = array
    t.requires_grad = False
    t.grad = t._node = t._own_grad = None
    return t


def _to_array(owner: str, data: Any) -> Any:
    if type(data) is np.ndarray or is_device_array(data):
        array = data
    elif isinstance(data, Tensor):
        array = data.data
    elif isinstance(data, (np.ndarray, np.generic)):
        array = np.asarray(data)
    else:
        array = np.asarray(_strip(data) if isinstance(data, (list, tuple)) else data)
        if array.dtype == np.float64 and not _carries_dtype(data):
            array = array.astype(np.float32)  # Python numbers, as in PyTorch
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{owner}: expected an array of numbers, got dtype {array.dtype}")
    return array


def _carries_dtype(data: Any) -> bool:
    """Whether `data`, or what it nests, has a dtype of its own (Python numbers have none)."""
    if isinstance(data, (list, tuple)):
        return any(_carries_dtype(item) for item in data)
    return hasattr(data, "dtype") or hasattr(data, "__array__")


def as_tensor(x: Any, dtype: Any = None) -> Tensor:
    """Return a Tensor as it is; wrap an array-like, as floating point.

    Without `dtype`, float32 and float64 arrays keep their type and everything else becomes float32. With `dtype`, an
    array-like is cast to it.
    """
    if isinstance(x, Tensor):
        return x
    array = _to_array("as_tensor", x)
    if dtype is not None:
        array = array.astype(dtype, copy=False)
    elif array.dtype not in _FLOATS or not array.dtype.isnative:
        wide = array.dtype.kind == "f" and array.dtype.itemsize >= 8
        array = array.astype(np.float64 if wide else np.float32)
    return _wrap(array)


def cast_input(owner: str, x: Any, dtype: Any) -> Tensor:
    """The input of a layer whose parameters have `dtype`: arrays are cast, a Tensor of another type is refused."""
    if isinstance(x, Tensor):
        if x.data.dtype != dtype:
            raise TypeError(
                f"{owner}: expected input of dtype {np.dtype(dtype)} like the parameters, got a Tensor of dtype "
                f"{x.data.dtype}. Convert one with .float() or .double()"
            )
        return x
    return as_tensor(x, dtype)


def record(y: Any, grad: Callable[..., tuple], inputs: tuple, *saved: Any) -> Tensor:
    """Wrap the result `y` of an operation and, where a gradient may be wanted, put it on the tape.

    grad:    module-level function ``grad(needs, gy, *saved)`` that returns one array or None per input; it never writes
             to `gy` or `saved`, and returns fresh arrays, `gy` or views of `gy`, never a saved array
    inputs:  the Tensors that the operation came from (None for a constant)
    """
    t = _wrap(y if type(y) is not np.float64 and type(y) is not np.float32 else np.asarray(y))
    if not engine.mode.enabled:
        return t
    needs = tuple([i is not None and i.requires_grad for i in inputs])
    if True in needs:
        parents = tuple(
            [(i._node if i._node is not None else i) if need else None for i, need in zip(inputs, needs, strict=True)]
        )
        t._node = Node(grad, parents, needs, saved, t.data)
        t.requires_grad = True
    return t


def unbroadcast(g: Any, shape: tuple[int, ...]) -> Any:
    """Sum `g` over the axes that broadcasting added or stretched, so that it has `shape` again."""
    if g.shape == shape:
        return g
    extra = g.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(i + extra for i, n in enumerate(shape) if n == 1 and g.shape[i + extra] != 1)
    return g.sum(axis=axes, keepdims=True).reshape(shape)


# -- gradient mode ---------------------------------------------------------------------------------


def is_grad_enabled() -> bool:
    """Whether this thread records operations."""
    return engine.mode.enabled


class set_grad_enabled:
    """Switch recording in this thread, as a function, a context manager or a decorator.

    >>> with set_grad_enabled(False):
    ...     is_grad_enabled()
    False
    """

    def __init__(self, mode: bool) -> None:
        self._previous = engine.mode.enabled
        self._mode = bool(mode)
        engine.mode.enabled = self._mode

    def __enter__(self) -> None:
        engine.mode.enabled = self._mode

    def __exit__(self, *exc: Any) -> None:
        engine.mode.enabled = self._previous

    def __call__(self, function: Callable) -> Callable:
        engine.mode.enabled = self._previous  # as a decorator it acts only inside the function
        return _decorate(function, self._mode)


class _GradContext:
    _value: bool

    def __enter__(self) -> None:
        self._stack = [*getattr(self, "_stack", ()), engine.mode.enabled]
        engine.mode.enabled = self._value

    def __exit__(self, *exc: Any) -> None:
        engine.mode.enabled = self._stack.pop()

    def __call__(self, function: Callable) -> Callable:
        return _decorate(function, self._value)


class no_grad(_GradContext):
    """Record nothing inside: a context manager (``with nnx.no_grad():``) or a decorator."""

    _value = False


class enable_grad(_GradContext):
    """Record again inside a `no_grad` block."""

    _value = True


def _decorate(function: Callable, value: bool) -> Callable:
    def call(function: Callable, *args: Any, **kwargs: Any) -> Any:
        previous = engine.mode.enabled
        engine.mode.enabled = value
        try:
            return function(*args, **kwargs)
        finally:
            engine.mode.enabled = previous

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return call(function, *args, **kwargs)

    @functools.wraps(function)
    def generator(*args: Any, **kwargs: Any) -> Any:
        """The mode holds while the generator's own body runs, not while its caller's does."""
        inner = function(*args, **kwargs)
        resume, sent = inner.send, None
        while True:
            try:
                item = call(resume, sent)
            except StopIteration as stop:
                return stop.value
            try:
                resume, sent = inner.send, (yield item)
            except GeneratorExit:
                call(inner.close)
                raise
            except BaseException as error:
                resume, sent = inner.throw, error

    return generator if inspect.isgeneratorfunction(function) else wrapper


# -- helpers of the NumPy protocols -----------------------------------------------------------------


def _any_needs_grad(args: Any) -> bool:
    for a in args:
        if isinstance(a, Tensor):
            if a.requires_grad and engine.mode.enabled:
                return True
        elif isinstance(a, (list, tuple)) and _any_needs_grad(a):
            return True
    return False


def _strip(x: Any) -> Any:
    """`x` with every Tensor in it replaced by its array."""
    if isinstance(x, Tensor):
        return x.data
    if isinstance(x, (list, tuple)):
        return type(x)(_strip(i) for i in x)
    if isinstance(x, dict):
        return {k: _strip(v) for k, v in x.items()}
    return x


def _counterpart(numpy_name: str) -> str:
    names = {"concatenate": "cat", "absolute": "abs", "power": "pow", "clip": "clamp"}
    name = names.get(numpy_name, numpy_name)
    if hasattr(Tensor, name) or hasattr(shape, name) or hasattr(arithmetic, name):
        return f"nnx.{name}"
    return "an nnx function"


from nnx.autograd import arithmetic, reduction, shape  # noqa: E402 - they need Tensor above
