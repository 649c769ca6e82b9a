"""A real party of three, watched: rates move, a stop shows who holds up whom, and nothing is left of what is killed."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from partywire.workers.stat_reader import PartyEnded, StatReader, attach_to, running_parties
from partywire.workers.stat_view import STALL_PEER, STALL_WORKER, party_view
from tests.cli.command import command, start
from tests.workers.test_metrics import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from partywire.workers.stat_view import LinkView, PartyView

NAMES = ("alice", "bob", "charlie")
DEADLINE_S = 60.0
INTERVAL_S = 0.6


class Watched:
    """Three party programs, and a reader of each."""

    def __init__(self, stack: ExitStack) -> None:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in NAMES]
        ports = [f"{name}={listener.getsockname()[1]}" for name, listener in zip(NAMES, listeners, strict=True)]
        self.programs: list[subprocess.Popen[bytes]] = []
        stack.callback(self.kill)
        for index, listener in enumerate(listeners):
            fd = listener.fileno()
            arguments = [sys.executable, "-m", "tests.workers.stat_program", str(index), str(fd), *ports]
            program = subprocess.Popen(
                arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[fd]
            )
            self.programs.append(program)
        self.pids: list[dict[str, int]] = [json.loads(line_of(program))["pids"] for program in self.programs]
        self.supervisors = [pids["supervisor"] for pids in self.pids]
        self.readers = [stack.enter_context(attach_to(pid)) for pid in self.supervisors]

    def view(self, index: int) -> PartyView:
        """What a party looks like over one interval."""
        before = self.readers[index].read_fresh(1.0)
        select.select([], [], [], INTERVAL_S)
        return party_view(self.readers[index].read(), before)

    def until(self, index: int, condition: Callable[[PartyView], Any]) -> PartyView:
        deadline = time.monotonic() + DEADLINE_S
        while not condition(view := self.view(index)):
            assert time.monotonic() < deadline, view
        return view

    def kill(self) -> None:
        for program in self.programs:
            program.kill()
        for program in self.programs:
            if program.stdin is not None and not program.stdin.closed:
                program.communicate(timeout=DEADLINE_S)


def line_of(program: subprocess.Popen[bytes]) -> bytes:
    assert program.stdout is not None
    ready, _, _ = select.select([program.stdout], [], [], DEADLINE_S)
    assert ready, "it said nothing in time"
    return program.stdout.readline()


def link(view: PartyView, peer: str) -> LinkView:
    [found] = [link for link in view.links if link.peer == peer]
    return found


@pytest.fixture
def watched() -> Iterator[Watched]:
    with ExitStack() as stack:
        yield Watched(stack)


def test_a_party_is_watched_from_its_flow_to_its_end(watched: Watched) -> None:
    # It flows.
    view = watched.until(0, lambda view: (link(view, "bob").bytes_sent.per_s or 0) > 0)
    assert (view.party, view.parties, view.pid) == ("alice", NAMES, watched.programs[0].pid)
    bob = link(view, "bob")
    assert (bob.state, bob.is_up, bob.cause) == ("up", True, "")
    assert bob.heartbeat_age_s is not None
    assert bob.heartbeat_age_s < 30
    assert view.workers[0].sessions == 1
    assert {process.role for process in view.processes} == {"supervisor", "gateway", "worker 0", "link 1", "link 2"}
    assert all(process.is_running for process in view.processes)
    received = watched.until(1, lambda view: (link(view, "alice").messages_received.per_s or 0) > 0)
    assert received.workers[0].inbox_size_max == 256 << 20

    # Bob's program stops: his worker is slow, and alice sees that it is his side.
    os.kill(watched.programs[1].pid, signal.SIGSTOP)
    watched.until(0, lambda view: link(view, "bob").stall == STALL_PEER)
    stopped = watched.until(1, lambda view: link(view, "alice").stall == STALL_WORKER)
    assert (link(stopped, "alice").rx_depth_percent or 0) > 50
    assert link(stopped, "alice").messages_received.per_s is None
    os.kill(watched.programs[1].pid, signal.SIGCONT)
    watched.until(0, lambda view: (link(view, "bob").bytes_sent.per_s or 0) > 0)

    # A reader is killed, others are not disturbed.
    top = start("top", str(watched.supervisors[0]), "--json", "--interval", "0.5")
    try:
        assert top.stdout is not None
        document = json.loads(top.stdout.readline())
        assert document["parties"][0]["party"] == "alice"
    finally:
        top.kill()
        top.communicate(timeout=DEADLINE_S)
    watched.until(0, lambda _: [v.value for v in watched.readers[0].read().values("stat_readers")] == [1])

    # The command.
    pids = [str(pid) for pid in watched.supervisors[:2]]
    outcome = command("stat", *pids, "--format", "prometheus")
    assert outcome.code == 0, outcome.err
    up = parse(outcome.out)["partywire_link_up"].samples
    assert up[("party", "alice"), ("peer", "bob")] == up[("party", "bob"), ("peer", "charlie")] == 1

    # Charlie's family is killed while it is read: the others say why, and nothing of it is left.
    os.kill(watched.supervisors[2], signal.SIGKILL)
    watched.programs[2].kill()
    lost = watched.until(0, lambda view: link(view, "charlie").state == "lost")
    assert link(lost, "charlie").cause
    assert link(lost, "charlie").losses == 1
    assert [(lane.tx, lane.rx) for lane in link(lost, "charlie").lanes] == [(None, None)]
    with pytest.raises(PartyEnded, match="charlie"):
        watched.until(2, lambda _: False)
    assert watched.supervisors[2] not in {running.pid for running in running_parties()}

    # The others end in good order, and have logged it.
    _, said = watched.programs[0].communicate(timeout=DEADLINE_S)
    watched.programs[1].communicate(timeout=DEADLINE_S)
    lines = [json.loads(line) for line in said.splitlines()]
    [logged] = [line for line in lines if line["event"] == "link_lost"]
    assert (logged["level"], logged["party"], logged["peer"]) == ("warning", "alice", "charlie")
    assert logged["cause"]

    # No name is left, in the kernel's list or in /dev/shm.
    for reader in watched.readers[:2]:
        wait_for_end(reader)
    assert not {running.pid for running in running_parties()} & set(watched.supervisors)
    left = [name for name in os.listdir("/dev/shm") if any(f"-{pid}-" in name for pid in all_pids(watched))]
    assert not left


def wait_for_end(reader: StatReader) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            reader.read()
        except PartyEnded:
            return
        assert time.monotonic() < deadline
        select.select([reader], [], [], 1.0)


def all_pids(watched: Watched) -> set[int]:
    return {pid for pids in watched.pids for pid in pids.values()}
