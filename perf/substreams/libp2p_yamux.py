"""Connections of py-libp2p's yamux, in the clear, for programs that play a peer. Imports nothing of ours.

Between `libp2p_peer` here, that of tests/interop, and py-libp2p: both are run by an interpreter that has it and
need not have us, so they find this file by its folder.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable
from libp2p.stream_muxer.yamux.yamux import Yamux

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


class PlainConnection(TrioTCPStream):  # type: ignore[misc]  # untyped where it is not installed
    """What stands in for a secured connection: nothing is encrypted at anybody's."""

    def __init__(self, stream: Any, is_initiator: bool) -> None:
        super().__init__(stream)
        self.is_initiator = is_initiator


async def serve(on_stream: Callable[[Any], Awaitable[None]]) -> None:
    """Print a port, take one connection there, and have each of its streams served until it is over."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listener.socket.getsockname()[1], flush=True)
    connection = Yamux(PlainConnection(await listener.accept(), False), ID(b"dialler"), is_initiator=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.start)
        await connection.event_started.wait()
        try:
            while True:
                nursery.start_soon(on_stream, await connection.accept_stream())
        except MuxedConnUnavailable:
            nursery.cancel_scope.cancel()
    await listener.aclose()


@asynccontextmanager
async def connected_to(port: int) -> AsyncIterator[Any]:
    """A connection that we dialled, closed behind the block."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    connection = Yamux(PlainConnection(stream, True), ID(b"server"), is_initiator=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.start)
        await connection.event_started.wait()
        yield connection
        await connection.close()
        nursery.cancel_scope.cancel()
