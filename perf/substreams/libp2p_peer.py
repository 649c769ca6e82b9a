"""py-libp2p's yamux as a player of partywire.perf.substreams, which says what is measured. Imports nothing of ours
but `libp2p_yamux`.

PYTHON libp2p_peer.py serve | dial PORT SECONDS          PYTHON: of a virtual environment with libp2p
"""

from __future__ import annotations

import json
import struct
import sys
import time
from typing import TYPE_CHECKING, Any

import trio
from libp2p_yamux import connected_to, serve  # type: ignore[import-not-found]  # of this folder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Play = Callable[[int], Awaitable[None]]

HEAD = struct.Struct(">cII")


async def read_exactly(stream: Any, size: int) -> bytes:
    data: bytes = await stream.read(size)
    while len(data) < size:
        data += await stream.read(size - len(data))
    return data


async def serve_substream(stream: Any) -> None:
    kind = await read_exactly(stream, 1)
    if kind == b"O":
        await stream.write(kind)
    else:
        _, count, size = HEAD.unpack(kind + await read_exactly(stream, HEAD.size - 1))
        for _ in range(count):
            message = await read_exactly(stream, size)
            if kind == b"E":
                await stream.write(message)
        if kind == b"M":
            await stream.write(kind)
    await stream.close()


def one_way(connection: Any, size: int) -> Play:
    message = bytes(size)

    async def play(count: int) -> None:
        stream = await connection.open_stream()
        await stream.write(HEAD.pack(b"M", count, size))
        for _ in range(count):
            await stream.write(message)
        await read_exactly(stream, 1)
        await stream.close()

    return play


def ping_pong(connection: Any) -> Play:
    message = bytes(64)

    async def play(count: int) -> None:
        stream = await connection.open_stream()
        await stream.write(HEAD.pack(b"E", count, len(message)))
        for _ in range(count):
            await stream.write(message)
            await read_exactly(stream, len(message))
        await stream.close()

    return play


def open_close(connection: Any) -> Play:
    async def play(count: int) -> None:
        for _ in range(count):
            stream = await connection.open_stream()
            await stream.write(b"O")
            await read_exactly(stream, 1)
            await stream.close()

    return play


async def rate(play: Play, probe: int, seconds: float) -> float:
    """The rate of a play of about so many seconds, behind a short one that says how much that is."""
    began = time.perf_counter()
    await play(probe)
    count = max(probe, int(probe / (time.perf_counter() - began) * seconds))
    began = time.perf_counter()
    await play(count)
    return count / (time.perf_counter() - began)


async def dial(port: int, seconds: float) -> None:
    async with connected_to(port) as connection:
        rates = {
            "small": await rate(one_way(connection, 64), 200, seconds),
            "block": await rate(one_way(connection, 64 * 1024), 20, seconds),
            "ping": await rate(ping_pong(connection), 50, seconds),
            "open": await rate(open_close(connection), 50, seconds),
        }
        print(json.dumps(rates), flush=True)


if sys.argv[1] == "serve":
    trio.run(serve, serve_substream)
else:
    trio.run(dial, int(sys.argv[2]), float(sys.argv[3]))
