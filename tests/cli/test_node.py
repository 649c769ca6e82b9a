"""`partywire node`: what a person types, and what they read."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.cli.command import Outcome, finish, refused, start

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = "ab" * 13


def run(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> Outcome:
    return refused(capsys, "node", *arguments, cwd=folder)


def test_a_node_says_what_happens_and_another_one_sends_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "alice.toml").write_text('[node]\nidentity = "alice.key"\nlisten = "/ip4/127.0.0.1/tcp/0"\n')
    (tmp_path / "bob.toml").write_text("[node]\n")
    alice = start("node", "alice.toml", cwd=tmp_path)
    try:
        assert alice.stdout is not None
        _, _, peer_id, _, address = alice.stdout.readline().split()
        sent = run(capsys, tmp_path, "bob.toml", "--send", f"{peer_id}@{address}", "hello \x1b[31m", "--json")
        assert sent.code == 0, sent.err
        said = [json.loads(line) for line in sent.out.splitlines()]
        assert [one["event"] for one in said] == [
            "started", "peer_connected", "node_state_changed", "delivered", "ended"
        ]  # fmt: skip
        assert said[3] == {"event": "delivered", "peer_id": peer_id, "size": 11}
        bob = said[0]["peer_id"]
        heard = [alice.stdout.readline() for _ in range(3)]
        assert heard[0].startswith(f"{bob} connected (accepted) at /ip4/127.0.0.1/tcp/")
        assert heard[1:] == ["we are online; connections: 1\n", f"{bob}: hello ?[31m\n"]
    finally:
        alice.send_signal(signal.SIGINT)
        outcome = finish(alice)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[-1] == "goodbye"


def test_who_cannot_be_reached_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bob.toml").write_text("[node]\n")
    outcome = run(capsys, tmp_path, "bob.toml", "--send", NOBODY, "hello")
    assert outcome.code == 3
    assert f"a message to {NOBODY} was not delivered: no address of peer {NOBODY} is known" in outcome.out


@pytest.mark.parametrize(
    ("text", "arguments", "code", "sentence"),
    [
        ("", (), 2, "node: is missing"),
        ('[node]\nlisten = "here"', (), 2, "'here' is not a multiaddress"),
        ("[node]", ("--stay",), 2, "--stay is for --send"),
        ("[node]", ("--send", "bob", "hi"), 2, "PEER is an id, or ID@ADDRESS"),
        ("[node]", ("--send", f"{NOBODY}", "hi", "there"), 2, "--help"),
        ('[node]\nlisten = "/ip4/192.0.2.1/tcp/0"', (), 3, "cannot listen on"),
        ('[node]\nidentity = "open.key"', (), 2, "open.key"),
        ('[node.onion]\ncontrol = "/unix/tmp/no-tor-is-here"\nkey_file = "o.key"\nport = 1', (), 3, "no-tor-is-here"),
    ],
)
def test_mistakes_end_in_one_sentence(
    text: str, arguments: tuple[str, ...], code: int, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "node.toml").write_text(text)
    (tmp_path / "open.key").write_text("00" * 32)
    (tmp_path / "open.key").chmod(0o644)
    outcome = run(capsys, tmp_path, "node.toml", *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert sentence in outcome.sentence
