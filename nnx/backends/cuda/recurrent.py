"""Recurrent layers: in each time step one matrix product and one launch for the gates (two of each with a projection).

The products that do not depend on the state are done for all steps at once, in the forward pass and for all gradients
of weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.backends.base.recurrent import GATES, RecurrentOps, times
from nnx.backends.cuda._arrays import contiguous, has_kernel
from nnx.backends.cuda._cublas import multiply
from nnx.backends.cuda._kernels import Kernels, blocks_for

_LIMIT = 2**31  # units of all sequences, which the kernels count with 32 bits
_k = Kernels("recurrent")


class RecurrentCUDA(RecurrentOps):
    """Overrides for float32 and float64."""

    xp: Any

    def recurrent(
        self,
        mode: str,
        x: Any,
        state: Any,
        w_ih: Any,
        w_hh: Any,
        b_ih: Any,
        b_hh: Any,
        w_hr: Any,
        lengths: Any,
        reverse: bool,
    ) -> tuple[Any, Any]:
        arrays = [a for a in (x, state, w_ih, w_hh, b_ih, b_hh, w_hr) if a is not None]
        if not x.size or not has_kernel(*arrays) or state.size >= _LIMIT:
            return super().recurrent(mode, x, state, w_ih, w_hh, b_ih, b_hh, w_hr, lengths, reverse)
        xp, dtype = self.xp, x.dtype
        steps, batch = x.shape[:2]
        rows, width = w_hh.shape
        bias = b_ih if mode == "GRU" or b_hh is None else b_hh if b_ih is None else b_ih + b_hh
        a = self.linear(x, w_ih, bias)  # type: ignore[attr-defined]
        states = xp.empty((steps + 1, batch, state.shape[1]), dtype)
        states[steps if reverse else 0] = state
        hidden = rows // GATES[mode]
        gates: Any = None if mode.startswith("RNN") else xp.empty((steps, batch, 4 * hidden), dtype)
        turned, lengths, b_hh = contiguous(w_hh).T, _whole(lengths), _c(b_hh)
        b = xp.empty((batch, rows), dtype) if mode == "GRU" else None
        m = p = None
        if w_hr is not None:
            m, p, project = xp.empty((batch, hidden), dtype), xp.empty((batch, width), dtype), contiguous(w_hr).T
        blocks = blocks_for(batch * hidden)
        for t in times(steps, reverse):
            old, new = (states[t + 1], states[t]) if reverse else (states[t], states[t + 1])
            step = (lengths, t, batch, hidden)
            if b is not None:
                multiply(b, old, turned)
                _k.launch("gru_forward", dtype, blocks, 256, a[t], b, b_hh, old, new, gates[t], *step)
                continue
            multiply(a[t], old[:, :width], turned, add=True)
            if mode != "LSTM":
                _k.launch("rnn_forward", dtype, blocks, 256, a[t], old, new, *step, int(mode == "RNN_RELU"))
                continue
            _k.launch("lstm_forward", dtype, blocks, 256, a[t], old, new, gates[t], m, *step, width)
            if m is not None:
                multiply(p, m, project)
                whole = (lengths, t, batch, width, width + hidden)
                _k.launch("project", dtype, blocks_for(batch * width), 256, p, old, new, *whole)
        return states, gates

    def recurrent_backward(
        self,
        mode: str,
        gs: Any,
        x: Any,
        states: Any,
        gates: Any,
        w_ih: Any,
        w_hh: Any,
        w_hr: Any,
        lengths: Any,
        reverse: bool,
        needs: tuple[bool, ...],
    ) -> tuple[Any, ...]:
        arrays = [a for a in (gs, x, states, gates, w_ih, w_hh, w_hr) if a is not None]
        if not x.size or not has_kernel(*arrays) or states[0].size >= _LIMIT:
            return super().recurrent_backward(
                mode, gs, x, states, gates, w_ih, w_hh, w_hr, lengths, reverse, needs
            )  # fmt: skip
        xp, dtype = self.xp, gs.dtype
        steps, batch = x.shape[:2]
        rows, width = w_hh.shape
        gs, states, w_hh, lengths = contiguous(gs), contiguous(states), contiguous(w_hh), _whole(lengths)
        gates, w_hr = _c(gates), _c(w_hr)
        hidden = rows // GATES[mode]
        ga = xp.empty((steps, batch, rows), dtype)  # of W_ih x_t + b_ih
        gb = xp.empty((steps, batch, rows), dtype) if mode == "GRU" else ga  # of W_hh h + b_hh
        carry = xp.empty((batch, states.shape[2]), dtype)
        gh = m = None
        if w_hr is not None:
            gh = xp.empty((steps, batch, width), dtype)
            m = xp.empty((steps, batch, hidden), dtype)
        blocks = blocks_for(batch * hidden)
        later = 0
        for t in reversed(times(steps, reverse)):
            before, after = (t + 1, t) if reverse else (t, t + 1)
            old, new = states[before], states[after]
            given = (gs[after], carry, later)
            step = (lengths, t, batch, hidden)
            if mode == "LSTM":
                gm = mt = None
                if gh is not None and m is not None:
                    whole = (lengths, t, batch, width, states.shape[2])
                    _k.launch("project_backward", dtype, blocks_for(batch * width), 256, *given, gh[t], *whole)
                    gm, mt = xp.empty((batch, hidden), dtype), m[t]
                    multiply(gm, gh[t], w_hr)
                _k.launch(
                    "lstm_backward", dtype, blocks, 256, *given, old, new, gates[t], gm, ga[t], mt, *step, width
                )  # fmt: skip
            elif mode == "GRU":
                _k.launch("gru_backward", dtype, blocks, 256, *given, old, gates[t], ga[t], gb[t], *step)
            else:
                _k.launch("rnn_backward", dtype, blocks, 256, *given, new, ga[t], *step, int(mode == "RNN_RELU"))
            multiply(carry[:, :width], gb[t], w_hh, add=True)
            later = 1
        old_h = (states[1:] if reverse else states[:-1])[:, :, :width]
        gx, gw_ih, gb_ih = self.linear_backward(ga, x, w_ih, (needs[0], needs[2], needs[4]))  # type: ignore[attr-defined]
        _, gw_hh, gb_hh = self.linear_backward(gb, old_h, w_hh, (False, needs[3], needs[5]))  # type: ignore[attr-defined]
        gstate = gw_hr = None
        if needs[1]:
            gstate = carry
            gstate += gs[steps if reverse else 0]
        if needs[6] and gh is not None and m is not None:
            gw_hr = xp.empty((width, hidden), dtype)
            multiply(gw_hr, gh.reshape(steps * batch, width).T, m.reshape(steps * batch, hidden))
        return gx, gstate, gw_ih, gw_hh, gb_ih, gb_hh, gw_hr


def _c(a: Any) -> Any:
    return None if a is None else contiguous(a)


def _whole(lengths: Any) -> Any:
    return None if lengths is None else contiguous(lengths.astype(np.int64, copy=False))
