"""Calls a service of a peer, over a few substreams that are kept for the next call.

Between user code and the connections of a node. The one invariant: a substream is used by one call at a time, and by no
further one unless the one before was answered to its end; so a call that was given up can't be answered by mistake.

Per call on a kept substream: one write, and one read for each answer. The peer is dialled when the first call needs it,
and again when it was lost; a call that was lost is not repeated, since nobody knows whether it was acted on.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from ..errors import LinkProtocolError
from ..yamux.errors import SubstreamClosed, SubstreamReset, SubstreamSessionOver
from . import wire
from .errors import RpcError, RpcLost, RpcTimeout
from .frames import read_frame_untrusted
from .wire import End, Request, RpcStatus

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from types import TracebackType

    from ..peers.contract import PeerAccess
    from ..peers.peer_id import PeerId
    from ..substreams.streams import SubstreamReader, SubstreamWriter

TIMEOUT_S: Final = 30.0
"""Of a call, unless it has another."""

GRACE_S: Final = 1.0
"""How much longer we wait than the service may take: it says TIMEOUT itself, and the substream can be kept."""

_GONE: Final = (SubstreamReset, SubstreamSessionOver, SubstreamClosed)


class RpcClient:
    """Calls one service of one peer; any number of tasks may, `substreams_max` of them at a time, the others wait.

    Finished by `aclose`, or by leaving `async with`.
    """

    def __init__(
        self,
        connections: PeerAccess,
        peer_id: PeerId,
        protocol: str,
        *,
        substreams_max: int = 4,
        payload_size_max: int = wire.PAYLOAD_SIZE_MAX,
    ) -> None:
        if substreams_max < 1:
            raise ValueError(f"{substreams_max} substreams, at least 1 is needed")
        self._connections = connections
        self._peer_id = peer_id
        self._protocol = protocol
        self._payload_size_max = payload_size_max
        self._places = asyncio.Semaphore(substreams_max)
        self._idle: deque[_Substream] = deque()
        self._is_closed = False

    async def __aenter__(self) -> RpcClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def call(self, method: str, payload: bytes = b"", *, timeout: float = TIMEOUT_S) -> bytes:
        """The one answer of a unary method. Cancelling it gives the call up at the service too.

        Args:
            method: its name.
            payload: at most 4 MiB; what it means is between client and service.
            timeout: seconds for everything: dialling, waiting for a place, and the call.

        Raises:
            RpcError: the service answered with another status than OK; RpcTimeout: nobody answered in time.
            RpcLost: the connection was lost within the call.
            PeerNotReached ...: what connecting raises; nothing was asked then.
            ValueError: the payload is too large, the method has no name, or the timeout is none.
        """
        answer: bytes | None = None
        async with aclosing(self.stream(method, payload, timeout=timeout)) as answers:
            async for item in answers:
                if answer is not None:
                    raise self._malformed("several answers to a call that has one", method)
                answer = item
        if answer is None:
            raise self._malformed("no answer to a call that has one", method)
        return answer

    def _malformed(self, what: str, method: str) -> RpcError:
        return RpcError(RpcStatus.MALFORMED_RESPONSE, what, str(self._peer_id), method)

    async def stream(
        self, method: str, payload: bytes = b"", *, timeout: float = TIMEOUT_S
    ) -> AsyncGenerator[bytes, None]:
        """The answers of a streaming method, as they come. Closing the iterator (`aclose`, or leaving it to asyncio)
        gives the call up at the service too; a service whose answers nobody takes waits.

        Args and errors are those of `call`; an error may come behind any number of answers.
        """
        if len(payload) > self._payload_size_max:
            raise ValueError(f"a payload of {len(payload)} bytes, at most {self._payload_size_max} are allowed")
        if not 0 < timeout < math.inf:
            raise ValueError(f"a timeout of {timeout} s; a call has to end")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        peer = str(self._peer_id)
        substream: _Substream | None = None
        await self._take_place(deadline, peer, method)
        try:
            try:
                async with asyncio.timeout_at(deadline):
                    substream = await self._lease()
                remaining_ms = min(math.ceil((deadline - loop.time()) * 1000), wire.DEADLINE_MS_MAX)
                async with asyncio.timeout_at(deadline + GRACE_S):
                    await substream.ask(method, max(remaining_ms, 1), payload)
                while True:
                    async with asyncio.timeout_at(deadline + GRACE_S):
                        answer = await substream.next_answer(self._payload_size_max)
                    if isinstance(answer, End):
                        break
                    yield answer.payload
            except TimeoutError:
                raise RpcTimeout(f"no answer within {timeout:g} s", peer, method) from None
            except _GONE as error:
                raise RpcLost(peer, method, str(error)) from error
            if answer.call:
                substream.is_free = True
            if answer.status is not RpcStatus.OK:
                raise RpcError(answer.status, answer.message, peer, method)
        finally:
            if substream is not None:
                self._give_back(substream)
            self._places.release()

    async def aclose(self) -> None:
        """Close the kept substreams. Calls that are under way end by themselves; new ones are refused."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()

    async def _take_place(self, deadline: float, peer: str, method: str) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._places.acquire()
        except TimeoutError:
            raise RpcTimeout("every substream is in use", peer, method) from None

    async def _lease(self) -> _Substream:
        if self._is_closed:
            raise RuntimeError("the client is closed; make a new one")
        while self._idle:
            substream = self._idle.pop()
            if substream.is_usable:
                return substream
            substream.close()
        connection = await self._connections.connect(self._peer_id)
        _, reader, writer = await connection.open((self._protocol,))
        return _Substream(reader, writer)

    def _give_back(self, substream: _Substream) -> None:
        if substream.is_free and not self._is_closed:
            self._idle.append(substream)
        else:
            substream.close()


class _Substream:
    """One substream of the client: at most one call is on it."""

    def __init__(self, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        self.is_free = True  # no answer is to come
        self._reader = reader
        self._writer = writer
        self._call = 0

    @property
    def is_usable(self) -> bool:
        """Whether the service has not ended it meanwhile."""
        return self._writer.is_open and not self._reader.at_eof()

    async def ask(self, method: str, deadline_ms: int, payload: bytes) -> None:
        """Send the next request."""
        self._call = self._call % wire.CALL_MAX + 1
        frame = wire.encode_request(Request(self._call, method, deadline_ms, payload))
        self.is_free = False
        self._writer.writelines(frame)
        await self._writer.drain()

    async def next_answer(self, payload_size_max: int) -> wire.Item | End:
        """The next item of the call that is on it, or its end."""
        peer = self._writer.peer
        body = await read_frame_untrusted(self._reader, payload_size_max, peer)
        if body is None:
            raise LinkProtocolError(peer, "an answer", "the end of the substream instead")
        answer = wire.decode_answer_untrusted(body, peer)
        if answer.call != self._call and (answer.call or not isinstance(answer, End)):
            raise LinkProtocolError(peer, "an answer to another call", answer.call, self._call)
        return answer

    def close(self) -> None:
        """Give the call up that is on it, or end the substream in an orderly way."""
        if not self._writer.is_open:
            return
        if self.is_free:
            self._writer.close()
        else:
            self._writer.reset("the call was given up")
