"""Recurrent layers in plain NumPy: one layer, in one direction, over a whole sequence.

Every kind of layer computes, for the input x_t and the state h before it,

    a = W_ih x_t + b_ih        b = W_hh h + b_hh

for one to four *gates*, each as wide as the state, one below the other in the rows of the weights:

    RNN_TANH   h' = tanh(a + b)                    (RNN_RELU: the larger of a + b and 0)
    GRU        r, z = sigmoid(a + b)               two gates
               n = tanh(a_n + r q), q = b_n        the candidate; r decides how much of the past it sees
               h' = n + z (h - n)
    LSTM       i, f, o = sigmoid(a + b)            three gates
               g = tanh(a + b)                     the candidate
               c' = f c + i g                      the cell
               h' = o tanh(c')                     or, with a projection, W_hr (o tanh(c'))

The first product does not depend on the state, so it is done for all time steps at once; the second one cannot be.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray
Maybe = np.ndarray | None

_quiet = np.errstate(all="ignore")  # infinities and NaN are passed on without a warning

GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "GRU": 3, "LSTM": 4}  # rows of the weights per unit of the state


class RecurrentOps:
    """A recurrent layer and its gradient."""

    xp: Any

    @_quiet
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
        """The states of a layer before, between and after all time steps.

        mode:     a key of GATES
        x:        (T, N, I); `reverse` reads it from its end
        state:    (N, S), the first state: h, and for LSTM c behind it, S = P + H
        w_ih:     (G H, I), and w_hh (G H, P), with P = H where there is no projection w_hr (P, H)
        b_ih, b_hh:
                  (G H,) or None
        lengths:  (N,) of int64 or None: a sequence keeps its state in steps t >= its length

        Returns states (T + 1, N, S), in the order of time: the first state is number 0, or T if `reverse`; and what
        the gradient needs: None, or (T, N, 4 H) with i, f, g, o or r, z, q, n next to each other, 0 in steps not taken.
        """
        steps, batch = x.shape[:2]
        width = w_hh.shape[1]  # of h
        hidden = w_hh.shape[0] // GATES[mode]
        from_x = self.linear(x, w_ih, b_ih)  # type: ignore[attr-defined]
        states = self.xp.empty((steps + 1, batch, state.shape[1]), from_x.dtype)
        states[steps if reverse else 0] = state
        gates = None if mode.startswith("RNN") else self.xp.zeros((steps, batch, 4 * hidden), from_x.dtype)
        for t in times(steps, reverse):
            old, new = (states[t + 1], states[t]) if reverse else (states[t], states[t + 1])
            from_h = self.linear(old[:, :width], w_hh, b_hh)  # type: ignore[attr-defined]
            result, kept = self._step(mode, from_x[t], from_h, old, w_hr)
            taken = _taken(lengths, t)
            new[...] = result if taken is None else np.where(taken, result, old)
            if gates is not None and kept is not None:
                gates[t] = kept if taken is None else np.where(taken, kept, 0)
        return states, gates

    def _step(self, mode: str, a: Array, b: Array, old: Array, w_hr: Maybe) -> tuple[Array, Maybe]:
        """The next state and the gates, for the two products a and b (N, G H)."""
        sigmoid, tanh = self.sigmoid, self.tanh  # type: ignore[attr-defined]
        if mode == "RNN_TANH":
            return tanh(a + b), None
        if mode == "RNN_RELU":
            return self.relu(a + b), None  # type: ignore[attr-defined]
        hidden = a.shape[1] // GATES[mode]
        if mode == "GRU":
            r, z = np.split(sigmoid((a + b)[:, : 2 * hidden]), 2, axis=1)
            q = b[:, 2 * hidden :]
            n = tanh(a[:, 2 * hidden :] + r * q)
            return n + z * (old - n), np.concatenate((r, z, q, n), axis=1)
        i, f, g, o = np.split(a + b, 4, axis=1)
        i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
        c = f * old[:, -hidden:] + i * g
        h = o * tanh(c)
        if w_hr is not None:
            h = self.linear(h, w_hr, None)  # type: ignore[attr-defined]
        return np.concatenate((h, c), axis=1), np.concatenate((i, f, g, o), axis=1)

    @_quiet
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
        """The gradients of x, state, w_ih, w_hh, b_ih, b_hh and w_hr, each where `needs` says so.

        gs (T + 1, N, S) is the gradient of `states`; the others are arguments and results of `recurrent`. Back-
        propagation through time: what arrives at the state after a step, from above and from later steps, gives the
        gradient of the step's gates, and through W_hh that of the state before it.
        """
        steps, batch = x.shape[:2]
        rows, width = w_hh.shape
        ga = self.xp.zeros((steps, batch, rows), gs.dtype)  # of W_ih x_t + b_ih
        gb = self.xp.zeros((steps, batch, rows), gs.dtype) if mode == "GRU" else ga  # of W_hh h + b_hh
        later = gs[0 if reverse else steps].copy()  # the gradient of the state after the step
        gw_hr = None if w_hr is None else np.zeros_like(w_hr)
        for t in reversed(times(steps, reverse)):
            before, after = (t + 1, t) if reverse else (t, t + 1)
            taken = _taken(lengths, t)
            now = later if taken is None else np.where(taken, later, 0)
            kept = None if gates is None else gates[t]
            ga[t], gb[t], earlier, m = self._step_backward(mode, now, states[before], states[after], kept, w_hr)
            if taken is not None:
                ga[t], gb[t] = np.where(taken, ga[t], 0), np.where(taken, gb[t], 0)
                earlier = np.where(taken, earlier, later)
                m = None if m is None else np.where(taken, m, 0)
            earlier[:, :width] += self.matmul(gb[t], w_hh)  # type: ignore[attr-defined]
            later = earlier + gs[before]
            if gw_hr is not None and needs[6]:
                gw_hr += self.matmul(now[:, :width].T, m)  # type: ignore[attr-defined]
        old_h = states[1:, :, :width] if reverse else states[:-1, :, :width]
        gx, gw_ih, gb_ih = self.linear_backward(ga, x, w_ih, (needs[0], needs[2], needs[4]))  # type: ignore[attr-defined]
        _, gw_hh, gb_hh = self.linear_backward(gb, old_h, w_hh, (False, needs[3], needs[5]))  # type: ignore[attr-defined]
        gstate = later if needs[1] else None
        return gx, gstate, gw_ih, gw_hh, gb_ih, gb_hh, gw_hr if needs[6] else None

    def _step_backward(
        self, mode: str, gs: Array, old: Array, new: Array, gates: Maybe, w_hr: Maybe
    ) -> tuple[Array, Array, Array, Maybe]:
        """The gradients of the two products a and b, and of the old state but for the way through b.

        gs (N, S) is the gradient of the new state. Also returns ``o tanh(c)``, what LSTM's projection took.
        """
        if gates is None:
            slope = self.tanh_backward if mode == "RNN_TANH" else self.relu_backward  # type: ignore[attr-defined]
            ga = slope(gs, new)
            return ga, ga, np.zeros_like(gs), None
        if mode == "GRU":
            r, z, q, n = np.split(gates, 4, axis=1)
            gn = gs * (1 - z) * ((1 - n) * (1 + n))
            gr, gz = gn * q * (r * (1 - r)), gs * (old - n) * (z * (1 - z))
            return np.concatenate((gr, gz, gn), axis=1), np.concatenate((gr, gz, gn * r), axis=1), gs * z, None
        i, f, g, o = np.split(gates, 4, axis=1)
        width = gs.shape[1] - i.shape[1]
        gm = gs[:, :width] if w_hr is None else self.matmul(gs[:, :width], w_hr)  # type: ignore[attr-defined]
        tc = self.tanh(new[:, width:])  # type: ignore[attr-defined]
        gc = gs[:, width:] + gm * o * ((1 - tc) * (1 + tc))
        gi, gf = gc * g * (i * (1 - i)), gc * old[:, width:] * (f * (1 - f))
        gg, go = gc * i * ((1 - g) * (1 + g)), gm * tc * (o * (1 - o))
        earlier = np.zeros_like(gs)
        earlier[:, width:] = gc * f
        ga = np.concatenate((gi, gf, gg, go), axis=1)
        return ga, ga, earlier, o * tc


def times(steps: int, reverse: bool) -> range:
    """The time steps in the order in which the layer takes them."""
    return range(steps - 1, -1, -1) if reverse else range(steps)


def _taken(lengths: Maybe, t: int) -> Maybe:
    """(N, 1): which sequences reach to step t; None means all."""
    return None if lengths is None else (t < lengths)[:, None]
