"""The reference networks against PyTorch: ``python -m benchmarks.networks [name ...] [--compile] [--write FILE]``.

Every side runs in this process, in alternating blocks of rounds, with the same weights and data; that outputs and
losses agree is asserted first. The ratio is the best of PyTorch's eager layouts over nnx: above 1 nnx is faster.
torch.compile is timed beside them with --compile (it needs a C++ compiler and minutes). Batch 1 is one call of the
model. The last column says what the machine gave meanwhile: a matrix product's time on one thread over that on all. On
virtual machines it falls for minutes, when their processors are moved to cores that share more, or less, than before.

For AVX2: NNX_LEVEL=v3 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python -m benchmarks.networks
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import nnx
from benchmarks._networks import BATCH
from benchmarks._torch_nets import assert_same, nnx_sides, torch_sides

BLOCKS = 6
ROUNDS = 4
LEAST_SECONDS = 0.02  # of a block


def interleave(sides: dict[str, Any]) -> dict[str, float]:
    """Median seconds of each side."""
    taken: dict[str, list[float]] = {key: [] for key in sides}
    for _ in range(BLOCKS):
        for key, side in sides.items():
            side()
            start, rounds = time.perf_counter(), 0
            while rounds < ROUNDS or time.perf_counter() - start < LEAST_SECONDS:
                begin = time.perf_counter()
                side()
                taken[key].append(time.perf_counter() - begin)
                rounds += 1
    return {key: statistics.median(values) for key, values in taken.items()}


def scaling() -> float:
    """The time of a matrix product on one thread over that on all threads."""
    threads = nnx.get_num_threads()
    a = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    seconds = []
    for count in (1, threads):
        nnx.set_num_threads(count)
        taken = []
        for _ in range(9):
            begin = time.perf_counter()
            nnx.matmul(a, a)
            taken.append(time.perf_counter() - begin)
        seconds.append(statistics.median(taken))
    nnx.set_num_threads(threads)
    return seconds[0] / seconds[1]


def compare(name: str, layouts: list[str], batch: int = 0) -> dict[str, dict[str, float]]:
    """Seconds of a training step and a prediction, on each side."""
    ours = nnx_sides(name, batch)
    theirs = {layout: torch_sides(name, ours["model"], batch, layout) for layout in layouts}
    for side in theirs.values():
        side["model"].load_state_dict(next(iter(theirs.values()))["model"].state_dict())
    sides = {"nnx": ours, **theirs}
    times = {}
    first = next(iter(theirs.values()))
    assert_same(name, ours, first, batch)
    if batch != 1:
        for side in sides.values():
            side["model"].train()
        times["train"] = interleave({key: side["train"] for key, side in sides.items()})
    for side in sides.values():
        side["model"].eval()
    times["infer"] = interleave({key: side["infer"] for key, side in sides.items()})
    return times


def row(name: str, what: str, seconds: dict[str, float]) -> tuple[str, float]:
    best = min(seconds[key] for key in ("eager", "channels_last") if key in seconds)
    ratio = best / seconds["nnx"]
    compiled = seconds.get("compile")
    cells = [f"{1e3 * seconds[key]:.2f}" if key in seconds else "-" for key in ("nnx", "eager", "channels_last")]
    cells += [f"{1e3 * compiled:.2f}" if compiled else "-", f"{ratio:.2f}"]
    cells.append(f"{compiled / seconds['nnx']:.2f}" if compiled else "-")
    return f"| {name} | {what} | " + " | ".join(cells) + " |", ratio


def draw(ratios: dict[str, list[float]], names: list[str], path: str) -> None:
    """The ratios as bars, with matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    for i, (what, values) in enumerate(ratios.items()):
        axes.bar([k + 0.27 * (i - 1) for k in range(len(names))], values, 0.25, label=what)
    axes.axhline(1, color="black", linewidth=1)
    axes.set_xticks(range(len(names)), [f"{name} {BATCH[name]}" for name in names])
    axes.set_ylabel("time of PyTorch / time of nnx")
    axes.legend()
    figure.savefig(path, dpi=120)


def table(names: list[str], compiled: bool, plot: str | None = None) -> str:
    import torch

    from nnx.config import config

    facts = config()
    threads = nnx.get_num_threads()
    torch.set_num_threads(threads)
    lines = [
        f"{date.today()}; {platform.machine()}, nnx {nnx.__version__} at level {facts['level']}, "
        f"PyTorch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()}), {threads} threads each; "
        "milliseconds, medians",
        "",
        "| network | what | nnx | PyTorch eager | channels_last | compile | ratio | ratio to compile | scaling |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    ratios: dict[str, list[float]] = {"training": [], "inference": [], "inference, batch 1": []}
    for name in names:
        layouts = ["eager"] if name == "mlp" else ["eager", "channels_last"]
        layouts += ["compile"] if compiled else []
        given = [scaling()]
        times = compare(name, layouts)
        given.append(scaling())
        single = compare(name, [layout for layout in layouts if layout != "compile"], 1)
        given.append(scaling())
        for what, seconds in (
            ("training", times["train"]),
            ("inference", times["infer"]),
            ("inference, batch 1", single["infer"]),
        ):
            line, ratio = row(f"{name} {BATCH[name]}" if "1" not in what else name, what, seconds)
            ratios[what].append(ratio)
            line += f" {min(given):.1f}-{max(given):.1f} |"
            lines.append(line)
            print(line, flush=True)
    if plot:
        draw(ratios, names, plot)
    lines.append("")
    for what, values in ratios.items():
        lines.append(f"Geometric mean, {what}: {math.exp(statistics.fmean(map(math.log, values))):.2f}.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"any of {', '.join(BATCH)}")
    parser.add_argument("--compile", action="store_true", help="time torch.compile too")
    parser.add_argument("--write", metavar="FILE", help="also write the table to this file")
    parser.add_argument("--plot", metavar="FILE", help="draw the ratios (needs matplotlib)")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(BATCH))
    if unknown:
        parser.error(f"expected names among {', '.join(BATCH)}, got {', '.join(unknown)}")
    text = table(options.names or list(BATCH), options.compile, options.plot)
    print("\n" + text)
    if options.write:
        Path(options.write).write_text("# nnx against PyTorch\n\n" + text + "\n")


if __name__ == "__main__":
    main()
