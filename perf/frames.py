"""Length-prefixed frames over TCP, the way one writes them today: what the asyncio and the uvloop contender share.

One no-delay connection for each pair of parties. A frame is `session u32 | length u32 | payload`, little-endian. Each
session is a task that writes its frame to the transport at once and waits for its next message in a future; nothing is
joined that the loop does not join by itself. `joins_writes` is the one step further that many programs take: the small
frames of one turn of the loop are written together at its end.

Written as asyncio's documentation advises: a `BufferedProtocol` (received bytes land in a buffer of ours; the body of a
large message lands where it will stay), and flow control by `pause_writing`. Small frames are written as one piece;
large payloads are written behind their header without being copied.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections import deque
from typing import TYPE_CHECKING, cast

from .contender import CONNECT_TIMEOUT_S
from .mailboxes import Mailbox, play_in_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .contender import Place
    from .workloads import Workload

HEADER = struct.Struct("<II")
PARTY = struct.Struct("<I")
"""What a dialling party sends first: its index."""

BUFFER_SIZE = 256 * 1024
"""What asyncio and uvloop read at once by default."""
JOINED_SIZE_MAX = 64 * 1024
"""Up to here header and payload are written as one piece: a second write costs more than the copy."""
DIAL_AGAIN_S = 0.01


def meet(place: Place) -> dict[int, socket.socket]:
    """A non-blocking no-delay connection to every other party, by index. Each party dials those before it.

    Raises OSError if one of them is not there within CONNECT_TIMEOUT_S.
    """
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    sockets: dict[int, socket.socket] = {}
    for peer in range(place.party):
        while True:
            try:
                dialled = socket.create_connection(("127.0.0.1", place.dial_ports[peer]), CONNECT_TIMEOUT_S)
                break
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(DIAL_AGAIN_S)
        dialled.sendall(PARTY.pack(place.party))
        sockets[peer] = dialled
    for _ in range(place.party + 1, place.parties):
        place.listener.settimeout(max(0.0, deadline - time.monotonic()))
        accepted, _ = place.listener.accept()
        accepted.settimeout(CONNECT_TIMEOUT_S)
        (peer,) = PARTY.unpack(accepted.recv(PARTY.size, socket.MSG_WAITALL))
        sockets[peer] = accepted
    place.listener.close()
    for connected in sockets.values():
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setblocking(False)
    return sockets


class FrameProtocol(asyncio.BufferedProtocol):
    """One connection: splits what arrives into messages, and says when its sender has to wait."""

    def __init__(self, peer: int, mailboxes: Sequence[Mailbox]) -> None:
        """`mailboxes[session]` is where the peer's messages go."""
        self.transport: asyncio.Transport
        self.is_full = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the peer has said that it sends no more, or is gone."""
        self._peer = peer
        self._mailboxes = mailboxes
        self._room_waiters: deque[asyncio.Future[None]] = deque()
        self._turn_frames: list[bytes] = []
        self._buffer = bytearray(BUFFER_SIZE)
        self._view = memoryview(self._buffer)
        self._filled_size = 0
        # While the body of a large message arrives:
        self._body: bytearray | None = None
        self._body_rest: memoryview = self._view[:0]
        self._body_session = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    # Receiving.

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._filled_size :] if self._body is None else self._body_rest

    def buffer_updated(self, nbytes: int) -> None:
        if self._body is not None:
            self._body_rest = self._body_rest[nbytes:]
            if not self._body_rest:
                # A bytearray is as good as bytes to every workload, and making it bytes would copy a large message.
                self._mailboxes[self._body_session].deliver(self._peer, cast("bytes", self._body))
                self._body = None
            return
        view, mailboxes, peer = self._view, self._mailboxes, self._peer
        unpack_from, header_size = HEADER.unpack_from, HEADER.size
        start, end = 0, self._filled_size + nbytes
        while end - start >= header_size:
            session, length = unpack_from(view, start)
            body_end = start + header_size + length
            if body_end <= end:
                mailboxes[session].deliver(peer, bytes(view[start + header_size : body_end]))
                start = body_end
            elif length > JOINED_SIZE_MAX:
                self._start_body(session, length, view[start + header_size : end])
                start = end
            else:
                break
        rest_size = end - start
        if start and rest_size:
            view[:rest_size] = view[start:end]
        self._filled_size = rest_size

    def _start_body(self, session: int, length: int, first_piece: memoryview) -> None:
        self._body, self._body_session = bytearray(length), session
        rest = memoryview(self._body)
        rest[: len(first_piece)] = first_piece
        self._body_rest = rest[len(first_piece) :]

    # Sending.

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        while self._room_waiters:
            waiter = self._room_waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    async def wait_for_room(self) -> None:
        """Returns when the transport has taken most of what was written; at once unless it is full."""
        while self.is_full:
            waiter = asyncio.get_running_loop().create_future()
            self._room_waiters.append(waiter)
            await waiter

    def write_in_turn(self, frame: bytes) -> None:
        """Write the frame together with those of the other sessions that run in this turn of the loop."""
        if not self._turn_frames:
            asyncio.get_running_loop().call_soon(self.write_turn)
        self._turn_frames.append(frame)

    def write_turn(self) -> None:
        """Write what has been collected in this turn, now."""
        if self._turn_frames:
            self.transport.write(b"".join(self._turn_frames))
            self._turn_frames.clear()

    async def flush(self) -> None:
        """Returns when the system has taken everything that was written."""
        self.write_turn()
        self.transport.set_write_buffer_limits(high=0)
        await self.wait_for_room()
        self.transport.set_write_buffer_limits()

    # Ending.

    def eof_received(self) -> bool:
        if not self.ended.done():
            self.ended.set_result(None)
        return True  # we may still have something to send

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
        error = exc or ConnectionResetError("the connection was closed")
        for waiter in self._room_waiters:
            if not waiter.done():
                waiter.set_exception(error)
        for mailbox in self._mailboxes:
            mailbox.fail(self._peer, error)


class FrameChannel(Mailbox):
    """One session over the connections to all peers."""

    __slots__ = ("_connections", "_session")

    def __init__(self, session: int, parties: int, connections: dict[int, FrameProtocol]) -> None:
        super().__init__(parties)
        self._session = session
        self._connections = connections  # by peer; filled in while the parties meet

    async def send(self, peer: int, value: bytes) -> None:
        connection = self._connections[peer]
        size = len(value)
        header = HEADER.pack(self._session, size)
        if size <= JOINED_SIZE_MAX:
            connection.transport.write(header + value)
        else:
            connection.transport.write(header)
            connection.transport.write(value)
        if connection.is_full:
            await connection.wait_for_room()


class JoiningFrameChannel(FrameChannel):
    """The same, its small frames joined with those of the other sessions."""

    __slots__ = ()

    async def send(self, peer: int, value: bytes) -> None:
        if len(value) > JOINED_SIZE_MAX:
            self._connections[peer].write_turn()
            await super().send(peer, value)
            return
        connection = self._connections[peer]
        connection.write_in_turn(HEADER.pack(self._session, len(value)) + value)
        if connection.is_full:
            await connection.wait_for_room()


class FrameParty:
    """One party: its loop, which runs while it plays, and a task for each session in it."""

    def __init__(self, runner: asyncio.Runner, place: Place, work: Workload) -> None:
        self._runner = runner
        self._place = place
        self._work = work
        self._connections: dict[int, FrameProtocol] = {}
        self._channels: list[FrameChannel] = []

    async def connect(self, sockets: dict[int, socket.socket], channel_type: type[FrameChannel]) -> None:
        """Make the sessions' channels over these sockets, one for each peer."""
        self._channels.extend(
            channel_type(session, self._place.parties, self._connections) for session in range(self._work.sessions)
        )
        loop = asyncio.get_running_loop()
        for peer, connected in sockets.items():
            protocol = FrameProtocol(peer, self._channels)
            self._connections[peer] = protocol
            await loop.create_connection(lambda protocol=protocol: protocol, sock=connected)  # type: ignore[misc]

    def play(self, units: int) -> list[list[int]]:
        """As in `OpenParty`. Everything that was sent has been taken by the system when it returns, since the loop
        stands still until the next call."""
        return self._runner.run(self._play(units))

    async def _play(self, units: int) -> list[list[int]]:
        latencies = await play_in_tasks(self._work, self._place.party, self._channels, units)
        for connection in self._connections.values():
            await connection.flush()
        return latencies

    async def leave(self) -> None:
        """Say that we send no more, and stay until everybody has said so: nobody's last message meets a closed door."""
        for connection in self._connections.values():
            connection.transport.write_eof()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            for connection in self._connections.values():
                await connection.ended
        for connection in self._connections.values():
            connection.transport.close()


@contextlib.contextmanager
def open_frame_party(
    place: Place, work: Workload, loop_factory: Callable[[], asyncio.AbstractEventLoop], *, joins_writes: bool = False
) -> Iterator[FrameParty]:
    """`open_party` of a contender that sends frames over a loop of this factory."""
    sockets = meet(place)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        party = FrameParty(runner, place, work)
        runner.run(party.connect(sockets, JoiningFrameChannel if joins_writes else FrameChannel))
        yield party
        runner.run(party.leave())
