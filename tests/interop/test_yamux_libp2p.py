"""Our yamux against that of py-libp2p: both as dialler and as acceptor."""

from __future__ import annotations

import asyncio
import random
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvloop

from partywire.engine.substreams.connection import SubstreamConnection
from partywire.engine.tcp import TcpTransport
from partywire.engine.yamux.errors import SubstreamSessionOver
from tests.interop.own_python import python_with

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter
    from partywire.engine.transport import Stream

pytestmark = pytest.mark.interop

DEADLINE_S = 60.0
PEER = Path(__file__).with_name("libp2p_peer.py")
SIZE = 300 * 1024


@pytest.fixture(scope="module")
def python() -> Path:
    return python_with("libp2p", "libp2p==0.8.1")


def run(scenario: Coroutine[object, object, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scenario, DEADLINE_S))


def test_a_libp2p_acceptor_echoes_streams_pings_and_resets(python: Path) -> None:
    async def one(connection: SubstreamConnection, seed: int) -> None:
        data = random.Random(seed).randbytes(SIZE)
        reader, writer = await connection.open()
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(reader.readexactly(SIZE))
            writer.write(data)
            await writer.drain()
        assert reading.result() == data
        writer.write_eof()
        assert await reader.read() == b""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        process = await asyncio.create_subprocess_exec(
            python, PEER, "serve", stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            port = int(await process.stdout.readline())
            stream = await TcpTransport(loop).connect(("127.0.0.1", port), None, DEADLINE_S)
            connection = SubstreamConnection(loop, stream, is_client=True, on_substream=lambda *_: None, peer="libp2p")
            connection.start()
            async with asyncio.TaskGroup() as group:
                for seed in range(10):
                    group.create_task(one(connection, seed))
            assert 0 < await connection.ping() < DEADLINE_S
            reader, writer = await connection.open()
            for index in range(200):
                writer.write(b"%08d" % index * 8)
                assert await reader.readexactly(64) == b"%08d" % index * 8
            _, given_up = await connection.open()
            given_up.write(b"x")
            given_up.reset()
            writer.write(b"still there")
            assert await reader.readexactly(11) == b"still there"
            process.kill()
            with pytest.raises(SubstreamSessionOver):
                await reader.read(1)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    run(scenario())


def test_a_libp2p_dialler_gets_its_echo_from_us(python: Path) -> None:
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
            python, PEER, "dial", str(listener.address[1]), "10", stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            connection = SubstreamConnection(
                loop,
                await accepted,
                is_client=False,
                on_substream=lambda *ends: tasks.append(loop.create_task(echo(*ends))),
                peer="libp2p",
            )
            connection.start()
            output, complaints = await process.communicate()
            assert output == b"ok\n", complaints
            assert await connection.closed
            await asyncio.gather(*tasks, return_exceptions=True)  # its goodbye does not wait for ours
        finally:
            listener.close()
            if process.returncode is None:
                process.kill()
                await process.communicate()

    run(scenario())
