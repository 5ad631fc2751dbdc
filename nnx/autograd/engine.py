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


class _Left:
    """The gradient in front of an operation, which nobody has computed yet."""

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
        self.pending: dict[Any, list] = {root: [gradient, False]}
        self.queue: list[tuple[float, Any]] = [(-root.number, root)]


def call_after(number: int, function: Callable[[], None]) -> None:
    """From inside a gradient function: call `function` in this pass, once every node from `number` on is done.

    Number 0 is the end of the pass: `function` is the last thing that happens before ``backward()`` returns. It is not
    called if the pass fails.
    """
    running = mode.running
    assert running is not None
    call = _Call(number, function)
    running.pending[call] = [None, False]
    heapq.heappush(running.queue, (-call.number, call))


def running_root() -> Node:
    """From inside a gradient function: the node that this pass began with."""
    assert mode.running is not None
    return mode.running.root


def backward(root: Node, gradient: Any, retain_graph: bool) -> None:
    """Send `gradient` from `root` to every leaf that can be reached.

    `pending` maps a node to ``[gradient so far, ours]``, where `ours` says that the engine allocated the array and may
    add to it in place. Any other array may be shared with a second branch, a saved array or the user.
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
        gy, _ = pending.pop(node)
        if isinstance(gy, np.generic):
            gy = np.asarray(gy)
        if node.saved is None:
            raise RuntimeError(
                f"backward: expected a graph that was not used yet, got one whose saved arrays are "
                f"gone (operation {node.name!r}). Pass retain_graph=True to the first backward()"
            )
        grad = node.grad
        if type(gy) is _Left:
            if node.retained is None:
                results = _behind[grad, _left[gy.grad]](node.needs, gy.gy, gy.saved, *node.saved)
            else:
                gy = gy.array()
                _retain(node, gy)
                results = grad(node.needs, gy, *node.saved)
        else:
            if node.retained is not None:
                _retain(node, gy)
            if grad in _left and _leave_to_parent(node, gy, pending, queue):
                if not retain_graph:
                    node.saved = None
                continue
            results = grad(node.needs, gy, *node.saved)
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
            elif parent not in pending:
                pending[parent] = [g, False]
                heapq.heappush(queue, (-parent.number, parent))
            else:
                entry = pending[parent]
                if type(entry[0]) is _Left:
                    entry[:] = entry[0].array(), True
                if not entry[1]:
                    entry[0] = backend_of(g).add(entry[0], g) if g.size >= LARGE_SUM else entry[0] + g
                    entry[1] = not isinstance(entry[0], np.generic)
                elif g.size >= LARGE_SUM:
                    backend_of(g).add_in_place(entry[0], g)
                else:
                    entry[0] += g
        del results, gy


def _leave_to_parent(node: Node, gy: Any, pending: dict[Any, list], queue: list[tuple[float, Any]]) -> bool:
    """Leave a gradient to the operation in front, if that can do both and nothing else has reached it."""
    parent = node.parents[0]
    if type(parent) is not Node or parent in pending or (parent.grad, _left[node.grad]) not in _behind:
        return False
    assert node.saved is not None
    pending[parent] = [_Left(node.grad, gy, node.saved), False]
    heapq.heappush(queue, (-parent.number, parent))
    return True


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
    return any(other is results[i] for j, other in enumerate(results) if j != i)


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
