"""The rival: asyncio's streams, as its tutorial shows them: length-prefixed frames, a task for each session.

One no-delay connection for each pair of parties, with a task that reads its frames (`readexactly`) and puts each into
its session's mailbox. Each session's task writes its frame and drains. The reader's limit is raised to what the loop
reads at once, which large messages need.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from partywire.perf.contender import CONNECT_TIMEOUT_S
from partywire.perf.frames import BUFFER_SIZE, HEADER, JOINED_SIZE_MAX, meet
from partywire.perf.mailboxes import Mailbox, play_in_tasks

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from partywire.perf.contender import Place
    from partywire.perf.workloads import Workload


class StreamChannel(Mailbox):
    """One session over the streams to all peers."""

    __slots__ = ("_session", "_writers")

    def __init__(self, session: int, parties: int, writers: dict[int, asyncio.StreamWriter]) -> None:
        super().__init__(parties)
        self._session = session
        self._writers = writers

    async def send(self, peer: int, value: bytes) -> None:
        writer = self._writers[peer]
        header = HEADER.pack(self._session, len(value))
        if len(value) <= JOINED_SIZE_MAX:
            writer.write(header + value)
        else:
            writer.write(header)
            writer.write(value)
        await writer.drain()


class StreamParty:
    """One party: its loop, which runs while it plays, a task for each peer and, in a play, one for each session."""

    def __init__(self, runner: asyncio.Runner, place: Place, work: Workload) -> None:
        self._runner = runner
        self._place = place
        self._work = work
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._readings: list[asyncio.Task[None]] = []
        self._channels: list[StreamChannel] = []

    async def connect(self, sockets: dict[int, socket.socket]) -> None:
        self._channels = [
            StreamChannel(session, self._place.parties, self._writers) for session in range(self._work.sessions)
        ]
        for peer, connected in sockets.items():
            reader, self._writers[peer] = await asyncio.open_connection(sock=connected, limit=BUFFER_SIZE)
            self._readings.append(asyncio.create_task(self._read(peer, reader)))

    async def _read(self, peer: int, reader: asyncio.StreamReader) -> None:
        """Read the peer's frames until it sends no more."""
        channels, unpack = self._channels, HEADER.unpack
        try:
            while True:
                session, length = unpack(await reader.readexactly(HEADER.size))
                channels[session].deliver(peer, await reader.readexactly(length))
        except (OSError, asyncio.IncompleteReadError) as error:
            for channel in channels:
                channel.fail(peer, error)

    def play(self, units: int) -> list[list[int]]:
        """As in `OpenParty`. Everything that was sent has been taken by the system when it returns."""
        return self._runner.run(self._play(units))

    async def _play(self, units: int) -> list[list[int]]:
        latencies = await play_in_tasks(self._work, self._place.party, self._channels, units)
        for writer in self._writers.values():
            writer.transport.set_write_buffer_limits(high=0)
            await writer.drain()
            writer.transport.set_write_buffer_limits()
        return latencies

    async def leave(self) -> None:
        """Say that we send no more, and stay until everybody has said so."""
        for writer in self._writers.values():
            writer.write_eof()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await asyncio.gather(*self._readings)
        for writer in self._writers.values():
            writer.close()
            await writer.wait_closed()


@contextlib.contextmanager
def open_party(place: Place, work: Workload) -> Iterator[StreamParty]:
    sockets = meet(place)
    with asyncio.Runner() as runner:
        party = StreamParty(runner, place, work)
        runner.run(party.connect(sockets))
        yield party
        runner.run(party.leave())
