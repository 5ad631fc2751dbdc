"""Time per step on 1 to 1,024 machines, from measured parts: ``python -m benchmarks.scaling [--page docs/scaling.md]``.

The parts (``benchmarks/distributed.json``, written by `benchmarks.distributed`) are those of one rank: forward,
backward, packing, update, and the buckets of gradients with the moment at which each is complete. The network is
stated, not measured. Every machine has one rank and the same number of samples: ideally the time does not grow.

Assumptions:
* an allreduce of n bytes over P machines takes the least of three ways to do it, as MPI libraries choose by size:
      ring                      2 (P - 1) (a + n / (P B)) + r
      halving and doubling      2 log2(P) a + 2 (P - 1) / P n / B + r
      doubling                  log2(P) (a + n / B + n / G)
  with latency a, bandwidth B, and r = (P - 1) / P n / G for adding at G bytes per second;
* messages have 90 % of the line rate, links are full duplex, and switches do not block;
* step times of machines scatter by 3 % (normal), and all wait for the slowest: sigma sqrt(2 ln P);
* overlapped: buckets go one after the other, each when it is complete and the one before is through; communication
  takes no time from the computation (a core or a network card of its own).
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCATTER = 0.03
MACHINES = tuple(2**i for i in range(11))


@dataclass(frozen=True)
class Network:
    """Latency in seconds, line rate in bit/s, and bytes per second that a core adds."""

    name: str
    latency: float
    rate: float
    adding: float = 4e9

    @property
    def bandwidth(self) -> float:
        return 0.9 * self.rate / 8


NETWORKS = (
    Network("10 Gbit/s", 20e-6, 10e9),  # Ethernet, TCP
    Network("100 Gbit/s", 3e-6, 100e9),  # InfiniBand or RoCE
)


def allreduce_seconds(size: float, machines: int, network: Network) -> float:
    """Seconds to sum `size` bytes over the machines.

    >>> allreduce_seconds(1e6, 1, NETWORKS[0])
    0.0
    """
    if machines == 1:
        return 0.0
    a, b, g, p = network.latency, network.bandwidth, network.adding, machines
    adding = (p - 1) / p * size / g
    ring = 2 * (p - 1) * (a + size / (p * b)) + adding
    halving = 2 * math.ceil(math.log2(p)) * a + 2 * (p - 1) / p * size / b + adding
    doubling = math.ceil(math.log2(p)) * (a + size / b + size / g)
    return min(ring, halving, doubling)


def slowest(machines: int) -> float:
    """How much longer the slowest of the machines computes than the average one."""
    return 1.0 if machines == 1 else 1 + SCATTER * math.sqrt(2 * math.log(machines))


def step_seconds(parts: dict[str, Any], machines: int, network: Network, overlapped: bool) -> float:
    """Seconds per step."""
    wait = slowest(machines)
    forward, backward, pack, update = (parts[f"{name}_ms"] / 1e3 for name in ("forward", "backward", "pack", "update"))
    if machines == 1:
        return forward + backward + update
    if not overlapped:
        return (forward + backward) * wait + pack + allreduce_seconds(parts["bytes"], machines, network) + update
    free = 0.0  # when the network is
    for size, share in parts["buckets"]:
        free = max(free, (forward + share * backward) * wait) + allreduce_seconds(size, machines, network)
    return max((forward + backward) * wait, free) + pack + update


def table(models: dict[str, Any], machines: tuple[int, ...] = (1, 2, 8, 64, 256, 1024)) -> str:
    """Milliseconds per step as Markdown, naive and overlapped, with the efficiency of the overlapped one at the end."""
    lines = ["| model | network | way | " + " | ".join(map(str, machines)) + " | efficiency |"]
    lines.append("| --- | --- | --- |" + " ---: |" * (len(machines) + 1))
    for name, parts in models.items():
        for network in NETWORKS:
            for way in ("naive", "overlapped"):
                times = [step_seconds(parts, p, network, way == "overlapped") for p in machines]
                numbers = " | ".join(f"{1e3 * t:.2f}" for t in times)
                lines.append(f"| {name} | {network.name} | {way} | {numbers} | {times[0] / times[-1]:.0%} |")
    return "\n".join(lines)


def measured_table(record: dict[str, Any]) -> str:
    """What `benchmarks.distributed` found, as Markdown, with its conditions below."""
    columns = ("forward", "backward", "pack", "allreduce", "update", "step")
    lines = [f"| model | MiB | {' | '.join(columns)} | share |", "| --- |" + " ---: |" * (len(columns) + 2)]
    for name, parts in record["models"].items():
        share = (parts["pack_ms"] + parts["allreduce_ms"]) / parts["step_ms"]
        numbers = " | ".join(f"{parts[f'{column}_ms']:.2f}" for column in columns)
        lines.append(f"| {name} | {parts['bytes'] / 2**20:.2f} | {numbers} | {share:.1%} |")
    return "\n".join([*lines, "", f"Conditions: {record['conditions']}."])


def rewrite(page: str, record: dict[str, Any]) -> str:
    """The page with fresh tables between its marks."""
    for mark, text in (("measured", measured_table(record)), ("model", table(record["models"]))):
        start, end = f"<!-- {mark} -->\n", f"\n<!-- end of {mark} -->"
        before, rest = page.split(start)
        page = before + start + text + end + rest.split(end)[1]
    return page


def draw(models: dict[str, Any], path: Path) -> None:
    """Time per step, relative to one machine, over the number of machines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True)
    for axes in grid[-1]:
        axes.set_xlabel("machines")
    for axes, (name, parts) in zip(grid.flat, models.items(), strict=True):
        alone = step_seconds(parts, 1, NETWORKS[0], False)
        for network, colour in zip(NETWORKS, ("tab:red", "tab:blue"), strict=True):
            for overlapped, style, way in ((False, "--", "naive"), (True, "-", "overlapped")):
                times = [step_seconds(parts, p, network, overlapped) / alone for p in MACHINES]
                axes.plot(MACHINES, times, style, color=colour, label=f"{network.name}, {way}")
        axes.plot(MACHINES, [slowest(p) for p in MACHINES], ":", color="grey", label="waiting for the slowest alone")
        axes.set_xscale("log", base=2)
        axes.set_title(f"{name}: {1e3 * alone:.3g} ms alone, {parts['bytes'] / 2**20:.2g} MiB of gradients")
        axes.set_ylim(0.9, min(axes.get_ylim()[1], 6))
        axes.grid(alpha=0.3)
    figure.supylabel("time per step, relative to one machine")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    measured = Path(__file__).with_name("distributed.json")
    parser.add_argument("--measured", type=Path, default=measured, metavar="FILE", help="of benchmarks.distributed")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the tables there, and the plot beside it")
    arguments = parser.parse_args()
    record = json.loads(arguments.measured.read_text())
    print(measured_table(record), table(record["models"]), sep="\n\n")
    if arguments.page:
        arguments.page.write_text(rewrite(arguments.page.read_text(), record))
        draw(record["models"], arguments.page.with_suffix(".png"))


if __name__ == "__main__":
    main()
