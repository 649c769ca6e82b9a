"""Our yamux against that of py-libp2p: both as dialler and as acceptor."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from partywire.engine.yamux.errors import SubstreamSessionOver
from tests.interop.own_python import ROOT, python_with
from tests.interop.substream_peers import DEADLINE_S, dial, dialled, echo_to, run, running

if TYPE_CHECKING:
    from partywire.engine.substreams.connection import SubstreamConnection

pytestmark = pytest.mark.interop

PROGRAM = Path(__file__).with_name("libp2p_peer.py")
SIZE = 300 * 1024


@pytest.fixture(scope="module")
def peer() -> list[str]:
    """The command that `serve` or `dial PORT N` is added to."""
    python = python_with("libp2p", "libp2p==0.8.1")
    return ["env", f"PYTHONPATH={ROOT / 'perf' / 'substreams'}", str(python), str(PROGRAM)]


def test_a_libp2p_acceptor_echoes_streams_pings_and_resets(peer: list[str]) -> None:
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
        async with running(*peer, "serve") as process:
            connection = dialled(await dial(process), "libp2p")
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

    run(scenario())


def test_a_libp2p_dialler_gets_its_echo_from_us(peer: list[str]) -> None:
    async def scenario() -> None:
        # Its goodbye does not wait for ours.
        said = await echo_to("libp2p", lambda port: [*peer, "dial", str(port), "10"], waits_for_us=False)
        assert said == b"ok\n"

    run(scenario())
