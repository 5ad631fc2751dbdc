"""Tables of vectors that are looked up by number."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx import _check
from nnx._device import parse as parse_device
from nnx.autograd import Parameter, Tensor, as_tensor
from nnx.functional.embedding import check_options, embedding_as
from nnx.nn import init
from nnx.nn.module import Module

__all__ = ["Embedding"]


class Embedding(Module):
    """A table of vectors, one for each number: ``y[i] = weight[input[i]]``.

    num_embeddings, embedding_dim:  the shape of `weight`, which starts standard normal
    padding_idx:                    a row that starts at 0 and gets no gradient
    scale_grad_by_freq:             divide a row's gradient by the number of times it was taken

    Input: integers of any shape; output: (*input.shape, embedding_dim). IndexError for a number
    outside of the table; ValueError for `max_norm` and `sparse`, which are not offered.

    >>> Embedding(10, 3)([[1, 2], [9, 0]]).shape
    (2, 2, 3)
    """

    weight: Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Any = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        device = parse_device("Embedding", device)
        self.num_embeddings = _check.integer("Embedding", "num_embeddings", num_embeddings, 0)
        self.embedding_dim = _check.integer("Embedding", "embedding_dim", embedding_dim, 0)
        self.padding_idx = check_options("Embedding", padding_idx, max_norm, sparse, self.num_embeddings)
        self.scale_grad_by_freq = bool(scale_grad_by_freq)
        shape = (self.num_embeddings, self.embedding_dim)
        if _weight is None:
            array = np.empty(shape, _check.float_dtype("Embedding", dtype))
            self.weight = Parameter(array, requires_grad=not _freeze)
            self.reset_parameters()
            return
        given = as_tensor(_weight)
        if given.shape != shape:
            raise ValueError(f"Embedding: expected _weight of shape {shape}, got shape {given.shape}")
        self.weight = Parameter(given.data, requires_grad=not _freeze)
        self._place(device)

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Any,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Embedding:
        """An Embedding on a given table (num_embeddings, embedding_dim), frozen by default."""
        table = as_tensor(embeddings)
        if table.ndim != 2:
            raise ValueError(
                f"Embedding.from_pretrained: expected embeddings with 2 dimensions, got shape {table.shape}"
            )
        num, dim = table.shape
        return cls(
            num,
            dim,
            padding_idx=padding_idx,
            max_norm=max_norm,
            norm_type=norm_type,
            scale_grad_by_freq=scale_grad_by_freq,
            sparse=sparse,
            _weight=table,
            _freeze=freeze,
        )

    def reset_parameters(self) -> None:
        """Draw the table anew; the row of `padding_idx` is 0."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx] = 0

    def forward(self, input: Any) -> Tensor:
        return embedding_as("Embedding", input, self.weight, self.padding_idx, self.scale_grad_by_freq)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
