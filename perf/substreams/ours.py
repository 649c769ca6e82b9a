"""Our substreams as a player of partywire.perf.substreams, which says what is measured.

python -m partywire.perf.substreams.ours [--uvloop] serve | dial PORT SECONDS
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from typing import TYPE_CHECKING

from partywire.engine.multiaddr import Multiaddr
from partywire.engine.substreams.connection import SubstreamConnection
from partywire.engine.transports import Router

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter
    from partywire.engine.transport import Stream

    Play = Callable[[int], Awaitable[None]]

HEAD = struct.Struct(">cII")
"""Kind, count of messages, size of one."""


async def serve_substream(reader: SubstreamReader, writer: SubstreamWriter) -> None:
    kind = await reader.readexactly(1)
    if kind == b"O":
        writer.write(kind)
    else:
        _, count, size = HEAD.unpack(kind + await reader.readexactly(HEAD.size - 1))
        for _ in range(count):
            message = await reader.readexactly(size)
            if kind == b"E":
                writer.write(message)
                await writer.drain()
        if kind == b"M":
            writer.write(kind)
    writer.close()


async def serve() -> None:
    loop = asyncio.get_running_loop()
    connection: asyncio.Future[SubstreamConnection] = loop.create_future()
    serving: set[asyncio.Task[None]] = set()

    def on_substream(reader: SubstreamReader, writer: SubstreamWriter) -> None:
        task = loop.create_task(serve_substream(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    def on_accept(stream: Stream, _: Multiaddr) -> None:
        accepted = SubstreamConnection(loop, stream, is_client=False, on_substream=on_substream)
        accepted.start()
        connection.set_result(accepted)

    listening = await Router(loop).listen(Multiaddr.parse("/ip4/127.0.0.1/tcp/0"), on_accept)
    print(listening.address.parts[1][1], flush=True)
    await (await connection).closed
    listening.close()


def one_way(connection: SubstreamConnection, size: int) -> Play:
    message = bytes(size)

    async def play(count: int) -> None:
        reader, writer = await connection.open()
        writer.write(HEAD.pack(b"M", count, size))
        for _ in range(count):
            writer.write(message)
            await writer.drain()
        await reader.readexactly(1)
        writer.close()

    return play


def ping_pong(connection: SubstreamConnection) -> Play:
    message = bytes(64)

    async def play(count: int) -> None:
        reader, writer = await connection.open()
        writer.write(HEAD.pack(b"E", count, len(message)))
        for _ in range(count):
            writer.write(message)
            await writer.drain()
            await reader.readexactly(len(message))
        writer.close()

    return play


def open_close(connection: SubstreamConnection) -> Play:
    async def play(count: int) -> None:
        for _ in range(count):
            reader, writer = await connection.open()
            writer.write(b"O")
            await reader.readexactly(1)
            writer.close()

    return play


async def rate(play: Play, probe: int, seconds: float) -> float:
    """The rate of a play of about so many seconds, behind a short one that says how much that is."""
    began = time.perf_counter()
    await play(probe)
    count = max(probe, int(probe / (time.perf_counter() - began) * seconds))
    began = time.perf_counter()
    await play(count)
    return count / (time.perf_counter() - began)


async def dial(port: str, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    stream = await Router(loop).dial(Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{port}"))
    connection = SubstreamConnection(loop, stream, is_client=True, on_substream=lambda _, writer: writer.reset())
    connection.start()
    rates = {
        "small": await rate(one_way(connection, 64), 200, seconds),
        "block": await rate(one_way(connection, 64 * 1024), 20, seconds),
        "ping": await rate(ping_pong(connection), 50, seconds),
        "open": await rate(open_close(connection), 50, seconds),
    }
    print(json.dumps(rates), flush=True)
    await connection.aclose()


def main(arguments: list[str]) -> None:
    factory = None
    if arguments[0] == "--uvloop":
        import uvloop

        factory = uvloop.new_event_loop
        arguments = arguments[1:]
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve() if arguments[0] == "serve" else dial(arguments[1], float(arguments[2])))


if __name__ == "__main__":
    main(sys.argv[1:])
