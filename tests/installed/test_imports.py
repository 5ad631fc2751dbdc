"""Imports run one way, cost little, and never bring in pickle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import nnx

ROOT = Path(nnx.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))

GROUND = {"_check", "_device", "_random", "_ext"}
MAY_IMPORT = {
    "_check": set(),
    "_device": set(),
    "_random": {"_check"},
    "_ext": set(),
    "backends": GROUND,
    "autograd": GROUND | {"backends"},
    "functional": GROUND | {"backends", "autograd"},
    "nn": GROUND | {"backends", "autograd", "functional"},
    "models": GROUND | {"backends", "autograd", "functional", "nn"},
    "optim": GROUND | {"backends", "autograd"},
}
LEAVES = {
    "data", "train", "io", "cli", "testing", "config", "cuda", "classic", "course", "diagnose", "distributed", "graph",
    "viz", "__main__",
}  # fmt: skip


def room(path: Path) -> str:
    """Return the part of nnx that a file belongs to; "" for nnx/__init__.py."""
    first = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def only_for_types(node: ast.AST) -> bool:
    """Tell whether this is ``if TYPE_CHECKING:``, whose imports never run."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def walk(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if not only_for_types(child):
            yield from walk(child)


def imported(path: Path, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute name) of everything that a file imports, wherever it does."""
    package = ["nnx", *path.relative_to(ROOT).parts[:-1]]
    for node in walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            name = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            if name == "nnx":
                # `from nnx import cat` reaches into the room that cat lives in.
                for alias in node.names:
                    yield node.lineno, nnx._HOME_OF.get(alias.name, f"nnx.{alias.name}")
            else:
                yield node.lineno, name


def wrong_imports(path: Path, tree: ast.AST) -> list[str]:
    here = room(path)
    if here == "" or here in LEAVES:
        return []
    allowed = MAY_IMPORT[here] | {here}
    return [
        f"{path.relative_to(ROOT.parent)}:{line}: {here} imports {name}"
        for line, name in imported(path, tree)
        if name.split(".")[0] == "nnx" and (name.split(".") + [""])[1] not in allowed
    ]


def test_every_room_is_known():
    assert {room(path) for path in SOURCES} - {""} <= set(MAY_IMPORT) | LEAVES


def test_imports_run_one_way():
    wrong = [w for path in SOURCES for w in wrong_imports(path, ast.parse(path.read_text()))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line",
    [
        "from nnx.nn import Module",
        "from ..nn.conv import Conv2d",
        "from nnx import nn",
        "from nnx import save",
        "from .. import data",
        "import nnx",
        "def f():\n    import nnx.train.trainer",
    ],
)
def test_the_check_finds_a_wrong_import(line):
    assert wrong_imports(ROOT / "functional" / "planted.py", ast.parse(line))


@pytest.mark.parametrize(
    "line",
    [
        "import numpy as np",
        "from ..autograd import record",
        "from nnx.backends import backend_of",
        "from . import conv",
        "from nnx import cat",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nnx.nn import Module",
    ],
)
def test_the_check_passes_a_right_import(line):
    assert not wrong_imports(ROOT / "functional" / "planted.py", ast.parse(line))


HEAVY = ["scipy", "safetensors", "tqdm", "PIL", "matplotlib", "cupy", "torch", "sklearn", "pooch"]
LOADED = "import {name}, sys; print(*sorted(sys.modules))"


def test_import_loads_nothing_heavy(run_python):
    loaded = run_python(LOADED.format(name="nnx")).stdout.split()
    assert "nnx" in loaded
    assert not {name.partition(".")[0] for name in loaded} & set(HEAVY)


def test_import_adds_few_modules_to_numpy(run_python):
    before = set(run_python(LOADED.format(name="numpy")).stdout.split())
    added = set(run_python(LOADED.format(name="nnx")).stdout.split()) - before
    foreign = {name for name in added if name.partition(".")[0] != "nnx"}
    # A module of pure Python costs 0.1 to 0.5 ms: these bounds keep `import nnx` below 25 ms.
    assert len(added - foreign) <= 70, sorted(added - foreign)
    assert len(foreign) <= 30, sorted(foreign)


def pickle_uses(tree: ast.AST) -> list[str]:
    """List what could read or write pickled objects."""
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        banned = {
            "pickle",
            "_pickle",
            "cPickle",
            "shelve",
            "marshal",
            "dill",
            "cloudpickle",
            "joblib",
        }
        found += [name for name in names if name.partition(".")[0] in banned]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if not (isinstance(owner, ast.Name) and owner.id in ("np", "numpy", "torch")):
                continue
            allow = [k.value for k in node.keywords if k.arg == "allow_pickle"]
            refused = len(allow) == 1 and isinstance(allow[0], ast.Constant) and allow[0].value is False
            if node.func.attr == "load" and not refused:
                found.append(f"{owner.id}.load without allow_pickle=False")
            if node.func.attr == "save" and not refused:
                found.append(f"{owner.id}.save without allow_pickle=False")
    return found


def test_nothing_pickles():
    found = {
        str(path.relative_to(ROOT)): uses for path in SOURCES if (uses := pickle_uses(ast.parse(path.read_text())))
    }
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from marshal import loads",
        "def f():\n    import shelve",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.save(path, a)",
        "torch.load(path)",
    ],
)
def test_the_check_finds_pickle(line):
    assert pickle_uses(ast.parse(line))
