"""The documentation is part of the code: its tables are drawn from it. tests/docs has the rest: links and examples."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tables

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_drawn_from_the_code_are_fresh(page: Path) -> None:
    text = page.read_text()
    assert tables.with_fresh_tables(text) == text, "run `python docs/tables.py`"


def test_the_readme_shows_the_example_that_the_test_of_the_tutorial_runs() -> None:
    shown = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown is not None
    assert shown[1] == (DOCS / "examples" / "total.py").read_text()


def test_the_readme_says_what_it_must_within_thirty_lines() -> None:
    head = "\n".join((ROOT / "README.md").read_text().splitlines()[:30])
    for needed in ("Whom it trusts", "What it is not", "```python", "```\n"):
        assert needed in head
