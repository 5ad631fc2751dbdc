"""The CPU backend and the base backend are one interface: methods, arguments, values.

A spy in the place of the CPU backend runs the whole table of cases, and the optimizers. It compares
every call of an overridden method with the base class, and notes whether a kernel did the work.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import nnx
from cases import CASES
from cases._run import call, cast, cotangent
from nnx.backends import Backend
from nnx.backends.cpu import CPUBackend
from nnx.nn.utils import clip_grad_norm_
from nnx.testing import _computing_with, assert_close


def public(cls: type) -> dict[str, Any]:
    return {name: member for name, member in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")}


OVERRIDES = sorted(name for name, method in public(CPUBackend).items() if method is not public(Backend).get(name))
# What returns no arrays, here or in the base, cannot be compared as such: autograd/test_later.py,
# autograd/test_behind_max_pool.py and autograd/test_between_batch_norms.py do it.
NOT_OFFERED = (
    "batch_norm_backward_later",
    "batch_norm_later",
    "conv_data_grad_joined",
    "conv_gradients",
    "conv_of_later",
    "conv_sums_behind_max_pool",
)
COMPARED = [name for name in OVERRIDES if name not in NOT_OFFERED]


@pytest.mark.parametrize("name", OVERRIDES)
def test_same_signature(name):
    assert hasattr(Backend, name), "a public method of the CPU backend that the base has not"
    ours = inspect.signature(getattr(CPUBackend, name)).parameters
    theirs = inspect.signature(getattr(Backend, name)).parameters
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]


# -- the spy ---------------------------------------------------------------------------------------


def copied(value: Any, dtype: Any = None) -> Any:
    """`value` with fresh arrays in the same layout; floats in `dtype`, if it is given."""
    if isinstance(value, np.ndarray):
        kind = dtype if dtype is not None and value.dtype.kind == "f" else value.dtype
        return value.astype(kind, order="K", copy=True)
    if isinstance(value, (list, tuple)):
        return type(value)(copied(item, dtype) for item in value)
    return value


def assert_same(actual: Any, expected: Any, rtol: float, atol: float, name: str) -> None:
    """Compare nested results; where both are arrays, as `assert_close` does."""
    if isinstance(expected, (tuple, list)):
        assert isinstance(actual, (tuple, list)) and len(actual) == len(expected), name
        for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
            assert_same(a, e, rtol, atol, f"{name}[{i}]")
    elif isinstance(expected, (np.ndarray, np.generic)):
        assert_close(actual, expected, rtol, atol, name)
    elif isinstance(expected, float):
        assert actual == pytest.approx(expected, rel=rtol, abs=atol, nan_ok=True), name
    else:
        assert actual == expected, name


def largest(value: Any) -> float:
    """The largest finite magnitude among nested float arrays."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return float(np.abs(value).max(initial=0, where=np.isfinite(value)))
    if isinstance(value, (list, tuple)):
        return max(map(largest, value), default=0.0)
    return 0.0


class Record:
    """What the spy saw: per method, the calls that a kernel served and one that may be repeated."""

    def __init__(self) -> None:
        self.kernel: dict[str, int] = {}
        self.handed_back: list[str] = []
        self.samples: dict[str, tuple] = {}
        self.rtol = 0.0


def make_spy(record: Record) -> Any:
    plain = Backend()

    def spied(name: str) -> Any:
        override = getattr(CPUBackend, name)

        def method(self, *args, **kwargs):
            before, given = len(record.handed_back), copied(args)
            record.samples.setdefault(name, (copied(args), dict(kwargs)))
            result = override(self, *args, **kwargs)
            if name not in record.handed_back[before:]:
                record.kernel[name] = record.kernel.get(name, 0) + 1
            expected = getattr(plain, name)(*given, **kwargs)
            atol = 0.1 * record.rtol * largest(given)  # what cancels leaves rounding errors
            assert_same(result, expected, record.rtol, atol, name)
            assert_same(args, given, record.rtol, 0, f"{name}: argument")  # optimizers write to theirs
            return result

        return method

    return type("Spy", (CPUBackend,), {name: spied(name) for name in COMPARED})()


def watch_base(record: Record, spy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Note each call that an override hands to the base class."""
    for name in COMPARED:
        home = next(cls for cls in Backend.__mro__ if name in vars(cls))
        original = vars(home)[name]

        def noted(self, *args, _name=name, _original=original, **kwargs):
            if self is spy:
                record.handed_back.append(_name)
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(home, name, noted)


def run_cases(record: Record, dtype: Any) -> None:
    for case in CASES:
        record.rtol = case.rtol32 if dtype == np.float32 else case.rtol64
        values = cast(case.inputs(np.random.default_rng(0)), dtype)
        # each gradient alone too: which kernel runs may depend on what is wanted
        for wanted in {case.grad, *((i,) for i in case.grad)}:
            _, outputs = call(case, values, wanted)
            for i, y in enumerate(outputs):
                if y.requires_grad:
                    y.backward(cotangent(i, y.shape, y.dtype), retain_graph=True)


OPTIMIZERS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.01}),
    ("Adadelta", {"lr": 1.0, "weight_decay": 0.01}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.9, "centered": True, "weight_decay": 0.01}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.01}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("AdamW", {"lr": 0.01}),
]


def run_optimizers(record: Record, dtype: Any) -> None:
    record.rtol = 1e-5 if dtype == np.float32 else 1e-10
    for name, options in OPTIMIZERS:
        rng = np.random.default_rng(0)
        params = [nnx.Parameter(rng.standard_normal(s).astype(dtype)) for s in ((5, 3), (7,), ())]
        optimizer = getattr(nnx.optim, name)(params, **options)
        for _ in range(3):
            for p in params:
                p.grad = rng.standard_normal(p.shape).astype(dtype)
            clip_grad_norm_(params, 1.0)
            optimizer.step()


def run_neighbours(record: Record, spy: Any, dtype: Any) -> None:
    """`nearest` is no operation on Tensors, so no case of the table calls it."""
    record.rtol = 1e-5 if dtype == np.float32 else 1e-10
    rng = np.random.default_rng(0)
    points = rng.standard_normal((150, 33)).astype(dtype)
    for queries in (3, 40):
        for p in (1, 2):
            spy.nearest(rng.standard_normal((queries, 33)).astype(dtype), points, 4, p)


def run_sums(record: Record, spy: Any, dtype: Any) -> None:
    """The engine adds so where gradients meet, if they are large."""
    record.rtol = 0
    a, b = np.random.default_rng(0).standard_normal((2, 3, 50)).astype(dtype)
    spy.add(a, b)
    spy.add_in_place(a, b)


@pytest.fixture
def record(monkeypatch) -> Record:
    record = Record()
    spy = make_spy(record)
    watch_base(record, spy, monkeypatch)
    with _computing_with(spy):
        for dtype in (np.float32, np.float64):
            run_cases(record, dtype)
            run_optimizers(record, dtype)
            run_neighbours(record, spy, dtype)
            run_sums(record, spy, dtype)
    return record


def test_every_override_is_reached_and_agrees(record):
    """The comparison itself is in the spy; here: that it happened, with a kernel at work."""
    assert COMPARED
    assert [name for name in COMPARED if name not in record.kernel] == []


def test_types_without_a_kernel_go_to_the_base_class(record, monkeypatch):
    """In float16 each override gives the bits of the base class."""
    monkeypatch.undo()  # the spy's
    for name, (args, kwargs) in record.samples.items():
        ours, theirs = copied(args, np.float16), copied(args, np.float16)
        with np.errstate(all="ignore"):
            result = getattr(CPUBackend(), name)(*ours, **kwargs)
            expected = getattr(Backend(), name)(*theirs, **kwargs)
        assert_same(result, expected, 0, 0, name)
        assert_same(ours, theirs, 0, 0, f"{name}: argument")


@pytest.mark.parametrize("wide", (0, 1))
def test_mixed_types(record, wide, monkeypatch):
    """One argument in float64, the others in float32: no kernel may take one for the other."""
    monkeypatch.undo()  # the spy's
    for name, (args, kwargs) in record.samples.items():

        def mix(i, value):
            return copied(value, np.float64 if i == wide else np.float32)

        ours = [mix(i, value) for i, value in enumerate(args)]
        theirs = copied(ours)
        with np.errstate(all="ignore"):
            result = copied(getattr(CPUBackend(), name)(*ours, **kwargs), np.float64)
            expected = copied(getattr(Backend(), name)(*theirs, **kwargs), np.float64)
        assert_same(result, expected, 1e-4, 1e-4 * largest(args), name)
        assert_same(ours, theirs, 1e-4, 0, f"{name}: argument")


def test_spy_sees_a_difference(monkeypatch):
    """The comparison can fail."""
    record = Record()
    record.rtol = 1e-5
    name = OVERRIDES[0]
    monkeypatch.setattr(CPUBackend, name, lambda self, *args: np.full(3, 2.0))
    monkeypatch.setattr(Backend, name, lambda self, *args: np.ones(3))
    with pytest.raises(AssertionError, match=name):
        getattr(make_spy(record), name)(np.ones(3))
