"""A peer made of py-libp2p's yamux, for test_yamux_libp2p.py. Run by the interpreter of an environment that has it,
with perf/substreams on its path; imports nothing else of ours.

libp2p_peer.py serve          prints its port, serves one connection: every stream is echoed
libp2p_peer.py dial PORT N    opens N streams at once, sends 300 KiB on each, and compares the echo; prints "ok"
"""

from __future__ import annotations

import random
import sys
from typing import Any

import trio
from libp2p.stream_muxer.exceptions import MuxedStreamEOF
from libp2p_yamux import connected_to, serve  # type: ignore[import-not-found]  # of perf/substreams

SIZE = 300 * 1024  # more than a window, so that credit has to come


async def echo(stream: Any) -> None:
    try:
        while data := await stream.read(16 * 1024):
            await stream.write(data)
    except MuxedStreamEOF:
        pass
    await stream.close()


async def exchange(connection: Any, seed: int) -> None:
    data = random.Random(seed).randbytes(SIZE)
    stream = await connection.open_stream()
    echoed = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.write, data)
        while len(echoed) < len(data):
            echoed += await stream.read(16 * 1024)
    if echoed != data:
        raise ValueError(f"stream {seed} came back changed")
    await stream.close()


async def dial(port: int, count: int) -> None:
    async with connected_to(port) as connection:
        async with trio.open_nursery() as exchanges:
            for seed in range(count):
                exchanges.start_soon(exchange, connection, seed)
        print("ok", flush=True)


if sys.argv[1] == "serve":
    trio.run(serve, echo)
else:
    trio.run(dial, int(sys.argv[2]), int(sys.argv[3]))
