"""Our yamux against the reference implementation, hashicorp/yamux in Go: both as dialler and as acceptor."""

from __future__ import annotations

import asyncio
import random
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvloop

from partywire.engine.substreams.connection import SubstreamConnection
from partywire.engine.tcp import TcpTransport
from partywire.engine.yamux.errors import SubstreamSessionOver
from tests.interop import go_peer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter
    from partywire.engine.transport import Stream

pytestmark = pytest.mark.interop

DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(__file__).with_name("yamux_peer.go")
    return go_peer.build(source, tmp_path_factory.mktemp("go"), "hashicorp/yamux")


def run(scenario: Coroutine[object, object, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scenario, DEADLINE_S))


@asynccontextmanager
async def connected_to(go: Path) -> AsyncIterator[tuple[SubstreamConnection, asyncio.subprocess.Process]]:
    """A connection to a Go server that echoes every stream."""
    process = await asyncio.create_subprocess_exec(go, "serve", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        loop = asyncio.get_running_loop()
        stream = await TcpTransport(loop).connect(("127.0.0.1", port), None, DEADLINE_S)
        connection = SubstreamConnection(loop, stream, is_client=True, on_substream=lambda *_: None, peer="go")
        connection.start()
        yield connection, process
        await connection.aclose()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def test_a_go_server_echoes_many_streams_both_halves(go: Path) -> None:
    async def one(connection: SubstreamConnection, seed: int) -> None:
        data = random.Random(seed).randbytes(1 << 20)
        reader, writer = await connection.open()
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(reader.read())
            writer.write(data)
            await writer.drain()
            writer.write_eof()
        assert reading.result() == data

    async def scenario() -> None:
        async with connected_to(go) as (connection, _), asyncio.TaskGroup() as group:
            for seed in range(60):
                group.create_task(one(connection, seed))

    run(scenario())


def test_a_go_server_takes_small_messages_pings_and_resets(go: Path) -> None:
    async def scenario() -> None:
        async with connected_to(go) as (connection, _):
            reader, writer = await connection.open()
            for index in range(1000):
                writer.write(b"%08d" % index * 8)
                assert await reader.readexactly(64) == b"%08d" % index * 8
            assert 0 < await connection.ping() < 1
            for _ in range(300):  # opened and given up at once, some before they are announced
                _, given_up = await connection.open()
                given_up.write(b"x")
                given_up.reset()
            writer.write(b"still there")
            assert await reader.readexactly(11) == b"still there"

    run(scenario())


def test_a_go_server_that_is_killed_is_an_error_for_every_stream(go: Path) -> None:
    async def scenario() -> None:
        async with connected_to(go) as (connection, process):
            reader, writer = await connection.open()
            writer.write(b"x")
            await reader.readexactly(1)
            process.kill()
            with pytest.raises(SubstreamSessionOver):
                await reader.read(1)

    run(scenario())


def test_a_go_client_gets_its_echo_from_us(go: Path) -> None:
    async def echo(reader: SubstreamReader, writer: SubstreamWriter) -> None:
        while data := await reader.read(100_000):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        tasks = []
        accepted: asyncio.Future[Stream] = loop.create_future()
        listener = TcpTransport(loop).listen("127.0.0.1", 0, accepted.set_result)
        process = await asyncio.create_subprocess_exec(
            go, "dial", str(listener.address[1]), "50", stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            connection = SubstreamConnection(
                loop,
                await accepted,
                is_client=False,
                on_substream=lambda *ends: tasks.append(loop.create_task(echo(*ends))),
                peer="go",
            )
            connection.start()
            output, complaints = await process.communicate()
            assert output == b"ok true\n", complaints
            assert await connection.closed
            await asyncio.gather(*tasks)
        finally:
            listener.close()
            if process.returncode is None:
                process.kill()
                await process.communicate()

    run(scenario())
