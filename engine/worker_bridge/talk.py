"""Reads heads off a substream and writes them to one.

Between the heads and the readers and writers of substreams, under whatever drives these: both ends of a bridge use it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..substreams.frames import LENGTH
from .heads import LENGTH_SIZE, HeadError, check_size_untrusted, decode_untrusted, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..substreams.streams import SubstreamReader, SubstreamWriter
    from ..yamux.substream import Substream
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


class HeadTaker:
    """Takes the first head off a substream as its bytes come, where nobody stands and waits for it (see
    SubstreamReader.expect)."""

    def __init__(self, on_head: Callable[[Head | None], object]) -> None:
        """`on_head` is called once: with the head, or None if the other side ended without one."""
        self._on_head = on_head
        self._held = b""
        self._missing = LENGTH_SIZE
        self._is_sized = False

    def __call__(self, substream: Substream) -> bool:
        """Whether it came. Raises what `on_head` does, and as `read_head_untrusted`."""
        while True:
            while self._missing:
                if not (data := substream.read(self._missing)):
                    if not substream.is_at_end:
                        return False
                    if self._held or self._is_sized:
                        raise HeadError("it ends in its midst")
                    self._on_head(None)
                    return True
                self._held += data
                self._missing -= len(data)
            held, self._held = self._held, b""
            if self._is_sized:
                self._on_head(decode_untrusted(held))
                return True
            (self._missing,) = LENGTH.unpack(held)
            check_size_untrusted(self._missing)
            self._is_sized = True


async def write_head(writer: SubstreamWriter, head: Head) -> None:
    """Send a head.

    Raises:
        SubstreamReset, SubstreamSessionOver: the substream is gone.
    """
    writer.write(encode(head))
    await writer.drain()
