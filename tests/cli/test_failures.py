"""A job that fails, a process that dies, a user who gives up: everybody ends, and the code says how."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from .command import DEADLINE_S, command, commands, finish, start, write_configs

if TYPE_CHECKING:
    import subprocess

TWO = ("--local", "2")
"""How a party or a run ends does not depend on how many parties there are, and each starts four processes and more."""


def test_a_job_that_raises_is_reported_once_with_its_party_and_cause() -> None:
    outcome = command("run", "sample_jobs:RaisingJob", *TWO)
    assert outcome.code == 1
    assert outcome.sentence == "bob: job 2 failed at bob: ArithmeticError: two is too many"


def test_a_failed_job_is_an_object_for_machines_and_its_trace_is_shown_when_asked_for() -> None:
    outcome = command("run", "sample_jobs:RaisingJob", *TWO, "--json", PARTYWIRE_DEBUG="1")
    assert "Traceback" in outcome.err
    assert "raise_at_bob" in outcome.err
    document = outcome.document
    assert document["exit_code"] == outcome.code == 1
    assert document["error"]["kind"] == "JobFailed"
    assert document["error"]["party"] == "bob"
    assert "bob" in document["parties"]


def test_a_failed_job_has_the_same_code_and_cause_at_every_party(tmp_path: Path) -> None:
    paths = write_configs(tmp_path)
    outcomes = commands([["run", "sample_jobs:RaisingJob", "--config", path] for path in paths])
    for index, outcome in enumerate(outcomes):
        assert outcome.code == 1
        told = ": two is too many" if index == 1 else " (its message stays at that party)"
        assert outcome.sentence == f"job 2 failed at bob: ArithmeticError{told}"


def test_a_party_process_that_is_killed_ends_the_run() -> None:
    outcome = command("run", "sample_jobs:VanishingJob", *TWO)
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert "bob" in outcome.err
    assert "SIGKILL" in outcome.err


def test_the_death_of_a_party_is_reported_by_the_others(tmp_path: Path) -> None:
    paths = write_configs(tmp_path)
    alice, bob, charlie = commands(
        [["run", "sample_jobs:VanishingJob", "--config", path, "--retry-timeout", "1"] for path in paths]
    )
    assert bob.code == 1
    for outcome in (alice, charlie):
        assert outcome.code == 3  # whoever of them noticed first
        assert "bob" in outcome.sentence


def test_a_wrong_result_has_code_1() -> None:
    outcome = command("run", "sample_jobs:WrongJob", "--json")
    assert outcome.code == 1
    assert outcome.document["checked"] is False
    assert "plaintext" in outcome.sentence


def test_a_result_that_has_no_place_in_json_is_a_failure_of_the_job() -> None:
    outcome = command("run", "sample_jobs:SilentJob", *TWO)
    assert outcome.code == 1
    assert "JSON" in outcome.sentence


def running_job() -> subprocess.Popen[str]:
    """A run of an endless job, of which every party is at work."""
    process = start("run", "sample_jobs:EndlessJob", *TWO)
    assert process.stderr is not None
    at_work: set[str] = set()
    while len(at_work) < 2:
        assert select.select([process.stderr], [], [], DEADLINE_S)[0]
        line = process.stderr.readline()
        assert line, "it ended"
        if line.endswith("| running\n"):
            at_work.add(line.split()[0])
    return process


def descendants(pid: int) -> set[int]:
    """All processes below one, as pids."""
    found: set[int] = set()
    frontier = [pid]
    while frontier:
        for task in Path(f"/proc/{frontier.pop()}/task").glob("*/children"):
            children = {int(child) for child in task.read_text().split()}
            frontier += children - found
            found |= children
    return found


def wait_until_gone(pidfds: list[int]) -> None:
    for pidfd in pidfds:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        ended = poller.poll(DEADLINE_S * 1000)
        os.close(pidfd)
        assert ended


def test_an_interrupt_ends_every_process_and_says_so() -> None:
    process = running_job()
    pidfds = [os.pidfd_open(pid) for pid in descendants(process.pid)]
    assert len(pidfds) >= 8
    process.send_signal(signal.SIGINT)
    outcome = finish(process)
    assert outcome.code == 130
    assert "interrupted" in outcome.sentence
    wait_until_gone(pidfds)


def test_an_interrupt_between_a_call_and_its_await_says_no_more() -> None:
    outcome = command("run", "sample_jobs:InterruptedJob", *TWO)
    assert outcome.code in (130, 3)  # 3: one told the other before that one had its own
    assert "interrupted" in outcome.sentence


def test_an_interrupt_while_a_peer_is_missing_ends_the_wait(tmp_path: Path) -> None:
    alice, *_ = write_configs(tmp_path)
    process = start("run", "sample_jobs:GoodJob", "--config", alice)
    assert process.stderr is not None
    while "connecting" not in (line := process.stderr.readline()):
        assert line, "it ended"
    process.send_signal(signal.SIGINT)
    outcome = finish(process)
    assert outcome.code == 130
    assert "interrupted" in outcome.sentence


def test_an_interrupt_right_after_the_start_shows_no_trace() -> None:
    process = start("run", "sample_jobs:GoodJob", *TWO)
    while not descendants(process.pid):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    outcome = finish(process)
    assert outcome.code == 130
    assert "Traceback" not in outcome.err


def test_a_second_interrupt_ends_at_once() -> None:
    process = running_job()
    pidfds = [os.pidfd_open(pid) for pid in descendants(process.pid)]
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    assert finish(process).code == 130
    wait_until_gone(pidfds)


def test_a_killed_command_leaves_no_process_behind() -> None:
    process = running_job()
    pidfds = [os.pidfd_open(pid) for pid in descendants(process.pid)]
    process.kill()
    finish(process)
    wait_until_gone(pidfds)
