"""The CPU backend: overrides with the compiled kernels, a file per family.

A method that its kernel cannot serve (another type, an unusual shape) hands the call to the base class.
"""

from __future__ import annotations

from nnx.backends.base import Backend
from nnx.backends.cpu.activation import ActivationKernels
from nnx.backends.cpu.conv import ConvKernels
from nnx.backends.cpu.dropout import DropoutKernels
from nnx.backends.cpu.embedding import EmbeddingKernels
from nnx.backends.cpu.gemm import GemmKernels
from nnx.backends.cpu.loss import LossKernels
from nnx.backends.cpu.neighbors import NeighborsKernels
from nnx.backends.cpu.norm import NormKernels
from nnx.backends.cpu.optim import OptimKernels
from nnx.backends.cpu.pool import PoolKernels
from nnx.backends.cpu.recurrent import RecurrentKernels


class CPUBackend(
    ActivationKernels,
    ConvKernels,
    DropoutKernels,
    EmbeddingKernels,
    GemmKernels,
    LossKernels,
    NeighborsKernels,
    NormKernels,
    OptimKernels,
    PoolKernels,
    RecurrentKernels,
    Backend,
):
    """The kernels of all families over the base backend; see `nnx.backends.base.Backend`."""


__all__ = ["CPUBackend"]
