"""Cases of recurrent layers. Dropout between layers, which draws random numbers, is tested in nn/test_recurrent.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases._case import Case, Draw, torch_f
from nnx import functional as F

GATES = {"rnn_tanh": 1, "rnn_relu": 1, "gru": 3, "lstm": 4}
PLAIN = {"num_layers": 1, "bidirectional": False, "batch_first": False}
REASON = "float32 rounding grows through the steps, and the largest case adds up over a thousand products"


def draw(
    name: str,
    steps: int,
    batch: int,
    features: int,
    hidden: int,
    proj: int = 0,
    runs: int = 1,
    layers: int = 1,
    bias: bool = True,
    states: bool = True,
) -> Draw:
    """x (T, N, I), the first states, and the parameters of `runs` layers and directions, `layers` layers."""
    width, rows = proj or hidden, GATES[name] * hidden
    shapes: list[tuple[int, ...]] = []
    if states:
        shapes += [(runs, batch, width)] + ([(runs, batch, hidden)] if name == "lstm" else [])
    for k in range(runs):
        inputs = features if k < runs // layers else width * (runs // layers)
        shapes += [(rows, inputs), (rows, width)] + [(rows,), (rows,)] * bias + ([(width, hidden)] if proj else [])

    def inputs_of(rng: np.random.Generator) -> tuple:
        x = rng.standard_normal((steps, batch, features))
        return (x, *(rng.standard_normal(s) * (1 if len(s) == 3 else min(0.5, 2 / hidden**0.5)) for s in shapes))

    return inputs_of


def layer(call: Any, name: str, states: bool, bias: bool) -> Any:
    """The function with states and parameters as positional arguments of their own."""

    def run(x: Any, *rest: Any, num_layers: int, bidirectional: bool, batch_first: bool, **more: Any) -> Any:
        h, weights = rest[:0], rest
        if states:
            n = 2 if name == "lstm" else 1
            h, weights = rest[:n], rest[n:]
        hx = None if not h else tuple(h) if name == "lstm" else h[0]
        return call(x, hx, list(weights), bias, num_layers, 0.0, False, bidirectional, batch_first, **more)

    return run


def case(name: str, variant: str, kwargs: dict[str, Any], torch: str = "", large: Any = None, **sizes: Any) -> Case:
    sizes = {"steps": 4, "batch": 3, "features": 2, "hidden": 3} | sizes
    inputs = draw(name, **sizes)
    bias = sizes.get("bias", True)
    return Case(
        f"{name.replace('_', '-')}{variant}",
        layer(getattr(F, name), name, True, bias),
        inputs,
        torch or layer(torch_f(name), name, True, bias),
        PLAIN | kwargs,
        grad=tuple(range(len(inputs(np.random.default_rng(0))))),
        batch=(),
        large=large,
        rtol32=2e-5,
        reason=REASON,
    )


def cell(name: str) -> Case:
    """One step: x (N, I), h (N, H), for LSTM c, and the parameters."""
    rows = GATES[name] * 3
    pair = name == "lstm"
    shapes = [(5, 2), *[(5, 3)] * (1 + pair), (rows, 2), (rows, 3), (rows,), (rows,)]

    def call(function: Any) -> Any:
        def run(x: Any, h: Any, *rest: Any) -> Any:
            return function(x, (h, rest[0]), *rest[1:]) if pair else function(x, h, *rest)

        return run

    return Case(
        f"{name.replace('_', '-')}-cell",
        call(getattr(F, f"{name}_cell")),
        lambda rng: tuple(rng.standard_normal(s) * 0.7 for s in shapes),
        call(torch_f(f"{name}_cell")),
        grad=tuple(range(len(shapes))),
        batch=(0, 1, 2) if pair else (0, 1),
    )


def without_state(name: str) -> Case:
    """No first state, no biases, the batch in front, so that it can be empty."""
    inputs = draw(name, steps=3, batch=4, features=2, hidden=3, bias=False, states=False)

    def torch_zeros(x: Any, hx: None, *rest: Any) -> Any:
        """PyTorch's functions, unlike its modules, do not make the zeros."""
        h = x.new_zeros((1, len(x), 3))
        return torch_f(name)(x, (h, h) if name == "lstm" else h, *rest)

    return Case(
        f"{name.replace('_', '-')}-batch-first",
        layer(getattr(F, name), name, False, False),
        inputs,
        layer(torch_zeros, name, False, False),
        PLAIN | {"batch_first": True},
        grad=(0, 1, 2),
    )


DEEP = {"num_layers": 2, "bidirectional": True}
LENGTHS = {"lengths": np.array([2, 4, 1])}
PACKED = "PyTorch takes lengths as a packed sequence: see functional/test_recurrent_torch.py"

CASES = [
    # of the large draws, the first has three blocks of sequences, the second is shared out by columns
    case("lstm", "", {}, large=draw("lstm", 5, 40, 7, 37)),
    case("gru", "", {}, large=draw("gru", 3, 8, 5, 150)),
    case("rnn_tanh", "", {}, large=draw("rnn_tanh", 5, 40, 7, 37)),
    case("rnn_relu", "", {}, large=draw("rnn_relu", 2, 2, 5, 520)),
    case("lstm", "-two-layers-bidirectional", DEEP, runs=4, layers=2, steps=3, batch=2, hidden=2),
    case("gru", "-two-layers-bidirectional", DEEP, runs=4, layers=2, steps=3, batch=2, hidden=2),
    case("rnn_tanh", "-two-layers-bidirectional", DEEP, runs=4, layers=2, steps=3, batch=2, hidden=2),
    case("lstm", "-projection", {"bidirectional": True}, runs=2, proj=2, large=draw("lstm", 3, 8, 5, 150, 149, 2)),
    case("lstm", "-lengths", {"bidirectional": True} | LENGTHS, PACKED, runs=2),
    case("lstm", "-lengths-projection", LENGTHS, PACKED, proj=2),
    case("gru", "-lengths", {"bidirectional": True} | LENGTHS, PACKED, runs=2),
    case("rnn_tanh", "-lengths", {"bidirectional": True} | LENGTHS, PACKED, runs=2),
    case("rnn_relu", "-no-bias", {}, bias=False),
    *[without_state(name) for name in GATES],
    *[cell(name) for name in GATES],
]
