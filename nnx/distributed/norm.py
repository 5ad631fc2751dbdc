"""Batch norm over the samples of all ranks."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.autograd import Tensor, record
from nnx.backends import backend_of
from nnx.distributed.communicator import Communicator
from nnx.nn import BatchNorm1d, BatchNorm2d, BatchNorm3d, Module
from nnx.nn.norm import _BatchNorm

_PLAIN = (BatchNorm1d, BatchNorm2d, BatchNorm3d)


class SyncBatchNorm(_BatchNorm):
    """Batch norm that uses, in training, mean and variance of the samples of all ranks together.

    Made from batch norms by `convert`. Means and sums of squares travel in float64 and are combined in rank order, so
    every rank has the same bits. The backward pass adds two numbers per channel over the ranks, weighted with their
    numbers of samples, so that unequal shares give the gradient of the whole batch too.
    """

    def __init__(self, plain: _BatchNorm, comm: Communicator) -> None:
        Module.__init__(self)
        self.comm = comm
        self._shapes = plain._shapes
        for name in ("num_features", "eps", "momentum", "affine", "track_running_stats", "training"):
            setattr(self, name, getattr(plain, name))
        for name in ("weight", "bias"):
            self.register_parameter(name, getattr(plain, name))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(plain, name))

    @classmethod
    def convert(cls, module: Module, comm: Communicator) -> Module:
        """Replace every BatchNorm1d, 2d and 3d inside `module`, in place; parameters and buffers stay the same objects.

        Returns `module`, or its replacement if it is a batch norm itself.
        """
        if type(module) in _PLAIN:
            return cls(module, comm)  # type: ignore[arg-type]
        for parent in list(module.modules()):
            for name, child in parent.named_children():
                if type(child) in _PLAIN:
                    parent._modules[name] = cls(child, comm)  # type: ignore[arg-type]
        return module

    def _normalize(self, x: Tensor, mean: Any, var: Any, use_batch: bool, momentum: float) -> Tensor:
        if not (use_batch and self.training) or self.comm.size == 1:
            return super()._normalize(x, mean, var, use_batch, momentum)
        be = backend_of(x.data)
        per_channel, batch_mean, batch_var = _moments_of_all(self.comm, be, x.data)
        if per_channel == 1:
            raise ValueError(
                "SyncBatchNorm: expected more than one value per channel on all ranks together in training, "
                f"got input of shape {x.shape}"
            )
        w = None if self.weight is None else self.weight.data
        b = None if self.bias is None else self.bias.data
        dtype = x.data.dtype
        m, v = batch_mean.astype(dtype), batch_var.astype(dtype)
        y = be.batch_norm_infer(x.data, m, v, w, b, self.eps)
        if mean is not None and per_channel:
            mean *= 1 - momentum
            mean += momentum * batch_mean
            var *= 1 - momentum
            var += momentum * batch_var * (per_channel / (per_channel - 1))
        rstd = (1 / np.sqrt(v + self.eps)).astype(dtype)
        saved = (self.comm, be, x.data, w, m, rstd, per_channel)
        return record(y, _sync_batch_norm_grad, (x, self.weight, self.bias), *saved)


def _moments_of_all(comm: Communicator, be: Any, x: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Values per channel, mean and biased variance of all ranks' samples, in float64."""
    channels = x.shape[1]
    own = np.zeros(1 + 2 * channels)
    if x.size:
        mean, var = be.batch_moments(x)
        own[0] = x.size // channels
        own[1 : 1 + channels] = mean
        own[1 + channels :] = var
    total, mean, squares = 0.0, np.zeros(channels), np.zeros(channels)
    for part in comm.allgather(own):
        count, delta = part[0], part[1 : 1 + channels] - mean
        if count:
            mean = mean + delta * (count / (total + count))
            squares = squares + part[1 + channels :] * count + delta**2 * (total * count / (total + count))
            total += count
    return int(total), mean, squares / max(total, 1)


def _sync_batch_norm_grad(needs, gy, comm, be, x, weight, mean, rstd, per_channel):
    """``gx = weight rstd (gy - sum gy / M - z sum(gy z) / M)`` with sums and the count M over all ranks.

    A rank's gy belongs to the mean over its own n samples. In the sums each rank counts n times, and the result is that
    of this rank's mean again: divided by its n.
    """
    needs_x, needs_w, needs_b = needs
    _, gz, gb = be.batch_norm_backward(gy, x, None, mean, rstd, (False, True, True))
    gx = None
    if needs_x:
        samples, channels = x.shape[:2]
        sums = np.concatenate([gb, gz]).astype(np.float64) * samples if samples else np.zeros(2 * channels)
        comm.sum_in_order(sums)
        if samples:
            sums /= samples * per_channel
        mean_gy, mean_gyz = sums[:channels].astype(x.dtype), sums[channels:].astype(x.dtype)
        shape = (1, channels) + (1,) * (x.ndim - 2)
        gx = (x - mean.reshape(shape)) * (rstd * -mean_gyz).reshape(shape)
        gx += gy
        gx -= mean_gy.reshape(shape)
        gx *= (rstd if weight is None else rstd * weight).reshape(shape)
    return gx, gz if needs_w else None, gb if needs_b else None
