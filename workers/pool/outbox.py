"""What is to be sent to one peer, in order, and what the peer has not acknowledged yet.

Between `send` and `asend` of a pool and the channel to one peer. The one invariant: messages go out in the order in
which they were given, each gets its automatic id at the moment when it goes out, and its `Sending` ends when the peer
has said that it arrived, or with the reason why nobody will ever know. What ends before it went out takes no id.

Small messages go straight into the channel. What finds no room there, or comes behind such, stands in line for one task
(the pump), which lives as long as there is a line.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from partywire.engine.errors import LinkProtocolError

from ..errors import MessageTooLarge, SessionError
from .inbox import Places
from .sending import AUTOMATIC, Sending
from .wire import ALIGNMENT, MESSAGE, encode_acknowledgement, encode_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from .links import PeerChannel


class Outbox:
    """Driven by the pool (put, discard, acknowledge), by arrivals (take_acknowledgement) and by the channel's life."""

    def __init__(self, peer: str, channel: PeerChannel, failed: Callable[[Sending], None]) -> None:
        self._peer = peer
        self._channel = channel
        # Told of each Sending that ended with an error.
        self._failed = failed
        self.prefix = ""
        self.places = Places()
        self._line: deque[Sending] = deque()
        # Bytes of all that stand in line.
        self.size = 0
        self._unacknowledged: deque[Sending] = deque()
        self._acknowledged = 0
        self._pump: asyncio.Task[None] | None = None
        # How many messages have arrived here, and how many of them the peer was told of.
        self.arrived = 0
        self._told = 0
        self.messages_sent = 0
        self.bytes_sent = 0

    @property
    def under_way(self) -> list[Sending]:
        """All that is not acknowledged yet, and not given up."""
        return [sending for sending in (*self._unacknowledged, *self._line) if not sending.done()]

    def put(self, sending: Sending) -> None:
        """Send it now, or stand in line.

        Raises:
            TypeError, ValueError, MessageTooLarge: it cannot be sent; nothing has happened.
        """
        if self._pump is None and not self._line and self._channel.is_open and self._try_now(sending):
            return
        if sending.msg_id is not AUTOMATIC:
            encode_head(MESSAGE, sending.msg_id, 0)  # raises here and not in the pump
        self._line.append(sending)
        self.size += sending.nbytes
        self._start_pump()

    def _try_now(self, sending: Sending) -> bool:
        if sending.raw is not None:
            return False
        head = self._head_of(sending)
        if not self._channel.try_send((head, *sending.parts), len(head) + sending.nbytes):
            return False
        self._went_out(sending, len(head))
        return True

    def _head_of(self, sending: Sending) -> bytes:
        msg_id = sending.msg_id
        if msg_id is AUTOMATIC:
            place = self.places.next
            msg_id = f"{self.prefix}{place}" if self.prefix else place
        return encode_head(sending.kind, msg_id, self.arrived)

    def _went_out(self, sending: Sending, head_size: int) -> None:
        self.places.next += 1
        self._told = self.arrived
        sending.has_begun = True
        sending.parts = ()
        self._unacknowledged.append(sending)
        self.messages_sent += 1
        self.bytes_sent += head_size + sending.nbytes

    def discard(self, sending: Sending) -> None:
        """It has ended before it went out."""
        try:
            self._line.remove(sending)
        except ValueError:
            return
        self.size -= sending.nbytes

    # The line.

    def _start_pump(self) -> None:
        if self._pump is None and self._channel.is_open:
            self._pump = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        """Send what stands in line, then acknowledge what came meanwhile. Ends with the life of the channel too."""
        try:
            while self._line:
                sending = self._line[0]
                if sending.done():
                    self._take_first()
                else:
                    await self._send(sending)
            if self._told != self.arrived:
                told = self.arrived
                await self._channel.send((encode_acknowledgement(told),), ALIGNMENT)
                self._told = told
        except SessionError:
            pass  # the channel tells us of its end, and `fail` everybody else
        finally:
            self._pump = None
        if self._line or self._told != self.arrived:
            self._start_pump()

    def _take_first(self) -> None:
        self.size -= self._line.popleft().nbytes

    async def _send(self, sending: Sending) -> None:
        head = self._head_of(sending)
        parts, raw = sending.parts, sending.raw
        try:
            self._channel.check_size(len(head) + sending.nbytes)
        except MessageTooLarge as error:
            self._take_first()
            self.end(sending, error)
            return
        self._take_first()
        self._went_out(sending, len(head))  # acknowledgements and failures from now on are of a message that has begun
        if raw is not None:
            await self._channel.send((head,), len(head))
            await self._channel.send((raw,), len(raw), is_raw=True)
            return
        sending.is_lent = not all(isinstance(part, bytes) for part in parts)
        try:
            await self._channel.send((head, *parts), len(head) + sending.nbytes)
        finally:
            sending.is_lent = False
            if sending.on_returned is not None:
                sending.on_returned()

    # Acknowledgements.

    async def drained(self, timeout: float) -> None:
        """Wait until the pump has nothing to do."""
        if self._pump is not None:
            await asyncio.wait((self._pump,), timeout=max(0.0, timeout))

    def acknowledge(self) -> None:
        """Tell the peer how many have arrived, unless something that went out has told it."""
        if self._told == self.arrived or not self._channel.is_open or self._pump is not None:
            return
        if self._channel.try_send((encode_acknowledgement(self.arrived),), ALIGNMENT):
            self._told = self.arrived
        else:
            self._start_pump()

    def take_acknowledgement_untrusted(self, arrived: int) -> None:
        """The peer says how many have arrived there.

        Raises:
            LinkProtocolError: fewer than it said before, or more than were sent.
        """
        count = arrived - self._acknowledged
        if not 0 <= count <= len(self._unacknowledged):
            limit = self._acknowledged + len(self._unacknowledged)
            raise LinkProtocolError(self._peer, "messages acknowledged", arrived, limit)
        self._acknowledged = arrived
        for _ in range(count):
            sending = self._unacknowledged.popleft()
            if not sending.done():
                sending.set_result(None)

    # The life of the channel.

    def opened(self) -> None:
        """The channel's life has begun."""
        if self._line:
            self._start_pump()

    def fail(self, error: Callable[[], Exception]) -> None:
        """Nothing goes out any more, and what has may or may not have arrived."""
        line = (*self._unacknowledged, *self._line)
        self._unacknowledged.clear()
        self._line.clear()
        self.size = 0
        for sending in line:
            self.end(sending, error())

    def end(self, sending: Sending, error: Exception) -> None:
        """A message ends with an error."""
        if not sending.done():
            sending.set_exception(error)
            self._failed(sending)

    def begin_again(self) -> None:
        """For a further life: nothing is left of the one before."""
        self.places = Places()
        self._acknowledged = self.arrived = self._told = 0
