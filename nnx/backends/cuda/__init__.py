"""The CUDA backend: the base backend over CuPy, with kernels of our own where they pay, a file per family.

Importing this module imports CuPy.
"""

from __future__ import annotations

import cupy

from nnx.backends.base import Backend
from nnx.backends.cuda.activation import ActivationCUDA
from nnx.backends.cuda.conv import ConvCUDA
from nnx.backends.cuda.dropout import DropoutCUDA
from nnx.backends.cuda.embedding import EmbeddingCUDA
from nnx.backends.cuda.gemm import GemmCUDA
from nnx.backends.cuda.loss import LossCUDA
from nnx.backends.cuda.norm import NormCUDA
from nnx.backends.cuda.optim import OptimCUDA
from nnx.backends.cuda.pool import PoolCUDA
from nnx.backends.cuda.recurrent import RecurrentCUDA


class CUDABackend(
    ActivationCUDA,
    ConvCUDA,
    DropoutCUDA,
    EmbeddingCUDA,
    GemmCUDA,
    LossCUDA,
    NormCUDA,
    OptimCUDA,
    PoolCUDA,
    RecurrentCUDA,
    Backend,
):
    """The kernels of all families over the base backend; see `nnx.backends.base.Backend`."""

    xp = cupy


__all__ = ["CUDABackend"]
