"""The plain multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

from nnx import _check, nn


def mlp(
    sizes: int | Sequence[int] = (784, 512, 512, 10), *more: int, dropout: float = 0.0
) -> nn.Sequential:
    """A perceptron with ReLU between fully connected layers; images are flattened first.

    sizes:    features of the input, of each hidden layer and of the output, as one sequence or as
              several arguments: ``mlp(784, 512, 10)``
    dropout:  probability of dropping a hidden feature during training

    Shapes: (N, ...) with sizes[0] features in all to (N, sizes[-1]).

    >>> sum(p.size for p in mlp(784, 100, 10).parameters())
    79510
    """
    given = [sizes, *more] if isinstance(sizes, int) else [*sizes, *more]
    widths = [_check.integer("mlp", "sizes", n, 1) for n in given]
    if len(widths) < 2:
        raise ValueError(f"mlp: expected sizes of at least an input and an output, got {widths}")
    layers: list[nn.Module] = [nn.Flatten()]
    for i, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        if i > 0:
            layers.append(nn.ReLU())
            if dropout:
                layers.append(nn.Dropout(dropout))
        layers.append(nn.Linear(before, after))
    return nn.Sequential(*layers)
