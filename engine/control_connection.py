"""The control connection of a link: frames of the control codec to a stream and from it.

Between the multiplexer, which owns it, and the peer; beside them the opener's control lane, for which CONTROL frames
are. The stream is the connection itself, or a substream of it (`link_substreams.control_substream`). The one invariant:
what a peer may make us hold is bounded, whether it asks and does not listen or says what our opener does not take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from partywire.shm.errors import ShmError

from . import records
from .errors import LinkProtocolError
from .frame_buffer import FrameBuffer
from .frames import (
    LINK_SESSION,
    Descriptor,
    decode_goodbye_untrusted,
    decode_token_untrusted,
    encode_pong,
)
from .link import CONTROL

if TYPE_CHECKING:
    import asyncio

    from .control_lane import ControlLane
    from .frames import Frame
    from .link import Link
    from .transport import Stream

RECEIVE_SIZE: Final = 64 * 1024
"""One read of the control connection; control traffic is a few hundred bytes a second."""

CONTROL_PENDING_MAX: Final = 1024 * 1024
"""Control messages held for an opener that does not read its control lane, beyond that lane's ring. An opener deep in a
computation is behind by the few rounds that its peers can be ahead."""

CONTROL_UNSENT_MAX: Final = 256 * 1024
"""Bytes of the control connection that the kernel has not taken; beyond it the control lane is not read."""

CONTROL_UNSENT_LIMIT: Final = 4 * 1024 * 1024
"""What the control connection may ever hold unsent. Above all that we send of our own accord (CONTROL_UNSENT_MAX and
one batch of the control lane); only answers to a peer that asks and does not listen go beyond."""


class ControlOwner(Protocol):
    """The multiplexer, as its control connection sees it."""

    def facts_came(self) -> None:
        """The link was told something: act on what it makes of it."""

    def control_has_room(self) -> None:
        """Something was sent of what had kept the control lane waiting."""

    def ring_broke(self, end: ControlLane, error: ShmError, /) -> None:
        """The opener's ring cannot be used."""

    def lose(self, cause: str) -> None:
        """The link is over."""


class ControlConnection:
    """Driven by its stream, and by its owner: `put` and `send`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: Link,
        peer: str,
        stream: Stream,
        lane: ControlLane,
        owner: ControlOwner,
    ) -> None:
        """Owns the stream, not the lane."""
        self.stream: Final = stream
        self.is_open = True
        """Whether the peer has not ended it, and it is not broken."""
        self._loop = loop
        self._link = link
        self._peer = peer
        self._lane = lane
        self._owner = owner
        self._frames = FrameBuffer(peer=peer)
        self._received = memoryview(bytearray(RECEIVE_SIZE))
        self._unsent = bytearray()  # frames that the kernel has not taken
        self._is_blocked = False
        self._is_shut = False
        self._is_over = False  # nothing is sent any more

    def start(self, received: bytes) -> None:
        """Serve it; `received` came behind its handshake."""
        self.stream.on_readable(self.receive)
        if received:
            self._take(memoryview(received))

    # Sending.

    @property
    def unsent_size(self) -> int:
        """Bytes that wait for the kernel."""
        return len(self._unsent)

    @property
    def may_take_more(self) -> bool:
        """Whether what the opener says should be taken off its lane."""
        return len(self._unsent) <= CONTROL_UNSENT_MAX

    def put(self, frame: bytes) -> None:
        """Send a frame behind the others, with the next `send`."""
        self._unsent += frame

    def send(self) -> None:
        """Send frames as far as the kernel takes them; behind our goodbye, our end."""
        while self._unsent and not self._is_over:
            try:
                count = self.stream.try_send([self._unsent])
            except OSError as error:
                self._failed(error)
                return
            if count is None:
                if not self._is_blocked:
                    self._is_blocked = True
                    self.stream.on_writable(self._on_writable)
                return
            del self._unsent[:count]
        if self._is_blocked:
            self._is_blocked = False
            self.stream.on_writable(None)
        if self._link.goodbye_sent and not self._is_shut and not self._is_over:
            self._is_shut = True
            self.stream.shutdown_write()

    def _on_writable(self) -> None:
        self.send()
        self._owner.control_has_room()  # the lane was not looked at while too much was unsent

    # Receiving.

    def receive(self) -> None:
        """Take what has come."""
        try:
            count = self.stream.try_recv_into(self._received)
        except OSError as error:
            self._failed(error)
            return
        except LinkProtocolError as error:  # below the control codec, where the connection carries substreams
            self._owner.lose(str(error))
            return
        if count is None:
            return
        if count == 0:
            self.is_open = False
            self.stream.on_readable(None)
            self._link.stream_ended(self._loop.time(), CONTROL)
        else:
            self._take(self._received[:count])
        self._owner.facts_came()

    def _failed(self, error: OSError) -> None:
        self.stream.on_readable(None)
        self.is_open = False
        self._link.stream_failed(CONTROL, (error.strerror or str(error)).lower())
        self._owner.facts_came()

    def _take(self, data: memoryview) -> None:
        """Frames of the control connection. But for what substreams carry, the only bytes of a peer that this process
        looks at.

        What stands in front of a bad frame is taken before that ends the link.
        """
        self._link.heard(self._loop.time())
        frames: list[Frame] = []
        bad: LinkProtocolError | None = None
        try:
            self._frames.split(data, frames)
        except LinkProtocolError as error:
            bad = error
        try:
            for frame in frames:
                self._take_frame_untrusted(frame)
            if bad is not None:
                raise bad
        except LinkProtocolError as error:
            self._link.lost(str(error))
        except ShmError as error:
            self._owner.ring_broke(self._lane, error)
        self.send()

    def _take_frame_untrusted(self, frame: Frame) -> None:
        session, descriptor, _, body = frame
        now = self._loop.time()
        if session != LINK_SESSION:
            raise LinkProtocolError(self._peer, "frame of a session on the control connection, session", session)
        if descriptor == Descriptor.CONTROL:
            self._lane.put(records.CONTROL, bytes(body))
            if (size := self._lane.pending_size) > CONTROL_PENDING_MAX:
                raise LinkProtocolError(
                    self._peer, "control messages that our program did not take, bytes", size, CONTROL_PENDING_MAX
                )
        elif descriptor == Descriptor.PING:
            if len(self._unsent) > CONTROL_UNSENT_LIMIT:
                raise LinkProtocolError(self._peer, "PINGs whose answers are not read, bytes", len(self._unsent))
            if not self._link.goodbye_sent:
                self._unsent += encode_pong(decode_token_untrusted(body, self._peer))
        elif descriptor == Descriptor.PONG:
            self._link.pong_received_untrusted(now, decode_token_untrusted(body, self._peer))
        elif descriptor == Descriptor.GOODBYE:
            decode_goodbye_untrusted(body)
            self._link.goodbye_received_untrusted(now)
        else:
            raise LinkProtocolError(self._peer, "frame that a control connection does not carry", hex(descriptor))

    # Ending.

    def end(self, *, abort: bool) -> None:
        """The link is over. Unless aborted, what the stream has taken is still delivered."""
        self._is_over = True
        if abort:
            self.stream.abort()
        else:
            self.stream.close()

    @property
    def is_lingering(self) -> bool:
        """Whether something that was sent is still with this process."""
        return self.stream.is_lingering

    def close(self) -> None:
        """Give everything back."""
        self._is_over = True
        self.stream.close()
        self._received.release()
