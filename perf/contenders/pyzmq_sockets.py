"""The rival: pyzmq over TCP, a PULL socket at each party and a PUSH socket for each peer.

A message is `session u32 | sender u32 | payload`. A large payload follows its header as a second part, sent and
received without a copy, as pyzmq's documentation advises. Plain sockets, not the slower `zmq.asyncio`: the party
blocks in `recv` when no session can go on, and takes whatever else has come before it resumes them (coroutines.py).
ZeroMQ's own thread joins small messages into larger writes.

PUSH never drops: at its high-water mark it refuses, and the session waits until the socket has room.
"""

from __future__ import annotations

import contextlib
import math
import struct
from typing import TYPE_CHECKING, cast

import zmq

from partywire.perf.contender import CONNECT_TIMEOUT_S
from partywire.perf.coroutines import TurnMailbox, Turns, park
from partywire.perf.mailboxes import plays_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from partywire.perf.contender import Place
    from partywire.perf.workloads import Workload

HEADER = struct.Struct("<II")
JOINED_SIZE_MAX = 64 * 1024
"""Above, pyzmq avoids copies by itself too (`zmq.COPY_THRESHOLD`)."""
MESSAGES_PER_SESSION_MAX = 8
"""High-water mark of a socket, for each session: the default of 1,000 messages in all is less than one each."""


class SocketChannel(TurnMailbox):
    """One session over the sockets of its party."""

    __slots__ = ("_header", "_pushes", "_waiting_for_room")

    def __init__(
        self,
        session: int,
        place: Place,
        turns: Turns,
        pushes: dict[int, zmq.Socket[bytes]],
        waiting_for_room: dict[zmq.Socket[bytes], list[Coroutine[object, None, None]]],
    ) -> None:
        super().__init__(place.parties, turns)
        self._header = HEADER.pack(session, place.party)
        self._pushes = pushes
        self._waiting_for_room = waiting_for_room

    async def send(self, peer: int, value: bytes) -> None:
        push = self._pushes[peer]
        while True:
            try:
                if len(value) <= JOINED_SIZE_MAX:
                    push.send(self._header + value, zmq.NOBLOCK)
                else:
                    push.send(self._header, zmq.NOBLOCK | zmq.SNDMORE)
                    push.send(value, zmq.NOBLOCK, copy=False)
                return
            except zmq.Again:
                self._waiting_for_room.setdefault(push, []).append(self._turns.current)
                await park()


class SocketParty:
    """One party: its sockets, and its sessions as coroutines."""

    def __init__(self, place: Place, work: Workload, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._place = place
        self._work = work
        self._turns = Turns()
        self._waiting_for_room: dict[zmq.Socket[bytes], list[Coroutine[object, None, None]]] = {}
        high_water_mark = max(1000, MESSAGES_PER_SESSION_MAX * work.sessions)

        def new_socket(kind: int) -> zmq.Socket[bytes]:
            made = context.socket(kind)
            made.set_hwm(high_water_mark)
            return made

        self._pull = new_socket(zmq.PULL)
        self._pull.setsockopt(zmq.USE_FD, place.listener.detach())  # the socket closes it
        self._pull.bind(f"tcp://127.0.0.1:{place.ports[place.party]}")
        self._pushes = {}
        for peer in range(place.parties):
            if peer != place.party:
                self._pushes[peer] = new_socket(zmq.PUSH)
                self._pushes[peer].connect(f"tcp://127.0.0.1:{place.dial_ports[peer]}")
        self._channels = [
            SocketChannel(session, place, self._turns, self._pushes, self._waiting_for_room)
            for session in range(work.sessions)
        ]

    def play(self, units: int) -> list[list[int]]:
        """As in `OpenParty`."""
        plays, latencies = plays_of(self._work, self._place.party, self._channels, units)
        turns = self._turns
        turns.start(plays)
        while True:
            turns.run()
            if not turns.unfinished_count:
                return latencies
            wait_s = turns.wait_s()
            if wait_s is None and not self._waiting_for_room:
                self._receive(0)
            else:
                if wait_s != 0.0:
                    self._wait(wait_s)
                self._receive(zmq.NOBLOCK)

    def _receive(self, flags: int) -> None:
        """Deliver a message, waited for unless `flags` say otherwise, and whatever else has come meanwhile."""
        channels, pull, unpack_from, header_size = self._channels, self._pull, HEADER.unpack_from, HEADER.size
        try:
            while True:
                message = pull.recv(flags)
                flags = zmq.NOBLOCK
                session, sender = unpack_from(message)
                if len(message) > header_size:
                    channels[session].deliver(sender, message[header_size:])
                else:
                    self._receive_second_part(session, sender)
        except zmq.Again:
            return

    def _wait(self, seconds: float | None) -> None:
        """Block until a message has come, a full socket has room again, or this time is over."""
        poller = zmq.Poller()
        poller.register(self._pull, zmq.POLLIN)
        for push in self._waiting_for_room:
            poller.register(push, zmq.POLLOUT)
        for ready, _ in poller.poll(None if seconds is None else math.ceil(seconds * 1000)):
            self._turns.ready.extend(self._waiting_for_room.pop(ready, ()))

    def _receive_second_part(self, session: int, sender: int) -> None:
        message: bytes = b""
        if self._pull.rcvmore:
            # A memoryview is as good as bytes to every workload, and making it bytes would copy a large message.
            message = cast("bytes", self._pull.recv(copy=False).buffer)
        self._channels[session].deliver(sender, message)

    def close(self, linger_s: float) -> None:
        """Close the sockets; the context waits until the last messages have left, but no longer than this."""
        for socket in (self._pull, *self._pushes.values()):
            socket.close(linger=int(linger_s * 1000))


@contextlib.contextmanager
def open_party(place: Place, work: Workload) -> Iterator[SocketParty]:
    with zmq.Context() as context:
        party = SocketParty(place, work, context)
        try:
            yield party
        except BaseException:
            party.close(linger_s=0.0)
            raise
        party.close(linger_s=CONNECT_TIMEOUT_S)
