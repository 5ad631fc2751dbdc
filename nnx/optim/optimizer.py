"""Optimizer, the base class: parameter groups, state, and the order of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from nnx import _check
from nnx._device import as_array, device_of, empty_like, is_array, is_writeable, move
from nnx.autograd import Tensor
from nnx.backends import Backend, backend_of
from nnx.optim._params import call_closure, gradient_of, writeable

# What PyTorch lets a caller choose about the implementation. There is one here, so only the
# defaults pass.
_IMPLEMENTATION = ("foreach", "fused", "capturable", "differentiable")


class Optimizer:
    """Base class of the optimizers.

    A subclass names its accumulators for a group (`_accumulators`), checks hyper-parameters
    (`_check_group`) and makes one backend call for a batch of parameters (`_update`). The base
    class checks everything before any of them is touched, so a step that raises leaves parameters
    and state as they were.

    params:    iterable of Parameters, of ``(name, Parameter)`` pairs, or of dicts with ``"params"``
               and hyper-parameters
    defaults:  hyper-parameters of groups that do not set their own

    Attributes: `param_groups` (list of dicts; hyper-parameters may be changed between steps),
    `state` (Parameter to its accumulators), `defaults`.
    """

    _counts_steps = True  # state["step"], the number of updates a parameter has had
    _optional: frozenset[str] = frozenset()  # hyper-parameters that a saved group may lack

    def __init__(self, params: Any, defaults: Mapping[str, Any]) -> None:
        self.defaults = dict(defaults)
        self.state: dict[Tensor, dict[str, Any]] = {}
        self.param_groups: list[dict[str, Any]] = []
        self._step_count = 0
        owner = type(self).__name__
        if isinstance(params, Tensor) or is_array(params):
            raise TypeError(
                f"{owner}: expected params to be an iterable of Parameters or of dicts, "
                f"got one {type(params).__name__}. Pass a list"
            )
        entries = _ordered(owner, params)
        if entries and all(isinstance(e, Mapping) for e in entries):
            for group in entries:
                self.add_param_group(group)
        else:
            self.add_param_group({"params": entries})
        if not any(group["params"] for group in self.param_groups):
            raise ValueError(
                f"{owner}: expected params to hold at least one Parameter, got none. Was a generator used before?"
            )

    # -- for subclasses ------------------------------------------------------------------------

    def _accumulators(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Names of the arrays that `_update` keeps per parameter with this group's settings."""
        return ()

    def _known_accumulators(self) -> tuple[str, ...]:
        """Names of all arrays that `_update` may keep, whatever the settings."""
        return self._accumulators(self.defaults)

    def _initial(self, group: dict[str, Any], name: str, p: np.ndarray) -> np.ndarray:
        """A fresh accumulator, in the parameter's memory layout."""
        return self._filled(p, 0.0)

    def _filled(self, p: Any, value: float) -> Any:
        """An array of one number, in the parameter's memory layout and where it is."""
        a = empty_like(p)
        a[...] = value
        return a

    def _check_group(self, owner: str, group: dict[str, Any]) -> None:
        """Check the group's hyper-parameters and turn them into plain numbers, in place."""

    def _update(self, backend: Backend, batch: Batch) -> None:
        """Update the batch's parameters and accumulators in place."""
        raise NotImplementedError(f"{type(self).__name__}: expected a subclass that defines _update")

    # -- groups --------------------------------------------------------------------------------

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add a group: a dict with ``"params"`` and what differs from the default settings."""
        owner = type(self).__name__
        if not isinstance(param_group, Mapping) or "params" not in param_group:
            raise TypeError(f"{owner}: expected a parameter group, a dict with the key 'params', got {param_group!r}")
        group = {**self.defaults, **param_group}
        only_default(owner, **{name: group.pop(name) for name in _IMPLEMENTATION if name in group})
        entries = group.pop("params")
        entries = [entries] if isinstance(entries, Tensor) else _ordered(owner, entries)
        params, names = self._split_names(owner, entries)
        self._check_params(owner, params)
        self._check_group(owner, group)
        group["params"] = params
        if names:
            group["param_names"] = names
        self.param_groups.append(group)

    def _split_names(self, owner: str, entries: list[Any]) -> tuple[list[Any], list[str]]:
        """Parameters and, if they came as ``(name, Parameter)`` pairs, their names."""
        pairs = [isinstance(e, tuple) and len(e) == 2 for e in entries]
        if not any(pairs):
            return entries, []
        if not all(pairs):
            raise ValueError(f"{owner}: expected all params with names or all without, got a mixture")
        return [e[1] for e in entries], [str(e[0]) for e in entries]

    def _check_params(self, owner: str, params: list[Any]) -> None:
        present = {id(p): i for i, p in enumerate(self._all_params())}
        first = len(present)
        for i, p in enumerate(params, first):
            if not isinstance(p, Tensor):
                raise TypeError(
                    f"{owner}: expected params to be Parameters, got {type(p).__name__} "
                    f"as parameter {i}. Wrap an array: nnx.Parameter(array)"
                )
            if not p.is_leaf:
                raise ValueError(
                    f"{owner}: expected params to be leaves, got the result of an operation as "
                    f"parameter {i}. Detach it and set requires_grad"
                )
            if p.data.dtype.kind != "f":
                raise TypeError(f"{owner}: expected params of a float type, got {p.data.dtype} as parameter {i}")
            if id(p) in present:
                raise ValueError(
                    f"{owner}: expected every parameter once, got parameter {present[id(p)]} again as parameter {i}"
                )
            present[id(p)] = i

    def _all_params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _label(self, number: int) -> str:
        """How messages name a parameter: its number over all groups, and its name if it has one."""
        rest = number
        for group in self.param_groups:
            if rest < len(group["params"]):
                names = group.get("param_names")
                return f"parameter {number} ({names[rest]})" if names else f"parameter {number}"
            rest -= len(group["params"])
        return f"parameter {number}"

    # -- the step ------------------------------------------------------------------------------

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or fill them with zeros."""
        for p in self._all_params():
            if set_to_none or p.grad is None:
                p.grad = None
            elif is_array(p.grad) and is_writeable(p.grad):
                p.grad[...] = 0
            else:
                p.grad = np.zeros_like(p.data)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient, in place.

        closure:  called first, with recording on: computes the loss, calls backward() and returns
                  the loss

        Returns what the closure returned, or None. Raises before anything is touched if a gradient
        has another shape or type than its parameter.
        """
        loss = None if closure is None else call_closure(f"{type(self).__name__}.step", closure)
        batches = self._collect()
        for batch in batches:
            self._update(batch.backend, batch)
        self._keep(batches)
        if batches:
            batches[0].backend.when_replayed(lambda: self._replay(batches))
        return loss

    def _steps_of(self, p: Tensor) -> int:
        """The number of updates that a parameter has had; 0 where steps are not counted."""
        return self.state.get(p, {}).get("step", 0)

    def _keep(self, batches: list[Batch]) -> None:
        """Count a step, and keep its accumulators."""
        for batch in batches:
            for i, p in enumerate(batch.owners):
                state = self.state.get(p)
                if state is None:
                    if not self._counts_steps and not batch.state:
                        continue
                    state = self.state[p] = {}
                if self._counts_steps:
                    state["step"] = batch.step
                for name, arrays in batch.state.items():
                    state[name] = arrays[i]
        self._step_count += 1

    def _replay(self, batches: list[Batch]) -> None:
        """A CUDA graph is about to make a step again that it was captured with: count it, with the settings of now.

        The backend takes the numbers and leaves the arrays to the graph, so these have to be the same ones.
        """
        owner = f"{type(self).__name__}.step"
        settings = [{k: v for k, v in batch.group.items() if k in self.defaults} for batch in batches]
        for batch, new in zip(batches, settings, strict=True):
            self._check_group(owner, new)
            same = set(self._accumulators(new)) == set(batch.state) and all(
                p.data is batch.params[i]
                and all(self.state[p].get(name) is arrays[i] for name, arrays in batch.state.items())
                for i, p in enumerate(batch.owners)
            )
            if not same or len({self._steps_of(p) for p in batch.owners}) != 1:
                raise RuntimeError(
                    f"{owner}: expected the parameters and the state that the CUDA graph was captured with, got others "
                    "(moved, loaded, or settings that change what is kept). Capture the step again"
                )
        for batch, new in zip(batches, settings, strict=True):
            batch.settings, batch.fresh = new, False
            batch.step = self._steps_of(batch.owners[0]) + 1
            self._update(batch.backend, batch)
        self._keep(batches)

    def _collect(self) -> list[Batch]:
        """Check the parameters that have a gradient; sort them into batches for one call each."""
        owner = f"{type(self).__name__}.step"
        batches: dict[tuple, Batch] = {}
        number = -1
        for group_number, group in enumerate(self.param_groups):
            settings = {name: value for name, value in group.items() if name in self.defaults}
            self._check_group(owner, settings)
            names = self._accumulators(settings)
            for p in group["params"]:
                number += 1
                g = p.grad
                if g is None:
                    continue
                data = p.data
                plain = type(data) is np.ndarray and type(g) is np.ndarray
                # nearly always all is well: the functions that say what is wrong, or mend it, are not even called
                if not (plain and g.shape == data.shape and g.dtype == data.dtype and data.flags.writeable):
                    g = gradient_of(owner, p, number, self._label)
                    data = writeable(owner, p, number, self._label)
                state = self.state.get(p) or {}
                step, fresh = state.get("step", 0) + 1, not state
                key = (group_number, np.ndarray if plain else device_of(data), data.dtype, step, fresh)
                batch = batches.get(key)
                if batch is None:
                    batch = batches[key] = Batch(backend_of(data), group, settings, names, step, fresh)
                batch.owners.append(p)
                batch.params.append(data)
                batch.grads.append(g)
                for name in names:
                    a = state.get(name)
                    if a is None:
                        if batch.backend.is_capturing():  # each replay would make it anew
                            raise RuntimeError(
                                f"{owner}: expected {name} of {self._label(number)} to be there before a CUDA graph is "
                                "captured, got none. Make a step without the graph first"
                            )
                        a = self._initial(settings, name, data)
                    elif a.shape != data.shape or a.dtype != data.dtype:
                        raise ValueError(
                            f"{owner}: expected {name} of {self._label(number)} to be {data.dtype} of shape "
                            f"{data.shape} like it, got {a.dtype} of shape {a.shape}. Make the "
                            "optimizer after the model's type and shapes are final"
                        )
                    elif type(a) is not np.ndarray or type(data) is not np.ndarray:
                        a = move(a, device_of(data))  # the model was moved
                    batch.state[name].append(a)
        return list(batches.values())

    # -- saving --------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """A snapshot in PyTorch's structure.

        ``{"state": {number: {name: value}}, "param_groups": [{"lr": ..., "params": [number]}]}``
        with copies of the arrays, and plain numbers, strings and lists otherwise. Parameters are
        numbered over all groups.
        """
        numbers = {id(p): i for i, p in enumerate(self._all_params())}
        groups = [
            {**{k: v for k, v in group.items() if k != "params"},
             "params": [numbers[id(p)] for p in group["params"]]}
            for group in self.param_groups
        ]  # fmt: skip
        entries = {numbers[id(p)]: entry for p, entry in self.state.items()}
        state = {number: {name: _copy(value) for name, value in entries[number].items()} for number in sorted(entries)}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned: all of it, or nothing if something does not fit.

        Arrays are copied and cast to their parameter's type. A state dict of the PyTorch optimizer
        of the same name (its tensors on the CPU) loads too.
        """
        owner = f"{type(self).__name__}.load_state_dict"
        if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
            raise TypeError(
                f"{owner}: expected a dict with the keys 'state' and 'param_groups', got "
                f"{list(state_dict) if isinstance(state_dict, Mapping) else type(state_dict)}"
            )
        saved_groups = list(state_dict["param_groups"])
        for saved in saved_groups:
            if not isinstance(saved, Mapping) or "params" not in saved:
                raise TypeError(f"{owner}: expected param_groups to be dicts with the key 'params', got {saved!r}")
        sizes = [len(group["params"]) for group in self.param_groups]
        saved_sizes = [len(group["params"]) for group in saved_groups]
        if sizes != saved_sizes:
            raise ValueError(f"{owner}: expected parameter groups of sizes {sizes}, got {saved_sizes}")
        groups = [
            self._load_group(owner, group, saved) for group, saved in zip(self.param_groups, saved_groups, strict=True)
        ]
        keys = [key for saved in saved_groups for key in saved["params"]]
        unknown = set(state_dict["state"]) - set(keys)
        if unknown:
            raise ValueError(
                f"{owner}: expected state for parameters that are in param_groups ({keys}), "
                f"got state for {sorted(unknown, key=str)}"
            )
        state = {}
        for number, (p, key) in enumerate(zip(self._all_params(), keys, strict=True)):
            entry = self._load_state(owner, p, self._label(number), dict(state_dict["state"].get(key, {})))
            if entry:
                state[p] = entry
        for group, new in zip(self.param_groups, groups, strict=True):
            group.clear()
            group.update(new)
        self.state = state

    def _load_group(self, owner: str, group: dict[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
        missing = [k for k in self.defaults if k not in saved and k not in self._optional]
        if missing:
            raise ValueError(
                f"{owner}: expected a parameter group with {', '.join(missing)}, got one with "
                f"{', '.join(map(str, saved))}. Was it saved by another optimizer?"
            )
        # How PyTorch was told to compute says nothing about the state.
        new = {k: _copy(v) for k, v in saved.items() if k not in (*_IMPLEMENTATION, "params")}
        for name in self._optional:
            new.setdefault(name, group[name])
        self._check_group(owner, new)
        new["params"] = group["params"]
        if "param_names" in group:
            new.setdefault("param_names", group["param_names"])
        return new

    def _load_state(self, owner: str, p: Tensor, label: str, saved: dict[str, Any]) -> dict[str, Any]:
        """A parameter's saved state, checked and copied."""
        saved = {name: value for name, value in saved.items() if value is not None}
        new: dict[str, Any] = {}
        if self._counts_steps and saved:
            if "step" not in saved:
                raise ValueError(
                    f"{owner}: expected state of {label} with step, got {', '.join(saved)}. "
                    "Was it saved by another optimizer?"
                )
            new["step"] = _load_count(owner, f"step of {label}", saved.pop("step"))
        known = self._known_accumulators()
        for name, value in saved.items():
            if name not in known:
                raise ValueError(
                    f"{owner}: expected state of {label} with {', '.join(known)}, got {name}. "
                    "Was it saved by another optimizer?"
                )
            new[name] = _load_array(owner, f"{name} of {label}", p, value)
        return new

    def __repr__(self) -> str:
        lines = [type(self).__name__ + " ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"  group {i}: {len(group['params'])} parameters")
            lines += [f"    {k}: {v}" for k, v in sorted(group.items()) if k not in ("params", "param_names")]
        return "\n".join([*lines, ")"])


def _ordered(owner: str, params: Any) -> list[Any]:
    """The entries of an iterable that has an order."""
    if isinstance(params, (set, frozenset)) or not isinstance(params, Iterable):
        raise TypeError(
            f"{owner}: expected params to be an ordered iterable of Parameters or of dicts, "
            f"got {type(params).__name__}. Pass a list, or model.parameters()"
        )
    return list(params)


class Batch:
    """Parameters of one group, type and step number, which one backend call updates together."""

    __slots__ = (
        "backend", "fresh", "grads", "group", "owners", "params", "settings", "state", "step",
    )  # fmt: skip

    def __init__(
        self,
        backend: Backend,
        group: dict[str, Any],
        settings: dict[str, Any],
        names: tuple[str, ...],
        step: int,
        fresh: bool,
    ) -> None:
        self.backend = backend
        self.group = group
        self.settings = settings  # hyper-parameters as plain numbers
        self.step = step  # number of this update, from 1
        self.fresh = fresh  # whether these parameters had no state before
        self.owners: list[Tensor] = []
        self.params: list[np.ndarray] = []
        self.grads: list[np.ndarray] = []
        self.state: dict[str, list[np.ndarray]] = {name: [] for name in names}


# -- checks of hyper-parameters --------------------------------------------------------------------


def only_default(owner: str, **options: Any) -> None:
    """Refuse choices of PyTorch's about the implementation: there is one here."""
    for name, value in options.items():
        if value is not None and value is not False:
            raise ValueError(
                f"{owner}: expected {name} to be left at its default, got {value!r}. There is one "
                "implementation here, which updates all parameters in one call"
            )


def check_real(
    owner: str,
    group: dict[str, Any],
    *names: str,
    low: float | None = None,
    high: float | None = None,
) -> None:
    """Check that each of the group's `names` is a number in the interval, and make it a float."""
    for name in names:
        value = group[name]
        if isinstance(value, Tensor):
            value = value.item()
        group[name] = _check.real(owner, name, value, low, high)


def check_betas(owner: str, group: dict[str, Any]) -> None:
    """Check that the group's `betas` are two numbers in [0, 1), and make them a tuple of floats."""
    betas = group["betas"]
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise TypeError(f"{owner}: expected betas to be two numbers, got {betas!r}")
    pair = {f"betas[{i}]": beta for i, beta in enumerate(betas)}
    for name, beta in pair.items():
        value = beta.item() if isinstance(beta, Tensor) else beta
        pair[name] = _check.real(owner, name, value, 0, 1, open_high=True)
    group["betas"] = tuple(pair.values())


def check_flags(owner: str, group: dict[str, Any], *names: str) -> None:
    """Check that each of the group's `names` is True or False."""
    for name in names:
        group[name] = bool(_check.choice(owner, name, group[name], (False, True)))


# -- values of state dicts -------------------------------------------------------------------------


def _copy(value: Any) -> Any:
    """A copy that shares no array and no list with `value`."""
    if is_array(value):
        return value.copy(order="K")
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value


def _load_array(owner: str, name: str, p: Tensor, value: Any) -> np.ndarray:
    """A copy of `value` in the type and memory layout of the parameter."""
    array = as_array(value)
    if array.dtype.kind not in "fiu" or array.shape != p.data.shape:
        raise ValueError(
            f"{owner}: expected {name} to be an array of shape {p.data.shape}, got {array.dtype} of shape {array.shape}"
        )
    new = np.empty_like(p.data)
    new[...] = move(array, device_of(p.data))
    return new


def _load_count(owner: str, name: str, value: Any) -> int:
    """A step count, which PyTorch keeps as a float in a tensor."""
    number = np.asarray(value)
    if number.size != 1 or number.dtype.kind not in "fiu" or number < 0 or number != number // 1:
        raise ValueError(f"{owner}: expected {name} to be a whole number >= 0, got {value!r}")
    return int(number.item())
