"""Memory of a training step: ``python -m benchmarks.memory [name ...]``, against PyTorch.

Each side runs in a process of its own: the growth of its peak resident set over ten training steps, above what it held
before the first one (model, data and optimizer exist by then). Megabytes; the ratio is PyTorch over nnx.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

from benchmarks._networks import BATCH

STEPS = 10


def peak() -> float:
    """This process's largest resident set so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def grow(name: str, side: str) -> float:
    """In this process: build one side, and measure."""
    from benchmarks._torch_nets import nnx_sides, torch_sides

    sides = nnx_sides(name)
    if side != "nnx":
        sides = torch_sides(name, sides["model"], layout=side)
    before = peak()
    for _ in range(STEPS):
        sides["train"]()
    return peak() - before


def measure(name: str, side: str) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", name, "--side", side]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"any of {', '.join(BATCH)}")
    parser.add_argument("--side", choices=["nnx", "eager", "channels_last"], help="measure one side in this process")
    options = parser.parse_args()
    names = options.names or list(BATCH)
    if options.side:
        print(grow(names[0], options.side))
        return
    print("| network | nnx (MB) | PyTorch eager | channels_last | ratio to the smaller |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in names:
        ours, eager, last = (measure(name, side) for side in ("nnx", "eager", "channels_last"))
        ratio = min(eager, last) / max(ours, 0.1)
        print(f"| {name} {BATCH[name]} | {ours:.1f} | {eager:.1f} | {last:.1f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
