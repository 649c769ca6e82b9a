"""Reads frames with a length before them from a substream, bounds first.

Between the protocols on substreams, each of which has its own frames and bounds, and the reader.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Final

from ..errors import LinkProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .streams import SubstreamReader

LENGTH: Final = struct.Struct(">I")
"""What stands before each frame: how many bytes follow."""


async def read_frame_untrusted(
    reader: SubstreamReader, check_length_untrusted: Callable[[int], None], peer: str
) -> bytes | None:
    """The next frame behind its length; None at the peer's end. Cancelled between two frames, it loses nothing.

    Raises:
        LinkProtocolError: as `check_length_untrusted` raises it, before anything is kept; or an end within a frame.
        SubstreamReset, SubstreamSessionOver: the substream is gone.
    """
    is_within = False
    try:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        is_within = True
        check_length_untrusted(length)
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        if is_within or error.partial:
            raise LinkProtocolError(peer, "a frame", "the end of the substream in its midst") from None
        return None
