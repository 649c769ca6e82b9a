"""Reads whole frames of calls from a substream, with their bounds checked first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..errors import LinkProtocolError
from .wire import LENGTH, check_length_untrusted

if TYPE_CHECKING:
    from ..substreams.streams import SubstreamReader


async def read_frame_untrusted(reader: SubstreamReader, payload_size_max: int, peer: str) -> bytes | None:
    """The next frame behind its length; None at the peer's end. Cancelled between two frames, it loses nothing.

    Raises:
        LinkProtocolError: a length that is not allowed, or an end in the middle of a frame.
        SubstreamReset, SubstreamSessionOver: the substream is gone.
    """
    try:
        head = await reader.readexactly(LENGTH.size)
        (length,) = LENGTH.unpack(head)
        check_length_untrusted(length, payload_size_max, peer)
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        if error.partial or error.expected != LENGTH.size:
            raise LinkProtocolError(peer, "a frame of a call", "the end of the substream in its midst") from None
        return None
