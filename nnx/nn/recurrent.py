"""Recurrent layers: names and shapes of the parameters are PyTorch's, so that its weights can be loaded."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from nnx import _check
from nnx._device import parse as parse_device
from nnx.autograd import Parameter, Tensor
from nnx.backends.base.recurrent import GATES
from nnx.functional.recurrent import cell_as, recurrent_as
from nnx.nn import init
from nnx.nn.module import Module

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell", "RNNBase"]


class RNNBase(Module):
    """What RNN, LSTM and GRU share.

    input_size, hidden_size:  the number of features of the input, and of units
    num_layers:               layers, each of which takes the output of the one below
    bias:                     whether there are b_ih and b_hh
    batch_first:              input and output are (N, T, ...) instead of (T, N, ...); states are not
    dropout:                  the share of a layer's output, but of the last, that is dropped in training
    bidirectional:            a second layer beside each reads the sequence from its end; outputs lie side by side
    proj_size:                LSTM: h is projected to this size; 0 for no projection

    For layer k there are `weight_ih_l{k}`, `weight_hh_l{k}`, `bias_ih_l{k}`, `bias_hh_l{k}` and with a projection
    `weight_hr_l{k}`, and the same with `_reverse`; all start uniform on ``[-b, b]`` with ``b = 1 / sqrt(hidden_size)``.
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        device = parse_device(owner, device)
        dtype = _check.float_dtype(owner, dtype)
        self.mode = _check.choice(owner, "mode", mode, tuple(GATES))
        self.input_size = _check.integer(owner, "input_size", input_size, 1)
        self.hidden_size = _check.integer(owner, "hidden_size", hidden_size, 1)
        self.num_layers = _check.integer(owner, "num_layers", num_layers, 1)
        self.bias = bool(bias)
        self.batch_first = bool(batch_first)
        self.dropout = _check.real(owner, "dropout", dropout, 0, 1)
        self.bidirectional = bool(bidirectional)
        self.proj_size = _check.integer(owner, "proj_size", proj_size, 0)
        if self.proj_size and mode != "LSTM":
            raise ValueError(f"{owner}: expected proj_size to be 0 (only LSTM has projections), got {proj_size}")
        if self.proj_size >= self.hidden_size:
            raise ValueError(f"{owner}: expected proj_size below hidden_size ({hidden_size}), got {proj_size}")
        if self.dropout and self.num_layers == 1:
            warnings.warn(
                f"{owner}: expected dropout to be 0 for one layer, got {dropout}. It acts between layers only",
                stacklevel=3,
            )
        self._names: list[str] = []
        width = self.proj_size or self.hidden_size
        rows = GATES[mode] * self.hidden_size
        for layer in range(self.num_layers):
            for suffix in ("", "_reverse") if self.bidirectional else ("",):
                features = self.input_size if layer == 0 else width * (2 if self.bidirectional else 1)
                shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, features), "weight_hh": (rows, width)}
                if self.bias:
                    shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
                if self.proj_size:
                    shapes["weight_hr"] = (width, self.hidden_size)
                for name, shape in shapes.items():
                    self._names.append(f"{name}_l{layer}{suffix}")
                    self.register_parameter(self._names[-1], Parameter(np.empty(shape, dtype)))
        self.reset_parameters()
        self._place(device)

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        bound = 1 / math.sqrt(self.hidden_size)
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing to do here: weights are packed anew in each call. It is there for code written for PyTorch."""

    @property
    def draws_noise(self) -> bool:
        """Whether a forward pass draws random numbers now: `optim.minimize` refuses such a model."""
        return self.training and self.num_layers > 1 and 0 < self.dropout < 1

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters of each layer and direction."""
        each = len(self._names) // (self.num_layers * (2 if self.bidirectional else 1))
        flat = [getattr(self, name) for name in self._names]
        return [flat[i : i + each] for i in range(0, len(flat), each)]

    def forward(self, input: Any, hx: Any = None, lengths: Any = None) -> tuple[Tensor, Any]:
        """The output of the last layer for all steps, and the last state (for LSTM a pair) of all layers.

        input:    (T, N, input_size), with `batch_first` (N, T, input_size), or (T, input_size) without a batch
        hx:       the first state (D L, N, hidden_size), for LSTM a pair (h, c); without a batch (D L, hidden_size)
        lengths:  (N,) the number of steps of each sequence that count; see `nnx.functional.lstm`
        """
        y, states = recurrent_as(
            type(self).__name__, self.mode, input, hx, [getattr(self, name) for name in self._names], self.bias,
            self.num_layers, self.dropout, self.training, self.bidirectional, self.batch_first, lengths,
        )  # fmt: skip
        return y, states if self.mode == "LSTM" else states[0]

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        defaults = {
            "proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0, "bidirectional": False,
        }  # fmt: skip
        for name, default in defaults.items():
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text


class RNN(RNNBase):
    """Elman's network: ``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)``, or relu, for each step of a sequence.

    Arguments as of RNNBase; nonlinearity is "tanh" or "relu".

    >>> y, h = RNN(3, 5)(np.zeros((7, 2, 3)))
    >>> y.shape, h.shape
    ((7, 2, 5), (1, 2, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        _check.choice("RNN", "nonlinearity", nonlinearity, ("tanh", "relu"))
        mode = f"RNN_{nonlinearity.upper()}"
        super().__init__(
            mode, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype
        )
        self.nonlinearity = nonlinearity

    def extra_repr(self) -> str:
        return super().extra_repr() + (", nonlinearity=relu" if self.mode == "RNN_RELU" else "")


class LSTM(RNNBase):
    """Long short-term memory: Hochreiter and Schmidhuber (1997), with forget gates (Gers et al. 2000).

    ``c' = f c + i g`` and ``h' = o tanh(c')``, with gates ``i, f, o = sigmoid(W_ih x + b_ih + W_hh h + b_hh)`` and a
    candidate g, the tanh of its own sum. Arguments as of RNNBase. The state is the pair (h, c).

    >>> y, (h, c) = LSTM(3, 5, bidirectional=True)(np.zeros((7, 2, 3)))
    >>> y.shape, h.shape, c.shape
    ((7, 2, 10), (2, 2, 5), (2, 2, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device,
            dtype,
        )  # fmt: skip


class GRU(RNNBase):
    """Gated recurrent unit: Cho et al. (2014), arXiv:1406.1078, with the reset gate behind the product.

    ``h' = n + z (h - n)`` with ``r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh)`` and
    ``n = tanh(W_in x + b_in + r (W_hn h + b_hn))``. Arguments as of RNNBase, without projection.

    >>> y, h = GRU(3, 5, batch_first=True)(np.zeros((2, 7, 3)), lengths=[7, 4])
    >>> y.shape, h.shape
    ((2, 7, 5), (1, 2, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype
        )


# -- a single step ---------------------------------------------------------------------------------


class _Cell(Module):
    """What the cells share: the parameters `weight_ih`, `weight_hh`, `bias_ih` and `bias_hh`."""

    mode: str
    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def _build(self, mode: str, input_size: int, hidden_size: int, bias: bool, device: Any, dtype: Any) -> None:
        owner = type(self).__name__
        device = parse_device(owner, device)
        dtype = _check.float_dtype(owner, dtype)
        self.mode = mode
        self.input_size = _check.integer(owner, "input_size", input_size, 1)
        self.hidden_size = _check.integer(owner, "hidden_size", hidden_size, 1)
        self.bias = bool(bias)
        rows = GATES[mode] * self.hidden_size
        self.weight_ih = Parameter(np.empty((rows, self.input_size), dtype))
        self.weight_hh = Parameter(np.empty((rows, self.hidden_size), dtype))
        self.bias_ih = Parameter(np.empty(rows, dtype)) if self.bias else None
        self.bias_hh = Parameter(np.empty(rows, dtype)) if self.bias else None
        self.reset_parameters()
        self._place(device)

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        bound = 1 / math.sqrt(self.hidden_size)
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def _step(self, input: Any, hx: Any) -> tuple[Tensor, ...]:
        params = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        return cell_as(type(self).__name__, self.mode, input, hx, params)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(_Cell):
    """One step of RNN: input (N, input_size) or (input_size,) and h (N, hidden_size) or None give the new h."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.nonlinearity = _check.choice("RNNCell", "nonlinearity", nonlinearity, ("tanh", "relu"))
        self._build(f"RNN_{nonlinearity.upper()}", input_size, hidden_size, bias, device, dtype)

    def forward(self, input: Any, hx: Any = None) -> Tensor:
        return self._step(input, hx)[0]

    def extra_repr(self) -> str:
        return super().extra_repr() + (", nonlinearity=relu" if self.nonlinearity == "relu" else "")


class LSTMCell(_Cell):
    """One step of LSTM: input (N, input_size) or (input_size,) and the pair (h, c) or None give the new pair."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self._build("LSTM", input_size, hidden_size, bias, device, dtype)

    def forward(self, input: Any, hx: Any = None) -> tuple[Tensor, Tensor]:
        h, c = self._step(input, hx)
        return h, c


class GRUCell(_Cell):
    """One step of GRU: input (N, input_size) or (input_size,) and h (N, hidden_size) or None give the new h."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self._build("GRU", input_size, hidden_size, bias, device, dtype)

    def forward(self, input: Any, hx: Any = None) -> Tensor:
        return self._step(input, hx)[0]
