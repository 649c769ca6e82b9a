"""Reads heads off a substream and writes them to one.

Between the heads and the readers and writers of substreams, under whatever drives these: both ends of a bridge use it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..substreams.frames import LENGTH
from .heads import LENGTH_SIZE, HeadError, check_size_untrusted, decode_untrusted, encode

if TYPE_CHECKING:
    from ..substreams.streams import SubstreamReader, SubstreamWriter
    from .heads import Head


async def read_head_untrusted(reader: SubstreamReader) -> Head | None:
    """The next head; None at the end of the other side. Cancelled before the first byte, it loses nothing.

    Raises:
        HeadError: what comes is none.
        SubstreamReset, SubstreamSessionOver: the substream is gone.
    """
    is_within = False
    try:
        (size,) = LENGTH.unpack(await reader.readexactly(LENGTH_SIZE))
        check_size_untrusted(size)
        is_within = True
        return decode_untrusted(await reader.readexactly(size))
    except asyncio.IncompleteReadError as error:
        if is_within or error.partial:
            raise HeadError("it ends in its midst") from None
        return None


async def write_head(writer: SubstreamWriter, head: Head) -> None:
    """Send a head.

    Raises:
        SubstreamReset, SubstreamSessionOver: the substream is gone.
    """
    writer.write(encode(head))
    await writer.drain()
