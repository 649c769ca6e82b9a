"""Serves calls: each substream of a service has a task that takes one request after the other.

Between the connections of a node and the handlers of services. The one invariant: each call gets exactly one END, or
its substream is reset; a handler never outlives its deadline, its client's interest, or the connection.

Bounded: substreams of all services together and of each peer, payloads, deadlines, and what waits to be sent (one item:
a handler goes on when the substream has taken it, so a client that reads slowly slows its own calls and no others).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..errors import LinkProtocolError
from ..yamux.errors import SubstreamClosed, SubstreamReset, SubstreamSessionOver
from . import wire
from .errors import RpcError
from .frames import read_frame_untrusted
from .service import RpcCall, RpcService
from .wire import End, Item, Request, RpcStatus

if TYPE_CHECKING:
    from ..peers.contract import PeerAccess, PeerConnection
    from ..peers.peer_id import PeerId
    from ..substreams.streams import SubstreamReader, SubstreamWriter

log = logging.getLogger("partywire.rpc")

_GONE: Final = (SubstreamReset, SubstreamSessionOver, SubstreamClosed)


@dataclass(frozen=True, slots=True)
class RpcLimits:
    """Bounds of a server. Sizes in bytes, times in seconds."""

    substreams_max: int = 100
    substreams_per_peer_max: int = 10
    payload_size_max: int = wire.PAYLOAD_SIZE_MAX
    """Of a request, and of one item of an answer."""
    timeout_max_s: float = 300.0
    """A call is allowed what its client says, but no more than this."""
    idle_timeout_s: float = 120.0
    """Between two calls on a substream; then it is closed."""


@dataclass(slots=True)
class RpcCounts:
    """What a server did since it was made."""

    calls: int = 0
    failed: int = 0
    """Calls with an END that was not OK."""
    lost: int = 0
    """Calls whose client gave up, or was gone."""
    refused: int = 0
    """Substreams that were too many."""


class RpcServer:
    """Serves services to all peers of a node. Of its event loop."""

    def __init__(self, connections: PeerAccess, limits: RpcLimits | None = None) -> None:
        self.limits = limits or RpcLimits()
        self.counts = RpcCounts()
        self._connections = connections
        self._services: dict[str, RpcService] = {}
        self._substreams: Counter[PeerId] = Counter()

    @property
    def has_services(self) -> bool:
        """Whether anything is served."""
        return bool(self._services)

    def add(self, service: RpcService) -> None:
        """Serve it from now on.

        Raises:
            ValueError: its protocol is served already.
        """

        async def serve(connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
            await self._serve(service, connection.peer_id, reader, writer)

        self._connections.serve(service.protocol, serve)
        self._services[service.protocol] = service

    def remove(self, service: RpcService) -> None:
        """Serve no further substream of it; those that are open go on."""
        if self._services.pop(service.protocol, None) is not None:
            self._connections.unserve(service.protocol)

    async def _serve(
        self, service: RpcService, peer_id: PeerId, reader: SubstreamReader, writer: SubstreamWriter
    ) -> None:
        limits = self.limits
        if (
            self._substreams[peer_id] >= limits.substreams_per_peer_max
            or self._substreams.total() >= limits.substreams_max
        ):
            self.counts.refused += 1
            writer.write(wire.encode_end(End(0, RpcStatus.BUSY, "too many substreams are open already")))
            writer.close()
            return
        self._substreams[peer_id] += 1
        try:
            await _Calls(self, service, peer_id, reader, writer).run()
        except _GONE:
            pass  # the client has left, which is how a call is given up
        finally:
            self._substreams[peer_id] -= 1
            if not self._substreams[peer_id]:
                del self._substreams[peer_id]


class _Calls:
    """The calls on one substream, in turn."""

    def __init__(
        self,
        server: RpcServer,
        service: RpcService,
        peer_id: PeerId,
        reader: SubstreamReader,
        writer: SubstreamWriter,
    ) -> None:
        self._limits = server.limits
        self._counts = server.counts
        self._service = service
        self._peer_id = peer_id
        self._reader = reader
        self._writer = writer

    async def run(self) -> None:
        next_frame: asyncio.Task[bytes | None] | None = None
        try:
            while True:
                next_frame = next_frame or asyncio.create_task(self._read())
                done, _ = await asyncio.wait({next_frame}, timeout=self._limits.idle_timeout_s)
                body = next_frame.result() if done else None
                if body is None:
                    self._writer.close()
                    return
                request = wire.decode_request_untrusted(body, self._writer.peer)
                next_frame = asyncio.create_task(self._read())
                if not await self._answer(request, next_frame):
                    return
        except LinkProtocolError as error:
            self._writer.reset(str(error))
            raise
        finally:
            if next_frame is not None:
                next_frame.cancel()
                await asyncio.gather(next_frame, return_exceptions=True)

    async def _read(self) -> bytes | None:
        return await read_frame_untrusted(self._reader, self._limits.payload_size_max, self._writer.peer)

    async def _answer(self, request: Request, next_frame: asyncio.Task[bytes | None]) -> bool:
        """Run one call. False: the client is gone. It is asked for nothing while a call runs, so a reset ends it."""
        self._counts.calls += 1
        timeout_s = min(request.deadline_ms / 1000, self._limits.timeout_max_s)
        call = RpcCall(self._peer_id, request.method, timeout_s)
        handling = asyncio.create_task(self._handle(call, request))
        try:
            waited_for: set[asyncio.Task[bytes | None] | asyncio.Task[End]] = {handling, next_frame}
            await asyncio.wait(waited_for, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not handling.done() and next_frame.done():
                if next_frame.exception() is not None or next_frame.result() is None:
                    self._counts.lost += 1  # gone, or it will never read the answer to the end
                    if next_frame.exception() is None:
                        self._writer.reset("the client ended the substream within a call")
                    return False
                raise LinkProtocolError(self._writer.peer, "a request", "another one within a call")
            if handling.done():
                end = handling.result()
            else:
                end = End(request.call, RpcStatus.TIMEOUT, f"not done within {timeout_s:g} s")
        finally:
            handling.cancel()
            await asyncio.gather(handling, return_exceptions=True)
        if end.status is not RpcStatus.OK:
            self._counts.failed += 1
        self._writer.write(wire.encode_end(end))
        await self._writer.drain()
        return True

    async def _handle(self, call: RpcCall, request: Request) -> End:
        """The end of the call; its items are sent here."""
        handler = self._service.handler_of(request.method)
        if handler is None:
            message = f"{self._service.protocol} has no method {request.method[:80]!r}"
            return End(request.call, RpcStatus.UNSUPPORTED_METHOD, message)
        try:
            answer = handler(call, request.payload)
            if isinstance(answer, AsyncIterator):
                try:
                    async for payload in answer:
                        await self._send_item(request.call, payload)
                finally:
                    if isinstance(answer, AsyncGenerator):
                        await answer.aclose()  # nobody takes the rest: the handler's own `finally` runs now
            else:
                await self._send_item(request.call, await answer)
        except RpcError as error:
            return End(request.call, error.status, error.message)
        except _GONE:
            raise
        except Exception as error:
            log.exception("%s of %s failed for %s", request.method, self._service.protocol, self._writer.peer)
            return End(request.call, RpcStatus.GENERAL, f"the handler failed with {type(error).__name__}")
        return End(request.call, RpcStatus.OK)

    async def _send_item(self, call: int, payload: bytes) -> None:
        if len(payload) > self._limits.payload_size_max:
            message = f"an answer of {len(payload)} bytes, at most {self._limits.payload_size_max} are allowed"
            raise RpcError(RpcStatus.MALFORMED_RESPONSE, message)
        self._writer.writelines(wire.encode_item(Item(call, payload)))
        await self._writer.drain()
