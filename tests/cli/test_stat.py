"""`partywire stat` and `top` as commands: what they print, where, and how they end."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from partywire.workers import cli_stat
from partywire.workers.cli_stat import stat_command
from partywire.workers.cli_top import top_command
from partywire.workers.exit_code import UsageMistake
from partywire.workers.stat_reader import StatUnavailable
from tests.support.stat_party import StatParty
from tests.workers.test_metrics import parse

from .command import FOLDER, command

if TYPE_CHECKING:
    from partywire.workers.stat_reader import Running

DEADLINE_S = 60.0


def show(monkeypatch: pytest.MonkeyPatch, *running: Running) -> None:
    """Let the command find these parties alone; other tests run beside us."""
    monkeypatch.setattr(cli_stat, "running_parties", lambda: list(running))


def run(*arguments: str) -> str:
    outcome = CliRunner().invoke(stat_command, arguments, catch_exceptions=False)
    assert outcome.exit_code == 0
    return outcome.stdout


def test_the_only_party_is_shown_without_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with StatParty() as party:
        show(monkeypatch, party.running)
        text = run("--interval", "0")
        assert text.startswith(f"alice  pid {os.getpid()}, up ")
        assert "bob      connecting" in text


def test_of_several_parties_a_list_is_shown_and_all_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with StatParty("alice") as alice, StatParty("bob") as bob:
        show(monkeypatch, alice.running, bob.running)
        listed = run()
        assert "2 parties" in listed
        assert f"  alice  pid {os.getpid()}, supervisor {os.getpid()}, 0 of 2 links up" in listed
        assert run("bob", "--interval", "0").startswith("bob  pid")
        assert run("--all", "--interval", "0").count("process     ") == 2
        documents = json.loads(run("--json", "--interval", "0"))["parties"]
        assert [document["party"] for document in documents] == ["alice", "bob"]
        families = parse(run("--format", "prometheus"))
        assert {dict(labels)["party"] for labels in families["partywire_link_up"].samples} == {"alice", "bob"}
        with pytest.raises(UsageMistake, match="top PARTY"):
            CliRunner().invoke(top_command, [], catch_exceptions=False)


def test_no_party_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    show(monkeypatch)
    with pytest.raises(StatUnavailable, match="no party of this user"):
        run()


@pytest.mark.parametrize(("interval", "is_good"), [("0.4", False), ("0.5", True), ("3600", True), ("3601", False)])
def test_the_interval_of_top_has_ends(monkeypatch: pytest.MonkeyPatch, interval: str, is_good: bool) -> None:
    show(monkeypatch)
    outcome = CliRunner().invoke(top_command, ["--interval", interval])
    assert isinstance(outcome.exception, StatUnavailable) == is_good
    assert is_good or outcome.exit_code == 2


def test_a_name_that_does_not_run_is_a_sentence_and_exit_code_2() -> None:
    with StatParty():
        outcome = command("stat", "no-such-party", "--json")
    assert outcome.code == 2
    assert outcome.sentence.startswith("no party no-such-party")
    assert outcome.document["exit_code"] == 2


def program_of(running: Running) -> list[str]:
    """`partywire top` that finds this party alone."""
    program = (
        "from partywire.workers import cli, cli_stat\n"
        "from partywire.workers.stat_reader import Running\n"
        f"cli_stat.running_parties = lambda: [Running({running.pid}, {running.address!r})]\n"
        "cli.main(['top', '--interval', '0.5'])\n"
    )
    return [sys.executable, "-c", program]


def test_top_writes_lines_to_a_pipe_until_the_party_ends() -> None:
    with StatParty() as party:
        top = subprocess.Popen(
            program_of(party.running), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=FOLDER
        )
        try:
            assert top.stdout is not None
            assert top.stdout.readline().startswith("alice bob connecting sent=- received=-")
        except BaseException:
            top.kill()
            top.communicate()
            raise
    _, err = top.communicate(timeout=DEADLINE_S)
    assert (top.returncode, err) == (0, "partywire: party alice has ended\n")


def test_top_draws_on_a_terminal_and_leaves_with_ctrl_c() -> None:
    with StatParty() as party:
        ours, theirs = pty.openpty()
        try:
            top = subprocess.Popen(
                program_of(party.running),
                stdin=theirs, stdout=theirs, stderr=theirs, cwd=FOLDER, env={**os.environ, "TERM": "xterm"},
            )  # fmt: skip
            os.close(theirs)
            try:
                seen = b""
                deadline = time.monotonic() + DEADLINE_S
                while seen.count(b"supervisor") < 2:  # drawn and drawn again
                    assert time.monotonic() < deadline
                    seen += os.read(ours, 65536)
                top.send_signal(signal.SIGINT)
                while b"\x1b[?25h" not in seen:  # the cursor is back
                    seen += os.read(ours, 65536)
                assert top.wait(DEADLINE_S) == 0
                assert b"Traceback" not in seen
            finally:
                top.kill()
                top.wait()
        finally:
            os.close(ours)
