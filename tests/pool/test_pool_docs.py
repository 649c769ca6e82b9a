"""The programs that docs/pool.md shows are files, and run; so does the one of the seed, with its import changed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.docs.markdown import DOCS, EXAMPLES, blocks
from tests.support.reserved_ports import reserved_ports

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE_S = 60

SEED_ALICE = """
import asyncio

from partywire import Pool


async def async_main():
    # Create the pool for Alice.
    # Alice listens on port 61001 and adds Bob as client.
    pool = Pool()
    pool.add_http_server(addr="127.0.0.1", port=61001)
    pool.add_http_client("Bob", addr="127.0.0.1", port=61002)

    # Alice sends a message to Bob and waits for a reply.
    # She prints the reply and shuts down the pool
    await pool.send("Bob", "Hello Bob! This is Alice speaking.")
    reply = await pool.recv("Bob")
    print(reply)
    await pool.shutdown()


if __name__ == "__main__":
    loop = asyncio.new_event_loop()
    loop.run_until_complete(async_main())
    loop.close()
"""

SEED_BOB = """
import asyncio

from partywire import Pool

pool = Pool()  # outside any event loop
pool.add_http_server(addr="127.0.0.1", port=61002)
pool.add_http_client("Alice", addr="127.0.0.1", port=61001)


async def async_main():
    # Bob waits for a message from Alice and prints it.
    # He replies and shuts down his pool instance.
    message = await pool.recv("Alice")
    print(message)
    await pool.send("Alice", "Hello back to you, Alice!")
    await pool.shutdown()


if __name__ == "__main__":
    loop = asyncio.new_event_loop()
    loop.run_until_complete(async_main())
    loop.close()
"""


def with_ports(program: str, ports: list[int]) -> str:
    return program.replace("61001", str(ports[0])).replace("61002", str(ports[1]))


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    """A Python program of its own; warnings are errors there too."""
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def outcomes(*programs: subprocess.Popen[str]) -> list[str]:
    """What each printed, once all have ended well."""
    try:
        said = [program.communicate(timeout=DEADLINE_S) for program in programs]
    finally:
        for program in programs:
            program.kill()
            program.wait()
    for program, (_, errors) in zip(programs, said, strict=True):
        assert program.returncode == 0, errors
        assert not errors
    return [printed for printed, _ in said]


def test_what_the_page_shows_is_taken_from_the_examples() -> None:
    files = [file.read_text() for file in EXAMPLES.glob("*.py")]
    shown = [block.text for block in blocks(DOCS / "pool.md") if block.language == "python"]
    assert len(shown) >= 4
    missing = [text for text in shown if not any(text in file for file in files)]
    assert [text.splitlines()[0] for text in missing] == [
        'pool = Pool(key="alice.key", cert="alice.crt", ca_cert="ca.crt")'
    ]


@pytest.mark.parametrize("is_alice_first", [True, False])
def test_the_two_programs_of_the_page_talk_in_either_order(is_alice_first: bool) -> None:
    with reserved_ports(2) as ports:
        alice, bob = (with_ports((EXAMPLES / f"pool_{name}.py").read_text(), list(ports)) for name in ("alice", "bob"))
        order = (alice, bob) if is_alice_first else (bob, alice)
        started = {program: start(program) for program in order}
        printed = outcomes(started[alice], started[bob])
    assert printed[0] == "Hello back to you, Alice!\ntogether: [[1, 1], [2, 1]]\n"
    assert printed[1] == "Hello Bob! This is Alice speaking.\n"
    page = (DOCS / "pool.md").read_text()
    assert printed[0] in page


def test_the_programs_of_the_seed_run_with_their_import_changed() -> None:
    with reserved_ports(2) as ports:
        alice, bob = (with_ports(program, list(ports)) for program in (SEED_ALICE, SEED_BOB))
        printed = outcomes(start(alice), start(bob))
    assert printed == ["Hello back to you, Alice!\n", "Hello Bob! This is Alice speaking.\n"]


def test_the_example_over_a_party_runs(tmp_path: Path) -> None:
    program = (EXAMPLES / "pool_of_party.py").read_text()
    names = ("alice", "bob", "charlie")
    with reserved_ports(3) as ports:
        parties = "".join(f'{name} = "127.0.0.1:{port}"\n' for name, port in zip(names, ports, strict=True))
        for name in names:
            (tmp_path / f"{name}.toml").write_text(f'name = "{name}"\n[parties]\n{parties}')
        printed = outcomes(*(start(program, str(tmp_path / f"{name}.toml")) for name in names))
    for name, said in zip(names, printed, strict=True):
        others = [other for other in names if other != name]
        assert said.splitlines() == [f"{name} heard of {other}: hello from {other}" for other in others]


def test_every_fixture_of_the_page_is_there() -> None:
    from partywire.workers.pool import pytest_plugin

    table = re.findall(r"^\| (`pool_[^|]*) \|", (DOCS / "pool.md").read_text(), re.MULTILINE)
    names = {name for row in table for name in re.findall(r"pool_\w+", row)}
    assert names == {"pool_duo", "pool_trio", "pool_group_factory", "pool_links"}
    assert all(hasattr(pytest_plugin, name) for name in names)
