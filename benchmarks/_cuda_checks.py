"""Whether nnx computes the right thing on a device, as a program of its own: a crash there ends only the check.

``python -m benchmarks._cuda_checks table|digits|mnist [--device cuda] [--mnist FOLDER] [--quick]``: what was found goes
to standard output, and the exit status is 1 if something is wrong.

    table    every operation of tests/cases, outputs and gradients in both types, against NumPy
    digits   the shipped digits, learned by `nnx.train.Trainer`
    mnist    LeNet on MNIST, from a folder with its four files
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
REACHED = {"digits": 0.95, "mnist": 0.97}  # test accuracy that a correct gradient passes easily
BUILD_SECONDS = 480
MOST_LINES = 150  # of the output of what fails
NEEDED_BY_TESTS = ("pytest", "hypothesis")


# -- for benchmarks.cuda ---------------------------------------------------------------------------


def is_built() -> bool:
    """Whether nnx's extension modules can be imported."""
    importlib.invalidate_caches()
    try:
        importlib.import_module("nnx._ext.simd")
    except ImportError:
        return False
    return True


def build() -> None:
    """Build the extension in this tree, with a job for each core; RuntimeError with the log where that fails."""
    log = in_a_process(["setup.py", "-q", "build_ext", "--inplace"], BUILD_SECONDS)
    if not is_built():
        raise RuntimeError("\n".join(["expected setup.py build_ext to build nnx for this Python, it ends with:", *log]))


def in_a_process(arguments: list[str], timeout: float) -> list[str]:
    """The lines that a Python program writes; RuntimeError with the last of them where it fails or takes too long."""
    program = " ".join(arguments)
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        lines = process.communicate(timeout=timeout)[0].strip().splitlines()
        wrong = f"{program} exits with {process.returncode}" if process.returncode else ""
    except subprocess.TimeoutExpired:
        process.kill()
        lines = process.communicate()[0].strip().splitlines()
        wrong = f"expected {program} to end within {timeout:.0f} s, it did not"
    if wrong:
        raise RuntimeError("\n".join([wrong, *lines[-MOST_LINES:]]))
    return lines


def missing_for_tests() -> list[str]:
    """What tests/cuda needs and this Python has not."""
    return [name for name in NEEDED_BY_TESTS if importlib.util.find_spec(name) is None]


# -- the operation table ---------------------------------------------------------------------------


def table(device: str, quick: bool) -> int:
    """Run the table on the device, and print what differs from NumPy as it is found; how much did."""
    sys.path.insert(0, str(ROOT / "tests"))
    from cases import BROKEN, CASES
    from cases._run import cast, compare, run
    from nnx.testing import base_backend

    wrong = len(BROKEN)
    for family, error in BROKEN.items():
        print(f"{family}: {error!r}", flush=True)
    cases = CASES[::10] if quick else CASES
    start = time.perf_counter()
    for case in cases:
        for dtype in (np.float32, np.float64):
            values = cast(case.inputs(np.random.default_rng(20240229)), dtype)
            tolerance = case.rtol32 if dtype is np.float32 else case.rtol64
            try:
                with base_backend():
                    expected = run(case, values)
                compare(run_there(case, values, device), expected, tolerance)
            except Exception as error:
                frame = traceback.extract_tb(error.__traceback__)[-1]
                text = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
                place = f"{Path(frame.filename).name}:{frame.lineno}"
                print(f"{case.id}, {dtype.__name__}: {text} ({place})", flush=True)
                wrong += 1
    seconds = time.perf_counter() - start
    print(f"{len(cases)} operations in two types on {device}: {wrong} calls differ from NumPy ({seconds:.0f} s).")
    return wrong


def run_there(case: Any, values: tuple, device: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Outputs and gradients of a case whose arrays are on `device`, brought back."""
    import nnx
    from cases._run import cotangent
    from nnx import _device

    arguments = [_device.move(v, device) if isinstance(v, np.ndarray) else v for v in values]
    leaves = []
    for i in case.grad:
        arguments[i] = nnx.Tensor(arguments[i], requires_grad=True)
        leaves.append(arguments[i])
    result = case.function(*arguments, **case.kwargs)
    outputs = list(result) if isinstance(result, (tuple, list)) else [result]
    for i, y in enumerate(outputs):
        if y.device != device:
            raise AssertionError(f"output {i} is on {y.device}")
        if y.requires_grad:
            y.backward(_device.move(cotangent(i, y.shape, y.dtype), device), retain_graph=True)
    grads = [np.zeros(t.shape, t.dtype) if t.grad is None else _device.to_host(t.grad) for t in leaves]
    return [y.numpy() for y in outputs], grads


# -- training --------------------------------------------------------------------------------------


def train(name: str, device: str, folder: str | None, quick: bool) -> bool:
    """Train from scratch, print the accuracy, and tell whether it is too low."""
    import nnx
    from nnx import models, nn, optim
    from nnx.train import Trainer

    nnx.manual_seed(0)
    data = nnx.data.digits() if name == "digits" else nnx.data.mnist(folder)
    if name == "digits":
        model, epochs, batch = models.convnet(10, 1, 8, (32, 64)), 1 if quick else 15, 64
    else:
        model, epochs, batch = models.lenet5(), 2, 128
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=2e-3), device=device)
    start = time.perf_counter()
    trainer.fit(data.x_train, data.y_train, epochs=epochs, batch_size=batch, seed=0, verbose=False)
    seconds = time.perf_counter() - start
    accuracy = trainer.evaluate(data.x_test, data.y_test)["accuracy"]
    expected = 0.5 if quick else REACHED[name]
    print(
        f"{name} on {device}: test accuracy {accuracy:.4f} (expected: {expected} or more) after {epochs} epochs of "
        f"{len(data.x_train)} images in batches of {batch} ({seconds:.1f} s)."
    )
    return not accuracy >= expected


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks._cuda_checks", description=__doc__)
    parser.add_argument("check", choices=["table", *REACHED])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--mnist", metavar="FOLDER")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    from nnx import _device

    device = _device.parse("benchmarks._cuda_checks", options.device)
    if options.check == "table":
        return int(table(device, options.quick) > 0)
    return int(train(options.check, device, options.mnist, options.quick))


if __name__ == "__main__":
    sys.exit(main())
