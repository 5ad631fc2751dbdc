"""The plain multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnx import _check, nn
from nnx.autograd import Tensor, cast_input


class MLP(nn.Module):
    """Fully connected layers with ReLU between them; see `mlp`."""

    def __init__(self, sizes: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        widths = [_check.integer("MLP", "sizes", n, 1) for n in sizes]
        if len(widths) < 2:
            raise ValueError(f"MLP: expected sizes of at least an input and an output, got {widths}")
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            if i > 0:
                layers.append(nn.ReLU())
                if dropout:
                    layers.append(nn.Dropout(dropout))
            layers.append(nn.Linear(before, after))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Any) -> Tensor:
        return self.layers(cast_input("MLP", x, self.layers[0].weight.dtype).flatten(1))


def mlp(sizes: int | Sequence[int] = (784, 512, 512, 10), *more: int, dropout: float = 0.0) -> MLP:
    """A perceptron with ReLU between fully connected layers; images are flattened first.

    sizes:    features of the input, of each hidden layer and of the output, as one sequence or as
              several arguments: ``mlp(784, 512, 10)``
    dropout:  probability of dropping a hidden feature during training

    Shapes: (N, ...) with sizes[0] features in all to (N, sizes[-1]).

    >>> sum(p.size for p in mlp(784, 100, 10).parameters())
    79510
    """
    return MLP([sizes, *more] if isinstance(sizes, int) else [*sizes, *more], dropout)
