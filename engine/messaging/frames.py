"""Reads whole frames of messages from a substream, with their bounds checked first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..errors import LinkProtocolError
from .wire import LENGTH, Frame, check_length_untrusted, decode_untrusted

if TYPE_CHECKING:
    from ..substreams.streams import SubstreamReader


async def read_frame_untrusted(reader: SubstreamReader, body_size_max: int, peer: str) -> Frame | None:
    """The next frame; None at the peer's end.

    Raises:
        LinkProtocolError: what came is no frame, or the end came in the middle of one.
        SubstreamReset, SubstreamSessionOver: the substream is gone.
    """
    is_within = False
    try:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        is_within = True
        check_length_untrusted(length, body_size_max, peer)
        return decode_untrusted(await reader.readexactly(length), peer)
    except asyncio.IncompleteReadError as error:
        if is_within or error.partial:
            raise LinkProtocolError(peer, "a frame of messages", "the end of the substream in its midst") from None
        return None
