"""The base backend: every operation in plain NumPy, a file per family.

It is the specification, the text to learn from, and what runs where a faster backend has no kernel.
"""

from __future__ import annotations

import numpy

from nnx.backends.base.activation import ActivationOps
from nnx.backends.base.conv import ConvOps
from nnx.backends.base.dropout import DropoutOps
from nnx.backends.base.embedding import EmbeddingOps
from nnx.backends.base.gemm import GemmOps
from nnx.backends.base.loss import LossOps
from nnx.backends.base.neighbors import NeighborsOps
from nnx.backends.base.norm import NormOps
from nnx.backends.base.optim import OptimOps
from nnx.backends.base.pad import PadOps
from nnx.backends.base.pool import PoolOps
from nnx.backends.base.recurrent import RecurrentOps


class Backend(
    ActivationOps,
    ConvOps,
    DropoutOps,
    EmbeddingOps,
    GemmOps,
    LossOps,
    NeighborsOps,
    NormOps,
    OptimOps,
    PadOps,
    PoolOps,
    RecurrentOps,
):
    """All families together. Methods take and return arrays and never change their inputs.

    xp: the array module
    """

    xp = numpy


__all__ = ["Backend"]
