"""Following receptive fields along the tape: what `nnx.diagnose.receptive_field` is made of."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, replace
from typing import Any

from nnx.autograd import Tensor

Ints = tuple[int, ...]

# Rooms of operations that compute each place from the same place, unless the shape says otherwise, and operations of
# other rooms that do; rooms of operations that read every place of what they are given.
_POINTWISE_ROOMS = (
    "nnx.autograd.arithmetic",
    "nnx.autograd.shape",
    "nnx.functional.activation",
    "nnx.functional.dropout",
)
_POINTWISE = ("batch_norm_infer", "local_response_norm")
_MIXING_ROOMS = ("nnx.autograd.reduction", "nnx.functional.linear", "nnx.functional.norm")


@dataclass(frozen=True)
class Field:
    """Unit i along a dimension sees ``start + i jump`` to ``end + i jump``, both included; there are `count` units."""

    start: Ints
    end: Ints
    jump: Ints
    count: Ints

    def slide(self, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, count: Ints) -> Field:
        """The field behind a sliding window."""
        across = zip(self.start, self.end, self.jump, kernel, padding, dilation, strict=True)
        edges = [(s - p * j, e + (d * (k - 1) - p) * j) for s, e, j, k, p, d in across]
        jump = tuple(j * s for j, s in zip(self.jump, stride, strict=True))
        return Field(tuple(s for s, _ in edges), tuple(e for _, e in edges), jump, count)

    def whole(self, count: Ints | None = None) -> Field:
        """The field of what reads every unit."""
        end = tuple(e + j * (n - 1) for e, j, n in zip(self.end, self.jump, self.count, strict=True))
        return Field(self.start, end, (0,) * len(end), count or (1,) * len(end))

    def join(self, other: Field) -> Field:
        """The smallest box around two fields; units that lie differently are taken all together."""
        a, b = (self, other) if (self.jump, self.count) == (other.jump, other.count) else (self.whole(), other.whole())
        return replace(a, start=tuple(map(min, a.start, b.start)), end=tuple(map(max, a.end, b.end)))


class Trace:
    """The fields of everything computed from `x` so far, worked out from the tape."""

    def __init__(self, owner: str, x: Tensor) -> None:
        n = x.ndim - 2
        self.owner = owner
        self.x = x
        self.nodes: dict[Any, Field] = {}
        self.input = Field((0,) * n, (0,) * n, (1,) * n, tuple(x.shape[2:]))

    def of(self, tensor: Tensor) -> Field:
        """The field of a Tensor that depends on the input."""
        return self.input if tensor._node is None else self._node(tensor._node)

    def _node(self, root: Any) -> Field:
        """The field of a node, from what is known of the nodes that it was made from; without recursion."""
        stack = [root]
        while stack:
            node = stack[-1]
            if node in self.nodes:
                stack.pop()
                continue
            parents = [p for p in node.parents if p is not None]
            missing = [p for p in parents if p is not self.x and p not in self.nodes]
            if missing:
                stack.extend(missing)
                continue
            fields = [self._behind(node, p, self.input if p is self.x else self.nodes[p]) for p in parents]
            joined = fields[0]
            for other in fields[1:]:
                joined = joined.join(other)
            self.nodes[node] = joined
            stack.pop()
        return self.nodes[root]

    def _behind(self, node: Any, parent: Any, seen: Field) -> Field:
        """The field of an operation's result, as far as it reads this parent."""
        room, name = node.grad.__module__, node.name.removesuffix("_relu")  # a layer and its ReLU are one in Sequential
        before, after = tuple(parent.shape[2:]), tuple(node.shape[2:])
        if room in _POINTWISE_ROOMS and name != "matmul":
            reshaped = math.prod(node.shape[1:]) == math.prod(parent.shape[1:])
            return seen if before == after or reshaped else seen.whole()
        if room.startswith("nnx.functional."):
            # what the operation saved for its gradient says how it slides
            names = list(inspect.signature(node.grad).parameters)[2:]
            saved = dict(zip(names, node.saved, strict=False))
            n = len(seen.count)
            if name in _POINTWISE:
                return seen
            if name == "conv":
                return seen.slide(
                    saved["w"].shape[2:], saved["stride"], _low(saved["padding"]), saved["dilation"], after
                )
            if name == "conv_max_pool":  # with the ReLU between them one operation in Sequential
                _, _, between, kernel, stride, padding, dilation = saved["pool"]
                seen = seen.slide(
                    saved["w"].shape[2:], saved["stride"], _low(saved["padding"]), saved["dilation"], between[2:]
                )
                return seen.slide(kernel, stride, _low(padding), dilation, after)
            if name == "max_pool":
                return seen.slide(saved["kernel"], saved["stride"], _low(saved["padding"]), saved["dilation"], after)
            if name == "avg_pool":
                kernel, stride, padding, *_ = saved["arguments"]
                return seen.slide(kernel, stride, _low(padding), (1,) * n, after)
            if name == "adaptive_avg_pool":
                if any(a % b for a, b in zip(before, after, strict=True)):
                    return seen.whole(after)
                step = tuple(a // b for a, b in zip(before, after, strict=True))
                return seen.slide(step, step, (0,) * n, (1,) * n, after)
            if name == "pad":
                return seen.slide((1,) * n, (1,) * n, _low(saved["pairs"][2:]), (1,) * n, after)
        if room in _MIXING_ROOMS or name == "matmul":
            return seen.whole()
        raise ValueError(
            f"{self.owner}: expected convolutions, pooling and operations on single places, got {name!r} of {room}, "
            "of which no more is known. Use measured_field"
        )


def _low(padding: Any) -> Ints:
    """The padding in front, of integers or of pairs (low, high)."""
    return tuple(p[0] if isinstance(p, tuple) else p for p in padding)
