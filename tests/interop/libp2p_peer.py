"""A peer made of py-libp2p's yamux, for test_yamux_libp2p.py. Run by the interpreter of an environment that has it;
imports nothing of ours.

libp2p_peer.py serve          prints its port, serves one connection: every stream is echoed
libp2p_peer.py dial PORT N    opens N streams at once, sends 300 KiB on each, and compares the echo; prints "ok"
"""

from __future__ import annotations

import random
import sys
from typing import Any

import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamEOF
from libp2p.stream_muxer.yamux.yamux import Yamux

SIZE = 300 * 1024  # more than a window, so that credit has to come


class PlainConnection(TrioTCPStream):  # type: ignore[misc]  # untyped where it is not installed
    """What stands in for a secured connection."""

    def __init__(self, stream: Any, is_initiator: bool) -> None:
        super().__init__(stream)
        self.is_initiator = is_initiator


async def echo(stream: Any) -> None:
    try:
        while data := await stream.read(16 * 1024):
            await stream.write(data)
    except MuxedStreamEOF:
        pass
    await stream.close()


async def serve() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listener.socket.getsockname()[1], flush=True)
    connection = Yamux(PlainConnection(await listener.accept(), False), ID(b"dialler"), is_initiator=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.start)
        await connection.event_started.wait()
        try:
            while True:
                nursery.start_soon(echo, await connection.accept_stream())
        except MuxedConnUnavailable:
            nursery.cancel_scope.cancel()
    await listener.aclose()


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
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    connection = Yamux(PlainConnection(stream, True), ID(b"server"), is_initiator=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.start)
        await connection.event_started.wait()
        async with trio.open_nursery() as exchanges:
            for seed in range(count):
                exchanges.start_soon(exchange, connection, seed)
        print("ok", flush=True)
        await connection.close()
        nursery.cancel_scope.cancel()


if sys.argv[1] == "serve":
    trio.run(serve)
else:
    trio.run(dial, int(sys.argv[2]), int(sys.argv[3]))
