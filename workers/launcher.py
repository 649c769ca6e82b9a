"""Starts party processes for the command, listens to their events, and ends them all together.

Between the command (which owns the terminal) and one process per party on this host: three with `--local 3`, one with
`--config`. A party process runs in a process group of its own, so that Ctrl-C reaches it only from here, once, as one
SIGINT. The one invariant: when `run` returns or raises, no party process is left, and each has exactly one outcome.

The stages of an end, each with its deadline: a failure gives the others FAILURE_GRACE_S to fail by themselves, for the
same reason, seen from their side; then SIGINT, which closes links with a goodbye; after CLOSE_GRACE_S SIGKILL, which
their supervisors notice and follow.
"""

from __future__ import annotations

import os
import pickle
import selectors
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .exit_code import ExitCode
from .retry import RETRIES_DEFAULT, RETRY_TIMEOUT_S
from .run_event import LINE_SIZE_MAX, Failed, Finished, decode_event

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import FrameType

    from .run_event import EventSink

FAILURE_GRACE_S = 2.0
CLOSE_GRACE_S = 8.0  # the close timeout of a link is 5 s by default, then the processes end
TICK_S = 0.2  # how often the display is asked to redraw
READ_SIZE = 256 * 1024
OUTPUT_KEPT_MAX = 64 * 1024  # of what a party process printed, for the report of a crash


@dataclass(frozen=True, slots=True)
class Order:
    """What one party process is told to do; travels pickled over a pipe between our own processes.

    `config` is a PartyConfig or the path of one. `options` may name private files and values: repr hides them.
    """

    party: str
    config: Any
    job: str
    options: dict[str, object] = field(repr=False)
    sessions: int
    workers: int | None
    log_format: str = "text"
    log_level: str | None = None
    retries: int = RETRIES_DEFAULT
    retry_timeout_s: float = RETRY_TIMEOUT_S


@dataclass(slots=True)
class PartyProcess:
    """One party process as the launcher sees it."""

    party: str
    process: subprocess.Popen[bytes]
    pidfd: int
    events_fd: int
    output_fd: int
    pending_events: bytearray = field(default_factory=bytearray)
    pending_output: bytearray = field(default_factory=bytearray)
    output_kept: bytearray = field(default_factory=bytearray)
    outcome: Finished | Failed | None = None  # set by its last event, or by its end without one
    ended: bool = False


def start_party(order: Order, listener: socket.socket | None) -> PartyProcess:
    """Start the process of one party. The listener's descriptor is inherited; ours may be closed afterwards.

    Raises:
        OSError: no process can be started; then nothing of it is left.
    """
    with ExitStack() as ours, ExitStack() as theirs:
        order_read, order_write = os.pipe()
        theirs.callback(os.close, order_read)
        order_pipe = ours.enter_context(os.fdopen(order_write, "wb"))
        events_read, events_write = _pipe(ours, theirs)
        output_read, output_write = _pipe(ours, theirs)
        listener_fd = -1 if listener is None else listener.fileno()
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "partywire.workers.party_main",
                str(order_read),
                str(events_write),
                str(listener_fd),
                str(os.getpid()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output_write,
            stderr=output_write,
            pass_fds=[order_read, events_write] + ([listener_fd] if listener is not None else []),
            process_group=0,
        )
        ours.callback(process.wait)
        ours.callback(process.kill)
        theirs.close()  # with a copy of its ends here, a party process that ended would never break the pipe
        try:
            with order_pipe:
                order_pipe.write(pickle.dumps(order))
        except BrokenPipeError:
            pass  # it ended at once; its exit status and output say why
        os.set_blocking(events_read, False)
        os.set_blocking(output_read, False)
        party = PartyProcess(order.party, process, os.pidfd_open(process.pid), events_read, output_read)
        ours.pop_all()
    return party


def _pipe(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    """A pipe that we read and a party process writes."""
    read, write = os.pipe()
    ours.callback(os.close, read)
    theirs.callback(os.close, write)
    return read, write


class Launcher:
    """Runs party processes to their end. Driven by one thread, the command's main one."""

    def __init__(self, on_event: EventSink, on_output: Callable[[str, str], None], on_tick: Callable[[], None]) -> None:
        """`on_output(party, line)` gets each line that a job printed; `on_tick()` is called about every TICK_S."""
        self._on_event = on_event
        self._on_output = on_output
        self._on_tick = on_tick
        self._parties: list[PartyProcess] = []
        self._selector = selectors.DefaultSelector()
        self._interrupts = 0
        self._deadline: float | None = None  # of the current stage of the end
        self._stage = 0  # 0 running, 1 somebody failed, 2 SIGINT sent, 3 SIGKILL sent
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    def start(self, order: Order, listener: socket.socket | None = None) -> None:
        """Start one more party process."""
        party = start_party(order, listener)
        self._parties.append(party)
        self._selector.register(party.events_fd, selectors.EVENT_READ, (self._read_events, party))
        self._selector.register(party.output_fd, selectors.EVENT_READ, (self._read_output, party))
        self._selector.register(party.pidfd, selectors.EVENT_READ, (self._reap, party))

    def run(self) -> list[Finished | Failed]:
        """Wait for every party's outcome, in the order of `start`.

        Ctrl-C ends the parties cleanly, a second one at once.
        """
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        try:
            while not all(party.ended for party in self._parties):
                for key, _events in self._selector.select(TICK_S):
                    if key.data is None:
                        self._drain_wake()
                    else:
                        callback, party = key.data
                        callback(party)
                self._advance_end()
                self._on_tick()
            return [party.outcome for party in self._parties if party.outcome is not None]
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @property
    def interrupted(self) -> bool:
        return self._interrupts > 0

    def close(self) -> None:
        """End whatever still runs, at once, and free every descriptor."""
        for party in self._parties:
            if not party.ended:
                party.process.kill()
                party.process.wait()
            for fd in (party.events_fd, party.output_fd, party.pidfd):
                os.close(fd)
        self._parties.clear()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    # Ending.

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._interrupts += 1
        try:
            os.write(self._wake_write, b"!")
        except BlockingIOError:
            pass  # it is awake already

    def _drain_wake(self) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            pass

    def _advance_end(self) -> None:
        now = time.monotonic()
        if self._stage == 0 and any(isinstance(party.outcome, Failed) for party in self._parties):
            self._stage, self._deadline = 1, now + self._failure_grace()
        overdue = self._deadline is not None and now >= self._deadline
        if self._stage <= 1 and (self._interrupts or overdue):
            self._stage, self._deadline = 2, now + CLOSE_GRACE_S
            self._signal_all(signal.SIGINT)
        elif self._stage == 2 and (self._interrupts > 1 or overdue):
            self._stage, self._deadline = 3, None
            self._signal_all(signal.SIGKILL)

    def _failure_grace(self) -> float:
        """Nothing to learn from the others when one could not use its own input: they only wait for it."""
        failed = [party.outcome for party in self._parties if isinstance(party.outcome, Failed)]
        return 0.0 if any(outcome.exit_code == ExitCode.USAGE for outcome in failed) else FAILURE_GRACE_S

    def _signal_all(self, number: signal.Signals) -> None:
        for party in self._parties:
            if not party.ended and (party.outcome is None or number == signal.SIGKILL):
                party.process.send_signal(number)

    def _reap(self, party: PartyProcess) -> None:
        status = party.process.wait()
        self._read_events(party)
        self._read_output(party)
        for fd in (party.events_fd, party.output_fd, party.pidfd):
            if fd in self._selector.get_map():
                self._selector.unregister(fd)
        party.ended = True
        if party.outcome is None:
            party.outcome = died(party, status)
            self._on_event(party.outcome)

    # Listening.

    def _read_events(self, party: PartyProcess) -> None:
        if not self._read(party.events_fd, party.pending_events):
            return
        if len(party.pending_events) > LINE_SIZE_MAX:
            party.process.kill()
            return
        *lines, rest = party.pending_events.split(b"\n")
        party.pending_events[:] = rest
        for line in lines:
            if party.outcome is None:
                event = decode_event(bytes(line))
                if isinstance(event, Finished | Failed):
                    party.outcome = event
                self._on_event(event)

    def _read_output(self, party: PartyProcess) -> None:
        if not self._read(party.output_fd, party.pending_output):
            return
        *lines, rest = party.pending_output.split(b"\n")
        party.pending_output[:] = rest[-OUTPUT_KEPT_MAX:]
        for line in lines:
            party.output_kept += line + b"\n"
            self._on_output(party.party, line.decode("utf-8", "replace"))
        del party.output_kept[:-OUTPUT_KEPT_MAX]

    def _read(self, fd: int, pending: bytearray) -> bool:
        """Append what is there; False when nothing is. A pipe that ended is no longer watched."""
        size_before = len(pending)
        while True:
            try:
                piece = os.read(fd, READ_SIZE)
            except BlockingIOError:
                break
            if not piece:
                if fd in self._selector.get_map():
                    self._selector.unregister(fd)
                break
            pending += piece
        return len(pending) > size_before


def died(party: PartyProcess, status: int) -> Failed:
    """The outcome of a party process that ended without saying one."""
    if status < 0:
        try:
            how = f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            how = f"was killed by signal {-status}"
    else:
        how = f"ended with status {status}"
    interrupted = status in (-signal.SIGINT, ExitCode.INTERRUPTED)
    return Failed(
        party=party.party,
        exit_code=int(ExitCode.INTERRUPTED if interrupted else ExitCode.JOB),
        sentence="interrupted" if interrupted else f"the process of {party.party} {how} before its job ended",
        kind="PartyDied",
        peer=None,
        trace=(party.output_kept + party.pending_output).decode("utf-8", "replace"),
    )


def primary_failure(outcomes: list[Finished | Failed]) -> Failed | None:
    """The failure to show first: one whose cause is its own before one that a peer caused, an interrupt last."""
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    return min(
        failures,
        key=lambda failed: (
            failed.exit_code == ExitCode.INTERRUPTED,
            failed.exit_code != ExitCode.USAGE,
            failed.peer is not None,
            failed.exit_code == ExitCode.PEERS,
        ),
        default=None,
    )
