"""Print one table of ratios, nnx against naive NumPy: ``python -m benchmarks.report [family ...] [--write FILE]``.

Both sides of a case run in the same process in alternating blocks of rounds, with a pause after NumPy's block because
its idle BLAS worker keeps spinning. The table gives the median of each side and the ratio of the medians; above 1 nnx
is faster.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np

import nnx
from benchmarks._case import PAUSE, Case, prepare

BLOCKS = 3
BLOCK_SECONDS = 0.03
MOST_ROUNDS = 200


def families() -> list[str]:
    """The families that have a file here."""
    return sorted(p.stem.removeprefix("bench_") for p in Path(__file__).parent.glob("bench_*.py"))


def compare(case: Case) -> tuple[float, float]:
    """Median seconds per call of both sides."""
    ours, theirs = prepare(case)
    times: tuple[list[float], list[float]] = [], []
    for _ in range(BLOCKS):
        for side, taken in zip((ours, theirs), times, strict=True):
            time.sleep(PAUSE)
            side()
            taken.extend(_block(side))
    return statistics.median(times[0]), statistics.median(times[1])


def _block(side: Callable) -> list[float]:
    taken: list[float] = []
    start = time.perf_counter()
    while len(taken) < MOST_ROUNDS and (len(taken) < 3 or time.perf_counter() - start < BLOCK_SECONDS):
        begin = time.perf_counter()
        side()
        taken.append(time.perf_counter() - begin)
    return taken


def report(names: list[str]) -> str:
    """The table as Markdown, with the machine and the versions above it."""
    from nnx.config import config

    facts = config()
    lines = [
        f"{date.today()}; {platform.machine()}, NumPy {np.__version__}, nnx {nnx.__version__}, "
        f"level {facts['level']}, threads {facts['threads']}",
        "",
        "| family | case | nnx (us) | NumPy (us) | ratio |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    slower = []
    for family in names:
        module = importlib.import_module(f"benchmarks.bench_{family}")
        for case in module.CASES:
            ours, theirs = compare(case)
            ratio = theirs / ours
            note = "" if case.judged else " (not judged: small)"
            lines.append(f"| {family} | {case.name} | {ours * 1e6:.1f} | {theirs * 1e6:.1f} | {ratio:.2f}{note} |")
            print(lines[-1], flush=True)
            if case.judged and ratio < (0.9 if family == "gemm" else 1.0):
                slower.append(f"{family}: {case.name} ({ratio:.2f})")
    lines += ["", "Slower than NumPy: " + (", ".join(slower) if slower else "none.")]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("families", nargs="*", metavar="family", help=f"any of {', '.join(families())}")
    parser.add_argument("--write", metavar="FILE", help="also write the table to this file")
    options = parser.parse_args()
    unknown = sorted(set(options.families) - set(families()))
    if unknown:
        parser.error(f"expected families among {', '.join(families())}, got {', '.join(unknown)}")
    text = report(options.families or families())
    print("\n" + text)
    if options.write:
        Path(options.write).write_text("# nnx against naive NumPy\n\n" + text + "\n")


if __name__ == "__main__":
    main()
