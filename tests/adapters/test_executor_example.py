"""What docs/executor.md shows is a program, and runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.docs.commands import run
from tests.docs.markdown import DOCS, EXAMPLES, blocks
from tests.support.reserved_ports import reserved_ports

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = EXAMPLES / "executor.py"


def test_the_page_shows_the_example() -> None:
    shown = [block.text for block in blocks(DOCS / "executor.md") if block.language == "python"]
    assert shown
    assert all(text in EXAMPLE.read_text() for text in shown)


def test_two_parties_run_the_example(tmp_path: Path) -> None:
    with reserved_ports(2) as ports:
        script = f"""
            partywire init alice=127.0.0.1:{ports[0]} bob=127.0.0.1:{ports[1]} --workers 2 --out parties
            python {EXAMPLE} parties/alice.toml & python {EXAMPLE} parties/bob.toml
            code=$?; wait $! && exit $code
        """
        outcome = run(script, tmp_path)
    assert outcome.code == 0, outcome.text
    for party in ("alice", "bob"):
        assert f"{party}: means [6.0, 7.5, 9.0, 10.5], peak 6.0" in outcome.text
        assert f"{party}: job 5 failed at bob" in outcome.text
