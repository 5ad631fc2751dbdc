"""What the ranks agree on before they begin: the same program, the same model, the same numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from nnx.distributed.communicator import Communicator


def compare(comm: Communicator, model: Any) -> None:
    """RuntimeError on every rank, naming the first one that differs from rank 0 and how.

    Compared are nnx's version, the instruction-set level, the convolution precision, and the names, shapes and types of
    parameters and buffers.
    """
    own = description(model)
    digest = np.frombuffer(hashlib.sha256("\n".join(own).encode()).digest(), np.uint8).copy()
    digests = comm.allgather(digest)
    other = [rank for rank in range(comm.size) if not np.array_equal(digests[rank], digests[0])]
    if not other:
        return
    first = comm.broadcast_text("\n".join(own)).split("\n")
    theirs = comm.broadcast_text("\n".join(own), other[0]).split("\n")
    a, b = next(
        ((x, y) for x, y in zip([*first, "nothing more"], [*theirs, "nothing more"], strict=False) if x != y),
        ("", ""),
    )
    raise RuntimeError(
        f"DataParallel: expected the same program and model on all {comm.size} ranks, got rank {other[0]} with {b}, "
        f"where rank 0 has {a}"
        + (f" (ranks {', '.join(map(str, other))} differ from rank 0)" if len(other) > 1 else "")
    )


def description(model: Any) -> list[str]:
    """One line for each thing that must be the same on all ranks."""
    import nnx
    from nnx._ext import simd

    lines = [
        f"nnx {nnx.__version__}",
        f"instruction-set level {simd.level()}",
        f"{nnx.get_conv_precision()} convolution precision",
    ]
    lines += [f"parameter {name!r} of {p.dtype} {p.shape}" for name, p in model.named_parameters()]
    lines += [f"buffer {name!r} of {b.dtype} {b.shape}" for name, b in model.named_buffers()]
    return lines


def broadcast_arrays(comm: Communicator, arrays: Iterable[Any], root: int = 0) -> None:
    """Overwrite the arrays with those of rank `root`, with one message per type."""
    groups: dict[Any, list[Any]] = {}
    for array in arrays:
        groups.setdefault(array.dtype, []).append(array)
    for dtype, group in groups.items():
        wire = np.dtype(np.uint8) if dtype.kind == "b" else dtype
        flat = np.concatenate([np.ravel(a).astype(wire, copy=False) for a in group])
        comm.broadcast(flat, root)
        start = 0
        for array in group:
            array[...] = flat[start : start + array.size].reshape(array.shape)
            start += array.size


def broadcast_tree(comm: Communicator, tree: Any, root: int = 0) -> Any:
    """Nested dicts, lists, arrays, numbers and strings of rank `root`, as JSON and flat arrays; others pass None."""
    from nnx.train.checkpoint import pack, unpack

    arrays: dict[str, np.ndarray] = {}
    text = None
    if comm.rank == root:
        packed = pack(tree, "", arrays)
        text = json.dumps({"tree": packed, "arrays": {k: [a.dtype.str, list(a.shape)] for k, a in arrays.items()}})
    content = json.loads(comm.broadcast_text(text, root))
    if comm.rank != root:
        arrays = {k: np.empty(shape, np.dtype(kind)) for k, (kind, shape) in content["arrays"].items()}
    broadcast_arrays(comm, arrays.values(), root)
    return tree if comm.rank == root else unpack(content["tree"], arrays)
