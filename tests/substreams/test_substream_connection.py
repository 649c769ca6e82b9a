"""Readers and writers of substreams, over real sockets and over the smallest buffers there are."""

from __future__ import annotations

import asyncio
import hashlib
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import uvloop

from partywire.engine.memory import MemoryTransport
from partywire.engine.substreams.connection import SubstreamConnection
from partywire.engine.substreams.errors import SubstreamTimeout
from partywire.engine.tcp import TcpTransport
from partywire.engine.yamux.errors import (
    SubstreamClosed,
    SubstreamRefused,
    SubstreamReset,
    SubstreamSessionOver,
)
from partywire.engine.yamux.frames import DATA, PING, RST, SYN, WINDOW_SIZE, WINDOW_UPDATE, encode_header
from partywire.engine.yamux.limits import YamuxLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter
    from partywire.engine.transport import Buffer, Stream, Transport

    Ends = tuple[SubstreamReader, SubstreamWriter]
    Scenario = Callable[["Net"], Coroutine[object, object, None]]

DEADLINE_S = 20.0


class Net:
    """Makes connected pairs, and serves substreams with whatever a test wants."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    async def streams(self) -> tuple[Stream, Stream]:
        accepted: asyncio.Future[Stream] = self.loop.create_future()
        listener = self.transport.listen("127.0.0.1", 0, accepted.set_result)
        dialled = await self.transport.connect(listener.address, None, DEADLINE_S)
        stream = await accepted
        listener.close()
        return dialled, stream

    @asynccontextmanager
    async def pair(
        self,
        serve: Callable[[SubstreamReader, SubstreamWriter], Coroutine[object, object, None]],
        limits: YamuxLimits | None = None,
    ) -> AsyncIterator[tuple[SubstreamConnection, SubstreamConnection]]:
        def on_substream(reader: SubstreamReader, writer: SubstreamWriter) -> None:
            task = self.loop.create_task(serve(reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        dialled, accepted = await self.streams()
        client, server = (
            SubstreamConnection(
                self.loop, stream, is_client=index == 0, on_substream=on_substream, peer="bob", limits=limits
            )
            for index, stream in enumerate((dialled, accepted))
        )
        client.start()
        server.start()
        try:
            yield client, server
        finally:
            await client.aclose(0.1)
            await server.aclose(0.1)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)


async def echo(reader: SubstreamReader, writer: SubstreamWriter) -> None:
    while data := await reader.read(100_000):
        writer.write(data)
        await writer.drain()
    writer.close()


async def silent(_reader: SubstreamReader, _writer: SubstreamWriter) -> None:
    await asyncio.get_running_loop().create_future()


@pytest.fixture(params=["tcp", "memory"])
def play(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
    """Runs a scenario on one transport."""

    def run(scenario: Scenario) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            transport = TcpTransport(loop) if request.param == "tcp" else MemoryTransport(loop, capacity=5000)
            async with asyncio.timeout(DEADLINE_S):
                await scenario(Net(transport))

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    return run


def test_many_substreams_echo_at_once(play: Callable[[Scenario], None]) -> None:
    async def scenario(net: Net) -> None:
        async def one(connection: SubstreamConnection, seed: int) -> None:
            data = random.Random(seed).randbytes(seed * 3000)
            reader, writer = await connection.open()
            digest = hashlib.sha256()

            async def listen() -> None:
                while part := await reader.read(7000):
                    digest.update(part)

            async with asyncio.TaskGroup() as group:
                group.create_task(listen())
                writer.write(data)
                await writer.drain()
                writer.write_eof()
            assert digest.digest() == hashlib.sha256(data).digest()
            assert reader.at_eof()

        async with net.pair(echo) as (client, server), asyncio.TaskGroup() as group:
            for seed in range(30):
                group.create_task(one((client, server)[seed % 2], seed))

    play(scenario)


def test_a_stalled_reader_holds_up_nobody_else(play: Callable[[Scenario], None]) -> None:
    async def scenario(net: Net) -> None:
        async def serve(reader: SubstreamReader, writer: SubstreamWriter) -> None:
            if await reader.readexactly(1) == b"e":
                await echo(reader, writer)
            await net.loop.create_future()

        async with net.pair(serve) as (client, _):
            _, stalled = await client.open()
            stalled.write(b"s" + bytes(3 * WINDOW_SIZE))
            reader, writer = await client.open()
            writer.write(b"e")
            for index in range(50):
                writer.write(b"%3d" % index)
                assert await reader.readexactly(3) == b"%3d" % index
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await stalled.drain()

    play(scenario)


def test_lines_and_what_interrupted_waits_keep(play: Callable[[Scenario], None]) -> None:
    async def scenario(net: Net) -> None:
        async with net.pair(echo) as (client, _):
            reader, writer = await client.open()
            writer.write(b"first\nsecond\nthi")
            assert await reader.readline() == b"first\n"
            assert await reader.readuntil(b"d\n") == b"second\n"
            for wait in (reader.readuntil(b"\n"), reader.readexactly(100)):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await wait
            writer.write(b"rd\nand the rest")
            writer.write_eof()
            assert await reader.readline() == b"third\n"
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await reader.readexactly(13)
            assert caught.value.partial == b"and the rest"
            assert await reader.readline() == b""
            with pytest.raises(SubstreamClosed):
                writer.write(b"x")

    play(scenario)


def test_a_line_without_an_end_is_refused_and_stays(play: Callable[[Scenario], None]) -> None:
    async def scenario(net: Net) -> None:
        async with net.pair(echo) as (client, _):
            reader, writer = await client.open()
            writer.write(bytes(70_000))
            with pytest.raises(asyncio.LimitOverrunError):
                await reader.readline()
            assert await reader.readexactly(70_000) == bytes(70_000)

    play(scenario)


def test_a_reset_reaches_reader_and_writer(play: Callable[[Scenario], None]) -> None:
    async def scenario(net: Net) -> None:
        async def serve(reader: SubstreamReader, writer: SubstreamWriter) -> None:
            await reader.readexactly(1)
            writer.reset()

        async with net.pair(serve) as (client, _):
            reader, writer = await client.open()
            writer.write(bytes(3 * WINDOW_SIZE))
            reading = net.loop.create_task(reader.read(1))
            with pytest.raises(SubstreamReset, match="bob reset substream 1"):
                await writer.drain()
            with pytest.raises(SubstreamReset):
                await reading

    play(scenario)


def test_closing_a_writer_drops_what_still_comes(play: Callable[[Scenario], None]) -> None:
    async def scenario(net: Net) -> None:
        served = net.loop.create_future()

        async def serve(reader: SubstreamReader, writer: SubstreamWriter) -> None:
            writer.write(bytes(4 * WINDOW_SIZE))
            await writer.drain()
            assert await reader.read() == b"enough"
            writer.close()
            served.set_result(None)

        async with net.pair(serve) as (client, server):
            _, writer = await client.open()
            writer.write(b"enough")
            writer.close()
            await served
            await client.aclose()
            assert await client.closed == ""
            await server.closed

    play(scenario)


def test_the_end_of_the_connection_reaches_everybody(play: Callable[[Scenario], None]) -> None:
    async def scenario(net: Net) -> None:
        async with net.pair(silent) as (client, server):
            reader, _ = await client.open()
            reading = net.loop.create_task(reader.read(1))
            await client.ping()
            await server.aclose(0.0)
            with pytest.raises(SubstreamSessionOver, match="the substreams with bob are over"):
                await reading
            assert await client.closed == "the peer ended the connection"
            with pytest.raises(SubstreamSessionOver):
                await client.open()
            with pytest.raises(SubstreamSessionOver):
                await client.ping()

    play(scenario)


def test_a_goodbye_lets_open_substreams_end(play: Callable[[Scenario], None]) -> None:
    async def scenario(net: Net) -> None:
        async with net.pair(echo) as (client, server):
            reader, writer = await client.open()
            writer.write(b"before")
            assert await reader.readexactly(6) == b"before"
            closing = net.loop.create_task(server.aclose())
            await client.ping()
            with pytest.raises(SubstreamRefused, match="the peer said goodbye"):
                await client.open()
            writer.write(b"behind")
            writer.write_eof()
            assert await reader.read() == b"behind"
            await closing
            assert await server.closed == ""

    play(scenario)


def test_opening_that_waits_hears_that_the_peer_leaves(play: Callable[[Scenario], None]) -> None:
    async def scenario(net: Net) -> None:
        limits = YamuxLimits(unanswered_max=1, keepalive_s=1000, ping_timeout_s=1000)  # no timer wakes anybody
        async with net.pair(silent, limits) as (client, server):
            await client.open()
            opening = net.loop.create_task(client.open())
            await client.ping()
            await server.ping()  # whatever was due has been sent: nothing but the goodbye can wake the opening
            closing = net.loop.create_task(server.aclose(10 * DEADLINE_S))
            with pytest.raises(SubstreamRefused, match="goodbye"):
                await opening
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)

    play(scenario)


def test_opening_waits_while_too_many_wait_for_an_answer(play: Callable[[Scenario], None]) -> None:
    async def scenario(net: Net) -> None:
        async with net.pair(echo, YamuxLimits(unanswered_max=2)) as (client, _):
            ends = await asyncio.gather(*(client.open() for _ in range(2)))
            opening = net.loop.create_task(client.open())
            await client.ping()
            assert not opening.done()
            for reader, writer in ends:
                writer.write(b"x")
                await reader.readexactly(1)
            reader, writer = await opening
            writer.write(b"y")
            assert await reader.readexactly(1) == b"y"

    play(scenario)


def test_a_peer_that_asks_and_does_not_listen_is_not_heard() -> None:
    async def main() -> None:
        net = Net(MemoryTransport(asyncio.get_running_loop(), capacity=1000))
        dialled, accepted = await net.streams()
        server = SubstreamConnection(
            net.loop, accepted, is_client=False, on_substream=lambda *_: None, limits=YamuxLimits(replies_max=1000)
        )
        server.start()
        flood = encode_header(PING, SYN, 0, 1) * 80
        taken = 0
        for _ in range(200):
            if (count := dialled.try_send([flood])) is not None:
                taken += count
            await asyncio.sleep(0)
        assert taken < 10_000  # the buffers of the pipe both ways, and the answers that wait
        dialled.close()
        await server.closed

    asyncio.run(asyncio.wait_for(main(), DEADLINE_S))


def test_a_substream_that_is_reset_in_one_piece_with_its_opening_troubles_nobody() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        raw, accepted = await Net(TcpTransport(loop)).streams()
        offered: list[SubstreamReader] = []
        server = SubstreamConnection(
            loop, accepted, is_client=False, on_substream=lambda reader, _: offered.append(reader)
        )
        fleeting = encode_header(DATA, SYN, 1, 1) + b"x" + encode_header(WINDOW_UPDATE, RST, 1, 0)
        server.start(fleeting + encode_header(WINDOW_UPDATE, SYN, 3, 0))
        await asyncio.sleep(0)
        assert len(offered) == server.substreams == 1
        server.abort("enough")
        raw.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_bytes_that_are_no_yamux_end_the_connection(play: Callable[[Scenario], None]) -> None:
    async def scenario(net: Net) -> None:
        dialled, accepted = await net.streams()
        server = SubstreamConnection(net.loop, accepted, is_client=False, on_substream=lambda *_: None, peer="mallory")
        server.start()
        dialled.try_send([b"GET / HTTP/1.1\r\n"])
        assert "mallory broke the wire protocol: version of yamux: 71" in await server.closed
        dialled.close()

    play(scenario)


def test_answers_to_one_receiving_go_out_together_in_the_turn_of_those_who_were_woken(
    play: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(net: Net) -> None:
        sent: list[int] = []
        counts: list[int] = []

        async def serve(reader: SubstreamReader, writer: SubstreamWriter) -> None:
            await reader.readexactly(1)
            await reader.readexactly(1)  # waits: what comes wakes this task
            before = len(sent)
            net.loop.call_soon(lambda: counts.append(len(sent) - before))  # in the next turn, the first thing
            for _ in range(3):
                writer.write(b"answer")
                await writer.drain()
            assert len(sent) == before
            writer.close()

        async with net.pair(serve) as (client, server):
            stream = server._stream
            try_send = stream.try_send

            def counted(views: Sequence[Buffer]) -> int | None:
                sent.append(len(views))
                return try_send(views)

            opened = [await client.open() for _ in range(3)]
            for _, writer in opened:
                writer.write(b"1")
            await client.ping()  # behind it all three were woken by the first byte
            await client.ping()
            monkeypatch.setattr(stream, "try_send", counted)
            for _, writer in opened:
                writer.write(b"2")
            for reader, writer in opened:
                assert await reader.read() == b"answer" * 3
                writer.close()
            assert counts == [1, 1, 1]

    play(scenario)


def test_one_task_waits_for_one_thing(play: Callable[[Scenario], None]) -> None:
    async def scenario(net: Net) -> None:
        async with net.pair(silent) as (client, _):
            reader, _ = await client.open()
            first = net.loop.create_task(reader.read(1))
            await client.ping()
            with pytest.raises(RuntimeError, match="another task is already waiting to read from this substream"):
                await reader.read(1)
            first.cancel()

    play(scenario)


def test_a_wait_that_is_too_long_is_told_and_loses_nothing(play: Callable[[Scenario], None]) -> None:
    async def serve(reader: SubstreamReader, writer: SubstreamWriter) -> None:
        writer.write(b"ab")
        if await reader.read(1):
            writer.write(b"cd")
        writer.close()

    async def scenario(net: Net) -> None:
        async with net.pair(serve) as (client, _):
            reader, writer = await client.open()
            reader.timeout_s = 0.01
            with pytest.raises(SubstreamTimeout, match="read from substream 1 with bob"):
                await reader.readexactly(4)
            assert await reader.peek() == b"ab"
            writer.write(b"!")
            reader.timeout_s = DEADLINE_S
            assert await reader.readexactly(4) == b"abcd"
            assert await reader.peek() == b""
            writer.close()

    play(scenario)


def test_a_cancelled_read_of_everything_loses_nothing(play: Callable[[Scenario], None]) -> None:
    async def serve(reader: SubstreamReader, writer: SubstreamWriter) -> None:
        writer.write(b"ab")
        await reader.read()
        writer.write(b"cd")
        writer.close()

    async def scenario(net: Net) -> None:
        async with net.pair(serve) as (client, _):
            reader, writer = await client.open()
            await reader.peek()
            reading = net.loop.create_task(reader.read())
            await client.ping()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            writer.write_eof()
            assert await reader.read() == b"abcd"
            writer.close()

    play(scenario)


def test_rule_20_a_peer_that_takes_nothing_for_too_long_ends_the_connection() -> None:
    """Of the rules of yamux (tests/yamux/test_yamux_rules.py) the one that needs a clock and a stream."""

    async def main() -> None:
        net = Net(MemoryTransport(asyncio.get_running_loop(), capacity=1000))
        dialled, accepted = await net.streams()
        client = SubstreamConnection(
            net.loop, dialled, is_client=True, on_substream=lambda *_: None, peer="bob", write_timeout_s=0.05
        )
        client.start()
        reader, writer = await client.open()
        writer.write(bytes(5000))
        assert await client.closed == "the peer took nothing for 0.05 s"
        with pytest.raises(SubstreamSessionOver):
            await reader.read(1)
        with pytest.raises(SubstreamSessionOver):
            writer.write(b"x")
        accepted.close()

    asyncio.run(asyncio.wait_for(main(), DEADLINE_S))
