"""What every operation of the table in `cases` must do, whatever it computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnx
from cases import BROKEN, CASES, FAMILIES
from cases._run import bits, call, cast, compare, cotangent, is_float, run
from nnx.autograd.engine import Node
from nnx.testing import assert_close, base_backend, gradcheck

DTYPES = (np.float32, np.float64)

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


def only(condition: Any) -> Any:
    """Parametrise with the cases for which `condition` holds."""
    return pytest.mark.parametrize("case", [c for c in CASES if condition(c)], ids=lambda case: case.id)


# -- the table -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", sorted({*FAMILIES, *BROKEN}))
def test_family_is_importable(family):
    if family in BROKEN:
        raise BROKEN[family]
    assert FAMILIES[family]


def test_ids_are_unique():
    ids = [case.id for case in CASES]
    assert len(ids) == len(set(ids))


@each_case
def test_draws_vary(case, rng):
    """Random data that is constant would check nothing."""
    for v in case.inputs(rng):
        assert not is_float(v) or v.dtype == np.float64, "float inputs are drawn as float64"
    for i in case.grad:
        x = case.inputs(rng)[i]
        assert is_float(x)
        assert x.size < 2 or np.ptp(x) > 0


# -- values and gradients --------------------------------------------------------------------------


@each_case
@each_dtype
def test_agrees_with_base_backend(case, dtype, rng):
    values = cast(case.inputs(rng), dtype)
    result = run(case, values)
    with base_backend():
        expected = run(case, values)
    compare(result, expected, case.rtol32 if dtype == np.float32 else case.rtol64)


@only(lambda case: case.large is not None)
@each_dtype
def test_large_input_agrees_with_base_backend(case, dtype, rng):
    values = cast(case.large(rng), dtype)
    result = run(case, values)
    with base_backend():
        expected = run(case, values)
    compare(result, expected, case.rtol32 if dtype == np.float32 else case.rtol64)


@only(lambda case: case.grad)
def test_gradient(case, rng):
    values = case.inputs(rng)
    size = sum(values[i].size for i in case.grad)
    _, outputs = call(case, values, ())
    # the whole Jacobian takes a backward pass per output and two forward passes per input
    mode = "full" if size + sum(y.size for y in outputs) <= 2000 else "direction"
    report = gradcheck(lambda *args: case.function(*args, **case.kwargs), values, wrt=case.grad, mode=mode)
    assert not report.kinks, "draw inputs away from kinks"
    assert report.checked == (size if mode == "full" else len(case.grad))


@each_case
def test_float32(case, rng):
    short = cast(case.inputs(rng), np.float32)
    outputs, grads = run(case, short)
    exact_outputs, exact_grads = run(case, cast(short, np.float64))
    for y, exact in zip([*outputs, *grads], [*exact_outputs, *exact_grads], strict=True):
        assert y.dtype == (np.float32 if exact.dtype == np.float64 else exact.dtype)
        if y.dtype.kind == "f":
            assert_close(y.astype(np.float64), exact, case.rtol32, case.rtol32 * 1e-2)
        else:
            np.testing.assert_array_equal(y, exact)


@only(lambda case: callable(case.torch))
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
def test_agrees_with_torch(case, rng):
    torch = pytest.importorskip("torch")
    values = case.inputs(rng)
    args = [torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v for v in values]
    leaves = [args[i].requires_grad_() for i in case.grad]
    result = case.torch(*args, **case.kwargs)
    theirs = list(result) if isinstance(result, (tuple, list)) else [result]
    for i, y in enumerate(theirs):
        if y.requires_grad:
            gy = cotangent(i, tuple(y.shape), np.float64)
            y.backward(torch.from_numpy(gy), retain_graph=True)
    grads = [np.zeros(tuple(t.shape)) if t.grad is None else t.grad.numpy() for t in leaves]
    outputs = [y.detach().numpy() for y in theirs]
    compare(run(case, values), (outputs, grads), case.rtol64)


# -- any array -------------------------------------------------------------------------------------


def reversed_(a):
    """Negative strides along every axis."""
    flip = (slice(None, None, -1),) * a.ndim
    return a[flip].copy()[flip]


def fortran(a):
    return np.asfortranarray(a)


def channels_last(a):
    return np.moveaxis(np.moveaxis(a, 1, -1).copy(), -1, 1) if a.ndim > 2 else a


def strided(a):
    """Holes between the elements of every axis."""
    wide = np.full([2 * n + 1 for n in a.shape], 77, a.dtype)
    part = (slice(1, None, 2),) * a.ndim
    wide[part] = a
    return wide[part]


def unaligned(a):
    memory = np.zeros(a.nbytes + 1, np.uint8)[1:]
    view = memory.view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def readonly(a):
    copy = a.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS = (reversed_, fortran, channels_last, strided, unaligned, readonly)


def rearranged(values: tuple, arrange: Any) -> tuple:
    return tuple(arrange(v) if isinstance(v, np.ndarray) and v.ndim else v for v in values)


@each_case
@each_dtype
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__.strip("_"))
def test_memory_layout(case, dtype, layout, rng):
    """Inputs and the outputs' gradients in another layout: the same result."""
    values = cast(case.inputs(rng), dtype)
    result = run(case, rearranged(values, layout), arrange=lambda a: layout(a) if a.ndim else a)
    compare(result, run(case, values), case.rtol32 if dtype == np.float32 else case.rtol64)


@each_case
@pytest.mark.parametrize("axis", (0, -1))
def test_broadcast_input(case, axis, rng):
    """Arrays with stride 0, as `numpy.broadcast_to` and the gradient of a sum are."""

    def first(a):
        return np.broadcast_to(a[(slice(0, 1),) if axis == 0 else (..., slice(0, 1))], a.shape)

    def spread(a):
        return first(a) if a.ndim else a

    values = rearranged(case.inputs(rng), first)
    with np.errstate(all="ignore"):  # the slope of a standard deviation at equal values, say
        expected = run(case, rearranged(values, np.copy), arrange=lambda a: spread(a).copy())
        result = run(case, values, arrange=spread)
    compare(result, expected, case.rtol64)


@each_case
@each_dtype
def test_swapped_byte_order(case, dtype, rng):
    """As plain arrays; a Tensor that needs a gradient must have native numbers."""
    values = cast(case.inputs(rng), dtype)
    swapped = tuple(v.astype(v.dtype.newbyteorder()) if isinstance(v, np.ndarray) else v for v in values)
    result, expected = run(case, swapped, grad=()), run(case, values, grad=())
    compare(result, expected, case.rtol32 if dtype == np.float32 else case.rtol64)
    assert all(y.dtype.isnative for y in result[0])


@only(lambda case: case.batch)
@each_dtype
def test_empty_batch(case, dtype, rng):
    values = tuple(v[:0] if i in case.batch else v for i, v in enumerate(cast(case.inputs(rng), dtype)))
    result = run(case, values)
    with base_backend():
        expected = run(case, values)
    compare(result, expected, 0)
    for i, g in zip(case.grad, result[1], strict=True):
        assert g.shape == values[i].shape
        assert not np.nan_to_num(g).any(), "nothing went in, so no gradient comes out"


@only(lambda case: case.nonfinite)
@each_dtype
@pytest.mark.parametrize("special", (np.nan, np.inf, -np.inf), ids=("nan", "inf", "minus_inf"))
def test_nonfinite(case, dtype, special, rng):
    """The compiled backend does with NaN and infinities what the base backend does."""
    for i in case.nonfinite:
        values = cast(case.inputs(rng), dtype)
        values[i].flat[:: max(values[i].size // 3, 1)] = special
        with np.errstate(all="ignore"):
            result = run(case, values)
            with base_backend():
                expected = run(case, values)
        compare(result, expected, case.rtol32 if dtype == np.float32 else case.rtol64)


@only(lambda case: case.nonfinite and callable(case.torch))
def test_nan_is_passed_on(case, rng):
    """Where PyTorch's result is NaN, so is ours; where both are numbers, they agree."""
    torch = pytest.importorskip("torch")
    for i in case.nonfinite:
        values = case.inputs(rng)
        values[i].flat[:: max(values[i].size // 3, 1)] = np.nan
        args = [torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v for v in values]
        result = case.torch(*args, **case.kwargs)
        theirs = list(result) if isinstance(result, (tuple, list)) else [result]
        with np.errstate(all="ignore"):
            ours, _ = run(case, values, grad=())
        for x, y in zip(ours, (y.numpy() for y in theirs), strict=True):
            if x.dtype.kind == "f":
                assert np.isnan(x[np.isnan(y)]).all()
                known = ~np.isnan(x)
                assert_close(x[known], y[known], case.rtol64, case.rtol64 * 1e-2)


# -- threads ---------------------------------------------------------------------------------------


@each_case
@each_dtype
def test_same_bits_for_any_number_of_threads(case, dtype, every_kernel_threaded, rng):
    values = cast((case.large or case.inputs)(rng), dtype)
    nnx.set_num_threads(1)
    expected = bits(run(case, values))
    for n in (2, 3):
        nnx.set_num_threads(n)
        assert bits(run(case, values)) == expected, f"{n} threads give other bits than 1"


# -- the tape --------------------------------------------------------------------------------------


def nodes_behind(outputs: list) -> list[Node]:
    found: dict[int, Node] = {}
    todo = [y._node for y in outputs if y._node is not None]
    while todo:
        node = todo.pop()
        if id(node) not in found:
            found[id(node)] = node
            todo += [parent for parent in node.parents if type(parent) is Node]
    return list(found.values())


def arrays_in(saved: Any) -> list[np.ndarray]:
    if isinstance(saved, np.ndarray):
        return [saved]
    if isinstance(saved, (tuple, list)):
        return [a for item in saved for a in arrays_in(item)]
    return []


def watched(grad: Any) -> Any:
    """The gradient function `grad`, held to the rules in docs/architecture.md, "The tape"."""

    def check(needs, gy, *saved):
        kept = arrays_in(saved)
        before = [gy.tobytes(), *(a.tobytes() for a in kept)]
        results = grad(needs, gy, *saved)
        assert [gy.tobytes(), *(a.tobytes() for a in kept)] == before, "a saved array was written to"
        for need, g in zip(needs, results, strict=True):
            assert need or g is None, "a gradient was computed that nobody needs"
            if g is not None and g.size and not np.may_share_memory(g, gy):
                assert not any(np.may_share_memory(g, a) for a in kept), "returned a saved array"
        return results

    check.__name__ = grad.__name__
    return check


@only(lambda case: case.grad)
def test_tape_rules(case, rng):
    """Each gradient can be had alone, and then nothing else is computed."""
    values = case.inputs(rng)
    together = dict(zip(case.grad, run(case, values)[1], strict=True))
    for i in case.grad:
        leaves, outputs = call(case, values, (i,))
        for node in nodes_behind(outputs):
            node.grad = watched(node.grad)
        for j, y in enumerate(outputs):
            if y.requires_grad:
                y.backward(cotangent(j, y.shape, y.dtype), retain_graph=True)
        if leaves[0].grad is not None:
            assert_close(leaves[0].grad, together[i], case.rtol64)


@each_case
def test_no_tape_without_need(case, rng):
    values = case.inputs(rng)
    with nnx.no_grad():
        _, outputs = call(case, values, case.grad)
    assert not any(y._node is not None for y in outputs)
    expected, _ = run(case, values)
    assert [y.data.tobytes() for y in outputs] == [y.tobytes() for y in expected]
