"""The rival: the same ring rounds as one would write them today, length-prefixed frames on uvloop, a task per session.

One process a party, one no-delay TCP connection to the next party and one from the previous. A frame is
`session u32 | length u32 | payload`; each session is a task that writes its frame at once and waits for its next
message in a future. No batching beyond what the event loop does by itself.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import TYPE_CHECKING

import uvloop

if TYPE_CHECKING:
    from partywire.perf.workload import RingRounds, Span

HEADER = struct.Struct("<II")


class RoundsProtocol(asyncio.Protocol):
    """Splits the stream of the previous party into messages and wakes the session that waits for each."""

    def __init__(self, sessions: int) -> None:
        self.inboxes: list[list[bytes]] = [[] for _ in range(sessions)]
        self.waiters: list[asyncio.Future[None] | None] = [None] * sessions
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        data = self._pending + data if self._pending else data
        position, end = 0, len(data)
        while position + HEADER.size <= end:
            session, length = HEADER.unpack_from(data, position)
            if position + HEADER.size + length > end:
                break
            position += HEADER.size
            self.inboxes[session].append(data[position : position + length])
            position += length
            waiter = self.waiters[session]
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        self._pending = data[position:]

    async def receive(self, session: int) -> bytes:
        inbox = self.inboxes[session]
        if not inbox:
            waiter = asyncio.get_running_loop().create_future()
            self.waiters[session] = waiter
            await waiter
            self.waiters[session] = None
        return inbox.pop(0)


async def play(party: int, ports: list[int], listener: socket.socket, work: RingRounds) -> Span:
    loop = asyncio.get_running_loop()
    from_previous = RoundsProtocol(work.sessions)
    server = await loop.create_server(lambda: from_previous, sock=listener)
    while True:
        try:
            to_next, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", ports[(party + 1) % len(ports)])
            break
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
    to_next.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    payload = bytes(work.size)

    async def session_task(session: int, count: int) -> None:
        for _ in range(count):
            to_next.write(HEADER.pack(session, work.size) + payload)
            message = await from_previous.receive(session)
            assert len(message) == work.size

    await asyncio.gather(*(session_task(session, work.warm_up_rounds) for session in range(work.sessions)))
    start = time.monotonic()
    await asyncio.gather(*(session_task(session, work.rounds) for session in range(work.sessions)))
    end = time.monotonic()
    # Parties end at different times: whoever leaves first must not cut the others' last round.
    await asyncio.sleep(0.2)
    to_next.close()
    server.close()
    return start, end


def run_party(party: int, ports: list[int], listener: socket.socket, work: RingRounds) -> Span:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(play(party, ports, listener, work))
