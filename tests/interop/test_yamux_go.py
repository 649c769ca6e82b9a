"""Our yamux against the reference implementation, hashicorp/yamux in Go: both as dialler and as acceptor."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from partywire.engine.yamux.errors import SubstreamSessionOver
from tests.interop import go_peer
from tests.interop.substream_peers import dial, dialled, echo_to, exchange, run, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from partywire.engine.substreams.connection import SubstreamConnection

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(__file__).with_name("yamux_peer.go")
    return go_peer.build(source, tmp_path_factory.mktemp("go"), "hashicorp/yamux")


@asynccontextmanager
async def connected_to(go: Path) -> AsyncIterator[tuple[SubstreamConnection, asyncio.subprocess.Process]]:
    """A connection to a Go server that echoes every stream."""
    async with running(go, "serve") as process:
        connection = dialled(await dial(process), "go")
        yield connection, process
        await connection.aclose()


def test_a_go_server_echoes_many_streams_both_halves(go: Path) -> None:
    async def scenario() -> None:
        async with connected_to(go) as (connection, _), asyncio.TaskGroup() as group:
            for seed in range(60):
                group.create_task(exchange(connection, seed))

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
    async def scenario() -> None:
        assert await echo_to("go", lambda port: [go, "dial", str(port), "50"]) == b"ok true\n"

    run(scenario())
