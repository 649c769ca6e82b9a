"""Messages to peers by id: dialled on demand, in order, once, and with an honest word about what became of them.

Between user code and the connections of a node. The one invariant: messages of a peer are given to `receive` in the
order in which it sent them, each once while both nodes live, whatever connections were lost on the way; and a peer
hears TAKEN of a message only when it is there to be received.

Layers see every message: a layer is a coroutine function that gets the message and the next layer, and calls it with
the same message, another one, or not at all. One that raises refuses the message.

Source: seed 002 (Tari Comms, messaging and its middleware). Beyond it: bounded buffers, acknowledgements, and sending
again what was not acknowledged, which the receiver recognises.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from ..errors import LinkProtocolError
from ..yamux.errors import SubstreamClosed, SubstreamReset, SubstreamSessionOver
from . import wire
from .errors import MessageNotDelivered
from .frames import FrameReader
from .outbox import Outbox
from .wire import Frame, Kind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

    from ..peers.contract import PeerAccess, PeerConnection
    from ..peers.peer_id import PeerId
    from ..substreams.streams import SubstreamReader, SubstreamWriter
    from .delivery import Delivery

log = logging.getLogger("partywire.messaging")

_GONE: Final = (SubstreamReset, SubstreamSessionOver, SubstreamClosed)


@dataclass(frozen=True, slots=True)
class Message:
    """What one peer sends to another."""

    peer_id: PeerId
    """Whom it is from, or for whom it is."""
    message_id: bytes
    body: bytes

    def __repr__(self) -> str:
        return f"<Message {self.message_id.hex()[:8]} of {len(self.body)} bytes, {self.peer_id}>"


Next: TypeAlias = "Callable[[Message], Awaitable[None]]"
Layer: TypeAlias = "Callable[[Message, Next], Awaitable[None]]"


@dataclass(frozen=True, slots=True)
class MessagingLimits:
    """Bounds. Sizes in bytes, times in seconds."""

    body_size_max: int = wire.BODY_SIZE_MAX
    outbox_size_max: int = 16 * 1024 * 1024
    """What waits to be sent to one peer, or to be acknowledged by it; who sends more waits."""
    inbox_max: int = 64
    """Messages that wait to be received; beyond it no peer is read from."""
    attempts_max: int = 3
    """Connections that one message may be tried on."""
    acknowledge_timeout_s: float = 30.0
    """For the next acknowledgement; the receiver may have a full inbox."""
    remembered_max: int = 16 * 1024
    """Ids of received messages that are recognised when they come again."""


@dataclass(slots=True)
class MessagingCounts:
    """What happened since the start."""

    sent: int = 0
    received: int = 0
    repeated: int = 0
    """Messages that came again and were not given to anybody."""
    refused: int = 0


class Messaging:
    """Of one node and its event loop. Finished by `aclose`, or by leaving `async with`."""

    def __init__(
        self,
        connections: PeerAccess,
        *,
        inbound: Sequence[Layer] = (),
        outbound: Sequence[Layer] = (),
        limits: MessagingLimits | None = None,
    ) -> None:
        """Serves `/partywire/messaging/1` from now on. `inbound` and `outbound` are layers, the first one first.

        Raises:
            ValueError: the protocol is served already.
        """
        self.limits = limits or MessagingLimits()
        self.counts = MessagingCounts()
        self._connections = connections
        self._inbound = _chain(inbound, self._take)
        self._outbound = tuple(outbound)
        self._inbox: asyncio.Queue[Message | None] = asyncio.Queue(self.limits.inbox_max)
        self._outboxes: dict[PeerId, Outbox] = {}
        self._serving: set[PeerId] = set()
        self._remembered: OrderedDict[tuple[PeerId, bytes], None] = OrderedDict()
        self._is_closed = False
        connections.serve(wire.PROTOCOL, self._serve)

    async def __aenter__(self) -> Messaging:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # Sending.

    async def send(self, peer_id: PeerId, body: bytes) -> Delivery:
        """Queue a message, which waits while the outbox for the peer is full; the peer is dialled if it must be.

        Returns:
            What becomes of it: `await delivery.acknowledged()`, or leave it.

        Raises:
            MessageNotDelivered: a layer kept it.
            ValueError: the body is too large.
            RuntimeError: messaging is closed.
        """
        if len(body) > self.limits.body_size_max:
            raise ValueError(f"a message of {len(body)} bytes, at most {self.limits.body_size_max} are allowed")
        if self._is_closed:
            raise RuntimeError("messaging is closed")
        message = Message(peer_id, os.urandom(wire.ID_SIZE), bytes(body))
        if not self._outbound:
            return await self._put(message)
        deliveries: list[Delivery] = []

        async def put(message: Message) -> None:
            if len(message.body) > self.limits.body_size_max:
                raise ValueError(f"a layer made a message of {len(message.body)} bytes, which are too many")
            deliveries.append(await self._put(message))

        await _chain(self._outbound, put)(message)
        if not deliveries:
            raise MessageNotDelivered(str(peer_id), "an outbound layer kept it", may_have_arrived=False)
        return deliveries[0]

    async def _put(self, message: Message) -> Delivery:
        delivery = await self._outbox_of(message.peer_id).put(message.message_id, message.body)
        self.counts.sent += 1
        return delivery

    def _outbox_of(self, peer_id: PeerId) -> Outbox:
        outbox = self._outboxes.get(peer_id)
        if outbox is None:
            limits = self.limits
            outbox = self._outboxes[peer_id] = Outbox(
                self._connections,
                peer_id,
                limits.outbox_size_max,
                limits.attempts_max,
                limits.acknowledge_timeout_s,
                self._forget,
            )
        return outbox

    def _forget(self, outbox: Outbox) -> None:
        if self._outboxes.get(outbox.peer_id) is outbox and outbox.is_empty:
            del self._outboxes[outbox.peer_id]

    # Receiving.

    async def receive(self) -> Message:
        """The next message of any peer.

        Raises:
            RuntimeError: messaging is closed.
        """
        message = None if self._is_closed and self._inbox.empty() else await self._inbox.get()
        if message is None:
            self._wake_receivers()
            raise RuntimeError("messaging is closed")
        return message

    def __aiter__(self) -> Messaging:
        return self

    async def __anext__(self) -> Message:
        try:
            return await self.receive()
        except RuntimeError:
            raise StopAsyncIteration from None

    async def _serve(self, connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        """One substream on which a peer sends us messages; there is one for a peer at a time."""
        peer_id = connection.peer_id
        if peer_id in self._serving:
            writer.reset("another substream brings messages already")
            return
        self._serving.add(peer_id)
        try:
            frames = FrameReader(reader, self.limits.body_size_max, str(peer_id))
            while (frame := await frames.read_untrusted()) is not None:
                if frame.kind is not Kind.MESSAGE:
                    raise LinkProtocolError(str(peer_id), "a message", frame.kind.name)
                kind = await self._hear(Message(peer_id, frame.message_id, frame.body))
                writer.writelines(wire.encode(Frame(kind, frame.message_id)))
                if not writer.has_room:
                    await writer.drain()
        except _GONE:
            pass  # the sender has left; what was not acknowledged comes again
        finally:
            self._serving.discard(peer_id)

    async def _hear(self, message: Message) -> Kind:
        """Give a message to the layers, unless it came before. Returns the answer."""
        key = (message.peer_id, message.message_id)
        if key in self._remembered:
            self.counts.repeated += 1
            return Kind.TAKEN
        try:
            await self._inbound(message)
        except Exception:
            self.counts.refused += 1
            log.exception("a message of %s was refused by a layer", message.peer_id)
            return Kind.REFUSED
        self._remember(key)
        return Kind.TAKEN

    async def _take(self, message: Message) -> None:
        if self._inbox.full():
            await self._inbox.put(message)
        else:
            self._inbox.put_nowait(message)
        self._remember((message.peer_id, message.message_id))  # at once: a layer behind may be cancelled
        self.counts.received += 1

    def _remember(self, key: tuple[PeerId, bytes]) -> None:
        self._remembered[key] = None
        if len(self._remembered) > self.limits.remembered_max:
            self._remembered.popitem(last=False)

    # Ending.

    async def aclose(self) -> None:
        """Serve no more, give up what was not acknowledged, and end `receive` behind what waits."""
        if self._is_closed:
            return
        self._is_closed = True
        self._connections.unserve(wire.PROTOCOL)
        for outbox in list(self._outboxes.values()):
            await outbox.aclose()
        self._wake_receivers()

    def _wake_receivers(self) -> None:
        if not self._inbox.full():
            self._inbox.put_nowait(None)


def _chain(layers: Sequence[Layer], last: Next) -> Next:
    """What gives a message to the first layer."""
    chained = last
    for layer in reversed(layers):
        chained = _link(layer, chained)
    return chained


def _link(layer: Layer, following: Next) -> Next:
    async def call(message: Message) -> None:
        await layer(message, following)

    return call
