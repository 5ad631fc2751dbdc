"""Where `benchmarks.cuda` runs: a CUDA device, or the CPU, on which only the command itself can be tried.

Both sides share the device and its default stream, so waiting for the device waits for both of them.
"""

from __future__ import annotations

import platform
import shutil
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

Side = Callable[[], Any]

PRECISIONS = {"float32": "highest", "TF32": "high", "bfloat16": "medium"}  # the tables' names, and nnx's


class Device:
    """A device by nnx's name, and how to bring arrays of both sides there.

    name:  "cpu", "cuda" or "cuda:0"; where it cannot be had, nnx's own ImportError, RuntimeError or ValueError
    """

    def __init__(self, name: str) -> None:
        from nnx import _device

        self.name = _device.parse("benchmarks.cuda", name)
        self.is_cuda = self.name != "cpu"
        self.precisions = ["float32", "TF32"] if self.is_cuda else ["float32"]  # that both sides have
        if self.is_cuda:
            import cupy

            cupy.cuda.Device(self.index).use()

    @property
    def index(self) -> int:
        return int(self.name.partition(":")[2])

    def ours(self, array: np.ndarray) -> Any:
        """For nnx: a NumPy or a CuPy array."""
        from nnx import _device

        return _device.move(array, self.name)

    def theirs(self, array: np.ndarray) -> Any:
        """For PyTorch: a tensor."""
        import torch

        return torch.tensor(array).to(self.name)

    def synchronize(self) -> None:
        if self.is_cuda:
            from nnx import cuda

            cuda.synchronize()

    @contextmanager
    def precision(self, name: str) -> Iterator[None]:
        """Matrix products and convolutions of both sides in "float32" or "TF32"; of nnx also in "bfloat16"."""
        from nnx import cuda

        with cuda.set_float32_matmul_precision(PRECISIONS[name]):
            try:
                _allow_tf32(name == "TF32")
                yield
            finally:
                _allow_tf32(False)


def _allow_tf32(allowed: bool) -> None:
    try:
        import torch
    except ImportError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of PyTorch have a second name for it and say so
        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed


def host(value: Any) -> np.ndarray:
    """A result of either side as a NumPy array."""
    value = value.detach() if hasattr(value, "detach") else value
    value = value.cpu() if hasattr(value, "cpu") else value
    if hasattr(value, "numpy"):
        return value.numpy()
    return value.get() if hasattr(value, "get") else np.asarray(value)


def interleave(
    device: Device, sides: dict[str, Side], blocks: int = 5, block_seconds: float = 0.04
) -> dict[str, float]:
    """Seconds per call of each side: the median over blocks, in which a side is called many times without waiting.

    The sides take turns block by block. A block ends when the device has done its work, so what is measured is the
    longer of launching and computing.
    """
    rounds = {}
    for key, side in sides.items():
        for _ in range(2):
            side()
        taken = _seconds(device, side, 2)
        rounds[key] = max(1, min(1000, round(block_seconds / max(taken, 1e-7))))
    seconds: dict[str, list[float]] = {key: [] for key in sides}
    for _ in range(blocks):
        for key, side in sides.items():
            seconds[key].append(_seconds(device, side, rounds[key]))
    return {key: statistics.median(values) for key, values in seconds.items()}


def _seconds(device: Device, side: Side, rounds: int) -> float:
    device.synchronize()
    start = time.perf_counter()
    for _ in range(rounds):
        side()
    device.synchronize()
    return (time.perf_counter() - start) / rounds


def facts(device: Device) -> dict[str, str]:
    """What the figures belong to: card, driver, versions."""
    import nnx

    found = {"nnx": nnx.__version__, "Python": platform.python_version(), "NumPy": np.__version__}
    if device.is_cuda:
        import cupy

        runtime = cupy.cuda.runtime
        card = runtime.getDeviceProperties(device.index)
        name = card["name"]
        found = {
            "card": name.decode() if isinstance(name, bytes) else str(name),
            "compute capability": f"{card['major']}.{card['minor']}",
            "multiprocessors": str(card["multiProcessorCount"]),
            "memory": f"{card['totalGlobalMem'] / 2**30:.1f} GiB",
            "driver": _driver(device.index),
            "CUDA of the driver": _version(runtime.driverGetVersion()),
            "CUDA of CuPy": _version(runtime.runtimeGetVersion()),
            "CuPy": cupy.__version__,
            **found,
        }
    else:
        found = {"card": f"none: tried on the CPU ({platform.machine()})", **found}
    try:
        import torch
    except ImportError:
        return {**found, "PyTorch": "not installed"}
    found["PyTorch"] = torch.__version__
    if device.is_cuda:
        found["CUDA of PyTorch"] = str(torch.version.cuda)
        found["cuDNN"] = str(torch.backends.cudnn.version())
    return found


def need_torch(device: Device) -> Any:
    """The module torch, ready to be measured on the device; RuntimeError that says what is missing."""
    try:
        import torch
    except ImportError:
        raise RuntimeError("benchmarks.cuda: expected PyTorch to compare with, got none") from None
    if device.is_cuda:
        if not torch.cuda.is_available():
            raise RuntimeError(
                f"benchmarks.cuda: expected a PyTorch that reaches the card, got {torch.__version__} "
                f"(built for CUDA {torch.version.cuda})"
            )
        torch.cuda.set_device(device.index)
    return torch


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _driver(index: int) -> str:
    """The driver's own version, which CUDA's interface does not tell."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return "unknown (no nvidia-smi)"
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader", f"--id={index}"]
    try:
        text = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown (nvidia-smi fails)"
    return text or "unknown"
