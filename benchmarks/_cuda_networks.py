"""Training steps of the reference networks on a CUDA device: time and memory, nnx and PyTorch.

Every side starts from the same weights and trains on the same batch; that the losses agree is asserted before anything
is timed. A step leaves its loss on the device. Graphs are given their batch anew in each call, on both sides.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import nnx
from benchmarks._cuda_device import Device, Side, host, interleave, need_torch
from benchmarks._networks import build
from benchmarks._torch_nets import MOMENTUM, RATE, data
from nnx import nn, optim

BATCHES = {"mlp": (128,), "lenet": (64, 128, 1024), "vgg8": (64, 128, 1024), "resnet20": (64, 128, 1024)}
QUICK = {"mlp": (4,), "lenet": (4,)}
TOLERANCE = {"float32": 1e-3, "TF32": 5e-3}  # of a loss, relative to the larger of PyTorch's and 1
CHECKED = 4  # losses: of the first weights, and after each step; nnx records its graph in the third
EAGER = ("PyTorch", "channels_last")
GRAPHS = ("PyTorch graph", "channels_last graph")


@dataclass
class Row:
    """Milliseconds of one network's training step, by side; what is wrong with the sides that could not be timed."""

    network: str
    batch: int
    precision: str
    milliseconds: dict[str, float]
    losses: dict[str, list[float]]
    failed: dict[str, str]

    def ratio(self, theirs: tuple[str, ...]) -> float | None:
        """The best of PyTorch's sides over the best of nnx's: above 1 nnx is faster."""
        known = [self.milliseconds[key] for key in theirs if key in self.milliseconds]
        ours = min(self.milliseconds[key] for key in ("nnx", "nnx graph") if key in self.milliseconds)
        return min(known) / ours if known else None


def compare(device: Device, name: str, batch: int, precision: str, quick: bool = False) -> Row:
    """Check that all sides train alike, then time their steps.

    Graphs and layouts that fail are left out and reported; without nnx or PyTorch as they are there is nothing to tell.
    """
    torch = need_torch(device)
    torch.backends.cudnn.benchmark = True  # PyTorch may choose its fastest algorithms
    sides: dict[str, Side] = {}
    losses: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    try:
        with device.precision(precision):
            for key, make in all_sides(device, name, batch).items():
                try:
                    sides[key] = make()
                    losses[key] = [float(host(sides[key]())) for _ in range(CHECKED)]
                    assert_alike(key, losses[key], losses["PyTorch"], TOLERANCE[precision])
                except Exception as error:
                    if key in ("PyTorch", "nnx"):
                        raise
                    sides.pop(key, None)
                    failed[key] = f"{type(error).__name__}: {error}"
            seconds = interleave(device, sides, *((2, 0.001) if quick else (5, 0.04)))
    finally:
        sides.clear()
        torch.backends.cudnn.benchmark = False
        tidy(device)
    milliseconds = {key: 1e3 * value for key, value in seconds.items()}
    return Row(name, batch, precision, milliseconds, losses, failed)


def assert_alike(side: str, losses: list[float], expected: list[float], tolerance: float) -> None:
    """The losses are those of PyTorch's plain eager side."""
    for one, other in zip(losses, expected, strict=True):
        if not abs(one - other) <= tolerance * max(abs(other), 1):  # a NaN is no agreement
            raise AssertionError(f"expected the losses {expected} of PyTorch, got {losses} from {side}")


def first_weights(name: str) -> dict[str, Any]:
    nnx.manual_seed(0)
    return build(name, nn, nnx.functional).state_dict()


def all_sides(device: Device, name: str, batch: int) -> dict[str, Callable[[], Side]]:
    """What makes each side; PyTorch as it is comes first."""
    first = first_weights(name)
    layouts = EAGER if len(data(name, 1)[0].shape) == 4 else EAGER[:1]
    makers = {layout: partial(torch_step, device, name, batch, first, layout) for layout in layouts}
    makers["nnx"] = partial(nnx_step, device, name, batch, first)
    if device.is_cuda:
        makers["nnx graph"] = partial(nnx_step, device, name, batch, first, graph=True)
        for layout, graph in zip(layouts, GRAPHS, strict=False):
            makers[graph] = partial(torch_step, device, name, batch, first, layout, graph=True)
    return makers


# -- one side --------------------------------------------------------------------------------------


def nnx_step(device: Device, name: str, batch: int, first: dict[str, Any], graph: bool = False) -> Side:
    """A training step of nnx that returns the loss."""
    x, labels = (device.ours(array) for array in data(name, batch))
    model = build(name, nn, nnx.functional)
    model.load_state_dict(first)
    model.to(device.name)
    optimizer = optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    criterion = nn.CrossEntropyLoss()

    def step(x: Any, labels: Any) -> Any:
        optimizer.zero_grad()
        loss = criterion(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss

    run = nnx.cuda.graph(step) if graph else step
    return lambda: run(x, labels)


def torch_step(device: Device, name: str, batch: int, first: dict[str, Any], layout: str, graph: bool = False) -> Side:
    """The same in PyTorch."""
    torch = need_torch(device)
    x, labels = (device.theirs(array) for array in data(name, batch))
    model = build(name, torch.nn, torch.nn.functional)
    start = {key: torch.tensor(np.asarray(value)) for key, value in first.items()}
    model.load_state_dict(start)
    model.to(device.name)
    if layout == "channels_last":
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    criterion = torch.nn.CrossEntropyLoss()

    def step(x: Any, labels: Any) -> Any:
        optimizer.zero_grad()
        loss = criterion(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    if not graph:
        return lambda: step(x, labels)

    def restart() -> None:
        model.load_state_dict(start)
        for state in optimizer.state.values():
            state["momentum_buffer"].zero_()

    return torch_graph(torch, step, (x, labels), restart)


def torch_graph(torch: Any, step: Callable, arguments: tuple, restart: Callable[[], None]) -> Side:
    """`step` captured by PyTorch; its own steps before the capture are undone by `restart`."""
    static = [argument.clone() for argument in arguments]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(*static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step(*static)
    restart()

    def replay() -> Any:
        for kept, argument in zip(static, arguments, strict=True):
            kept.copy_(argument)
        graph.replay()
        return loss

    return replay


# -- memory ----------------------------------------------------------------------------------------


@dataclass
class Memory:
    """Bytes that a model, its data, its optimizer and three training steps need: in use at the peak, and taken."""

    network: str
    batch: int
    peak: dict[str, int]
    taken: dict[str, int]


def memory(device: Device, name: str, batch: int) -> Memory:
    """Each side alone, in float32; libraries have their workspaces before."""
    torch = need_torch(device)
    first = first_weights(name)
    peak, taken = {}, {}
    peak["nnx"], taken["nnx"] = _nnx_memory(device, partial(nnx_step, device, name, batch, first))
    for layout in EAGER if len(data(name, 1)[0].shape) == 4 else EAGER[:1]:
        make = partial(torch_step, device, name, batch, first, layout)
        peak[layout], taken[layout] = _torch_memory(torch, device, make)
    tidy(device)
    return Memory(name, batch, peak, taken)


def _nnx_memory(device: Device, make: Callable[[], Side]) -> tuple[int, int]:
    import cupy

    class Watch(cupy.cuda.MemoryHook):
        """Counts what is handed out, since CuPy's pool keeps no record of its peak."""

        name = "nnx peak"
        used = peak = 0

        def malloc_postprocess(self, **event: Any) -> None:
            self.used += event["mem_size"]
            self.peak = max(self.peak, self.used)

        def free_postprocess(self, **event: Any) -> None:
            self.used -= event["mem_size"]

    pool = cupy.get_default_memory_pool()
    _three(device, make)
    tidy(device)
    before = pool.total_bytes()
    with Watch() as watch:
        _three(device, make)
    return watch.peak, pool.total_bytes() - before


def _torch_memory(torch: Any, device: Device, make: Callable[[], Side]) -> tuple[int, int]:
    _three(device, make)
    tidy(device)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    _three(device, make)
    return torch.cuda.max_memory_allocated() - before[0], torch.cuda.max_memory_reserved() - before[1]


def _three(device: Device, make: Callable[[], Side]) -> None:
    step = make()
    for _ in range(3):
        step()
    device.synchronize()


def tidy(device: Device) -> None:
    """Both pools give back what is free."""
    gc.collect()
    if device.is_cuda:
        import cupy
        import torch

        device.synchronize()
        cupy.get_default_memory_pool().free_all_blocks()
        torch.cuda.empty_cache()
