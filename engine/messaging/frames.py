"""Reads whole frames of messages from a substream, several at a time where several have come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from ..errors import LinkProtocolError
from .wire import LENGTH, Frame, check_length_untrusted, decode_untrusted

if TYPE_CHECKING:
    from ..substreams.streams import SubstreamReader

READ_SIZE: Final = 16 * 1024
"""What is taken from the substream at a time, and held here beside the frame that is being read."""


class FrameReader:
    """All frames of one substream. One task reads; a wait that is cancelled, or out of time, loses nothing."""

    def __init__(self, reader: SubstreamReader, body_size_max: int, peer: str) -> None:
        self._reader = reader
        self._body_size_max = body_size_max
        self._peer = peer
        self._data = b""
        self._at = 0  # where the next frame begins in it

    async def read_untrusted(self) -> Frame | None:
        """The next frame; None at the peer's end.

        Raises:
            LinkProtocolError: what comes is none, as its length says before anything is kept; or an end within a frame.
            SubstreamReset, SubstreamSessionOver: the substream is gone.
            SubstreamTimeout: nothing came for the reader's `timeout_s`.
        """
        missing = 0
        while True:
            held = len(self._data) - self._at
            if held >= LENGTH.size:
                (length,) = LENGTH.unpack_from(self._data, self._at)
                check_length_untrusted(length, self._body_size_max, self._peer)
                missing = LENGTH.size + length - held
                if missing <= 0:
                    start = self._at + LENGTH.size
                    self._at = start + length
                    return decode_untrusted(memoryview(self._data)[start : self._at], self._peer)
            if not await self._read_on(missing):
                return None

    async def _read_on(self, missing: int) -> bool:
        """Have more of the frame that begins here. False: it never began, and never will."""
        rest = self._data = self._data[self._at :]
        self._at = 0
        try:
            if missing > READ_SIZE:
                more = await self._reader.readexactly(missing)
            else:
                more = await self._reader.read(READ_SIZE)
        except asyncio.IncompleteReadError:
            more = b""
        if rest and not more:
            raise LinkProtocolError(self._peer, "a frame", "the end of the substream in its midst")
        self._data = rest + more if rest else more
        return bool(more)
