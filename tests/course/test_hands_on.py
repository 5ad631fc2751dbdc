"""Every hands-on page of the documents has a topic that runs it, and tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import nnx
from course.rows import ROWS
from nnx.course import hands_on

ROOT = Path(__file__).parents[2]
TESTED = {
    row
    for path in (ROOT / "tests" / "course").glob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    for row in re.findall(r"F\d{3}", name)
}


@pytest.mark.parametrize("page", hands_on.PAGES, ids=lambda page: f"{page.document}-{page.rows[0]}")
def test_F180_every_page_has_a_tested_example(page):
    assert set(page.rows) <= set(ROWS)
    by_row = hands_on.teachers()
    assert all(row in by_row for row in page.rows), f"no topic teaches {page.rows}"
    assert set(page.rows) <= TESTED, f"no test for {page.rows}"


def test_F180_pages_of_all_documents():
    result = nnx.course.run("hands_on")
    assert result["without_topic"] == []
    assert list(result["counts"]) == ["S0", "S1", "S2", "S3", "S4"]


def test_F180_the_page_has_the_same_table():
    text = (ROOT / "docs" / "course" / "hands_on.md").read_text(encoding="utf-8")
    assert "\n".join(hands_on.table()) in text
