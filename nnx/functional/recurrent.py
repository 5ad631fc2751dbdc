"""Recurrent layers over whole sequences, and their cells for a single step.

Arguments are those of torch.lstm, torch.gru, torch.rnn_tanh and torch.rnn_relu and of their cells. The formulas are in
`nnx/backends/base/recurrent.py`. LSTM: Hochreiter and Schmidhuber (1997), "Long short-term memory", with the forget
gate of Gers et al. (2000); GRU: Cho et al. (2014), arXiv:1406.1078, with the reset gate behind the product;
projections: Sak et al. (2014), arXiv:1402.1128.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnx import _check
from nnx._device import as_array, device_of, is_device_array, move, same_device
from nnx.autograd import Tensor, as_tensor, cast_input, record
from nnx.autograd.arithmetic import where
from nnx.autograd.shape import cat, stack
from nnx.backends import backend_of
from nnx.backends.base.recurrent import GATES
from nnx.functional.dropout import dropout_as

__all__ = [
    "gru",
    "gru_cell",
    "lstm",
    "lstm_cell",
    "rnn_relu",
    "rnn_relu_cell",
    "rnn_tanh",
    "rnn_tanh_cell",
]


# -- whole sequences -------------------------------------------------------------------------------


def lstm(
    input: Any,
    hx: Any,
    params: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    *,
    lengths: Any = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Long short-term memory: ``c' = f c + i g, h' = o tanh(c')`` with gates i, f, o and a candidate g.

    input:        (T, N, I), with `batch_first` (N, T, I), or (T, I) without a batch
    hx:           the first states h (D L, N, P) and c (D L, N, H), or None for zeros; L layers, D directions
    params:       for each layer and direction w_ih (4 H, I), w_hh (4 H, P), with `has_biases` b_ih and b_hh (4 H,), and
                  where h is projected w_hr (P, H); P = H without. Rows: i, f, g, o
    dropout:      the share of the outputs of all layers but the last that is dropped while `train`
    lengths:      (N,) integers from 1 to T: the steps of each sequence that count. Behind them the output is 0, and the
                  last state is that of the last step that counts. On the CPU or where the input is; those on a CUDA
                  device are taken as they are

    Returns the output (T, N, D P), of the last layer, and the last h and c of all layers.
    """
    y, (h, c) = recurrent_as(
        "lstm", "LSTM", input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first, lengths
    )
    return y, h, c


def gru(
    input: Any,
    hx: Any,
    params: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    *,
    lengths: Any = None,
) -> tuple[Tensor, Tensor]:
    """Gated recurrent unit: ``h' = n + z (h - n)`` with ``n = tanh(W x + b + r (U h + d))`` and gates r, z.

    Arguments as of `lstm`: hx is one array (D L, N, H) or None, the rows of the weights (3 H, ...) are r, z, n.

    Returns the output (T, N, D H) and the last h of all layers.
    """
    y, (h,) = recurrent_as(
        "gru", "GRU", input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first, lengths
    )
    return y, h


def rnn_tanh(
    input: Any,
    hx: Any,
    params: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    *,
    lengths: Any = None,
) -> tuple[Tensor, Tensor]:
    """Elman's network, ``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)``; arguments as of `gru`, weights (H, ...)."""
    y, (h,) = recurrent_as(
        "rnn_tanh", "RNN_TANH", input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first,
        lengths,
    )  # fmt: skip
    return y, h


def rnn_relu(
    input: Any,
    hx: Any,
    params: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    *,
    lengths: Any = None,
) -> tuple[Tensor, Tensor]:
    """``h' = max(0, W_ih x + b_ih + W_hh h + b_hh)``; arguments as of `gru`, weights (H, ...)."""
    y, (h,) = recurrent_as(
        "rnn_relu", "RNN_RELU", input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first,
        lengths,
    )  # fmt: skip
    return y, h


def recurrent_as(
    owner: str,
    mode: str,
    input: Any,
    hx: Any,
    params: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    lengths: Any = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """All layers of one kind, for the functions above and the modules: the output and the last states."""
    layers = _check.integer(owner, "num_layers", num_layers, 1)
    p = _check.real(owner, "dropout", dropout, 0, 1)
    directions = 2 if bidirectional else 1
    weights = _weights(owner, mode, params, bool(has_biases), layers, directions)
    x, batched = _sequence(owner, input, weights[0][0], batch_first)
    sizes = _state_sizes(mode, weights[0])
    first = _first_states(owner, hx, sizes, layers * directions, x, batched)
    valid = _lengths(owner, lengths, x, batched)
    if valid is not None:
        x = _cut(x, valid)
    width = sizes[0]
    last: list[list[Tensor]] = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            k = layer * directions + direction
            y, state = _run(mode, x, first[k], weights[k], width, direction == 1, valid)
            outputs.append(y)
            last.append([state[:, :width], state[:, width:]] if mode == "LSTM" else [state])
        x = outputs[0] if directions == 1 else cat(outputs, -1)
        if layer < layers - 1:
            x = dropout_as(owner, x, p, bool(train))
    states = tuple([stack([s[i] for s in last]) for i in range(len(sizes))])
    if not batched:
        return x[:, 0], tuple([s[:, 0] for s in states])
    return x.transpose(0, 1) if batch_first else x, states


def _run(
    mode: str, x: Tensor, state: Tensor, weights: tuple, width: int, reverse: bool, lengths: Any
) -> tuple[Tensor, Tensor]:
    """One layer in one direction: the output (T, N, P) and the last state (N, S)."""
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    b_i, b_h, project = (None if w is None else w.data for w in (b_ih, b_hh, w_hr))
    be = backend_of(x.data)
    states, gates = be.recurrent(
        mode, x.data, state.data, w_ih.data, w_hh.data, b_i, b_h, project, lengths, reverse
    )  # fmt: skip
    all_states = record(
        states, _recurrent_grad, (x, state, w_ih, w_hh, b_ih, b_hh, w_hr), be, mode, x.data, states, gates, w_ih.data,
        w_hh.data, project, lengths, reverse,
    )  # fmt: skip
    steps = slice(0, -1) if reverse else slice(1, None)
    y = all_states[steps, :, :width]
    return y if lengths is None else _cut(y, lengths), all_states[0 if reverse else -1]


def _cut(x: Tensor, lengths: Any) -> Tensor:
    """0 in the steps behind the end of a sequence, whatever was there."""
    xp = backend_of(x.data).xp
    inside = xp.arange(x.shape[0])[:, None] < lengths
    return where(inside[:, :, None], x, xp.zeros((), x.dtype))


def _recurrent_grad(needs, gs, be, mode, x, states, gates, w_ih, w_hh, w_hr, lengths, reverse):
    return be.recurrent_backward(mode, gs, x, states, gates, w_ih, w_hh, w_hr, lengths, reverse, needs)


# -- a single step ---------------------------------------------------------------------------------


def lstm_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> tuple[Tensor, Tensor]:
    """One step of `lstm`: input (N, I) or (I,), hx (h, c) of (N, H) each or None; returns the new h and c.

    >>> h, c = lstm_cell(np.zeros((2, 3)), None, np.ones((4, 3)), np.ones((4, 1)))
    >>> h.shape, c.shape
    ((2, 1), (2, 1))
    """
    h, c = cell_as("lstm_cell", "LSTM", input, hx, (w_ih, w_hh, b_ih, b_hh))
    return h, c


def gru_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Tensor:
    """One step of `gru`: input (N, I) or (I,), hx (N, H) or None; returns the new h."""
    return cell_as("gru_cell", "GRU", input, hx, (w_ih, w_hh, b_ih, b_hh))[0]


def rnn_tanh_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Tensor:
    """One step of `rnn_tanh`: input (N, I) or (I,), hx (N, H) or None; returns the new h."""
    return cell_as("rnn_tanh_cell", "RNN_TANH", input, hx, (w_ih, w_hh, b_ih, b_hh))[0]


def rnn_relu_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Tensor:
    """One step of `rnn_relu`: input (N, I) or (I,), hx (N, H) or None; returns the new h."""
    return cell_as("rnn_relu_cell", "RNN_RELU", input, hx, (w_ih, w_hh, b_ih, b_hh))[0]


def cell_as(owner: str, mode: str, input: Any, hx: Any, params: Sequence[Any]) -> tuple[Tensor, ...]:
    """One step of one layer, for the functions above and the modules: h, or h and c."""
    biased = params[2] is not None or params[3] is not None
    if biased and (params[2] is None or params[3] is None):
        raise ValueError(f"{owner}: expected both b_ih and b_hh or neither, got one of them")
    (weights,) = _weights(owner, mode, params if biased else params[:2], biased, 1, 1)
    x = cast_input(owner, input, weights[0].dtype)
    same_device(owner, params=weights[0].data, input=x.data)
    features = weights[0].shape[1]
    if x.ndim not in (1, 2) or x.shape[-1] != features:
        raise ValueError(f"{owner}: expected input of shape (N, {features}) or ({features},), got shape {x.shape}")
    batched = x.ndim == 2
    x = x.unsqueeze(0) if batched else x.reshape(1, 1, features)
    sizes = _state_sizes(mode, weights)
    (state,) = _first_states(owner, hx, sizes, 1, x, batched, layered=False)
    y, last = _run(mode, x, state, weights, sizes[0], False, None)
    states = (last[:, : sizes[0]], last[:, sizes[0] :]) if mode == "LSTM" else (last,)
    return states if batched else tuple([s[0] for s in states])


# -- checks ----------------------------------------------------------------------------------------


def _weights(
    owner: str, mode: str, params: Sequence[Any], biased: bool, layers: int, directions: int
) -> list[tuple[Any, ...]]:
    """The parameters of each layer and direction as (w_ih, w_hh, b_ih, b_hh, w_hr), None for what there is not."""
    tensors = [as_tensor(w) for w in params]
    runs = layers * directions
    plain = 4 if biased else 2
    allowed = (plain, plain + 1) if mode == "LSTM" else (plain,)
    each = len(tensors) // runs
    if each not in allowed or each * runs != len(tensors):
        raise ValueError(
            f"{owner}: expected params with {' or '.join(map(str, allowed))} arrays for each of {runs} layers and "
            f"directions, got {len(tensors)} arrays"
        )
    first = tensors[0]
    for i, w in enumerate(tensors):
        if w.dtype != first.dtype or w.dtype.kind != "f":
            raise TypeError(
                f"{owner}: expected params of one float dtype, got {first.dtype} and {w.dtype} (number {i})"
            )
    same_device(owner, **{f"params number {i}": w.data for i, w in enumerate(tensors)})
    projected = each > plain
    rows, inputs = _matrix(owner, first)
    hidden = rows // GATES[mode]
    width = _matrix(owner, tensors[each - 1])[0] if projected else hidden
    groups = []
    for k in range(runs):
        group = tensors[k * each : (k + 1) * each]
        wanted: list[tuple[int, ...]] = [
            (GATES[mode] * hidden, inputs if k < directions else width * directions),
            (GATES[mode] * hidden, width),
        ]
        wanted += [(GATES[mode] * hidden,)] * 2 if biased else []
        wanted += [(width, hidden)] if projected else []
        for i, (w, shape) in enumerate(zip(group, wanted, strict=True)):
            if w.shape != shape or hidden == 0 or width == 0:
                raise ValueError(
                    f"{owner}: expected params number {k * each + i} of shape {shape} ({GATES[mode]} rows for each of "
                    f"{hidden} units), got shape {w.shape}"
                )
        bias = group[2:4] if biased else [None, None]
        groups.append((group[0], group[1], *bias, group[-1] if projected else None))
    return groups


def _matrix(owner: str, w: Tensor) -> tuple[int, int]:
    if w.ndim != 2:
        raise ValueError(f"{owner}: expected weights with 2 dimensions, got shape {w.shape}")
    return w.shape[0], w.shape[1]


def _state_sizes(mode: str, weights: tuple[Any, ...]) -> list[int]:
    """The width of h, and for LSTM of c."""
    rows, width = weights[1].shape
    return [width, rows // GATES[mode]] if mode == "LSTM" else [width]


def _sequence(owner: str, input: Any, w_ih: Tensor, batch_first: bool) -> tuple[Tensor, bool]:
    """The input as (T, N, I), and whether it came with a batch."""
    if hasattr(input, "batch_sizes"):
        raise TypeError(
            f"{owner}: expected input to be an array or Tensor, got a {type(input).__name__}. Packed sequences are not "
            "offered: pass the padded array, and the length of each sequence as lengths="
        )
    x = cast_input(owner, input, w_ih.dtype)
    same_device(owner, params=w_ih.data, input=x.data)
    features = w_ih.shape[1]
    order = "(N, T, {})" if batch_first else "(T, N, {})"
    if x.ndim not in (2, 3) or x.shape[-1] != features:
        raise ValueError(
            f"{owner}: expected input of shape {order.format(features)} or (T, {features}), got shape {x.shape}"
        )
    batched = x.ndim == 3
    if not batched:
        x = x.unsqueeze(1)
    elif batch_first:
        x = x.transpose(0, 1)
    if x.shape[0] == 0:
        raise ValueError(f"{owner}: expected input with at least one time step, got shape {as_tensor(input).shape}")
    return x, batched


def _first_states(
    owner: str, hx: Any, sizes: list[int], runs: int, x: Tensor, batched: bool, layered: bool = True
) -> list[Tensor]:
    """For each layer and direction the first state (N, S): h, and for LSTM c behind it."""
    batch = x.shape[1]
    if hx is None:
        return [Tensor(backend_of(x.data).xp.zeros((batch, sum(sizes)), x.dtype))] * runs
    pair = len(sizes) == 2
    if pair and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
        raise TypeError(f"{owner}: expected hx to be a pair (h, c) or None, got {type(hx).__name__}")
    parts = []
    for name, value, size in zip(("h", "c") if pair else ("hx",), hx if pair else (hx,), sizes, strict=True):
        state = as_tensor(value, x.dtype)
        shape = ((runs,) if layered else ()) + ((batch,) if batched else ()) + (size,)
        if state.dtype != x.dtype:
            raise TypeError(f"{owner}: expected {name} of dtype {x.dtype} like the input, got {state.dtype}")
        if state.shape != shape:
            raise ValueError(f"{owner}: expected {name} of shape {shape}, got shape {state.shape}")
        same_device(owner, input=x.data, **{name: state.data})
        parts.append(state.reshape(runs, batch, size))
    joined = cat(parts, -1) if pair else parts[0]
    return [joined[k] for k in range(runs)]


def _lengths(owner: str, value: Any, x: Tensor, batched: bool) -> Any:
    """`lengths` as (N,) of int64 on the device of x; None where all sequences are full."""
    if value is None:
        return None
    lengths = as_array(value.data if isinstance(value, Tensor) else value)
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"{owner}: expected lengths of an integer dtype, got {lengths.dtype}")
    steps, batch = x.shape[:2]
    if not batched or lengths.shape != (batch,):
        what = f"of shape ({batch},)" if batched else "to be None for input without a batch"
        raise ValueError(f"{owner}: expected lengths {what}, got shape {lengths.shape}")
    if is_device_array(lengths):  # not looked at, which would wait for the device
        same_device(owner, input=x.data, lengths=lengths)
    elif batch and not (lengths.min() >= 1 and lengths.max() <= steps):
        raise ValueError(f"{owner}: expected lengths in [1, {steps}], got values in [{lengths.min()}, {lengths.max()}]")
    return move(lengths.astype(np.int64), device_of(x.data))
