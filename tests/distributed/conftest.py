"""Starting ranks: the tests run ``ranks.py`` under mpiexec and look at what each rank has written."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import nnx

HERE = Path(__file__).parent
sys.path.append(str(HERE))  # rank_problems, which ranks.py finds beside itself
SECONDS = 120  # for a launch on a machine that is busy with other things; it takes about two


@dataclass
class Job:
    """What came out of a launch."""

    code: int
    text: str  # standard output and standard error
    folder: Path

    def arrays(self, rank: int) -> dict[str, np.ndarray]:
        return nnx.load(self.folder / f"rank{rank}.safetensors")


class Launcher:
    """``launch(4, "equality")`` runs the function `equality` of ranks.py on four ranks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0

    def __call__(self, ranks: int, job: str, *arguments: object, good: bool = True, **environment: str) -> Job:
        self._count += 1
        folder = self.folder / f"{job}{self._count}"
        folder.mkdir()
        command = [sys.executable, str(HERE / "ranks.py"), job, str(folder), *map(str, arguments)]
        return self.command(ranks, command, folder, good, environment)

    def command(self, ranks: int, command: list[str], folder: Path, good: bool, environment: dict[str, str]) -> Job:
        # the ranks import the nnx that is under test, wherever it lies
        path = os.pathsep.join(filter(None, (str(Path(nnx.__file__).parents[1]), os.environ.get("PYTHONPATH"))))
        settings = {
            **os.environ,
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "OMP_WAIT_POLICY": "passive",
            "NNX_NUM_THREADS": "1",
            "PYTHONPATH": path,
            "PYTHONWARNINGS": "ignore::RuntimeWarning",  # more ranks than cores is what tests are about
            **environment,
        }
        done = subprocess.run(
            [_mpiexec(), "--oversubscribe", "-n", str(ranks), *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS, env=settings, cwd=folder, check=False,
        )  # fmt: skip
        job = Job(done.returncode, done.stdout.decode(errors="replace"), folder)
        assert (job.code == 0) == good, job.text
        return job


def _mpiexec() -> str:
    beside = Path(sys.executable).parent / "mpiexec"  # where the wheel of Open MPI puts it
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    return found or ""


def need_mpi() -> None:
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip('needs mpi4py: pip install "nnx-core[mpi]"')
    if not _mpiexec():
        pytest.skip('needs mpiexec: pip install "nnx-core[mpi]", or an MPI of the system')


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    need_mpi()
    return Launcher(tmp_path_factory.mktemp("ranks"))
