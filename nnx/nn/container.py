"""Modules made of modules: Sequential, ModuleList, ModuleDict, and lists of parameters."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nnx.autograd import Parameter
from nnx.nn._fusion import run
from nnx.nn.module import Module

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]


def _position(owner: str, index: Any, length: int) -> int:
    i = operator.index(index)
    if not -length <= i < length:
        raise IndexError(f"{owner}: expected an index in [{-length}, {length}), got {i}")
    return i % length


class _Ordered(Module):
    """What Sequential and ModuleList share: children under "0", "1", ..., or under given names."""

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(list(self._modules.values()))  # type: ignore[arg-type]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._rebuilt(list(self._modules.items())[index])
        values = list(self._modules.values())
        return values[_position(type(self).__name__, index, len(values))]

    def __setitem__(self, index: int, module: Module) -> None:
        self._require(module)
        name = list(self._modules)[_position(type(self).__name__, index, len(self))]
        self._modules[name] = module

    def __delitem__(self, index: Any) -> None:
        items = list(self._modules.items())
        if isinstance(index, slice):
            del items[index]
        else:
            del items[_position(type(self).__name__, index, len(items))]
        self._replace(items)

    def append(self, module: Module) -> Any:
        """Add a module at the end; returns self."""
        return self.insert(len(self), module)

    def extend(self, modules: Iterable[Module]) -> Any:
        """Add modules at the end, all or none; returns self."""
        new = list(modules)
        for module in new:
            self._require(module)
        for module in new:
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Any:
        """Add a module before position `index`; returns self. Numbered names are numbered anew."""
        self._require(module)
        items = list(self._modules.items())
        i = max(0, min(len(items), index + len(items) if index < 0 else index))
        name = str(len(items))
        while name in self._modules:
            name += "_"
        items.insert(i, (name, module))
        self._replace(items)
        return self

    def _require(self, module: Any) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__}: expected every item to be a Module, got {type(module).__name__}")

    def _replace(self, items: list) -> None:
        if all(name.isdecimal() for name, _ in items):
            items = [(str(i), module) for i, (_, module) in enumerate(items)]
        self._modules.clear()
        self._modules.update(items)

    def _rebuilt(self, items: list) -> Any:
        new = type(self)()
        new._replace(items)
        return new


class Sequential(_Ordered):
    """Modules applied one after the other; a convolution, linear or batch norm layer and the ReLU behind it run as one.

    args:  modules, or one mapping of names to modules

    >>> from nnx import nn
    >>> len(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    3
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        named = len(args) == 1 and isinstance(args[0], Mapping)
        items = list(args[0].items()) if named else [(str(i), m) for i, m in enumerate(args)]
        for _, module in items:
            self._require(module)
        for name, module in items:
            self.add_module(name, module)

    def forward(self, input: Any) -> Any:
        return run(list(self._modules.values()), input)


class ModuleList(_Ordered):
    """A list of modules, registered with the module that holds it. It has no forward."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)


class ModuleDict(Module):
    """A dictionary of modules, registered with the module that holds it. It has no forward."""

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()) -> None:
        super().__init__()
        self.update(modules)

    def __getitem__(self, key: str) -> Any:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._modules))

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def keys(self) -> Any:
        return self._modules.keys()

    def values(self) -> Any:
        return self._modules.values()

    def items(self) -> Any:
        return self._modules.items()

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add or replace modules by name."""
        for key, module in modules.items() if isinstance(modules, Mapping) else modules:
            self.add_module(key, module)

    def pop(self, key: str) -> Any:
        """Take a module out and return it."""
        return self._modules.pop(key)


def _parameter(owner: Module, value: Any) -> Parameter:
    if not isinstance(value, Parameter):
        raise TypeError(f"{type(owner).__name__}: expected every item to be a Parameter, got {type(value).__name__}")
    return value


class ParameterList(Module):
    """A list of Parameters, registered with the module that holds it."""

    def __init__(self, values: Iterable[Parameter] = ()) -> None:
        super().__init__()
        for value in values:
            self.append(value)

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[Parameter]:
        return iter(list(self._parameters.values()))  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        return list(self._parameters.values())[_position("ParameterList", index, len(self))]

    def __setitem__(self, index: int, value: Parameter) -> None:
        self._parameters[str(_position("ParameterList", index, len(self)))] = _parameter(self, value)

    def append(self, value: Parameter) -> Any:
        """Add a Parameter at the end; returns self."""
        self._parameters[str(len(self))] = _parameter(self, value)
        return self


class ParameterDict(Module):
    """A dictionary of Parameters, registered with the module that holds it."""

    def __init__(self, parameters: Mapping[str, Parameter] | None = None) -> None:
        super().__init__()
        for key, value in (parameters or {}).items():
            self[key] = value

    def __getitem__(self, key: str) -> Any:
        return self._parameters[key]

    def __setitem__(self, key: str, value: Parameter) -> None:
        self.register_parameter(key, _parameter(self, value))

    def __delitem__(self, key: str) -> None:
        del self._parameters[key]

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._parameters))

    def __contains__(self, key: object) -> bool:
        return key in self._parameters

    def keys(self) -> Any:
        return self._parameters.keys()

    def items(self) -> Any:
        return self._parameters.items()

    def values(self) -> Any:
        return self._parameters.values()
