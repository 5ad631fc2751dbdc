"""Objectives that worker processes can import."""

from __future__ import annotations

import os
from typing import Any

import nnx


def peak(parameters: dict[str, Any]) -> dict[str, Any]:
    """Best at x = 0.3; draws from the library's stream, and says where it ran and with how many threads."""
    noise = float(nnx._random.generator().random())
    return {
        "score": -((parameters["x"] - 0.3) ** 2) + 1e-3 * noise,
        "noise": noise,
        "process": os.getpid(),
        "threads": nnx.get_num_threads(),
        "settings": [os.environ.get(name, "") for name in ("NNX_NUM_THREADS", "OMP_NUM_THREADS")],
    }


def fails(parameters: dict[str, Any]) -> float:
    """A mistake in the user's code, in one of the trials."""
    if parameters["x"] > 0.5:
        raise KeyError("no such layer")
    return 0.0


def diverges(parameters: dict[str, Any]) -> float:
    if parameters["x"] > 0.5:
        raise FloatingPointError("the loss is nan in step 3")
    return parameters["x"]


def dies(parameters: dict[str, Any]) -> float:
    os._exit(3)
