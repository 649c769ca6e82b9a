"""Messages to one peer: kept, written in order, kept until they are acknowledged, written again if they were not.

Between `Messaging.send` and one substream at a time. The one invariant: messages go out in the order in which they were
queued, also when some go out again; and each ends acknowledged or failed, within `attempts_max` connections.

Runs a task only while there is something to deliver, and a moment longer, in which the next message needs no substream
of its own. Bounded: `size_max` bytes (and as many messages as fit with MESSAGE_OVERHEAD each); who sends more waits for
room.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..errors import LinkProtocolError, PartyWireError
from ..negotiation import NegotiationFailed
from ..peers.errors import PeerIsBanned, PeerNotKnown
from ..substreams.errors import SubstreamTimeout
from ..yamux.errors import SubstreamReset, SubstreamSessionOver
from . import wire
from .delivery import Delivery, DeliveryState
from .frames import FrameReader
from .wire import Frame, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..peers.contract import PeerAccess
    from ..peers.peer_id import PeerId
    from ..substreams.streams import SubstreamReader, SubstreamWriter

MESSAGE_OVERHEAD: Final = 512
"""What a queued message costs beside its body."""

LINGER_S: Final = 0.25
"""A substream is kept so long for the next message: a new one costs ten times one. Short, for both ends of a connection
wait at their goodbye for substreams that are open."""

_FINAL: Final = (NegotiationFailed, PeerIsBanned, PeerNotKnown)
"""Errors behind which another attempt is of no use."""


@dataclass(slots=True)
class _Sending:
    delivery: Delivery
    body: bytes
    attempts: int = 0

    @property
    def cost(self) -> int:
        return len(self.body) + MESSAGE_OVERHEAD


class Outbox:
    """For one peer. `on_empty` is called when everything is delivered or failed."""

    def __init__(
        self,
        connections: PeerAccess,
        peer_id: PeerId,
        size_max: int,
        attempts_max: int,
        acknowledge_timeout_s: float,
        on_empty: Callable[[Outbox], object],
    ) -> None:
        self.peer_id = peer_id
        self._connections = connections
        self._size_max = size_max
        self._attempts_max = attempts_max
        self._acknowledge_timeout_s = acknowledge_timeout_s
        self._on_empty = on_empty
        self._queued: deque[_Sending] = deque()
        self._unacknowledged: dict[bytes, _Sending] = {}  # in the order in which they were written
        self._size = 0
        self._room = asyncio.Event()
        self._writer: SubstreamWriter | None = None  # of the substream that stands
        self._is_write_due = False
        self._task: asyncio.Task[None] | None = None  # while there is one, or something to deliver

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be sent or acknowledged."""
        return not (self._queued or self._unacknowledged)

    async def put(self, message_id: bytes, body: bytes) -> Delivery:
        """Queue a message; waits while there is no room."""
        sending = _Sending(Delivery(self.peer_id, message_id), body)
        while self._size and self._size + sending.cost > self._size_max:
            self._room.clear()
            await self._room.wait()
        self._size += sending.cost
        self._queued.append(sending)
        if self._task is None:
            self._task = asyncio.create_task(self._deliver())
        elif self._writer is not None and not self._is_write_due:
            self._is_write_due = True  # with what others queue and write in this turn
            asyncio.get_running_loop().call_soon(self._write)
        return sending.delivery

    async def aclose(self) -> None:
        """Give up everything that is not acknowledged."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._fail_all("messaging was closed")

    async def _deliver(self) -> None:
        """Until nothing is left."""
        try:
            while self._queued or self._unacknowledged:
                try:
                    connection = await self._connections.connect(self.peer_id)
                    _, reader, writer = await connection.open((wire.PROTOCOL,))
                    await self._deliver_over(reader, writer)
                except _FINAL as error:
                    self._fail_all(str(error))
                except PartyWireError as error:
                    self._take_back(str(error))
        finally:
            self._task = None
            self._on_empty(self)

    async def _deliver_over(self, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        """Write everything, and hear what became of it, until nothing is left for a while or the substream is gone."""
        self._writer = writer
        writer.on_wake = self._write
        try:
            self._write()
            await self._hear(reader, writer)
        except BaseException:
            if not self.is_empty:
                writer.reset("the delivery of messages ended")
            raise
        finally:
            self._writer = writer.on_wake = None
            writer.close()

    def _write(self) -> None:
        """Hand on what is queued, as far as the substream takes it; it calls again when there is room."""
        self._is_write_due = False
        writer = self._writer
        if writer is None or writer.failure is not None:
            return  # who hears is told
        if writer.has_room and self._unacknowledged:
            next(reversed(self._unacknowledged.values())).delivery.become(DeliveryState.WRITTEN)
        while self._queued and writer.has_room:
            sending = self._queued.popleft()
            sending.attempts += 1
            message_id = sending.delivery.message_id
            self._unacknowledged[message_id] = sending
            for part in wire.encode(Frame(Kind.MESSAGE, message_id, sending.body)):
                writer.write(part)
            if writer.has_room:
                sending.delivery.become(DeliveryState.WRITTEN)

    async def _hear(self, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        """Take acknowledgements until there is nothing left to be acknowledged or written, for LINGER_S."""
        peer = writer.peer
        frames = FrameReader(reader, 0, peer)
        while True:
            was_empty = self.is_empty
            reader.timeout_s = LINGER_S if was_empty else self._acknowledge_timeout_s
            try:
                frame = await frames.read_untrusted()
            except SubstreamTimeout:
                if self.is_empty:
                    return
                if was_empty:
                    continue  # it began to be waited for meanwhile
                raise LinkProtocolError(peer, "acknowledgement of a message", "none in time") from None
            except (SubstreamReset, SubstreamSessionOver):
                if was_empty and not self._unacknowledged:
                    return  # it is no attempt of a message that has come just now
                raise
            if frame is None:
                if was_empty and not self._unacknowledged:
                    return
                raise LinkProtocolError(peer, "acknowledgement of a message", "the end of the substream instead")
            sending = self._unacknowledged.pop(frame.message_id, None)
            if sending is None or frame.kind is Kind.MESSAGE:
                raise LinkProtocolError(peer, "acknowledgement of a message", "one of another message")
            if frame.kind is Kind.TAKEN:
                sending.delivery.become(DeliveryState.ACKNOWLEDGED)
            else:
                sending.delivery.fail("the peer refused it", may_have_arrived=False)
            self._free(sending)

    def _take_back(self, cause: str) -> None:
        """The attempt failed: what was not acknowledged goes out again, before everything else, but not for ever."""
        again = [*self._unacknowledged.values()]
        if not again:  # nobody was reached: that counts for those who waited
            for sending in self._queued:
                sending.attempts += 1
        self._unacknowledged.clear()
        self._queued.extendleft(reversed(again))
        for sending in [sending for sending in self._queued if sending.attempts >= self._attempts_max]:
            self._queued.remove(sending)
            sending.delivery.fail(cause, may_have_arrived=sending.delivery.was_written)
            self._free(sending)
        for sending in self._queued:
            sending.delivery.become(DeliveryState.QUEUED)

    def _fail_all(self, cause: str) -> None:
        for sending in [*self._unacknowledged.values(), *self._queued]:
            sending.delivery.fail(cause, may_have_arrived=sending.delivery.was_written)
            self._free(sending)
        self._unacknowledged.clear()
        self._queued.clear()

    def _free(self, sending: _Sending) -> None:
        self._size -= sending.cost
        self._room.set()
