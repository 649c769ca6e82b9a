"""The rival: gRPC's asyncio API, a bidirectional stream for each session and pair of parties.

The party with the higher index dials and opens the streams; what runs over them are plain bytes, without protobuf
(generic handlers, no serializers) and without compression. All streams of a pair share one HTTP/2 connection. One
stream for all sessions, with the session number in each message, is the slower way from a few sessions up.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from partywire.perf.contender import CONNECT_TIMEOUT_S
from partywire.perf.mailboxes import play_in_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.perf.contender import Place
    from partywire.perf.workloads import Workload

SERVICE, METHOD = "partywire.perf.Sessions", "Messages"
OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A party that comes first dials before the others listen: try again soon, not after a second.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
)


class StreamChannel:
    """One session: a stream to or from each peer. gRPC's two ends of a stream have the same `read` and `write`."""

    __slots__ = ("streams",)

    def __init__(self) -> None:
        self.streams: dict[int, Any] = {}  # filled in while the parties meet

    async def send(self, peer: int, value: bytes) -> None:
        await self.streams[peer].write(value)

    async def recv(self, peer: int) -> bytes:
        message: bytes = await self.streams[peer].read()
        if message is grpc.aio.EOF:
            raise ConnectionResetError(f"party {peer} has ended the stream")
        return message


class StreamParty:
    """One party: its loop, which runs while it plays, its server and its clients."""

    def __init__(self, runner: asyncio.Runner, place: Place, work: Workload) -> None:
        self._runner = runner
        self._place = place
        self._work = work
        self._channels = [StreamChannel() for _ in range(work.sessions)]
        self._server: grpc.aio.Server
        self._clients: list[grpc.aio.Channel] = []
        self._awaited_count = (place.parties - 1 - place.party) * work.sessions
        """Streams that others open to us and have not opened yet."""
        self._all_open: asyncio.Event
        self._is_over: asyncio.Event

    async def connect(self) -> None:
        """Serve the peers behind us and dial those before us, until all streams are open."""
        place = self._place
        self._all_open, self._is_over = asyncio.Event(), asyncio.Event()
        if not self._awaited_count:
            self._all_open.set()
        self._server = grpc.aio.server(options=OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(self._serve)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        place.listener.close()  # gRPC insists on listening itself
        self._server.add_insecure_port(f"127.0.0.1:{place.ports[place.party]}")
        await self._server.start()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            for peer in range(place.party):
                client = grpc.aio.insecure_channel(f"127.0.0.1:{place.dial_ports[peer]}", options=OPTIONS)
                self._clients.append(client)
                await client.channel_ready()
                open_stream = client.stream_stream(f"/{SERVICE}/{METHOD}")
                for session, channel in enumerate(self._channels):
                    stream = channel.streams[peer] = open_stream(wait_for_ready=True)
                    await stream.write(place.party.to_bytes(4, "little") + session.to_bytes(4, "little"))
            await self._all_open.wait()

    async def _serve(self, _: object, stream: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """A stream that a peer has opened; it lives until this returns."""
        first: bytes = await stream.read()
        peer, session = int.from_bytes(first[:4], "little"), int.from_bytes(first[4:], "little")
        self._channels[session].streams[peer] = stream
        self._awaited_count -= 1
        if not self._awaited_count:
            self._all_open.set()
        await self._is_over.wait()
        await read_to_end(stream)

    def play(self, units: int) -> list[list[int]]:
        """As in `OpenParty`."""
        return self._runner.run(play_in_tasks(self._work, self._place.party, self._channels, units))

    async def leave(self) -> None:
        """End the streams, and stay until the peers have ended them too: nobody's last message is cut off."""
        self._is_over.set()
        opened = [
            stream for channel in self._channels for peer, stream in channel.streams.items() if peer < self._place.party
        ]
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            for stream in opened:
                await stream.done_writing()
            for stream in opened:
                await read_to_end(stream)

    async def close(self) -> None:
        """Close everything now, except that peers which are about to end their streams may do so."""
        for client in self._clients:
            await client.close()
        await self._server.stop(CONNECT_TIMEOUT_S)


async def read_to_end(stream: Any) -> None:
    """Returns when the other end has said that it writes no more."""
    while await stream.read() is not grpc.aio.EOF:
        pass


@contextlib.contextmanager
def open_party(place: Place, work: Workload) -> Iterator[StreamParty]:
    with asyncio.Runner() as runner:
        party = StreamParty(runner, place, work)
        runner.run(party.connect())
        yield party
        runner.run(party.leave())
        runner.run(party.close())
