"""What each hop costs a message: all of them in this one process, one after the other, with nobody asleep.

Two parties, each a worker with its sessions and the pump of an I/O process, joined by real rings and one TCP connection
on loopback. Every session plays ping-pong. A lap takes the messages of all sessions from one party to the other: each
hop handles all of them before the next hop begins, as it does in a pass of a running party, and is timed as a whole.

    recv, resume   the scheduler resumes each session, whose `recv` returns
    send           the session's call
    publish        frames gathered into one record, copied into the ring, published
    socket send    the I/O process polls the ring and sends; the kernel's TCP, the receiving half included
    socket recv    the peer's I/O process receives into its ring and publishes
    demultiplex    the peer's worker polls the ring, splits frames, puts them into mailboxes, wakes sessions

What would make it lie: caches are warmer than in four processes; no event loop, no bell, no wake-up and no system call
to sleep is in it (see wakeups.py and running.py); messages beyond what ring and socket hold take several passes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from partywire.engine import limits
from partywire.engine.commands import Lanes
from partywire.engine.connection_pump import ConnectionPump
from partywire.engine.link_options import LinkOptions
from partywire.engine.tcp import TcpStream, tune
from partywire.engine.topology import PartySpec, PeerSpec
from partywire.shm import Bell, Doorbell, Fence, RingReader, RingWriter, Segment, ShmError, probe, register
from partywire.workers.scheduler import Scheduler
from partywire.workers.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from partywire.workers.session import Session

SEND: Final = "send"
RESUME: Final = "recv, resume"
PUBLISH: Final = "publish"
SOCKET_SEND: Final = "socket send"
SOCKET_RECV: Final = "socket recv"
DEMULTIPLEX: Final = "demultiplex"
HOPS: Final = (SEND, PUBLISH, SOCKET_SEND, SOCKET_RECV, DEMULTIPLEX, RESUME)

PASSES_MAX: Final = 100_000
"""A lap that needs more is stuck."""

PEERS: Final = (PeerSpec("ping", 0, "127.0.0.1", 1), PeerSpec("pong", 1, "127.0.0.1", 2))
EPOCH: Final = 1

ROOM_OVERHEAD: Final = 1024
"""At most what the frames and records of one message take beside its bytes, for messages of a few fragments."""


class WalkStuck(Exception):
    """Raised when messages do not arrive though every hop had its turn many times: a bug of the walk or of a hop."""


@dataclass(slots=True)
class Lap:
    """Nanoseconds that each hop took for the messages of all sessions together."""

    hops: dict[str, int] = field(default_factory=lambda: dict.fromkeys(HOPS, 0))

    def time(self, hop: str, work: Callable[[], object]) -> None:
        start = time.perf_counter_ns()
        work()
        self.hops[hop] += time.perf_counter_ns() - start


class Owner:
    """Stands where the multiplexer stands. Nothing ends here, so whatever a pump has to say is an error."""

    def pump_received(self, pump: ConnectionPump) -> None:
        """The walk sees what has come at the worker."""

    def pump_has_more(self, pump: ConnectionPump) -> None:
        """The walk comes back anyway."""

    def pump_ended(self, pump: ConnectionPump) -> None:
        raise WalkStuck("the socket of the walk ended")

    def pump_failed(self, pump: ConnectionPump, cause: str) -> None:
        raise WalkStuck(f"the socket of the walk broke: {cause}")

    def pump_finished(self, pump: ConnectionPump) -> None:
        raise WalkStuck("a lane of the walk was finished")

    def pump_told(self, pump: ConnectionPump) -> None:
        raise WalkStuck("a lane of the walk was told its end")

    def ring_broke(self, end: ConnectionPump, error: ShmError) -> None:
        raise WalkStuck(f"a ring of the walk broke: {error}") from error


class End:
    """One party: its worker with a scheduler, and the pump of its I/O process."""

    def __init__(
        self, index: int, sock: socket.socket, loop: asyncio.AbstractEventLoop, fence: Fence, pass_time_ns: int | None
    ) -> None:
        """Owns the socket."""
        options = LinkOptions()
        self._stack = ExitStack()
        io_doorbell = Doorbell.create(fence)
        self._stack.callback(io_doorbell.close)
        doorbell = Doorbell.create(fence)
        self._bell = Bell.from_fds(*duplicated(doorbell.fds))
        self._stack.callback(self._bell.close)
        self.worker = Worker(PartySpec(PEERS[index].name, index, PEERS), doorbell, fence)
        tx, rx = Segment.create(options.ring_size), Segment.create(options.ring_size)
        fds = [*duplicated(io_doorbell.fds), *duplicated((tx.fileno(), rx.fileno()))]
        lanes = Lanes(0, 1 - index, EPOCH, 1, [0], 1, False, limits.MESSAGE_SIZE_MAX)
        self.worker.link_life.add_lanes(lanes, fds)
        self.pump = ConnectionPump(
            Owner(),
            TcpStream(sock, loop),
            RingReader(tx, fence, self._bell),
            RingWriter(rx, fence, self._bell),
            0,
            EPOCH,
        )
        self.scheduler = Scheduler(self.worker, pass_time_ns=pass_time_ns)

    def close(self) -> None:
        self.scheduler.close()
        self.worker.close()
        self.pump.close()
        self._stack.close()


class Walk:
    """A context: the two parties and their sessions, ready to walk."""

    def __init__(self, sessions: int, size: int, *, pass_time_ns: int | None = None) -> None:
        """`pass_time_ns`: of the schedulers; a slow machine needs more, for the passes of a fast one."""
        self._count = sessions
        self._pass_time_ns = pass_time_ns
        self._payload = bytes(size)
        # Sessions whose calls of `send` are timed alone: as many as surely find room.
        self._calls = max(1, min(sessions, LinkOptions().ring_size // 2 // (size + ROOM_OVERHEAD)))
        self._stack = ExitStack()
        self._sent = 0

    def __enter__(self) -> Walk:
        try:
            register()
            fence = probe()
            self._loop = asyncio.new_event_loop()
            self._stack.callback(self._loop.close)
            self._ends = []
            for index, sock in enumerate(connected_pair()):
                end = End(index, sock, self._loop, fence, self._pass_time_ns)
                self._stack.callback(end.close)
                self._ends.append(end)
            self._sessions = [[end.worker.make_session(number) for number in range(self._count)] for end in self._ends]
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def measure(self, laps: int) -> dict[str, tuple[float, ...]]:
        """Microseconds per message of each hop, lap by lap.

        The scheduler's pass holds `send`, `recv` and the resumption between them; the call of `send` alone is timed
        in laps of its own, and its median taken off the pass.
        """
        sends = [self._call_lap() / 1e3 / self._calls for _ in range(laps)]
        laps_done = self.play(laps)
        found = {hop: tuple(lap.hops[hop] / 1e3 / self._count for lap in laps_done) for hop in HOPS if hop != SEND}
        send = statistics.median(sends)
        found[RESUME] = tuple(max(0.0, value - send) for value in found[RESUME])
        return {hop: found.get(hop, tuple(sends)) for hop in HOPS}

    def play(self, laps: int) -> list[Lap]:
        """Ping-pong on all sessions for so many laps and one more, which is not timed. Once in a walk."""
        for index, sessions in enumerate(self._sessions):
            for session in sessions:
                self._ends[index].scheduler.spawn(self._play(session, index))
        self._ends[1].scheduler.do_work()
        self._lap(0)  # the first one only sends
        return [self._lap(1 - number % 2) for number in range(laps)]

    async def _play(self, session: Session, index: int) -> None:
        """One session's ping-pong, until the walk is over."""
        peer = 1 - index
        message = self._payload
        if index == 1:
            message = await session.recv(peer)
        while True:
            await session.send(peer, message)
            message = await session.recv(peer)

    def _lap(self, start: int) -> Lap:
        """All messages from one party to the other."""
        ours, theirs = self._ends[start], self._ends[1 - start]
        lap = Lap()
        lap.time(RESUME, lambda: resume_all(ours.scheduler))
        self._carry(ours, theirs, lap, self._count)
        return lap

    def _call_lap(self) -> int:
        """Nanoseconds of one `send` on each session; what was sent is carried over and received."""
        ours, theirs = self._ends
        spans: list[int] = []

        async def send_all() -> None:
            start = time.perf_counter_ns()
            for session in self._sessions[0][: self._calls]:
                await session.send(1, self._payload)
            spans.append(time.perf_counter_ns() - start)

        async def receive_all() -> None:
            for session in self._sessions[1][: self._calls]:
                await session.recv(0)

        ours.scheduler.spawn(send_all())
        slot = theirs.scheduler.spawn(receive_all())
        resume_all(ours.scheduler)
        self._carry(ours, theirs, Lap(), self._calls)
        resume_all(theirs.scheduler)
        if not slot.is_done or not spans:
            raise WalkStuck("a message that was carried over was not there to be received")
        return spans[0]

    def _carry(self, ours: End, theirs: End, lap: Lap, messages: int) -> None:
        """What our sessions sent goes through all hops, until so many messages have come."""
        wanted = theirs.worker.link_life.totals().messages_received + messages
        for attempt in range(PASSES_MAX):
            lap.time(PUBLISH, ours.worker.flush)
            lap.time(SOCKET_SEND, ours.pump.serve_ring)
            lap.time(SOCKET_RECV, theirs.pump.receive)
            lap.time(DEMULTIPLEX, theirs.worker.service)
            if theirs.worker.link_life.totals().messages_received >= wanted:
                return
            # More than the rings or the socket hold: whoever waits for room goes on when asked again.
            lap.time(SOCKET_RECV, theirs.pump.fill_ring)
            lap.time(SOCKET_SEND, self._turn_loop)
            lap.time(PUBLISH, ours.worker.service)
            if attempt:
                lap.time(SEND, lambda: resume_all(ours.scheduler))
        raise WalkStuck(f"not all of {messages} messages arrived after {PASSES_MAX:,} passes")

    def _turn_loop(self) -> None:
        """One turn of the loop that watches a socket whose buffer was full."""
        self._loop.call_soon(self._loop.stop)
        self._loop.run_forever()


def resume_all(scheduler: Scheduler) -> None:
    """Passes until nobody is ready."""
    while scheduler.do_work():
        pass


def duplicated(fds: tuple[int, int]) -> tuple[int, int]:
    return os.dup(fds[0]), os.dup(fds[1])


def connected_pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a TCP connection on loopback, tuned as links are."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dialled = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    for sock in (dialled, accepted):
        tune(sock)
    return dialled, accepted
