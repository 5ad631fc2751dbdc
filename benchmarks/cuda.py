"""nnx on a CUDA device: builds what is missing, checks, measures against PyTorch: ``python -m benchmarks.cuda``.

Needs CUDA, CuPy, PyTorch with CUDA, Cython and a C compiler, and no network; it takes a few minutes. The parts:

    networks  the training step of mlp, lenet, vgg8 and resnet20, as it is and as a CUDA graph
    layers    3x3 convolutions of 64 to 512 channels: forward, data gradient, weight gradient
    ceilings  a large product of matrices and a large copy
    memory    what a training step needs
    checks    every operation of the test table on the device against NumPy, training on the shipped digits (and on
              MNIST with --mnist FOLDER), and the tests that name a GPU

Both sides run in this process from the same weights and data, in turns; that they compute the same is asserted before
anything is timed, and the tolerances are above the tables. What fails is reported and the rest goes on. Everything is
written to benchmarks/RESULTS-cuda.md as it is found. Exit status: 0, 1 if anything failed, 2 without CuPy, a driver or
a device.

``--device cpu --quick`` tries the command itself on a machine without a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import _cuda_checks
from benchmarks._cuda_device import PRECISIONS, Device, facts, need_torch

RESULTS = Path(__file__).with_name("RESULTS-cuda.md")
CHECK_SECONDS = {"table": 240, "digits": 120, "mnist": 180, "tests": 240}


class Report:
    """What was found so far: as Markdown and as data."""

    def __init__(self, write: Path | None, json_file: Path | None) -> None:
        self._write = write
        self._json = json_file
        self._lines: list[str] = []
        self.data: dict[str, Any] = {"date": str(date.today())}
        self.failures: list[str] = []

    def add(self, *lines: str) -> None:
        self._lines += lines
        for line in lines:
            print(line, flush=True)

    def table(self, names: Iterable[str]) -> None:
        """The head of a table whose first column is text."""
        names = list(names)
        self.add(f"| {' | '.join(names)} |", f"| --- |{' ---: |' * (len(names) - 1)}")

    def row(self, cells: Iterable[Any]) -> None:
        self.add(f"| {' | '.join(map(str, cells))} |")

    @contextmanager
    def guard(self, what: str) -> Iterator[None]:
        """Report what goes wrong inside, and go on behind it."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.fail(what, f"{type(error).__name__}: {error}")

    def fail(self, what: str, error: str) -> None:
        self.failures.append(f"{what}: {error}")
        print(f"FAILED {what}", file=sys.stderr, flush=True)

    def save(self) -> None:
        text = "\n".join(["# nnx on CUDA, against PyTorch", "", *self._lines])
        if self.failures:
            text += "\n\n## Failed\n\n" + "\n".join(f"```\n{failure}\n```" for failure in self.failures)
        if self._write:
            self._write.write_text(text.rstrip() + "\n", encoding="utf-8")
        if self._json:
            found = {**self.data, "failures": self.failures}
            self._json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


# -- parts: each adds its section to the report ----------------------------------------------------


def checks(report: Report, device: Device, options: argparse.Namespace) -> None:
    report.add("", "## Checks", "")
    found = report.data["checks"] = []
    programs = {"table": ["table"], "digits": ["digits"]}
    if options.mnist:
        programs["mnist"] = ["mnist", "--mnist", str(Path(options.mnist).resolve())]
    for name, arguments in programs.items():
        arguments = ["-m", "benchmarks._cuda_checks", *arguments, "--device", device.name]
        with report.guard(f"checks, {name}"):
            lines = _cuda_checks.in_a_process(arguments + ["--quick"] * options.quick, CHECK_SECONDS[name])
            report.add(*(f"* {line}" for line in lines))
            found += lines
    if not device.is_cuda:
        return
    missing = _cuda_checks.missing_for_tests()
    if missing:
        report.add(f"* tests/cuda did not run: {' and '.join(missing)} missing here.")
        return
    with report.guard("checks, tests/cuda"):
        # the others, on the stand-in for CuPy and in the emulator, need no device and run everywhere
        arguments = ["-m", "pytest", "tests/cuda", "-q", "-k", "GPU", "-p", "no:cacheprovider"]
        line = _cuda_checks.in_a_process(arguments, CHECK_SECONDS["tests"])[-1]
        report.add(f"* pytest tests/cuda -k GPU: {line.strip('= ')}")
        found.append(line)


def networks(report: Report, device: Device, options: argparse.Namespace) -> None:
    need_torch(device)
    from benchmarks import _cuda_networks as part

    tolerances = " and ".join(f"{value:g} ({key})" for key, value in part.TOLERANCE.items())
    report.add(
        "",
        "## Training steps (milliseconds)",
        "",
        f"Forward, backward and SGD with momentum; float32 arrays. The first {part.CHECKED} losses agree within "
        f"{tolerances} of PyTorch's. cuDNN may choose its fastest algorithms (`cudnn.benchmark`). Ratios are PyTorch "
        "over nnx, each by its better side: above 1 nnx is faster.",
        "",
    )
    sides = ("nnx", "nnx graph", *part.EAGER, *part.GRAPHS)
    report.table(["network", "batch", "products", *sides, "ratio to eager", "ratio to graphs"])
    found = report.data["networks"] = []
    for name, batches in (part.QUICK if options.quick else part.BATCHES).items():
        for batch in batches:
            for precision in device.precisions:
                with report.guard(f"networks, {name} {batch}, {precision}"):
                    row = part.compare(device, name, batch, precision, options.quick)
                    ratios = row.ratio(part.EAGER), row.ratio(part.GRAPHS)
                    found.append(asdict(row) | {"ratios": ratios})
                    cells = [number(row.milliseconds.get(key), 3) for key in sides]
                    report.row([name, batch, precision, *cells, *(number(r, 2) for r in ratios)])
                    for side, error in row.failed.items():
                        report.fail(f"networks, {name} {batch}, {precision}, {side}", error)


def layers(report: Report, device: Device, options: argparse.Namespace) -> None:
    need_torch(device)
    from benchmarks import _cuda_layers as part

    tolerances = " and ".join(f"{value:g} ({key})" for key, value in part.TOLERANCE.items())
    report.add(
        "",
        "## 3x3 convolutions (milliseconds)",
        "",
        f"Results agree within {tolerances} of the largest number. TFLOP/s are those of nnx, counted as for a direct "
        "convolution; the ratio is PyTorch's better layout over nnx.",
        "",
    )
    report.table(["layer", "pass", "products", "nnx", "PyTorch", "channels_last", "ratio", "TFLOP/s"])
    found = report.data["layers"] = []
    for shape in part.SMALL if options.quick else part.LAYERS:
        for precision in device.precisions:
            with report.guard(f"layers, {shape}, {precision}"):
                for row in part.compare(device, shape, precision, options.quick):
                    found.append(asdict(row) | {"ratio": row.ratio, "teraflops": row.teraflops})
                    times = (number(row.milliseconds[key], 3) for key in ("nnx", "PyTorch", "channels_last"))
                    report.row([row.layer, row.what, precision, *times, number(row.ratio, 2), number(row.teraflops, 2)])


def ceilings(report: Report, device: Device, options: argparse.Namespace) -> None:
    need_torch(device)
    from benchmarks import _cuda_layers as part

    report.add("", "## Ceilings", "")
    report.add("The error is that of nnx's product, relative to the largest number of the exact one.", "")
    report.table(["what", "nnx", "PyTorch", "unit", "error"])
    found = report.data["ceilings"] = []
    measures: dict[str, Callable] = {
        f"product, {name}": lambda name=name: part.products(device, name, options.quick)
        for name in (PRECISIONS if device.is_cuda else device.precisions)
    }
    for what, measure in {**measures, "copy": lambda: part.copies(device, options.quick)}.items():
        with report.guard(f"ceilings, {what}"):
            row = measure()
            found.append(asdict(row))
            error = "-" if row.error is None else f"{row.error:.1e}"
            report.row([row.what, *(number(row.values.get(key), 1) for key in ("nnx", "PyTorch")), row.unit, error])


def memory(report: Report, device: Device, options: argparse.Namespace) -> None:
    from benchmarks import _cuda_networks as part

    report.add("", "## Memory (MiB)", "")
    if not device.is_cuda:
        report.add("Measured on a CUDA device only.")
        return
    need_torch(device)
    report.add(
        "Model, data, optimizer and three training steps in float32, each side alone: the most that was in use at a "
        "time, and in brackets what the library took from the device for it. Workspaces that cuBLAS keeps are not in "
        "it. The ratio is PyTorch's smaller peak over nnx's: above 1 nnx needs less.",
        "",
    )
    report.table(["network", "batch", "nnx", *part.EAGER, "ratio"])
    found = report.data["memory"] = []
    for name, batches in (part.QUICK if options.quick else part.BATCHES).items():
        for batch in batches:
            with report.guard(f"memory, {name} {batch}"):
                row = part.memory(device, name, batch)
                ratio = min(v for k, v in row.peak.items() if k != "nnx") / row.peak["nnx"]
                found.append(asdict(row) | {"ratio": ratio})
                cells = [
                    f"{row.peak[key] / 2**20:.1f} ({row.taken[key] / 2**20:.0f})" if key in row.peak else "-"
                    for key in ("nnx", *part.EAGER)
                ]
                report.row([name, batch, *cells, number(ratio, 2)])


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


PARTS = {part.__name__: part for part in (networks, layers, ceilings, memory, checks)}


# -- the command -----------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cuda", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="part", help=f"any of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--no-checks", action="store_true", help="only measure")
    parser.add_argument("--mnist", metavar="FOLDER", help="also train on MNIST, from its four files")
    parser.add_argument("--write", metavar="FILE", type=Path, help="the tables; RESULTS-cuda.md beside this file")
    parser.add_argument("--json", metavar="FILE", type=Path, help="the figures as JSON")
    parser.add_argument("--device", default="cuda", help='"cuda" (default), "cuda:1", or "cpu" to try the command')
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for trying the command")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.parts) - set(PARTS))
    if unknown:
        parser.error(f"expected parts among {', '.join(PARTS)}, got {', '.join(unknown)}")
    wanted = set(options.parts or PARTS) - ({"checks"} if options.no_checks else set())
    try:
        device = Device(options.device)
    except (ImportError, RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2

    trial = options.quick or not device.is_cuda
    report = Report(options.write or (None if trial else RESULTS), options.json)
    start = time.perf_counter()
    with report.guard("facts"):
        report.data["facts"] = facts(device)
        report.add(f"{date.today()}; " + "; ".join(f"{name} {value}" for name, value in report.data["facts"].items()))
    if not _cuda_checks.is_built():
        print(f"building nnx's extension with {os.cpu_count()} jobs ...", flush=True)
        with report.guard("build"):
            _cuda_checks.build()
            print(f"built in {time.perf_counter() - start:.0f} s", flush=True)
    if not report.failures:
        for name in (name for name in PARTS if name in wanted):
            with report.guard(name):
                PARTS[name](report, device, options)
            report.save()
    report.add("", f"{time.perf_counter() - start:.0f} s in all; {len(report.failures)} failed.")
    report.save()
    for failure in report.failures:
        print(f"FAILED {failure}", file=sys.stderr)
    return int(bool(report.failures))


if __name__ == "__main__":
    sys.exit(main())
