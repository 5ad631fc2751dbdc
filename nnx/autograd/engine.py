"""The tape: nodes linked to their parents, and the backward pass over them.

A Node is made for each recorded operation. It knows its parents (Nodes, or the leaf Tensors whose gradient is wanted),
never its own output, so there are no reference cycles and arrays die as soon as nothing needs them. Creation numbers
grow along every edge, so that visiting reachable nodes by descending number is a reverse topological order of any DAG.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from nnx._device import as_array, empty_like
from nnx.backends import backend_of
from nnx.backends.base.later import is_later

LARGE_SUM = 16384  # numbers from which the backend adds faster than NumPy

_count = itertools.count()


class _Mode(threading.local):
    """Gradient mode, and the backward pass that is running; each thread has its own."""

    enabled = True
    running: _Pass | None = None


mode = _Mode()


class Node:
    """One recorded operation.

    grad:     ``grad(needs, gy, *saved)`` returns one array or None per parent
    parents:  per input, the Node that made it, the leaf Tensor to accumulate into, or None
    needs:    per input, whether its gradient is wanted
    saved:    what `grad` needs; dropped as it is used
    """

    __slots__ = ("dtype", "grad", "needs", "number", "parents", "retained", "saved", "shape")

    def __init__(
        self,
        grad: Callable[..., tuple],
        parents: tuple,
        needs: tuple[bool, ...],
        saved: tuple,
        y: Any,
    ) -> None:
        self.grad = grad
        self.parents = parents
        self.needs = needs
        self.saved: tuple | None = saved
        self.shape = y.shape
        self.dtype = y.dtype
        self.number = next(_count)
        self.retained: Any = None  # weak reference to an output that wants its .grad kept

    @property
    def name(self) -> str:
        """The operation's name, for messages: ``_conv_grad`` is "conv"."""
        return self.grad.__name__.strip("_").removesuffix("_grad")


_fresh: set[Callable[..., tuple]] = set()


def fresh(grad: Callable[..., tuple]) -> Callable[..., tuple]:
    """Mark the gradient function of an operation whose result always lies in memory of its own: never a view.

    What follows such an operation may be computed later (`nnx.backends.base.later`): nnx never writes to the result.
    """
    _fresh.add(grad)
    return grad


def made_fresh(t: Any) -> bool:
    """Whether Tensor `t` is the result of such an operation, and operations are recorded."""
    return mode.enabled and t._node is not None and t._node.grad in _fresh


_left: dict[Callable[..., tuple], str] = {}
_behind: dict[tuple[Callable[..., tuple], str], Callable[..., tuple]] = {}


def left_to_parent(kind: str) -> Callable[[Callable[..., tuple]], Callable[..., tuple]]:
    """Mark a gradient function of one input, which the engine may leave to the operation in front (`behind`).

    kind:  "relu" for ``grad(needs, gy, be, y, whole)`` of a ReLU with output y; `whole` says that y was computed
           together with the input (`nnx.backends.base.later`), which alone says where y is 0.
           "max_pool" for ``grad(needs, gy, be, index, x_shape, kernel, stride, padding, dilation)``
           "batch_norm" for ``grad(needs, gy, later)`` of a `LaterGradient`; batch norm itself returns such a `Left`
    """

    def mark(grad: Callable[..., tuple]) -> Callable[..., tuple]:
        _left[grad] = kind
        return grad

    return mark


def behind(kind: str, combined: Callable[..., tuple]) -> Callable[[Callable[..., tuple]], Callable[..., tuple]]:
    """Say that ``combined(needs, gy, left, *saved)`` is a gradient function and that of the operation behind it in one.

    left:  what the operation behind, of this kind (`left_to_parent`), has saved

    The engine calls it where the operation behind is all that the output went to.
    """

    def mark(grad: Callable[..., tuple]) -> Callable[..., tuple]:
        _behind[grad, kind] = combined
        return grad

    return mark


_rest: dict[Callable[..., tuple], tuple[int, Callable[..., tuple]]] = {}
_joining: set[Callable[..., tuple]] = set()


def cuts(index: int, rest: Callable[..., tuple]) -> Callable[[Callable[..., tuple]], Callable[..., tuple]]:
    """Say that a gradient function first makes gy 0 where ``saved[index]`` is not positive, and then is `rest`."""

    def mark(grad: Callable[..., tuple]) -> Callable[..., tuple]:
        _rest[grad] = index, rest
        return grad

    return mark


def joins(grad: Callable[..., tuple]) -> Callable[..., tuple]:
    """Mark a gradient function that takes `onto`, an `Onto`, and may do that on the way."""
    _joining.add(grad)
    return grad


class Onto:
    """What happens next to the gradient of an operation's first input.

    added:     an array: what has reached that input already, and is added to the gradient; or None
    positive:  an array: where it is not positive, the sum becomes 0, since the input is the result of a ReLU; or None
    done:      set by the gradient function whose first gradient is the outcome of both
    """

    __slots__ = ("added", "done", "positive")

    def __init__(self, added: Any, positive: Any) -> None:
        self.added = added
        self.positive = positive
        self.done = False


class Left:
    """The gradient in front of an operation, which nobody has computed yet: ``grad((True,), gy, *saved)[0]``.

    A gradient function may return one, where `grad` is marked by `left_to_parent` and the gradient has gy's type.
    """

    __slots__ = ("grad", "gy", "saved")

    def __init__(self, grad: Callable[..., tuple], gy: Any, saved: tuple) -> None:
        self.grad = grad
        self.gy = gy
        self.saved = saved

    def array(self) -> Any:
        return self.grad((True,), self.gy, *self.saved)[0]


class _Call:
    """Stands in the queue for a function that is called once every node from `number` on is done."""

    __slots__ = ("function", "number", "saved")

    parents: tuple = ()
    needs: tuple[bool, ...] = ()
    retained = None
    name = "call_after"

    def __init__(self, number: int, function: Callable[[], None]) -> None:
        self.number = number - 0.5  # behind node `number`, before node `number - 1`
        self.function = function
        self.saved: tuple | None = ()

    def grad(self, needs: tuple, gy: None) -> tuple:
        self.function()
        return ()

    def __lt__(self, other: object) -> bool:
        return False  # two calls at the same place: either order will do


class _Pass:
    """A backward pass on its way."""

    def __init__(self, root: Node, gradient: Any) -> None:
        self.root = root
        self.pending: dict[Any, list] = {root: [gradient, False, False]}
        self.queue: list[tuple[float, Any]] = [(-root.number, root)]


def call_after(number: int, function: Callable[[], None]) -> None:
    """From inside a gradient function: call `function` in this pass, once every node from `number` on is done.

    Number 0 is the end of the pass: `function` is the last thing that happens before ``backward()`` returns. It is not
    called if the pass fails.
    """
    running = mode.running
    assert running is not None
    call = _Call(number, function)
    running.pending[call] = [None, False, False]
    heapq.heappush(running.queue, (-call.number, call))


def running_root() -> Node:
    """From inside a gradient function: the node that this pass began with."""
    assert mode.running is not None
    return mode.running.root


def backward(root: Node, gradient: Any, retain_graph: bool) -> None:
    """Send `gradient` from `root` to every leaf that can be reached.

    `pending` maps a node to ``[gradient so far, ours, cut]``. `ours` says that the engine allocated the array and may
    add to it in place; any other array may be shared with a second branch, a saved array or the user. `cut` says that
    the gradient is 0 already where the node would make it so (`cuts`).
    """
    outer = mode.running
    mode.running = running = _Pass(root, gradient)
    try:
        with np.errstate(all="ignore"):  # infinities and NaN pass through without a warning
            _backward(running.pending, running.queue, retain_graph)
    finally:
        mode.running = outer


def _backward(pending: dict[Any, list], queue: list[tuple[float, Any]], retain_graph: bool) -> None:
    while queue:
        _, node = heapq.heappop(queue)
        gy, _, cut = pending.pop(node)
        if isinstance(gy, np.generic):
            gy = np.asarray(gy)
        if node.saved is None:
            raise RuntimeError(
                f"backward: expected a graph that was not used yet, got one whose saved arrays are "
                f"gone (operation {node.name!r}). Pass retain_graph=True to the first backward()"
            )
        grad, saved = node.grad if not cut else _rest[node.grad][1], node.saved
        if type(gy) is Left and node.retained is None:
            grad, gy, saved = _behind[grad, _left[gy.grad]], gy.gy, (gy.saved, *saved)
        else:
            if type(gy) is Left:
                gy = gy.array()
            if node.retained is not None:
                _retain(node, gy)
            if grad in _left and _leave_to(node.parents[0], Left(grad, gy, saved), pending, queue):
                if not retain_graph:
                    node.saved = None
                continue
        onto = _onto(node, pending) if grad in _joining else None
        results = grad(node.needs, gy, *saved) if onto is None else grad(node.needs, gy, *saved, onto=onto)
        del saved
        if not retain_graph:
            node.saved = None
        if len(results) != len(node.parents):
            raise RuntimeError(
                f"backward: expected operation {node.name!r} to return {len(node.parents)} "
                f"gradients, got {len(results)}"
            )
        for i, (parent, g) in enumerate(zip(node.parents, results, strict=True)):
            if parent is None or g is None:
                continue
            if type(g) is Left:
                if _leave_to(parent, g, pending, queue):
                    continue
                g = g.array()
            if g.shape != parent.shape:
                raise RuntimeError(
                    f"backward: expected operation {node.name!r} to return a gradient of shape "
                    f"{tuple(parent.shape)} for input {i}, got {g.shape}"
                )
            if g.dtype != parent.dtype:
                g = g.astype(parent.dtype)
            if isinstance(g, np.generic):  # NumPy makes scalars of 0-d results
                g = np.asarray(g)
            if type(parent) is not Node:
                _accumulate(parent, g, _shared(g, gy) or _repeated(results, i))
            elif onto is not None and onto.done and i == 0:
                if parent not in pending:
                    heapq.heappush(queue, (-parent.number, parent))
                pending[parent] = [g, True, onto.positive is not None]
            elif parent not in pending:
                pending[parent] = [g, False, False]
                heapq.heappush(queue, (-parent.number, parent))
            else:
                entry = pending[parent]
                entry[2] = False
                if type(entry[0]) is Left:
                    entry[:2] = entry[0].array(), True
                if not entry[1]:
                    entry[0] = backend_of(g).add(entry[0], g) if g.size >= LARGE_SUM else entry[0] + g
                    entry[1] = not isinstance(entry[0], np.generic)
                elif g.size >= LARGE_SUM:
                    backend_of(g).add_in_place(entry[0], g)
                else:
                    entry[0] += g
        del results, gy


def _can_leave(grad: Callable[..., tuple], parent: Any) -> bool:
    """Whether this gradient can be left to the operation in front."""
    return grad in _left and type(parent) is Node and (parent.grad, _left[grad]) in _behind


def _leave_to(parent: Any, left: Left, pending: dict[Any, list], queue: list[tuple[float, Any]]) -> bool:
    """Leave a gradient to the operation in front, if that can do both and nothing else has reached it."""
    if parent in pending or not _can_leave(left.grad, parent):
        return False
    pending[parent] = [left, False, False]
    heapq.heappush(queue, (-parent.number, parent))
    return True


def _onto(node: Node, pending: dict[Any, list]) -> Onto | None:
    """What happens to the gradient of a node's first input, as far as it is known; None if that is nothing."""
    parent, added, positive = node.parents[0], None, None
    if type(parent) is not Node or parent.saved is None:
        return None
    if parent in pending:
        added = pending[parent][0]
        if type(added) is Left:
            return None
    # A ReLU that leaves its gradient to the operation in front cuts it there.
    if parent.grad in _rest and parent.retained is None and not _can_leave(parent.grad, parent.parents[0]):
        positive = parent.saved[_rest[parent.grad][0]]
        if is_later(positive):
            positive = None
    return None if added is None and positive is None else Onto(added, positive)


def _shared(g: Any, gy: Any) -> bool:
    """Whether `g` is `gy`, a view of it, or a broadcast view. (A base may also be a block of cached memory.)"""
    if g is gy:
        return True
    if g.base is None:
        return False
    if type(g) is not np.ndarray:
        return True  # on a device a copy costs less than the question
    return not g.flags.writeable or (type(gy) is np.ndarray and np.may_share_memory(g, gy))


def _repeated(results: tuple, i: int) -> bool:
    times = 0
    for other in results:
        times += other is results[i]
    return times > 1


def _accumulate(leaf: Any, g: Any, shared: bool) -> None:
    """Add `g` to ``leaf.grad``, in place only where the engine made the array that is there.

    ``leaf._own_grad`` remembers that array by a weak reference, so that ``grad = None`` frees it.
    """
    if leaf.grad is not None:
        own = leaf._own_grad
        if own is not None and own() is leaf.grad and getattr(leaf.grad.flags, "writeable", True):
            leaf.grad += g
            return
        g = as_array(leaf.grad + g)
    elif shared:
        own_copy = empty_like(leaf.data)
        own_copy[...] = g
        g = own_copy
    leaf.grad = g
    leaf._own_grad = weakref.ref(g)


def _retain(node: Node, gy: Any) -> None:
    output = node.retained()
    if output is not None:
        output.grad = gy.copy(order="K") if output.grad is None else output.grad + gy
