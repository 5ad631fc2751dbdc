"""The command that builds, checks and measures on a GPU (`benchmarks/cuda.py`), tried without one."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

import nnx

ROOT = Path(__file__).parents[2]


@pytest.fixture
def command(monkeypatch):
    """The module, with the nnx that is tested, wherever that is."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import cuda

    return cuda


@pytest.fixture
def checks(command):
    return command._cuda_checks


# -- what is missing -------------------------------------------------------------------------------


def test_no_cupy(command, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert command.main([]) == 2
    text = capsys.readouterr().err
    assert text.startswith("benchmarks.cuda: expected CuPy for CUDA, got none.") and "nnx-core[cuda13]" in text


def test_no_driver(command, cuda, monkeypatch, capsys):
    import standin

    monkeypatch.setattr(standin.Machine, "error", ("cudaErrorInsufficientDriver", "the driver is too old"))
    assert command.main([]) == 2
    assert "benchmarks.cuda: expected a working NVIDIA driver" in capsys.readouterr().err


def test_no_device(command, cuda, monkeypatch, capsys):
    import standin

    monkeypatch.setattr(standin.Machine, "devices", 0)
    assert command.main([]) == 2
    assert "benchmarks.cuda: expected a CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["network"], "expected parts among networks, layers, ceilings, memory, checks, got network"),
        (["--blocks", "3"], "unrecognized arguments"),
    ],
)
def test_wrong_arguments(command, arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_no_such_device(command, capsys):
    assert command.main(["--device", "tpu"]) == 2
    assert "benchmarks.cuda: expected device to be" in capsys.readouterr().err


def test_no_pytorch(command, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    arguments = ["--device", "cpu", "--quick", "--no-checks", "--json", str(tmp_path / "found.json")]
    assert command.main(arguments) == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["facts"]["PyTorch"] == "not installed"
    assert [failure.partition(":")[0] for failure in found["failures"]] == ["networks", "layers", "ceilings"]
    assert all("expected PyTorch to compare with, got none" in failure for failure in found["failures"])


# -- a trial on the CPU ----------------------------------------------------------------------------


def trial(command, folder, *more):
    """Exit status, tables and figures of a trial."""
    pytest.importorskip("torch").set_num_threads(1)  # its other threads would spin beside nnx's
    files = ["--write", str(folder / "found.md"), "--json", str(folder / "found.json")]
    status = command.main(["--device", "cpu", "--quick", *files, *more])
    return status, (folder / "found.md").read_text(), json.loads((folder / "found.json").read_text())


def test_the_tables(command, tmp_path):
    status, text, found = trial(command, tmp_path, "--no-checks")
    assert status == 0 and found["failures"] == [] and "## Failed" not in text
    assert found["facts"]["nnx"] == nnx.__version__ and f"nnx {nnx.__version__}" in text
    assert [row["network"] for row in found["networks"]] == ["mlp", "lenet"]
    for row in found["networks"]:
        assert set(row["milliseconds"]) == {"nnx", "PyTorch", *(["channels_last"] if row["network"] != "mlp" else [])}
        assert all(value > 0 for value in row["milliseconds"].values())
        assert f"| {row['network']} | 4 | float32 |" in text
    assert [row["what"] for row in found["layers"]] == ["forward", "data gradient", "weight gradient"]
    assert [row["unit"] for row in found["ceilings"]] == ["TFLOP/s", "GB/s"]
    assert 0 < found["ceilings"][0]["error"] < 1e-5
    assert "Measured on a CUDA device only." in text and "## Checks" not in text


def test_what_fails_is_reported_and_the_rest_goes_on(command, tmp_path, monkeypatch):
    from benchmarks import _cuda_networks

    honest = _cuda_networks.nnx_step

    def planted(device, name, *rest, **options):
        step = honest(device, name, *rest, **options)
        return (lambda: step() * 1.01) if name == "lenet" else step

    monkeypatch.setattr(_cuda_networks, "nnx_step", planted)
    status, text, found = trial(command, tmp_path, "networks", "layers")
    assert status == 1
    assert [row["network"] for row in found["networks"]] == ["mlp"] and len(found["layers"]) == 3
    (failure,) = found["failures"]
    assert failure.startswith("networks, lenet 4, float32: AssertionError: expected the losses")
    assert failure.endswith("from nnx") and failure in text


def test_a_graph_that_fails_leaves_the_others(command, tmp_path, monkeypatch):
    from benchmarks import _cuda_networks

    honest = _cuda_networks.all_sides

    def planted(device, name, batch):
        sides = honest(device, name, batch)
        return {**sides, "nnx graph": lambda: 1 / 0, "PyTorch graph": lambda: lambda: 7.0}

    monkeypatch.setattr(_cuda_networks, "all_sides", planted)
    status, text, found = trial(command, tmp_path, "networks")
    assert status == 1
    assert all({"nnx", "PyTorch"} <= set(row["milliseconds"]) for row in found["networks"])
    assert found["networks"][0]["failed"]["nnx graph"] == "ZeroDivisionError: division by zero"
    assert found["failures"][1].startswith("networks, mlp 4, float32, PyTorch graph: AssertionError: expected the loss")


@pytest.mark.parametrize("planted", [1.1, float("nan")])
def test_losses_that_differ(command, planted):
    from benchmarks._cuda_networks import assert_alike

    assert_alike("nnx", [1.0001, 2.0], [1.0, 2.0], 1e-3)
    with pytest.raises(AssertionError, match="expected the losses .* of PyTorch, got .* from nnx"):
        assert_alike("nnx", [1.0, planted], [1.0, 2.0], 1e-3)


# -- checks ----------------------------------------------------------------------------------------


def test_the_operation_table(checks, capsys, monkeypatch):
    assert checks.table("cpu", True) == 0
    honest = checks.run_there

    def planted(case, values, device):
        outputs, grads = honest(case, values, device)
        return [y + (y.dtype.kind == "f") for y in outputs], grads

    monkeypatch.setattr(checks, "run_there", planted)
    count = checks.table("cpu", True)
    lines = capsys.readouterr().out.splitlines()
    assert count == len(lines) - 2 > 20
    assert "AssertionError: assert_close: expected output 0" in lines[1]


def test_digits(checks, capsys, monkeypatch):
    assert not checks.train("digits", "cpu", None, True)
    assert "digits on cpu: test accuracy 0." in capsys.readouterr().out
    monkeypatch.setitem(checks.REACHED, "digits", 1.1)
    monkeypatch.setattr(nnx.train.Trainer, "fit", lambda *args, **options: None)
    assert checks.train("digits", "cpu", None, False)


def test_programs(checks):
    assert checks.in_a_process(["-c", "print(1); print(2)"], 60) == ["1", "2"]
    with pytest.raises(RuntimeError, match="exits with 3:?\n1\nworse"):
        checks.in_a_process(["-c", "import sys; print(1, flush=True); sys.stderr.write('worse'); sys.exit(3)"], 60)
    with pytest.raises(RuntimeError, match="to end within 0 s, it did not"):
        checks.in_a_process(["-c", "import time; time.sleep(60)"], 0.1)


def test_a_build_that_gives_nothing(checks, monkeypatch):
    commands = []
    monkeypatch.setattr(checks, "in_a_process", lambda command, timeout: commands.append(command) or ["no compiler"])
    checks.build()
    monkeypatch.setattr(checks, "is_built", lambda: False)
    with pytest.raises(RuntimeError, match="expected setup.py build_ext to build nnx for this Python.*\nno compiler"):
        checks.build()
    assert commands == 2 * [["setup.py", "-q", "build_ext", "--inplace"]]


@pytest.mark.parametrize("missing", [[], ["hypothesis"]])
def test_what_is_run_on_a_device(command, checks, cuda, monkeypatch, missing, tmp_path):
    """The checks on a device are programs; one that fails does not keep the others from running."""
    programs = []

    def run(arguments, timeout):
        programs.append(arguments)
        if "digits" in arguments:
            raise RuntimeError("killed")
        return ["as it should be"]

    monkeypatch.setattr(checks, "in_a_process", run)
    monkeypatch.setattr(checks, "missing_for_tests", lambda: missing)
    monkeypatch.setattr(command, "RESULTS", tmp_path / "RESULTS-cuda.md")
    assert command.main(["checks", "--mnist", "somewhere"]) == 1
    assert [p[2] for p in programs] == ["table", "digits", "mnist", *([] if missing else ["tests/cuda"])]
    assert all(p[-2:] == ["--device", "cuda:0"] for p in programs[:3])
    text = (tmp_path / "RESULTS-cuda.md").read_text()
    assert "card stand-in; compute capability 9.0" in text and "checks, digits: RuntimeError: killed" in text
    assert ("* tests/cuda did not run: hypothesis missing here." in text) == bool(missing)


# -- nnx's side on the stand-in --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "lenet"])
def test_steps_on_the_stand_in(command, cuda, name):
    """The losses of the CPU, from steps as they are and from a graph."""
    from benchmarks._cuda_device import Device, host
    from benchmarks._cuda_networks import CHECKED, assert_alike, first_weights, nnx_step

    first = first_weights(name)
    cpu, device = Device("cpu"), Device("cuda")
    with device.precision("float32"):
        steps = {
            "CPU": nnx_step(cpu, name, 2, first),
            "eager": nnx_step(device, name, 2, first),
            "graph": nnx_step(device, name, 2, first, graph=True),
        }
        losses = {key: [float(host(step())) for _ in range(CHECKED)] for key, step in steps.items()}
    for key in ("eager", "graph"):
        assert_alike(key, losses[key], losses["CPU"], 1e-5)
    assert len(set(losses["graph"])) == CHECKED


# -- the page --------------------------------------------------------------------------------------


def test_the_code_of_the_page(cuda, tmp_path, monkeypatch, capsys):
    """The blocks of docs/cuda.md, one after the other."""
    monkeypatch.chdir(tmp_path)
    before = nnx.cuda.get_float32_matmul_precision()
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "cuda.md").read_text(encoding="utf-8"), re.DOTALL)
    try:
        names = {"__name__": "page"}
        for block in blocks:
            exec(compile(block, "cuda.md", "exec"), names)
    finally:
        nnx.cuda.set_float32_matmul_precision(before)
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("cuda:0 ") and float(last) < float(first.split()[1])
    assert type(names["scores"]) is cuda.ndarray and (tmp_path / "model.safetensors").exists()
