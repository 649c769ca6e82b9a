"""The programs that the tutorial and the how-to show are files, and run."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.docs.commands import run
from tests.docs.markdown import DOCS, EXAMPLES, blocks
from tests.support.reserved_ports import reserved_ports

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("page", ["tutorial.md", "how-to.md", "objects.md", "peers.md", "transports.md"])
def test_what_a_page_shows_is_taken_from_the_examples(page: str) -> None:
    files = [file.read_text() for file in EXAMPLES.glob("*.py")]
    shown = [block.text for block in blocks(DOCS / page) if block.language == "python"]
    assert shown
    for text in shown:
        assert any(text in file for file in files), f"in no example:\n{text}"


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (
            "recipes.py",
            """
            alice: an array of 1s, shape (1000, 64)
            bob: an array of 0s, shape (1000, 64)
            alice: uint16[3] instead
            bob: uint16[3] instead
            alice: 500 distances, halves [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
            bob: 500 distances, halves [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
            """,
        ),
        (
            "objects.py",
            """
            alice: Kind.SHARE, (2, 3), [2.5, None]
            bob: Kind.SHARE, (2, 3), [2.5, None]
            alice: [0, 1, 2]
            bob: [0, 1, 2]
            """,
        ),
        (
            "in_asyncio.py",
            """
            alice: nothing yet
            bob: nothing yet
            alice: one, two, three, a, bb, ccc
            bob: one, two, three, a, bb, ccc
            """,
        ),
    ],
)
def test_the_recipes_run_on_two_parties_with_two_workers(tmp_path: Path, example: str, said: str) -> None:
    with reserved_ports(2) as ports:
        script = f"""
            partywire init alice=127.0.0.1:{ports[0]} bob=127.0.0.1:{ports[1]} --workers 2 --out parties
            python {EXAMPLES / example} parties/alice.toml & python {EXAMPLES / example} parties/bob.toml
            code=$?; wait $! && exit $code
        """
        outcome = run(script, tmp_path)
    assert outcome.code == 0, outcome.text
    for line in textwrap.dedent(said).strip().splitlines():
        assert line in outcome.text.splitlines()
    if example == "recipes.py":
        assert "SessionTimeout" in outcome.text


def test_the_program_of_the_peers_runs(tmp_path: Path) -> None:
    outcome = run(f"python {EXAMPLES / 'peers.py'} /ip4/127.0.0.1/tcp/0", tmp_path)
    assert outcome.code == 0, outcome.text
    assert "/example/shout/1: HELLO" in outcome.text.splitlines()
    assert "PeerDisconnected the peer ended the connection" in outcome.text.splitlines()


def test_the_program_of_the_transports_runs(tmp_path: Path) -> None:
    addresses = "/ip4/127.0.0.1/tcp/0 /ip4/127.0.0.1/tcp/0/ws /memory/0 /ip4/127.0.0.1/udp/1"
    outcome = run(f"python {EXAMPLES / 'transports.py'} {addresses}", tmp_path)
    assert outcome.code == 0, outcome.text
    said = outcome.text.splitlines()
    assert {"ip4/tcp: hello", "ip4/tcp/ws: hello", "memory: hello"} <= set(said)
    assert any(line.startswith("/ip4/127.0.0.1/udp/1 cannot be used") for line in said)
