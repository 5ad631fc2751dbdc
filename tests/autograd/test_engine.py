"""The backward pass: any graph, each array once, nothing overwritten that is not the engine's own."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

import nnx
from nnx.autograd import Tensor, engine, record


def leaf(*values, dtype=np.float64):
    return Tensor(np.array(values, dtype), requires_grad=True)


# -- graphs ----------------------------------------------------------------------------------------


def test_chain():
    x = leaf(1.0, 2.0)
    ((x * 3 + 1) * x).sum().backward()  # 3 x^2 + x
    np.testing.assert_array_equal(x.grad, 6 * x.data + 1)


def test_a_tensor_times_itself():
    x = leaf(3.0, -2.0)
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad, 2 * x.data)


def test_residual_sum():
    x = leaf(1.0, 2.0)
    y = x * 2
    (y + y.exp() + x).sum().backward()
    np.testing.assert_allclose(x.grad, 2 + 2 * np.exp(2 * x.data) + 1, rtol=1e-14)


def test_dense_concatenation():
    x = leaf(1.0, 2.0)
    features = x
    for _ in range(4):
        features = nnx.cat([features, (features.sum() * 2).reshape(1)])
    features.sum().backward()
    # each new feature is twice the sum of all before it: the total triples each time
    np.testing.assert_array_equal(x.grad, [81.0, 81.0])


def test_one_tensor_used_many_times():
    x = leaf(2.0)
    sum((x * k for k in range(50)), start=Tensor(np.zeros(1))).sum().backward()
    np.testing.assert_array_equal(x.grad, [sum(range(50))])


def test_the_same_input_twice_in_one_operation():
    x = leaf(1.0, 2.0, 3.0)
    nnx.cat([x, x, x]).sum().backward()
    np.testing.assert_array_equal(x.grad, [3.0, 3.0, 3.0])


def test_branches_join_in_any_order():
    x = leaf(2.0)
    early = x * 3
    late = early * early
    (late * early + early).sum().backward()  # 27 x^3 + 3 x
    np.testing.assert_allclose(x.grad, 81 * x.data**2 + 3)


def test_several_losses_add_up():
    x = leaf(1.0, 2.0)
    (x * 2).sum().backward()
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad, 2 + 2 * x.data)


def test_deep_graph_needs_no_recursion():
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = y + 1
    y.backward()
    np.testing.assert_array_equal(x.grad, [1.0])
    del y  # nor does freeing it


def test_wide_graph():
    parts = [leaf(float(i)) for i in range(2_000)]
    nnx.cat(parts).sum().backward()
    assert all(p.grad.tolist() == [1.0] for p in parts)


def test_only_what_is_reachable_gets_a_gradient():
    x, unused, frozen = leaf(1.0), leaf(1.0), Tensor(np.ones(1))
    (x * frozen).backward()
    assert x.grad is not None
    assert unused.grad is None
    assert frozen.grad is None


def test_two_float_types_in_one_graph():
    x, y = leaf(2.0, dtype=np.float32), leaf(3.0)
    z = x * y
    assert z.dtype == np.float64
    z.backward()
    assert (x.grad.dtype, y.grad.dtype) == (np.float32, np.float64)


# -- the gradient that comes in --------------------------------------------------------------------


def test_backward_with_a_gradient():
    x = leaf(1.0, 2.0)
    (x * x).backward(np.array([1.0, 10.0]))
    np.testing.assert_array_equal(x.grad, [2.0, 40.0])
    (x * x).backward(Tensor(np.array([1.0, 0.0])))
    np.testing.assert_array_equal(x.grad, [4.0, 40.0])
    (x * x).backward([0, 1])
    np.testing.assert_array_equal(x.grad, [4.0, 44.0])


def test_backward_on_a_leaf():
    x = leaf(1.0, 2.0)
    g = np.array([3.0, 4.0])
    x.backward(g)
    x.backward(g)
    np.testing.assert_array_equal(x.grad, [6.0, 8.0])
    np.testing.assert_array_equal(g, [3.0, 4.0])


def test_the_gradient_given_is_never_changed_nor_kept():
    x = leaf(1.0, 2.0)
    g = np.array([3.0, 4.0])
    (x + 0.0).backward(g)  # its gradient function hands on the very array
    assert not np.shares_memory(x.grad, g)
    (x + 0.0).backward(g)
    np.testing.assert_array_equal(g, [3.0, 4.0])
    np.testing.assert_array_equal(x.grad, [6.0, 8.0])


def test_no_gradient_for_several_elements():
    with pytest.raises(RuntimeError, match=r"expected gradient for a Tensor of shape \(2,\), got None.*\.sum\(\)"):
        (leaf(1.0, 2.0) * 2).backward()


def test_gradient_of_another_shape():
    y = leaf(1.0, 2.0) * 2
    with pytest.raises(ValueError, match=r"backward: expected gradient of shape \(2,\), got \(3,\)"):
        y.backward(np.ones(3))


def test_nothing_to_differentiate():
    with pytest.raises(RuntimeError, match="expected a Tensor that needs a gradient, got one without history"):
        (Tensor(np.ones(1)) * 2).backward()
    x = leaf(1.0)
    with nnx.no_grad():
        y = x * 2
    with pytest.raises(RuntimeError, match="no_grad"):
        y.backward()


# -- accumulation ----------------------------------------------------------------------------------


def test_a_gradient_set_by_the_user_is_added_to_but_not_changed():
    x = leaf(1.0, 2.0)
    mine = np.array([10.0, 20.0])
    x.grad = mine
    (x * 1).sum().backward()
    np.testing.assert_array_equal(x.grad, [11.0, 21.0])
    np.testing.assert_array_equal(mine, [10.0, 20.0])


def test_a_gradient_set_again_is_not_taken_for_the_engines():
    x = leaf(1.0, 2.0)
    x.sum().backward()
    mine = np.array([10.0, 20.0])
    x.grad = mine
    x.sum().backward()
    x.sum().backward()
    np.testing.assert_array_equal(mine, [10.0, 20.0])
    np.testing.assert_array_equal(x.grad, [12.0, 22.0])


def test_a_read_only_gradient_set_by_the_user():
    x = leaf(1.0, 2.0)
    x.grad = np.broadcast_to(np.float64(5.0), (2,))
    x.sum().backward()
    np.testing.assert_array_equal(x.grad, [6.0, 6.0])


def test_the_engines_own_gradient_is_added_to_in_place():
    x = leaf(1.0, 2.0)
    x.sum().backward()
    first = x.grad
    x.sum().backward()
    assert x.grad is first
    np.testing.assert_array_equal(first, [2.0, 2.0])


def test_no_two_leaves_share_a_gradient():
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (x + y).backward(np.ones(2))
    assert not np.shares_memory(x.grad, y.grad)
    x.grad += 100
    np.testing.assert_array_equal(y.grad, [1.0, 1.0])


def test_a_gradient_does_not_share_memory_with_what_a_branch_still_needs():
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    a = x * 1  # both branches of `a + b` get the same array; that of `a` is then added to
    b = y * 1
    ((a + b) + a * 5).sum().backward()
    np.testing.assert_array_equal(x.grad, [6.0, 6.0])
    np.testing.assert_array_equal(y.grad, [1.0, 1.0])


def test_a_fresh_gradient_is_not_copied():
    made = []

    def fresh_grad(needs, gy):
        made.append(np.ones((2, 3)).T.reshape(3, 2))  # a view, but of nothing that anybody else knows
        return (made[0],)

    x = leaf([1.0, 2.0], [3.0, 4.0], [5.0, 6.0])
    record(np.ones(2), fresh_grad, (x,)).backward(np.ones(2))
    assert x.grad is made[0]


@pytest.mark.parametrize("reduce", [lambda x: x.mean(), lambda x: x.sum(0).sum(), lambda x: x.expand(4, 2, 2).mean()])
def test_a_broadcast_gradient_becomes_an_array_of_its_own(reduce):
    x = leaf([1.0, 2.0], [3.0, 4.0])
    reduce(x).backward()
    assert x.grad.flags.writeable
    assert x.grad.flags.c_contiguous


def test_a_gradient_takes_the_layout_of_its_leaf():
    x = Tensor(np.ones((3, 4)).T, requires_grad=True)
    x.sum().backward()
    assert x.grad.strides == x.data.strides


def test_an_operation_that_returns_one_array_twice():
    def twice_grad(needs, gy):
        g = gy * 1
        return g, g

    x, y = leaf(1.0), leaf(1.0)
    z = record(np.ones(1), twice_grad, (x, y))
    z.backward()
    assert not np.shares_memory(x.grad, y.grad)
    x = leaf(1.0)
    record(np.ones(1), twice_grad, (x, x)).backward()
    np.testing.assert_array_equal(x.grad, [2.0])


def test_gradients_are_arrays_also_for_a_single_number():
    x = Tensor(np.array(2.0), requires_grad=True)
    (x * x + x * 3).backward()
    assert type(x.grad) is np.ndarray
    assert x.grad.shape == ()
    (x * x).backward()
    assert type(x.grad) is np.ndarray
    assert x.grad == 11


# -- retain_graph and retain_grad ------------------------------------------------------------------


def test_second_backward_is_an_error():
    x = leaf(2.0)
    y = x * x
    y.backward()
    with pytest.raises(RuntimeError, match=r"saved arrays are gone \(operation 'mul'\).*retain_graph=True"):
        y.backward()


def test_a_graph_that_shares_a_used_part_is_an_error():
    x = leaf(2.0)
    shared = x * x
    (shared * 2).backward()
    with pytest.raises(RuntimeError, match="operation 'mul'"):
        (shared * 3).backward()


def test_retain_graph():
    x = leaf(2.0)
    y = x * x
    y.backward(retain_graph=True)
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_array_equal(x.grad, [12.0])


def test_retain_grad():
    x = leaf(2.0)
    y = x * 3
    y.retain_grad()
    z = y * y
    z.backward(retain_graph=True)
    np.testing.assert_array_equal(y.grad, [12.0])
    z.backward()
    np.testing.assert_array_equal(y.grad, [24.0])
    x.retain_grad()  # a leaf has its gradient anyway
    unkept = x * 3
    unkept.sum().backward()
    assert unkept.grad is None


def test_a_retained_gradient_is_a_copy():
    x = leaf(2.0, 3.0)
    y = x + 0
    y.retain_grad()
    g = np.ones(2)
    y.backward(g)
    y.grad[...] = 7
    assert g.tolist() == [1.0, 1.0]
    assert x.grad.tolist() == [1.0, 1.0]


# -- memory ----------------------------------------------------------------------------------------


def test_graphs_hold_no_reference_cycles():
    x = leaf(*range(5))
    gc.collect()
    gc.disable()
    try:
        y = nnx.cat([(x * x).exp() + x, x.reshape(5, 1).sum(1)])
        loss = y.sum()
        dead = [weakref.ref(y), weakref.ref(y.data), weakref.ref(loss)]
        loss.backward()
        del y, loss
        assert [ref() for ref in dead] == [None, None, None]
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_saved_arrays_die_during_backward():
    x = leaf(*range(5))
    y = x * 2
    big = y.data
    (y * y).sum().backward()
    alive = weakref.ref(big)
    del big, y
    assert alive() is None


def test_a_dropped_gradient_is_freed():
    x = leaf(1.0, 2.0)
    x.sum().backward()
    alive = weakref.ref(x.grad)
    x.grad = None
    assert alive() is None


def test_inputs_die_when_nobody_needs_them():
    x = leaf(*range(5))
    y = x * 2
    middle = weakref.ref(y.data)
    z = y + 1  # addition saves shapes alone
    del y
    assert middle() is None
    z.sum().backward()
    np.testing.assert_array_equal(x.grad, np.full(5, 2.0))


# -- gradient mode ---------------------------------------------------------------------------------


def test_no_grad_and_enable_grad():
    x = leaf(1.0)
    with nnx.no_grad():
        assert not nnx.is_grad_enabled()
        assert not (x * 2).requires_grad
        with nnx.enable_grad():
            assert (x * 2).requires_grad
        assert not nnx.is_grad_enabled()
    assert (x * 2).requires_grad


def test_one_context_object_nested():
    context = nnx.no_grad()
    with context:
        with context:
            assert not nnx.is_grad_enabled()
        assert not nnx.is_grad_enabled()
    assert nnx.is_grad_enabled()


def test_mode_is_restored_after_an_error():
    with pytest.raises(ZeroDivisionError), nnx.no_grad():
        raise ZeroDivisionError
    assert nnx.is_grad_enabled()


def test_no_grad_as_a_decorator():
    @nnx.no_grad()
    def double(x):
        """Twice x."""
        return x * 2

    assert not double(leaf(1.0)).requires_grad
    assert nnx.is_grad_enabled()
    assert (double.__name__, double.__doc__) == ("double", "Twice x.")


def test_no_grad_on_a_generator_function():
    log = []

    @nnx.no_grad()
    def steps(x):
        try:
            while True:
                got = yield (x * 2).requires_grad
                log.append((got, nnx.is_grad_enabled()))
        except KeyError:
            yield nnx.is_grad_enabled()
        finally:
            log.append(("end", nnx.is_grad_enabled()))
        return "value"

    generator = steps(leaf(1.0))
    assert nnx.is_grad_enabled()
    assert next(generator) is False
    assert nnx.is_grad_enabled(), "the caller's mode is its own between the steps"
    assert generator.send("a") is False
    assert generator.throw(KeyError()) is False
    assert nnx.is_grad_enabled()
    with pytest.raises(StopIteration, match="value"):
        next(generator)
    assert log == [("a", False), ("end", False)]
    assert nnx.is_grad_enabled()


def test_a_closed_generator_restores_the_mode():
    log = []

    @nnx.no_grad()
    def steps():
        try:
            yield 1
        finally:
            log.append(nnx.is_grad_enabled())

    generator = steps()
    next(generator)
    generator.close()
    assert log == [False]
    assert nnx.is_grad_enabled()

    def plain():
        with nnx.no_grad():
            yield 1

    generator = plain()
    next(generator)
    generator.close()
    assert nnx.is_grad_enabled()


def test_set_grad_enabled():
    nnx.set_grad_enabled(False)
    try:
        assert not nnx.is_grad_enabled()
        with nnx.set_grad_enabled(True):
            assert nnx.is_grad_enabled()
        assert not nnx.is_grad_enabled()
    finally:
        nnx.set_grad_enabled(True)

    @nnx.set_grad_enabled(False)
    def mode():
        return nnx.is_grad_enabled()

    assert nnx.is_grad_enabled()
    assert mode() is False
    assert nnx.is_grad_enabled()


def test_each_thread_has_its_own_mode():
    seen = []
    with nnx.no_grad():
        thread = threading.Thread(target=lambda: seen.append(nnx.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_threads_run_backward_at_once():
    results = []

    def work(k):
        x = leaf(float(k))
        y = x
        for _ in range(200):
            y = y * 1.0 + x
        y.backward()
        results.append((k, x.grad.item()))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [(k, 201.0) for k in range(4)]


# -- record ----------------------------------------------------------------------------------------


def _double_grad(needs, gy):
    return (2 * gy,)


def test_record_a_new_operation():
    x = leaf(1.0, 2.0)
    y = record(x.data * 2, _double_grad, (x,))
    assert y.requires_grad
    assert not y.is_leaf
    assert "grad_fn=double" in repr(y)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [2.0, 2.0])


def test_needs_says_which_gradients_are_wanted():
    seen = []

    def grad(needs, gy):
        seen.append(needs)
        return tuple(gy if need else None for need in needs)

    x, frozen = leaf(1.0), Tensor(np.ones(1))
    record(np.ones(1), grad, (x, None, frozen)).backward()
    assert seen == [(True, False, False)]


def test_a_gradient_of_the_wrong_shape_names_the_operation():
    def wrong_grad(needs, gy):
        return (np.ones(3),)

    y = record(np.ones(2), wrong_grad, (leaf(1.0, 2.0),))
    message = r"expected operation 'wrong' to return a gradient of shape \(2,\) for input 0, got \(3,\)"
    with pytest.raises(RuntimeError, match=message):
        y.backward(np.ones(2))


def test_the_wrong_number_of_gradients():
    def short_grad(needs, gy):
        return (gy,)

    y = record(np.ones(1), short_grad, (leaf(1.0), leaf(1.0)))
    with pytest.raises(RuntimeError, match="expected operation 'short' to return 2 gradients, got 1"):
        y.backward()


def test_nonfinite_gradients_pass_without_a_warning():
    x = leaf(0.0, 1.0)
    x.sqrt().sum().backward()
    np.testing.assert_array_equal(x.grad, [np.inf, 0.5])


# -- functions that are called on the way ----------------------------------------------------------


def _calling(calls, number, text):
    """An identity whose gradient function has `text` noted after the node `number`."""

    def grad(needs, gy):
        engine.call_after(number(), lambda: calls.append(text))
        return (gy,)

    return lambda x: record(x.data, grad, (x,))


def test_call_after_comes_when_the_nodes_are_done():
    x, z = leaf(1.0), leaf(1.0)
    calls = []
    y = record(x.data * 2, lambda needs, gy: calls.append("first node") or (gy * 2,), (x,))
    early = y._node.number
    later = record(z.data * 3, lambda needs, gy: calls.append("second node") or (gy * 3,), (z,))
    total = (y + later).sum()
    total = _calling(calls, lambda: 0, "end")(total)
    total = _calling(calls, lambda: early + 1, "between")(total)
    total = _calling(calls, lambda: early, "after the first")(total)
    total = _calling(calls, lambda: 0, "end")(total)
    total.backward()
    assert calls[:1] == ["second node"] and calls[-2:] == ["end", "end"]
    assert calls.index("between") < calls.index("first node") < calls.index("after the first")
    assert (x.grad[0], z.grad[0]) == (2, 3)
    assert engine.mode.running is None


def test_call_after_runs_in_every_pass_and_not_after_a_failure():
    calls = []
    x = leaf(1.0)
    y = _calling(calls, lambda: 0, "end")(x * 2).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert calls == ["end", "end"]

    def fail(needs, gy):
        raise ValueError("planted")

    y = _calling(calls, lambda: 0, "end")(record(x.data, fail, (x,))).sum()
    with pytest.raises(ValueError, match="planted"):
        y.backward()
    assert calls == ["end", "end"] and engine.mode.running is None


def test_running_root_is_the_pass_of_this_thread():
    seen = []
    x = leaf(1.0)

    def grad(needs, gy):
        seen.append(engine.running_root())
        inner = (leaf(2.0) * 3).sum()
        inner.backward()  # a pass inside a pass
        seen.append(engine.running_root())
        return (gy,)

    y = record(x.data, grad, (x,)).sum()
    y.backward()
    assert seen == [y._node, y._node]


@pytest.mark.parametrize("uses", [2, 3, 4])
def test_large_gradients_meet(uses):
    """Beyond some size the backend adds, in place from the third on; arrays that others hold stay as they are."""
    x = nnx.tensor(np.random.default_rng(0).standard_normal((200, 130)), requires_grad=True)
    middle = x * 1.0
    parts = [middle * float(k + 1) for k in range(uses)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    gy = np.ones((200, 130))
    total.backward(gy)
    assert (gy == 1).all()
    np.testing.assert_array_equal(x.grad, np.full((200, 130), sum(range(1, uses + 1))))
