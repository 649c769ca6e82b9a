"""Cut the stream of a connection that speaks the iris protocol into frames.

Between the ring that delivers slices of the stream and the lane of such a connection. What differs from `frame_buffer`:
only that protocol's descriptors are legal, and a message is one frame of any size up to `message_size_max`, because
there are no fragments (and no limit at the peer). The one invariant is the same.

The most that is held between two calls is one body of `message_size_max` bytes, of which the peer has sent a part of at
least 1 / START_PART before it takes memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import limits
from .errors import FrameTooLarge, LinkProtocolError
from .frame_buffer import FrameBuffer
from .frames import FIXED_HEADER, HEADER, LINK_SESSION, SPEC_OF, body_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from .frames import Frame


OURS_FROM: Final = 0x80
"""Descriptors from here on are PartyWire's own."""


class IrisFrameBuffer(FrameBuffer):
    """Splits what `split` is fed; like FrameBuffer in everything that is not said above."""

    def __init__(self, message_size_max: int, peer: str = "", room: Callable[[], int] | None = None) -> None:
        """`room` says how many bytes a message may have now that is too large to be let in for being small."""
        super().__init__(peer=peer)
        self._message_size_max = message_size_max
        self._room = room

    @property
    def open_size(self) -> int:
        """The size of the body of which a part is missing; 0 when there is none."""
        return 0 if self._open is None else body_size(self._open[1], self._open[2])

    def _split_untrusted(self, chunk: memoryview, position: int, frames: list[Frame]) -> int:
        end = len(chunk)
        while position < end:
            position = self._step_untrusted(chunk, position, frames)
        return position

    def _header_size_untrusted(self) -> int:
        session, descriptor = FIXED_HEADER.unpack_from(self._header)
        spec = SPEC_OF.get(descriptor)
        if spec is None or descriptor >= OURS_FROM:
            raise LinkProtocolError(self._peer, "descriptor that the iris protocol does not have", f"{descriptor:#04x}")
        if session == LINK_SESSION:
            raise LinkProtocolError(self._peer, "frame of the iris protocol without a session, its id is", session)
        return HEADER.size if spec.fixed_size is None else FIXED_HEADER.size

    def _open_frame_untrusted(self, header_size: int, frames: list[Frame]) -> None:
        session, descriptor = FIXED_HEADER.unpack_from(self._header)
        length = HEADER.unpack_from(self._header)[2] if header_size == HEADER.size else 0
        try:
            size = body_size(descriptor, length)
        except ValueError as error:
            raise LinkProtocolError(self._peer, f"length of a frame: {error}; it is", length) from None
        if size > self._message_size_max:
            what = f"a {SPEC_OF[descriptor].descriptor.name} message"
            raise FrameTooLarge(self._peer, what, size, self._message_size_max)
        if self._room is not None and size > limits.FRAME_SIZE_MAX and size > (room := self._room()):
            what = f"a {SPEC_OF[descriptor].descriptor.name} message beside those that fill limits.inbox_mib"
            raise FrameTooLarge(self._peer, what, size, room)
        self._open = (session, descriptor, length if header_size == HEADER.size else size)
        self._missing = size
