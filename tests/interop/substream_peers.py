"""What all tests of our substreams against programs of others do: start one, connect, exchange, echo."""

from __future__ import annotations

import asyncio
import random
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import uvloop

from partywire.engine.substreams.connection import SubstreamConnection
from partywire.engine.tcp import TcpTransport

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
    from pathlib import Path

    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter
    from partywire.engine.transport import Stream

DEADLINE_S: Final = 60.0


def run(scenario: Coroutine[object, object, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scenario, DEADLINE_S))


@asynccontextmanager
async def running(*command: str | Path) -> AsyncIterator[Process]:
    """Another program, killed behind the block if it still runs."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def dial(process: Process) -> Stream:
    """A connection to the port that the program prints first."""
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    return await TcpTransport(asyncio.get_running_loop()).connect(("127.0.0.1", port), None, DEADLINE_S)


def dialled(stream: Stream, peer: str) -> SubstreamConnection:
    """Substreams on a stream that we dialled, to a peer that opens none."""
    loop = asyncio.get_running_loop()
    connection = SubstreamConnection(loop, stream, is_client=True, on_substream=lambda *_: None, peer=peer)
    connection.start()
    return connection


async def exchange(connection: SubstreamConnection, seed: int) -> None:
    """A substream both of whose halves carry a MiB, to a peer that echoes until the end."""
    data = random.Random(seed).randbytes(1 << 20)
    reader, writer = await connection.open()
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(reader.read())
        writer.write(data)
        await writer.drain()
        writer.write_eof()
    assert reading.result() == data


async def echo(reader: SubstreamReader, writer: SubstreamWriter) -> None:
    while data := await reader.read(100_000):
        writer.write(data)
        await writer.drain()
    writer.close()


async def _as_it_is(stream: Stream) -> Stream:
    return stream


async def echo_to(
    peer: str,
    command_of: Callable[[int], Sequence[str | Path]],
    upgrade: Callable[[Stream], Awaitable[Stream]] = _as_it_is,
    *,
    waits_for_us: bool = True,
) -> bytes:
    """What a program says to the end that dials us (at the port) and gets an echo on each substream that it opens.

    `upgrade`: what is done on the connection before there are substreams. `waits_for_us`: whether the program's
    goodbye comes behind the ends of all echoes.
    """
    loop = asyncio.get_running_loop()
    echoes: list[asyncio.Task[None]] = []
    accepted: asyncio.Future[Stream] = loop.create_future()
    listener = TcpTransport(loop).listen("127.0.0.1", 0, accepted.set_result)
    try:
        async with running(*command_of(listener.address[1])) as process:
            connection = SubstreamConnection(
                loop,
                await upgrade(await accepted),
                is_client=False,
                on_substream=lambda *ends: echoes.append(loop.create_task(echo(*ends))),
                peer=peer,
            )
            connection.start()
            output, complaints = await process.communicate()
            assert not complaints
            assert await connection.closed
            await asyncio.gather(*echoes, return_exceptions=not waits_for_us)
            return output
    finally:
        listener.close()
