"""Recurrent layers: the products over all time steps by ext/gemm.pyx, the steps by ext/recurrent.pyx."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx._ext import gemm as _gemm
from nnx._ext import recurrent as _recurrent
from nnx._ext.memory import empty
from nnx.backends.base.recurrent import Array, Maybe, RecurrentOps
from nnx.backends.cpu._arrays import has_kernel, threads_for
from nnx.backends.cpu.gemm import column_sums

_STEP = 0.1  # of a multiplication, relative to a comparison


class RecurrentKernels(RecurrentOps):
    """Overrides for float32 and float64."""

    def recurrent(
        self,
        mode: str,
        x: Array,
        state: Array,
        w_ih: Array,
        w_hh: Array,
        b_ih: Maybe,
        b_hh: Maybe,
        w_hr: Maybe,
        lengths: Maybe,
        reverse: bool,
    ) -> tuple[Array, Maybe]:
        if not has_kernel(*(a for a in (x, state, w_ih, w_hh, b_ih, b_hh, w_hr) if a is not None)):
            return super().recurrent(mode, x, state, w_ih, w_hh, b_ih, b_hh, w_hr, lengths, reverse)
        steps, batch, features = x.shape
        rows, width = w_hh.shape
        states = empty((steps + 1, batch, state.shape[1]), x.dtype)
        states[steps if reverse else 0] = state
        flat = np.ascontiguousarray(x).reshape(steps * batch, features)
        bias = b_ih if b_hh is None else b_hh if b_ih is None else b_ih + b_hh
        gates, rest = None, None
        if mode == "GRU":  # the last third of b_hh belongs to q, which r multiplies
            hidden = rows // 3
            gates = empty((steps, batch, 4 * hidden), x.dtype)
            sums = gates.reshape(steps * batch, 4 * hidden)
            _product(flat, w_ih[: 2 * hidden], None if bias is None else bias[: 2 * hidden], sums[:, : 2 * hidden])
            _product(flat, w_ih[2 * hidden :], None if b_ih is None else b_ih[2 * hidden :], sums[:, 3 * hidden :])
            rest = None if b_hh is None else np.ascontiguousarray(b_hh[2 * hidden :])
        elif mode == "LSTM":
            gates = empty((steps, batch, rows), x.dtype)
            _product(flat, w_ih, bias, gates.reshape(steps * batch, rows))
        else:
            sums = states[:-1] if reverse else states[1:]
            _product(flat, w_ih, bias, sums.reshape(steps * batch, rows))
        threads = threads_for(steps * batch * rows, _STEP * width + 5)
        _recurrent.forward(mode, gates, states, _c(w_hh), rest, _c(w_hr), _c(lengths), reverse, threads)
        return states, gates

    def recurrent_backward(
        self,
        mode: str,
        gs: Array,
        x: Array,
        states: Array,
        gates: Maybe,
        w_ih: Array,
        w_hh: Array,
        w_hr: Maybe,
        lengths: Maybe,
        reverse: bool,
        needs: tuple[bool, ...],
    ) -> tuple[Maybe, ...]:
        if not has_kernel(*(a for a in (gs, x, states, gates, w_ih, w_hh, w_hr) if a is not None)):
            return super().recurrent_backward(mode, gs, x, states, gates, w_ih, w_hh, w_hr, lengths, reverse, needs)
        steps, batch, features = x.shape
        rows, width = w_hh.shape
        count = steps * batch
        ga = empty((steps, batch, width if gates is None else gates.shape[2]), gs.dtype)
        gstate = empty((batch, states.shape[2]), gs.dtype)
        gh = m = None
        if w_hr is not None:
            gh = empty((steps, batch, width), gs.dtype)
            m = empty((steps, batch, w_hr.shape[1]), gs.dtype)
        threads = threads_for(count * rows, _STEP * width + 5)
        _recurrent.backward(
            mode, _c(gs), _c(gates), _c(states), _c(w_hh), _c(w_hr), _c(lengths), ga, gstate, gh, m, reverse, threads
        )  # fmt: skip

        sums = ga.reshape(count, ga.shape[2])
        flat = np.ascontiguousarray(x).reshape(count, features)
        old = (states[1:] if reverse else states[:-1])[:, :, :width].reshape(count, width)
        gx = gw_ih = gw_hh = gb_ih = gb_hh = gw_hr = None
        # r, z, q, n: the input reaches r, z and n, the state r, z and q
        parts = [slice(0, rows)] if mode != "GRU" else [slice(0, 2 * rows // 3), slice(rows, None)]
        if needs[0]:
            gx, *more = [_matmul(sums[:, p], w) for p, w in zip(parts, _split(w_ih, parts), strict=True)]
            for other in more:
                gx += other
            gx = gx.reshape(x.shape)
        if needs[2]:
            gw_ih = np.empty_like(w_ih, order="C")
            for p, part in zip(parts, _split(gw_ih, parts), strict=True):
                _product(sums[:, p].T, flat.T, None, part)
        if needs[3]:
            gw_hh = _matmul(sums[:, :rows].T, old)
        if needs[4] or needs[5]:
            total = column_sums(sums)
            gb_ih = np.concatenate([total[p] for p in parts]) if needs[4] else None
            gb_hh = total[:rows].copy() if needs[5] else None
        if needs[6] and gh is not None and m is not None:
            gw_hr = _matmul(gh.reshape(count, width).T, m.reshape(count, m.shape[2]))
        return gx, gstate if needs[1] else None, gw_ih, gw_hh, gb_ih, gb_hh, gw_hr


def _c(a: Any) -> Any:
    return None if a is None else np.ascontiguousarray(a)


def _split(w: Array, parts: list[slice]) -> list[Array]:
    """The rows of `w`, as many for each part as it is wide."""
    return [w] if len(parts) == 1 else [w[: parts[0].stop], w[parts[0].stop :]]


def _product(x: Array, w: Array, bias: Maybe, y: Array) -> None:
    """``y = x w^T + bias``, into a given array whose rows may be apart."""
    threads = threads_for(y.size, _STEP * x.shape[1])
    _gemm.product(_regular(x), _regular(w).T, y, _c(bias), threads)


def _matmul(a: Array, b: Array) -> Array:
    return _gemm.multiply(a, b, None)


def _regular(a: Array) -> Array:
    """`a`, or a copy where neither rows nor columns are contiguous."""
    return a if a.itemsize in a.strides and min(a.strides) > 0 else np.ascontiguousarray(a)
