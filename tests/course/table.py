"""Print the course table row by row: ``python tests/course/table.py``.

Runs the tests of the course and counts, for each row ID, those whose names carry it. A row is `passed` if at least one
of its tests passed and none failed; one that is history or an overview is `documentation only`, with its page (a small
run may go with it, and must not fail); one without tests is `missing`. The exit code is 0 if no row failed, is missing,
or was only skipped.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
sys.path.insert(0, str(TESTS))  # as pytest's setting `pythonpath` does
sys.path.append(str(ROOT))  # the clone's nnx, if none is installed

from course.rows import DOCUMENTED, ELSEWHERE, ROWS  # noqa: E402

ROW_ID = re.compile(r"F\d{3}")


class Outcomes:
    """A pytest plugin that counts outcomes by row ID."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.modules: dict[str, set[str]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        # what fails or skips before or after the test itself counts too
        if report.when == "call" or report.outcome != "passed":
            path, _, name = report.nodeid.partition("::")
            for row in set(ROW_ID.findall(name.partition("[")[0])):  # the function's name, not its parameters
                self.counts.setdefault(row, Counter())[report.outcome] += 1
                self.modules.setdefault(row, set()).add(Path(path).stem)


def state(row: str, counts: dict[str, Counter[str]]) -> str:
    """What became of a row: passed, failed, skipped, documentation only, or missing."""
    outcomes = counts.get(row, Counter())
    if outcomes["failed"]:
        return "failed"
    if row in DOCUMENTED and ROOT.joinpath("docs", "course", f"{DOCUMENTED[row]}.md").exists():
        return "documentation only"
    if outcomes["passed"]:
        return "passed"
    return "skipped" if outcomes["skipped"] else "missing"


def lines(outcomes: Outcomes) -> list[str]:
    """The table as text, one line per row, and a line that sums it up."""
    table, states = [], Counter[str]()
    for row, title in ROWS.items():
        result = state(row, outcomes.counts)
        states[result] += 1
        if result == "documentation only":
            where = f"docs/course/{DOCUMENTED[row]}.md"
        else:
            where = ", ".join(sorted(outcomes.modules.get(row, ())))
        table.append(f"{row}  {result:<18}  {title}" + (f"  [{where}]" if where else ""))
    table.append(f"{len(ROWS)} rows: " + ", ".join(f"{count} {result}" for result, count in states.most_common()))
    return table


def main(arguments: list[str]) -> int:
    """Run the tests (`arguments` go to pytest) and print the table; 0 if nothing fails or misses."""
    import pytest

    outcomes = Outcomes()
    folders = {str(ROOT / folder) for folder in ELSEWHERE.values() if (ROOT / folder).exists()}
    code = pytest.main([str(TESTS / "course"), *sorted(folders), "-q", "--no-header", *arguments], plugins=[outcomes])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return int(code)  # pytest has said why the tests did not run
    table = lines(outcomes)
    print("\n" + "\n".join(table))
    good = {"passed", "documentation only"}
    return 0 if all(state(row, outcomes.counts) in good for row in ROWS) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
