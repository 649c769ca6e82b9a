"""A cast of party programs for tests: starts them, listens to what they print, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

NAMES = ("alice", "bob", "charlie")
WATCHDOG_S = 60.0


class Member:
    """One party program. It prints JSON lines: first {"pids": ...} when it is open, last its answer."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pids: dict[str, int] = {}
        self._unread = b""

    def read(self, deadline: float) -> dict[str, Any]:
        """The next line; a program that ends or says nothing in time fails the test."""
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        while b"\n" not in self._unread:
            ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise AssertionError(f"{self.process.args!r} said nothing in time")
            data = os.read(fd, 65_536)
            if not data:
                raise AssertionError(f"{self.process.args!r} ended with {self.process.wait(5)} and no answer")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def go(self) -> None:
        """Write the line that some scenarios wait for."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()


class Cast:
    """Parties in processes of their own, on loopback ports that are bound before anybody starts."""

    def __init__(self, program: str = "tests.workers.party_program", watchdog_s: float = WATCHDOG_S) -> None:
        self.names: tuple[str, ...] = ()
        self._program = program
        self._watchdog_s = watchdog_s
        self._members: list[Member] = []
        self._extra: list[Member] = []
        self._ports: list[int] = []

    def start(self, scenario: str, count: int) -> None:
        """Start one program per party."""
        self.names = NAMES[:count]
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in self.names]
        try:
            self._ports = [listener.getsockname()[1] for listener in listeners]
            for index, listener in enumerate(listeners):
                self._members.append(self._spawn(scenario, index, listener))
        finally:
            for listener in listeners:
                listener.close()

    def _spawn(self, scenario: str, index: int, listener: socket.socket | None) -> Member:
        fd = -1 if listener is None else listener.fileno()
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                self._program,
                scenario,
                str(index),
                str(fd),
                *(f"{name}={port}" for name, port in zip(self.names, self._ports, strict=True)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[fd] if listener is not None else [],
        )
        return Member(process)

    def play(self, scenario: str, count: int) -> list[dict[str, Any]]:
        """Start a scenario and return every party's answer."""
        self.start(scenario, count)
        answers = self.answers()
        self.check_nothing_left()
        return [answers[index] for index in range(count)]

    def play_duplicate(self) -> dict[str, Any]:
        """Two parties run; a second process opens as bob on another port. Returns what it hears."""
        self.start("wait_for_ever", 2)
        self.wait_until_ready()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            second = self._spawn("all_to_all_blocking", 1, listener)
        self._extra.append(second)
        answer = second.read(time.monotonic() + self._watchdog_s)
        self.end_wait()
        for first in self.answers().values():
            assert "error" not in first
        return answer

    def wait_until_ready(self) -> list[dict[str, int]]:
        """Wait until every party is open; role -> process id of each."""
        deadline = time.monotonic() + self._watchdog_s
        for member in self._members:
            member.pids = member.read(deadline)["pids"]
        return [member.pids for member in self._members]

    def hear(self, index: int) -> None:
        """Wait until one program says something more."""
        self._members[index].read(time.monotonic() + self._watchdog_s)

    def end_wait(self) -> None:
        """Let the programs of `wait_for_ever` go on."""
        for member in self._members:
            member.go()

    def answer(self, index: int) -> dict[str, Any]:
        """The last word of one party."""
        deadline = time.monotonic() + self._watchdog_s
        member = self._members[index]
        answer = member.read(deadline)
        while "pids" in answer:
            member.pids = answer["pids"]
            answer = member.read(deadline)
        return answer

    def let_go(self, index: int) -> None:
        """Let one program of a scenario that waits for a line go on."""
        self._members[index].go()

    def answers(self, skip: set[int] | frozenset[int] = frozenset()) -> dict[int, dict[str, Any]]:
        """The last word of every party, which must also end well."""
        found = {index: self.answer(index) for index in range(len(self._members)) if index not in skip}
        for index in found:
            assert self._members[index].process.wait(self._watchdog_s) == 0
        return found

    def kill_family(self, index: int) -> None:
        """SIGKILL to every process of one party."""
        member = self._members[index]
        for pid in [member.process.pid, *member.pids.values()]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # its parent died first and took it along
        member.process.wait(self._watchdog_s)

    def check_nothing_left(self) -> None:
        """No process of any party, and nothing of them in /dev/shm."""
        deadline = time.monotonic() + self._watchdog_s
        for member in self._members:
            for role, pid in member.pids.items():
                try:
                    pidfd = os.pidfd_open(pid)
                except ProcessLookupError:
                    continue
                try:
                    ended, _, _ = select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))
                    assert ended, f"{role} ({pid}) is still there"
                finally:
                    os.close(pidfd)
            for pid in [member.process.pid, *member.pids.values()]:
                assert not [name for name in os.listdir("/dev/shm") if name.startswith(f"partywire-{pid}-")]

    def __enter__(self) -> Cast:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for member in [*self._members, *self._extra]:
            if member.process.poll() is None:
                member.process.kill()
            member.process.wait(self._watchdog_s)
            for stream in (member.process.stdin, member.process.stdout):
                if stream is not None:
                    stream.close()
