"""What is installed, and what a source distribution holds."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import nnx

PACKAGE = Path(nnx.__file__).parent
CHECKOUT = Path(__file__).parents[2]
FOLDERS = ("ext", "nnx", "tests", "benchmarks", "examples", "docs", ".ci")


@pytest.fixture
def distribution():
    try:
        return importlib.metadata.distribution("nnx-core")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("nnx was built in place and not installed")


def test_version_is_the_distribution_s(distribution):
    assert nnx.__version__ == distribution.version


@pytest.mark.parametrize(
    "name",
    ["py.typed", "_ext/common.pxd", "_ext/simd.pxd", "_ext/threads.pxd", "data/digits.npz"],
)
def test_data_files_are_installed(name):
    assert (PACKAGE / name).is_file()


def test_every_compiled_module_has_a_stub():
    suffixes = (".so", ".pyd")
    modules = {p.name.partition(".")[0] for p in (PACKAGE / "_ext").iterdir() if p.suffix in suffixes}
    assert {"simd", "threads", "activation"} <= modules
    assert {name for name in modules if not (PACKAGE / "_ext" / f"{name}.pyi").is_file()} == set()


def test_stubs_name_what_the_modules_have():
    import ast
    import importlib

    for stub in sorted((PACKAGE / "_ext").glob("*.pyi")):
        module = importlib.import_module(f"nnx._ext.{stub.stem}")
        declared = {
            node.name for node in ast.parse(stub.read_text()).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        }
        public = {
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and type(value).__name__ == "cython_function_or_method"
        }
        assert declared >= public, f"{stub.name} lacks {sorted(public - declared)}"
        assert all(hasattr(module, name) for name in declared), stub.name


def test_run_time_dependencies_are_four(distribution):
    required = [r for r in distribution.requires or [] if "extra ==" not in r]
    names = {r.replace(">", " ").replace("=", " ").split()[0] for r in required}
    assert names == {"numpy", "scipy", "safetensors", "tqdm"}


def test_command_is_installed(distribution):
    scripts = distribution.entry_points.select(group="console_scripts", name="nnx")
    assert [script.value for script in scripts] == ["nnx.cli:main"]


@pytest.mark.skipif(not (CHECKOUT / "setup.py").exists(), reason="tests run without the source tree")
def test_source_distribution_is_complete(tmp_path):
    setuptools = pytest.importorskip("setuptools", minversion="77")
    assert setuptools
    tree = tmp_path / "tree"
    tree.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__", ".*_cache", "*.egg-info")
    for path in CHECKOUT.iterdir():
        if path.is_file():
            shutil.copy(path, tree)
        elif path.name in FOLDERS:
            shutil.copytree(path, tree / path.name, ignore=unwanted)
    command = [sys.executable, "setup.py", "-q", "sdist", "--formats=gztar", "-d", str(tmp_path)]
    environment = {**os.environ, "NNX_ONLY": ""}
    subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True, timeout=300)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    wanted = {
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "pyproject.toml",
        "setup.py",
    }
    for folder in FOLDERS:
        wanted |= {
            str(path.relative_to(tree))
            for path in (tree / folder).rglob("*")
            if path.is_file() and path.suffix not in (".so", ".pyd", ".pyc", ".o")
        }
    assert wanted - names == set()
    assert not [name for name in names if name.endswith((".so", ".pyc", ".o"))]
