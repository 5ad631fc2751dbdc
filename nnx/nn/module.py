"""Module: what every layer and every model is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from nnx import _check
from nnx._device import CPU, as_array, device_of, is_array, is_device_array, is_writeable, move, names_device
from nnx._device import parse as parse_device
from nnx.autograd import Parameter, Tensor, no_grad


class _Evaluation(threading.local):
    """How many `predict` calls this thread is inside of; modules are in evaluation mode there."""

    depth = 0


_evaluation = _Evaluation()


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` left out."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class HookHandle:
    """Returned by the functions that register hooks; ``remove()`` takes the hook off again."""

    def __init__(self, hooks: dict[int, Callable], key: int) -> None:
        self._hooks, self._key = hooks, key

    def remove(self) -> None:
        self._hooks.pop(self._key, None)


class Module:
    """Base class of layers and models.

    A subclass calls ``super().__init__()``, assigns Parameters and Modules to attributes (which registers them), and
    defines ``forward``.

    >>> class Net(Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.weight = Parameter(np.ones(3, np.float32))
    ...     def forward(self, x):
    ...         return x * self.weight
    >>> [name for name, _ in Net().named_parameters()]
    ['weight']
    """

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Any]
    _modules: dict[str, Module | None]
    _has_properties = False  # of a class: "weight" or "bias" are more than parameters

    def __init__(self) -> None:
        fields = self.__dict__
        fields["_training"] = True
        fields["_parameters"] = {}
        fields["_buffers"] = {}
        fields["_modules"] = {}
        fields["_transient"] = set()  # buffers that state_dict leaves out
        fields["_forward_hooks"] = {}
        fields["_forward_pre_hooks"] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._has_properties = hasattr(cls, "weight") or hasattr(cls, "bias")

    def _weight_and_bias(self) -> tuple[Any, Any]:
        """What `self.weight, self.bias` are. The usual lookup tries all else first: for one sample that is a part of
        the time that a layer takes."""
        if self._has_properties:
            return self.weight, self.bias
        own = self._parameters
        weight, bias = own.get("weight"), own.get("bias")
        return self.weight if weight is None else weight, self.bias if bias is None else bias

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__}: expected a forward method, got none")

    def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
        if inputs and (type(inputs[0]) is np.ndarray or is_device_array(inputs[0])):
            inputs = self._cast(inputs)
        if not self._forward_pre_hooks and not self._forward_hooks:
            return self.forward(*inputs, **kwargs)
        for hook in tuple(self._forward_pre_hooks.values()):
            changed = hook(self, inputs)
            if changed is not None:
                inputs = changed if isinstance(changed, tuple) else (changed,)
        output = self.forward(*inputs, **kwargs)
        for hook in tuple(self._forward_hooks.values()):
            changed = hook(self, inputs, output)
            if changed is not None:
                output = changed
        return output

    def _cast(self, inputs: tuple) -> tuple:
        """Plain float arrays in the parameters' type, also where the first layer inside has no parameters."""
        dtype = self._first_dtype()
        if dtype is None or (len(inputs) == 1 and inputs[0].dtype == dtype):
            return inputs
        return tuple(
            x.astype(dtype)
            if not isinstance(x, Tensor) and is_array(x) and x.dtype.kind == "f" and x.dtype != dtype
            else x
            for x in inputs
        )

    def _first_dtype(self) -> Any:
        """The type of the first parameter, here or below; None if there is none."""
        for p in self._parameters.values():
            if p is not None:
                return p.data.dtype
        for child in self._modules.values():
            if child is not None and (dtype := child._first_dtype()) is not None:
                return dtype
        return None

    # -- attributes ----------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        fields = self.__dict__
        if "_parameters" not in fields:
            if isinstance(value, (Parameter, Module)):
                raise AttributeError(f"{type(self).__name__}: expected super().__init__() before {name!r} is assigned")
            object.__setattr__(self, name, value)
            return
        if isinstance(value, Parameter):
            self._forget(name)
            self._parameters[name] = value
        elif isinstance(value, Module):
            self._forget(name)
            self._modules[name] = value
        elif name in self._parameters:
            if value is not None:
                raise TypeError(
                    f"{type(self).__name__}: expected a Parameter or None for {name!r}, "
                    f"got {type(value).__name__}. Write into .data to change values"
                )
            self._parameters[name] = None
        elif name in self._modules:
            if value is not None:
                raise TypeError(
                    f"{type(self).__name__}: expected a Module or None for {name!r}, got {type(value).__name__}"
                )
            self._modules[name] = None
        elif name in self._buffers:
            self._buffers[name] = _buffer(self, name, value)
        else:
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        # reached only when normal lookup fails
        fields = self.__dict__
        if "_parameters" in fields:
            if name in (group := fields["_parameters"]):
                return group[name]
            if name in (group := fields["_modules"]):
                return group[name]
            if name in (group := fields["_buffers"]):
                return group[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for group in (self._parameters, self._modules, self._buffers):
            if name in group:
                del group[name]
                self._transient.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        own = [*self._parameters, *self._buffers, *self._modules]
        return sorted({*object.__dir__(self), *(n for n in own if n.isidentifier())})

    def _forget(self, name: str) -> None:
        for group in (self._parameters, self._modules, self._buffers, self.__dict__):
            group.pop(name, None)
        self._transient.discard(name)

    def register_buffer(self, name: str, array: Any, persistent: bool = True) -> None:
        """Keep an array that is state but no parameter, such as a running mean; None keeps the name only."""
        _check_name(self, "register_buffer", name)
        value = _buffer(self, name, array)
        self._forget(name)
        self._buffers[name] = value
        if not persistent:
            self._transient.add(name)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a Parameter under `name`; None keeps the name only."""
        _check_name(self, "register_parameter", name)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"{type(self).__name__}.register_parameter: expected {name!r} to be a Parameter or None, "
                f"got {type(param).__name__}"
            )
        self._forget(name)
        self._parameters[name] = param

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child under `name`; None keeps the name only."""
        _check_name(self, "add_module", name)
        if module is not None and not isinstance(module, Module):
            raise TypeError(
                f"{type(self).__name__}.add_module: expected {name!r} to be a Module or None, "
                f"got {type(module).__name__}"
            )
        self._forget(name)
        self._modules[name] = module

    register_module = add_module

    # -- walking the tree ----------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        return ((name, m) for name, m in list(self._modules.items()) if m is not None)

    def children(self) -> Iterator[Module]:
        return (m for _, m in self.named_children())

    def named_modules(self, prefix: str = "", memo: set | None = None) -> Iterator[tuple[str, Module]]:
        """This module and all below it, each once, with dotted names ("" for this one)."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        memo.add(self)
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name, memo)

    def modules(self) -> Iterator[Module]:
        return (m for _, m in self.named_modules())

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Every Parameter once, also one that is shared, with its dotted name."""
        return self._named("_parameters", prefix, recurse)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        return (p for _, p in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Any]]:
        return self._named("_buffers", prefix, recurse)

    def buffers(self, recurse: bool = True) -> Iterator[Any]:
        return (b for _, b in self.named_buffers(recurse=recurse))

    def _named(self, group: str, prefix: str, recurse: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name, value in list(getattr(module, group).items()):
                if value is not None and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{path}.{name}" if path else name), value

    def get_submodule(self, target: str) -> Module:
        """The module with this dotted name."""
        module: Module = self
        for part in target.split(".") if target else ():
            child = module._modules.get(part)
            if child is None:
                raise AttributeError(f"{type(self).__name__}.get_submodule: no module named {target!r}")
            module = child
        return module

    def apply(self, fn: Callable[[Module], Any]) -> Any:
        """Call ``fn`` on every module, children first; returns self."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # -- state ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray]:
        """Names to arrays: every parameter and persistent buffer. The arrays are the model's own, not copies."""
        return dict(self._state())

    def _state(self) -> Iterator[tuple[str, Any]]:
        # a module or parameter that is shared appears under each of its names, as in PyTorch
        for name, p in self._parameters.items():
            if p is not None:
                yield name, p.data
        for name, b in self._buffers.items():
            if b is not None and name not in self._transient:
                yield name, b
        for name, child in self.named_children():
            for key, array in child._state():
                yield f"{name}.{key}", array

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy arrays into this model's parameters and buffers, all or nothing.

        state_dict:  names to arrays (or Tensors), cast to the dtype of what they fill
        strict:      names must agree exactly; otherwise what is missing or unexpected is left out and returned

        Raises KeyError for names and ValueError for shapes, before anything is changed.
        """
        owner = f"{type(self).__name__}.load_state_dict"
        own = self.state_dict()
        missing = [k for k in own if k not in state_dict]
        unexpected = [k for k in state_dict if k not in own]
        if strict and (missing or unexpected):
            raise KeyError(
                f"{owner}: expected the names of this model; missing: {_some(missing)}; unexpected: {_some(unexpected)}"
            )
        arrays = {}
        memory = {id(_memory(target)) for target in own.values()}
        for key, target in own.items():
            if key not in state_dict:
                continue
            value = state_dict[key]
            array = as_array(value.data if isinstance(value, Tensor) else value)
            if array.shape != target.shape:
                raise ValueError(f"{owner}: expected {key!r} of shape {target.shape}, got {array.shape}")
            if array.dtype.kind not in "fiub":
                raise TypeError(f"{owner}: expected {key!r} to be numbers, got dtype {array.dtype}")
            # a state dict of this very model holds its own arrays: copy them before the first is written
            arrays[key] = array.copy() if id(_memory(array)) in memory else array
            if not is_writeable(target):
                raise ValueError(f"{owner}: expected a writeable array in {key!r}, got a read-only one")
        ready = {key: move(array, device_of(own[key])) for key, array in arrays.items()}
        for key, array in ready.items():
            own[key][...] = array
        return IncompatibleKeys(missing, unexpected)

    # -- modes and types -----------------------------------------------------------------------

    @property
    def training(self) -> bool:
        """Whether the module is in training mode; always False inside `predict`, in that thread."""
        return self._training and _evaluation.depth == 0

    @training.setter
    def training(self, mode: bool) -> None:
        self.__dict__["_training"] = bool(mode)

    def train(self, mode: bool = True) -> Any:
        """Switch this module and all below it to training mode (dropout on, batch statistics); returns self.

        It calls the `train` of each child, so that a child, such as a frozen batch norm, may keep a mode of its own.
        """
        if not isinstance(mode, (bool, np.bool_)):
            raise TypeError(f"{type(self).__name__}.train: expected mode to be a bool, got {mode!r}")
        self.__dict__["_training"] = bool(mode)
        for child in self._modules.values():
            if child is not None:
                child.train(mode)
        return self

    def eval(self) -> Any:
        """Switch to evaluation mode; returns self."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Freeze (False) or free every parameter; returns self."""
        for p in self.parameters():
            p.requires_grad = bool(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop every gradient (or fill it with zeros)."""
        for p in self.parameters():
            if set_to_none or p.grad is None:
                p.grad = None
            else:
                p.grad[...] = 0

    def to(self, *args: Any) -> Any:
        """Change the float type (``to(np.float64)``), the device (``to("cuda")``, ``to("cpu")``) or both; returns self.

        Parameters stay the objects they were, with their gradients moved along, so an optimizer goes on working. All
        arrays are made before the first is replaced: what fails leaves the model as it was.

        ImportError without CuPy, RuntimeError without a driver or a CUDA device, ValueError for another device name.
        """
        owner = f"{type(self).__name__}.to"
        dtype = device = None
        for target in args:
            if target is None:
                continue
            if names_device(target):
                device = parse_device(owner, target)
            else:
                dtype = _check.float_dtype(owner, target)

        def changed(array: Any) -> Any:
            if array is None:
                return None
            if dtype is not None and array.dtype.kind == "f":
                array = array.astype(dtype, copy=False)
            return array if device is None else move(array, device)

        modules = list(self.modules())
        params = list({id(p): p for module in modules for p in module._parameters.values() if p is not None}.values())
        arrays = [(changed(p.data), changed(p.grad)) for p in params]
        buffers = [{name: changed(b) for name, b in module._buffers.items()} for module in modules]
        for p, (data, grad) in zip(params, arrays, strict=True):
            p.data, p.grad = data, grad
        for module, changed_buffers in zip(modules, buffers, strict=True):
            module._buffers.update(changed_buffers)
        return self

    def _place(self, device: str) -> None:
        """For a layer's constructor: put what was made on the CPU where the caller wants it."""
        if device != CPU:
            self.to(device)

    def cpu(self) -> Any:
        """Move every parameter and buffer to the CPU; returns self."""
        return self.to("cpu")

    def cuda(self) -> Any:
        """Move every parameter and buffer to the current CUDA device; returns self."""
        return self.to("cuda")

    def double(self) -> Any:
        """Make every float parameter and buffer float64; returns self."""
        return self.to(np.float64)

    def float(self) -> Any:
        """Make every float parameter and buffer float32; returns self."""
        return self.to(np.float32)

    # -- hooks ---------------------------------------------------------------------------------

    def register_forward_hook(self, hook: Callable) -> HookHandle:
        """Call ``hook(module, inputs, output)`` after each forward; what it returns, if not None, is the output."""
        return _register(self._forward_hooks, hook)

    def register_forward_pre_hook(self, hook: Callable) -> HookHandle:
        """Call ``hook(module, inputs)`` before each forward; what it returns, if not None, is the input."""
        return _register(self._forward_pre_hooks, hook)

    # -- use -----------------------------------------------------------------------------------

    def predict(self, array: Any, batch_size: int = 256) -> Any:
        """Run the model on an array in evaluation mode, without a tape, and return an array.

        array:       (N, ...), any strides; it is cut into batches along the first dimension, which are moved to where
                     the model is; the result is returned to where `array` was
        batch_size:  rows at a time

        The model is not changed, so several threads may predict with it at once.
        """
        owner = f"{type(self).__name__}.predict"
        size = _check.integer(owner, "batch_size", batch_size, 1)
        x = array.data if isinstance(array, Tensor) else as_array(array)
        if x.ndim == 0:
            raise ValueError(f"{owner}: expected an array of shape (N, ...), got a single number")
        here = device_of(x)
        there = next((device_of(p.data) for p in self.parameters()), here)
        _evaluation.depth += 1
        try:
            with no_grad():
                parts = [self(move(x[i : i + size], there)) for i in range(0, max(len(x), 1), size)]
        finally:
            _evaluation.depth -= 1
        if isinstance(parts[0], tuple):
            return tuple(_join([p[i] for p in parts], here) for i in range(len(parts[0])))
        return _join(parts, here)

    def summary(self, input_shape: Any, batch_size: int = 1) -> str:
        """A table of layers with output shapes and parameter counts.

        input_shape:  the shape of one input without the batch dimension, e.g. ``(1, 28, 28)``
        """
        owner = f"{type(self).__name__}.summary"
        sizes = input_shape if isinstance(input_shape, (tuple, list)) else (input_shape,)
        shape = tuple(_check.integer(owner, "input_shape", n, 0) for n in sizes)
        rows: list[tuple[str, str, str, int]] = []
        handles = []

        def watch(name: str) -> Callable:
            def note(module: Module, inputs: Any, output: Any) -> None:
                out = output.shape if isinstance(output, Tensor) else type(output).__name__
                own = sum(p.size for p in module.parameters(recurse=False))
                rows.append((name, type(module).__name__, str(out), own))

            return note

        dtype = next((p.dtype for p in self.parameters()), np.dtype(np.float32))
        try:
            for name, module in self.named_modules():
                if not module._modules:
                    handles.append(module.register_forward_hook(watch(name or "(self)")))
            self.predict(np.zeros((batch_size, *shape), dtype), batch_size)
        finally:
            for handle in handles:
                handle.remove()
        total = sum(p.size for p in self.parameters())
        trainable = sum(p.size for p in self.parameters() if p.requires_grad)
        table = [("name", "layer", "output shape", "parameters")]
        table += [(a, b, c, f"{d:,}") for a, b, c, d in rows]
        widths = [max(len(row[i]) for row in table) for i in range(4)]
        lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in table]
        lines.append(f"parameters: {total:,} (trainable: {trainable:,})")
        return "\n".join(lines)

    def extra_repr(self) -> str:
        """What a layer shows of itself between the parentheses of its repr."""
        return ""

    def __repr__(self) -> str:
        children = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.named_children()]
        extra = self.extra_repr()
        if not children:
            return f"{type(self).__name__}({extra})"
        return "\n".join([f"{type(self).__name__}({extra}", *children, ")"])


def _register(hooks: dict[int, Callable], hook: Callable) -> HookHandle:
    if not callable(hook):
        raise TypeError(f"hook: expected a callable, got {type(hook).__name__}")
    key = max(hooks, default=-1) + 1
    hooks[key] = hook
    return HookHandle(hooks, key)


def _check_name(module: Module, function: str, name: str) -> None:
    owner = f"{type(module).__name__}.{function}"
    if not isinstance(name, str) or not name or "." in name:
        raise ValueError(f"{owner}: expected a name without dots, got {name!r}")
    known = name in module._parameters or name in module._modules or name in module._buffers
    if hasattr(module, name) and not known:
        raise KeyError(f"{owner}: expected a new name, got {name!r}, which is an attribute already")


def _buffer(module: Module, name: str, value: Any) -> Any:
    if value is None:
        return None
    array = value.data if isinstance(value, Tensor) else as_array(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{type(module).__name__}: expected buffer {name!r} to be an array of numbers, got {array.dtype}"
        )
    return array


def _memory(array: np.ndarray) -> Any:
    """The object that owns the memory of an array."""
    return array if array.base is None else array.base


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(n) for n in names[:5]) or "none"
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _join(parts: list, device: str) -> Any:
    arrays = [move(p.data if isinstance(p, Tensor) else p, device) for p in parts]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
