"""The model of docs/scaling.md, and the scripts that measure."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scaling():
    spec = importlib.util.spec_from_file_location("scaling", ROOT / "benchmarks" / "scaling.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["scaling"]


@pytest.fixture(scope="module")
def measured():
    return json.loads((ROOT / "benchmarks" / "distributed.json").read_text())["models"]


def test_allreduce_by_hand(scaling):
    slow = scaling.Network("slow", latency=1e-3, rate=8e9 / 0.9, adding=1e30)  # 1 GB/s
    assert scaling.allreduce_seconds(8e6, 1, slow) == 0
    # two machines exchange all of it once, or halves of it twice
    assert scaling.allreduce_seconds(8e6, 2, slow) == pytest.approx(1e-3 + 8e-3)
    assert scaling.allreduce_seconds(8e9, 1024, slow) == pytest.approx(20e-3 + 2 * 1023 / 1024 * 8)
    assert scaling.allreduce_seconds(8, 1024, slow) == pytest.approx(10e-3, rel=1e-4)
    quick = scaling.Network("quick", latency=0, rate=8e9 / 0.9, adding=1e9)
    assert scaling.allreduce_seconds(1e9, 4, quick) == pytest.approx(3 / 4 * 2 + 3 / 4)


def test_steps_by_hand(scaling):
    parts = {"forward_ms": 1, "backward_ms": 2, "pack_ms": 0.25, "update_ms": 0.5, "bytes": 3e6,
             "buckets": [[1e6, 0.5], [2e6, 1.0]]}  # fmt: skip
    network = scaling.NETWORKS[0]
    assert scaling.step_seconds(parts, 1, network, True) == scaling.step_seconds(parts, 1, network, False) == 3.5e-3
    wait = 1 + 0.03 * math.sqrt(2 * math.log(16))
    naive = 3e-3 * wait + 0.75e-3 + scaling.allreduce_seconds(3e6, 16, network)
    assert scaling.step_seconds(parts, 16, network, False) == pytest.approx(naive)
    first = 2e-3 * wait + scaling.allreduce_seconds(1e6, 16, network)
    last = max(first, 3e-3 * wait) + scaling.allreduce_seconds(2e6, 16, network)
    assert scaling.step_seconds(parts, 16, network, True) == pytest.approx(last + 0.75e-3)
    nothing = parts | {"buckets": [[8, 0.1]]}  # hidden behind the backward pass
    assert scaling.step_seconds(nothing, 16, network, True) == pytest.approx(3e-3 * wait + 0.75e-3)


def test_more_machines_never_make_a_step_shorter(scaling, measured):
    assert set(measured) == {"mlp", "lenet", "vgg8", "resnet20"}
    for parts in measured.values():
        assert sum(size for size, _ in parts["buckets"]) == pytest.approx(parts["bytes"], rel=1e-3)
        assert np.all(np.diff([share for _, share in parts["buckets"]]) >= 0)
        for network in scaling.NETWORKS:
            for overlapped in (False, True):
                times = [scaling.step_seconds(parts, p, network, overlapped) for p in scaling.MACHINES]
                assert np.all(np.diff(times) >= 0)


def test_the_table_of_the_page_is_what_the_script_prints(scaling, measured):
    page = (ROOT / "docs" / "scaling.md").read_text()
    assert scaling.table(measured) in page


def test_the_picture_is_drawn(scaling, measured, tmp_path):
    pytest.importorskip("matplotlib")
    scaling.draw(measured, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").stat().st_size > 10_000
    assert (ROOT / "docs" / "scaling.png").is_file()


def test_the_measurement_runs(launch, tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from benchmarks import distributed as d;"
        "d.WARM_UP, d.STEPS, d.CASES = 1, 2, {'lenet': d.CASES['lenet']};"
        "sys.argv[1:] = ['--write', 'found.json']; d.main()"
    )
    job = launch.command(2, [sys.executable, "-c", code, str(ROOT)], tmp_path, True, {})
    assert "| lenet | 0.24 |" in job.text
    parts = json.loads((tmp_path / "found.json").read_text())["models"]["lenet"]
    assert parts["bytes"] == 4 * (61706 + 10 + 1) and all(parts[k] > 0 for k in parts if k.endswith("_ms"))


def test_the_example_runs_on_two_ranks(launch, tmp_path):
    job = launch.command(2, [sys.executable, "-m", "mpi4py", str(ROOT / "examples" / "ranks.py")], tmp_path, True, {})
    assert job.text.count("epoch 12:") == 1
    assert float(job.text.split("test accuracy ")[1].split()[0]) >= 0.96
