"""No row of the course table is missing, and no test names a row that is not in it."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

import nnx.course
from course import table
from course.rows import DOCUMENTED, ELSEWHERE, ROWS

ROOT = Path(__file__).parents[2]
ROW_ID = re.compile(r"F\d{3}")


def named_rows(folder: Path) -> dict[str, set[str]]:
    """Row IDs to the test functions in a folder that carry them in their name."""
    found: dict[str, set[str]] = {}
    for path in folder.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for row in ROW_ID.findall(node.name):
                    found.setdefault(row, set()).add(f"{path.name}::{node.name}")
    return found


SHOWN = named_rows(ROOT / "tests" / "course")


@pytest.mark.parametrize("row", [row for row in ROWS if row not in ELSEWHERE])
def test_row(row):
    if row in DOCUMENTED:
        page = ROOT / "docs" / "course" / f"{DOCUMENTED[row]}.md"
        assert row in page.read_text(encoding="utf-8"), f"{page.name} does not mention {row}"
    else:
        assert row in SHOWN, f"no test in tests/course has {row} in its name"


def test_rows_with_tests_elsewhere():
    for row, folder in ELSEWHERE.items():
        assert row in named_rows(ROOT / folder), f"no test in {folder} has {row} in its name"


def test_every_row_is_taught_by_a_topic():
    taught = {row for topic in nnx.course.names() for row in nnx.course.load(topic).ROWS}
    assert sorted(set(ROWS) - taught - set(ELSEWHERE)) == []


def test_no_test_names_an_unknown_row():
    assert sorted(set(SHOWN) - set(ROWS)) == []


@pytest.mark.parametrize(("name", "letter", "last"), [("test_golden", "N", 27), ("test_errors", "X", 26)])
def test_every_golden_number_and_every_error_has_a_test(name, letter, last):
    source = (ROOT / "tests" / "course" / f"{name}.py").read_text(encoding="utf-8")
    found = {int(number) for number in re.findall(rf"^def test_{letter}(\d+)_", source, re.MULTILINE)}
    assert found == set(range(1, last + 1))


def test_the_table_has_the_rows_of_the_documents():
    ranges = [(1, 12), (20, 30), (40, 55), (60, 78), (80, 91), (100, 108), (110, 116), (120, 128), (130, 138)]
    ranges += [(140, 159), (160, 180)]
    assert list(ROWS) == [f"F{n:03}" for first, last in ranges for n in range(first, last + 1)]
    assert all(len(title) <= 80 for title in ROWS.values())


def test_state_of_a_row():
    counts = {
        "F001": Counter(passed=2, skipped=1),
        "F002": Counter(passed=1, failed=1),
        "F003": Counter(skipped=1),
    }
    assert [table.state(row, counts) for row in ("F001", "F002", "F003", "F004")] == [
        "passed",
        "failed",
        "skipped",
        "missing",
    ]
    assert table.state("F012", counts) == "documentation only"
    assert table.state("F012", {"F012": Counter(passed=1)}) == "documentation only"
    assert table.state("F012", {"F012": Counter(passed=1, failed=1)}) == "failed"


def test_the_table_counts_tests_by_the_ids_in_their_names():
    class Report:
        def __init__(self, name, outcome, when="call"):
            self.nodeid, self.outcome, self.when = f"tests/course/test_gates.py::{name}", outcome, when

    outcomes = table.Outcomes()
    for report in (
        Report("test_F005_F016_nand[3]", "passed"),
        Report("test_F005_peer", "skipped", "setup"),
        Report("test_row[F005]", "failed"),  # a parameter is no name
        Report("test_F006", "passed", "setup"),
        Report("test_F006", "failed", "call"),
        Report("test_F006", "passed", "teardown"),
    ):
        outcomes.pytest_runtest_logreport(report)
    assert outcomes.counts["F005"] == Counter(passed=1, skipped=1)
    assert outcomes.counts["F006"] == Counter(failed=1)
    text = "\n".join(table.lines(outcomes))
    assert re.search(r"^F005  passed .*\[test_gates\]$", text, re.MULTILINE)
    assert re.search(r"^F006  failed ", text, re.MULTILINE)
    assert re.search(r"^F012  documentation only .*\[docs/course/history.md\]$", text, re.MULTILINE)
    assert text.splitlines()[-1].startswith(f"{len(ROWS)} rows: ")
