"""The documentation is part of the code: its tables are drawn from it and its examples run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tables

from tests.support.reserved_ports import reserved_ports

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_drawn_from_the_code_are_fresh(page: Path) -> None:
    text = page.read_text()
    assert tables.with_fresh_tables(text) == text, "run `python docs/tables.py`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_of_the_repository_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_shows_the_example_that_the_tests_run() -> None:
    shown = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown is not None
    assert shown[1] == (DOCS / "examples" / "total.py").read_text()


def test_the_readme_says_what_it_must_within_thirty_lines() -> None:
    head = "\n".join((ROOT / "README.md").read_text().splitlines()[:30])
    for needed in ("Whom it trusts", "What it is not", "```python", "```\n"):
        assert needed in head


def test_three_parties_run_the_readme_program(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("partywire")
    names = ("alice", "bob", "charlie")
    with reserved_ports(3) as ports:
        addresses = [f"{name}=127.0.0.1:{port}" for name, port in zip(names, ports, strict=True)]
        subprocess.run([command, "init", *addresses, "--out", tmp_path], check=True, capture_output=True, timeout=60)
        parties = [
            subprocess.Popen(
                [sys.executable, DOCS / "examples" / "total.py", tmp_path / f"{name}.toml", number],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for name, number in zip(names, ("1000", "200", "34"), strict=True)
        ]
        try:
            outputs = [party.communicate(timeout=60) for party in parties]
        finally:
            for party in parties:
                party.kill()
                party.communicate()
    for name, (printed, complaints) in zip(names, outputs, strict=True):
        assert f"{name}: the sum is 1234," in printed, complaints
