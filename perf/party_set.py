"""All parties of one contender on one workload: starts their processes, lets them play, and ends them without a trace.

Between the harness (run.py) and the party processes (party_process.py). The one invariant: leaving the block, for
whatever reason, leaves no process of theirs behind.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import orjson

from .contender import CONNECT_TIMEOUT_S
from .party_process import Order, parameters_of
from .processes import descendants, kill_families, wait_for_end

if TYPE_CHECKING:
    from types import TracebackType

    from .workloads import Workload

READY_TIMEOUT_S = CONNECT_TIMEOUT_S + 15.0
"""A contender's own time limit for meeting its peers, and the start of its interpreter on a busy machine."""

END_TIMEOUT_S = 10.0
"""For closing in good order; then they are killed."""

READ_SIZE = 1 << 16


class ContenderFailed(Exception):
    """Raised when a party said that it cannot go on, ended by itself, or did not answer in time."""

    def __init__(self, sentence: str, *, is_offered: bool = True) -> None:
        super().__init__(sentence)
        self.is_offered = is_offered
        """False: the contender has no way to play this workload, which is no fault."""
        self.was_open = True
        """False: its parties did not even meet."""


@dataclass(frozen=True, slots=True)
class Link:
    """An emulated link between each two parties."""

    rtt_ms: float
    mbit: float | None = None

    def __str__(self) -> str:
        rate = "" if self.mbit is None else f", {self.mbit:g} Mbit/s"
        return f"{self.rtt_ms:g} ms round trip{rate}"


@dataclass(frozen=True, slots=True)
class Play:
    """One play of all parties."""

    units: int
    seconds: float
    """From the first session's start at any party to the last one's end."""
    latencies_ns: list[list[list[int]]]
    """By party and sampled session."""


class PartySet:
    """A context: the parties are open inside."""

    def __init__(self, contender: str, work: Workload, link: Link | None = None) -> None:
        self.contender = contender
        self.work = work
        self.ready_s = 0.0
        """From the start of the first process until the last party was ready."""
        self._link = link
        self._stack = ExitStack()
        self._parties: list[_Party] = []
        self._has_failed = False

    def __enter__(self) -> PartySet:
        """Raises ContenderFailed."""
        try:
            self._start()
        except ContenderFailed as failed:
            failed.was_open = False
            self._kill()
            raise
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self._has_failed:
                self._end()
        finally:
            self._kill()

    @property
    def roots(self) -> list[int]:
        """The process of each party; there may be more below them."""
        return [party.process.pid for party in self._parties]

    def families(self) -> list[list[int]]:
        """All processes of each party."""
        return [descendants(root) for root in self.roots]

    def play(self, units: int, timeout_s: float) -> Play:
        """Play on all sessions of all parties.

        Raises:
            ContenderFailed.
        """
        for party in self._parties:
            party.send({"play": units})
        answers = self._answers("span", timeout_s)
        start = min(answer["span"][0] for answer in answers)
        end = max(answer["span"][1] for answer in answers)
        return Play(units, (end - start) / 1e9, [answer["latencies_ns"] for answer in answers])

    def _start(self) -> None:
        with ExitStack() as ours:
            listeners = [ours.enter_context(bound_listener()) for _ in range(self.work.parties)]
            ports = tuple(listener.getsockname()[1] for listener in listeners)
            dial_ports = [self._dial_ports(number, ports) for number in range(len(ports))]
            parameters = parameters_of(self.work)
            began = time.monotonic()
            for number, listener in enumerate(listeners):
                order = Order(
                    self.contender, self.work.name, parameters, number, ports, dial_ports[number], listener.fileno()
                )
                self._parties.append(_Party(order))
        self._answers("ready", READY_TIMEOUT_S)
        self.ready_s = time.monotonic() - began

    def _dial_ports(self, party: int, ports: tuple[int, ...]) -> tuple[int, ...]:
        if self._link is None:
            return ports
        from .emulator import LinkEmulator

        return tuple(
            port
            if peer == party
            else self._stack.enter_context(LinkEmulator(port, rtt_ms=self._link.rtt_ms, mbit=self._link.mbit)).port
            for peer, port in enumerate(ports)
        )

    def _answers(self, key: str, timeout_s: float) -> list[dict[str, Any]]:
        """One message of every party, in their order. After a failure nothing is left to do but to kill them."""
        try:
            return self._read_answers(key, timeout_s)
        except ContenderFailed:
            self._has_failed = True
            raise

    def _read_answers(self, key: str, timeout_s: float) -> list[dict[str, Any]]:
        """The first party that fails is the one that counts: the others follow from it."""
        deadline = time.monotonic() + timeout_s
        missing = dict(enumerate(self._parties))
        answers: dict[int, dict[str, Any]] = {}
        while missing:
            readable, _, _ = select.select(list(missing.values()), [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                late = ", ".join(map(str, missing))
                raise ContenderFailed(f"no {key} of party {late} within {timeout_s:.0f} s")
            for number, party in list(missing.items()):
                if party not in readable:
                    continue
                answer = party.try_read()
                if answer is None:
                    continue
                if "error" in answer:
                    raise ContenderFailed(f"party {number}: {answer['error']}", is_offered=not answer["not_offered"])
                answers[number] = answer
                del missing[number]
        return [answers[number] for number in sorted(answers)]

    def _end(self) -> None:
        for party in self._parties:
            party.send({"end": True})
        self._answers("ended", END_TIMEOUT_S)
        # Whoever has said that it is done, and then hangs in a library's clean-up, is killed.
        wait_for_end(self.roots)

    def _kill(self) -> None:
        # None has been reaped yet, so none of these numbers can belong to anybody else.
        pids = [pid for family in self.families() for pid in family]
        kill_families(self.roots)
        for party in self._parties:
            party.process.wait()
            party.close()
        wait_for_end(pids)
        self._parties.clear()
        self._stack.close()


class _Party:
    """One party process and the pipes to it."""

    def __init__(self, order: Order) -> None:
        their_commands, our_commands = os.pipe()
        our_answers, their_answers = os.pipe()
        self._commands = our_commands
        self._answers = our_answers
        self._pending = bytearray()
        try:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "partywire.perf.party_process", str(their_commands), str(their_answers),
                    # Only for whoever looks at a list of processes.
                    order.contender, order.workload, f"party{order.party}",
                ],
                pass_fds=[their_commands, their_answers, order.listener_fd],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if has_descriptor(sys.stderr) else subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        except BaseException:
            self.close()
            raise
        finally:
            os.close(their_commands)
            os.close(their_answers)
        self.send({"order": asdict(order)})

    def fileno(self) -> int:
        return self._answers

    def send(self, message: dict[str, Any]) -> None:
        """A party that has ended says so where its answer is read."""
        try:
            os.write(self._commands, orjson.dumps(message) + b"\n")
        except BrokenPipeError:
            pass

    def try_read(self) -> dict[str, Any] | None:
        """The next message, once all of it is there; called when there is something to read."""
        data = os.read(self._answers, READ_SIZE)
        if not data:
            return {"error": f"ended by itself, {self._how_it_ended()}", "not_offered": False}
        self._pending += data
        line, newline, rest = self._pending.partition(b"\n")
        if not newline:
            return None
        self._pending = rest
        message: dict[str, Any] = orjson.loads(line)
        return message

    def _how_it_ended(self) -> str:
        """Does not reap it: its number must stay its own until its family has been killed."""
        wait_for_end([self.process.pid])
        state = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if state is None:
            return "or closed its pipe"
        return f"exit code {state.si_status}" if state.si_code == os.CLD_EXITED else f"signal {state.si_status}"

    def close(self) -> None:
        os.close(self._commands)
        os.close(self._answers)


def bound_listener() -> socket.socket:
    """A listening socket on a free loopback port."""
    return socket.create_server(("127.0.0.1", 0), backlog=128)


def has_descriptor(stream: Any) -> bool:
    """Whether a stream is a real file: not so under some test runners."""
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True
