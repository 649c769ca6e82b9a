"""Processes of a party that run out of descriptors, or of processes: they say so, wait, and go on."""

from __future__ import annotations

import errno
import os
import resource
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from partywire.engine import shortage
from partywire.engine.commands import LinkProgress, Start, Stopped
from partywire.engine.control_socket import ControlSocket
from partywire.engine.link_options import LinkOptions
from partywire.engine.listening import ListenError
from partywire.engine.shared_parts import SharedParts
from partywire.engine.shortage import Complaint, describe_shortage, shortage_of
from partywire.engine.supervisor import Supervisor
from partywire.engine.supervisor_retries import RETRY_INTERVAL_S, Retries
from partywire.shm.errors import SegmentError
from tests.support.family import Opener, make_listener, make_parties, open_all
from tests.support.processes import cpu_s

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.engine.commands import Message

pytestmark = pytest.mark.timeout(120)

TRIES_S = 1.5 * RETRY_INTERVAL_S
"""For a supervisor to have tried again, and found no descriptor again."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def let_it_open_nothing(pid: int) -> tuple[int, int]:
    """Lower the limit of a process below whatever it has open; returns what it was."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (4, limits[1]))
    return limits


@pytest.mark.parametrize("role", ["gateway", "link 1", "worker 1"])
def test_a_process_that_cannot_be_started_again_is_tried_until_it_can(
    stack: ExitStack, capfd: pytest.CaptureFixture[str], role: str
) -> None:
    listeners = [stack.enter_context(make_listener()) for _ in range(2)]
    alice, bob = open_all(make_parties(listeners), listeners, stack, workers=2)
    before = alice.pids[role]
    watcher = alice.supervisor.process.pid
    limits = let_it_open_nothing(watcher)
    os.kill(before, signal.SIGKILL)
    said = ""

    def has_said(words: str) -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return words in said

    line = f"partywire: alice: the supervisor: the {role} cannot be started again yet: too many open files; raise"
    alice.wait(lambda: has_said(line), [bob])
    began_s, until = cpu_s(watcher), time.monotonic() + TRIES_S
    alice.wait(lambda: time.monotonic() > until, [bob])
    assert cpu_s(watcher) - began_s < TRIES_S / 4  # it does not spin
    assert said.count("\n") <= 4  # of links whose rings cannot be passed on meanwhile, too
    resource.prlimit(watcher, resource.RLIMIT_NOFILE, limits)
    alice.wait(lambda: has_said(f"alice: the supervisor: the {role} is started again\n"), [bob])
    alice.wait(lambda: alice.pids[role] != before, [bob])

    def is_whole() -> bool:
        bob.send(0, b"as before", others=[alice])  # again and again: a link may be made anew meanwhile
        return bool(alice.lanes[1, 0].received)

    alice.lanes[1, 0].received.clear()
    alice.wait(is_whole, [bob])


def run_supervisor(links: int = 1) -> tuple[Message, ...]:
    """What a supervisor in this process says to its opener until it ends."""
    ours, theirs = ControlSocket.pair()
    with make_listener() as listener, make_listener() as other, ControlSocket(ours, "the supervisor") as control:
        [party, _] = make_parties([listener, other])
        options = LinkOptions(ring_size=256 * 1024, control_ring_size=64 * 1024)
        control.send(Start(party, (party.ours.address,), 1, options, None, "", links), [listener.fileno()])
        before = len(os.listdir("/proc/self/fd"))
        Supervisor(ControlSocket(theirs, "the opener"), os.pidfd_open(os.getpid())).run()
        assert len(os.listdir("/proc/self/fd")) == before - 1  # its end of the socket
        said = []
        while control.fileno() >= 0:
            message, fds = control.receive(1.0)
            assert not fds
            said.append(message)
            if isinstance(message, Stopped):
                return tuple(said)
    raise AssertionError("it did not say Stopped")


def test_a_family_that_cannot_be_forked_says_what_to_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", fork)
    what = "a process of alice cannot be started: resource temporarily unavailable; raise the limit of processes"
    [*_, stopped] = run_supervisor()
    assert isinstance(stopped, Stopped)
    [complaint] = stopped.complaints
    assert complaint.startswith(what)
    assert "ulimit -u" in complaint


def test_a_family_whose_doorbells_find_no_room_says_so_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*_: object) -> None:
        raise SegmentError("a doorbell's page cannot be made") from OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(SharedParts, "make", make)
    [*_, stopped] = run_supervisor()
    assert isinstance(stopped, Stopped)
    [complaint] = stopped.complaints
    assert complaint.startswith(
        "a process of alice cannot be started: a doorbell's page cannot be made; the kernel has"
    )


def test_a_supervisor_that_counts_no_more_descriptors_still_sweeps_and_lives(stack: ExitStack) -> None:
    """What a dead process may have left in /dev/shm is looked for with a descriptor."""
    listeners = [stack.enter_context(make_listener()) for _ in range(2)]
    alice = Opener(make_parties(listeners)[0], listeners[0])
    stack.callback(alice.close)
    alice.wait(lambda: bool(alice.pids and alice.message(LinkProgress)))
    left = f"/dev/shm/partywire-{alice.pids['link 1']}-left"
    with open(left, "wb"):
        stack.callback(lambda: Path(left).unlink(missing_ok=True))
    watcher = alice.supervisor.process.pid
    limits = let_it_open_nothing(watcher)
    before = alice.pids["link 1"]
    os.kill(before, signal.SIGKILL)
    until = time.monotonic() + RETRY_INTERVAL_S
    alice.wait(lambda: time.monotonic() > until)
    assert os.path.exists(left)
    resource.prlimit(watcher, resource.RLIMIT_NOFILE, limits)
    alice.wait(lambda: alice.pids["link 1"] != before)
    assert alice.supervisor.process.try_reap() is None
    alice.close()
    assert not os.path.exists(left)


# What is said.


def test_each_shortage_says_what_to_do() -> None:
    def text(number: int) -> str:
        return describe_shortage(OSError(number, os.strerror(number)))

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    advice = f"raise the limit of open files of a process (`ulimit -n`, now {limit})"
    assert text(errno.EMFILE) == f"too many open files; {advice}"
    assert "fs.file-max" in text(errno.ENFILE)
    assert "ulimit -u" in text(errno.EAGAIN)
    assert "/dev/shm" in text(errno.ENOSPC)
    assert "memory" in text(errno.ENOMEM)
    assert text(errno.EACCES) == str(PermissionError(errno.EACCES, "Permission denied"))
    detailed = describe_shortage(OSError(errno.EMFILE, "a party needs 7"))
    assert detailed == f"too many open files: a party needs 7; {advice}"


def test_a_shortage_is_found_behind_what_was_made_of_it() -> None:
    error = SegmentError("a segment cannot be mapped")
    assert shortage_of(error) is None
    error.__cause__ = OSError(errno.EMFILE, "Too many open files")
    assert shortage_of(error) == errno.EMFILE
    assert describe_shortage(error).startswith("a segment cannot be mapped; raise the limit of open files")


def test_a_complaint_is_not_repeated_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    complaint, error = Complaint("alice", "the gateway"), OSError(errno.ENFILE, "Too many open files in system")
    for now in (0.0, 1.0, shortage.SAY_INTERVAL_S):
        complaint.about("a connection cannot be accepted", error, now)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("partywire: alice: the gateway: a connection cannot be accepted: too many open files in")


def test_retries_are_over_when_the_party_closes(capfd: pytest.CaptureFixture[str]) -> None:
    tried = []
    retries = Retries("alice")
    retries.put_off("gateway", lambda: tried.append(0), OSError(errno.EMFILE, "Too many open files"), 5.0)
    assert retries.timeout_s(5.0) == RETRY_INTERVAL_S
    assert not retries.tick(5.0 + RETRY_INTERVAL_S / 2)
    retries.end()
    assert retries.timeout_s(5.0) is None
    assert not retries.tick(5.0 + RETRY_INTERVAL_S)
    assert not tried


def test_an_address_that_there_is_no_descriptor_for_is_not_said_to_be_wrong() -> None:
    error = ListenError("127.0.0.1:7001", errno.EMFILE, "too many open files")
    assert "ulimit -n" in str(error)
    assert "configuration" not in str(error)
