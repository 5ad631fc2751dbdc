"""The pages of the course: their examples run and print what they say, and their links lead somewhere."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

import nnx.course

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "course").glob("*.md"))
WITHOUT_EXAMPLE = {"README", "errors"}

BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def examples(text: str) -> str:
    """The python blocks of a page with as many line breaks before them as there are in the page."""
    code, line = "", 0
    for block in BLOCK.finditer(text):
        start = text.count("\n", 0, block.start(1))
        code += "\n" * (start - line) + block.group(1)
        line = start + block.group(1).count("\n")
    return code


def heading_anchors(text: str) -> set[str]:
    """What headings can be linked by: lower case, words joined by dashes."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> list[str]:
    broken = []
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue  # another site
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if path and not file.exists():
            broken.append(target)
        elif anchor and anchor not in heading_anchors(file.read_text(encoding="utf-8") if path else text):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_of_the_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nnx.manual_seed(0)
    text = page.read_text(encoding="utf-8")
    test = doctest.DocTestParser().get_doctest(examples(text), {"__name__": page.stem}, page.name, str(page), 0)
    if page.stem not in WITHOUT_EXAMPLE:
        assert test.examples, "no example in doctest form"
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_of_the_page(page):
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_of_the_page_are_in_doctest_form(page):
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        assert block.startswith(">>> "), f"a python block that nothing checks:\n{block}"


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "course" / "README.md").read_text(encoding="utf-8")
    missing = [page.name for page in PAGES if page.stem != "README" and f"({page.name})" not in index]
    assert missing == []


@pytest.mark.parametrize("topic", nnx.course.names())
def test_the_index_names_the_topic_with_its_title_and_rows(topic):
    index = " ".join((ROOT / "docs" / "course" / "README.md").read_text(encoding="utf-8").split())
    rows = ", ".join(nnx.course.load(topic).ROWS)
    assert f"[{topic}]({topic}.md): {nnx.course.title(topic)} ({rows})" in index


def test_the_check_of_links_finds_a_broken_one():
    text = "# A page\n[a](none.md) [b](README.md) [c](#a-page) [d](#no-such) [e](https://example.org)"
    assert broken_links(ROOT / "docs" / "course" / "planted.md", text) == ["none.md", "#no-such"]


def test_the_examples_keep_their_line_numbers_and_are_checked():
    code = examples("# Page\n\n```python\n>>> 1 + 1\n2\n```\n\n```python\n>>> 3\n4\n```\n")
    assert [number for number, line in enumerate(code.splitlines()) if line.startswith(">>>")] == [3, 8]
    runner = doctest.DocTestRunner()
    runner.run(doctest.DocTestParser().get_doctest(code, {}, "planted", None, 0), out=lambda text: None)
    assert runner.failures == 1
