"""Reads whole frames of calls from a substream."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..substreams import frames
from .wire import check_length_untrusted

if TYPE_CHECKING:
    from ..substreams.streams import SubstreamReader


async def read_frame_untrusted(reader: SubstreamReader, payload_size_max: int, peer: str) -> bytes | None:
    """The next frame behind its length; None at the peer's end. Raises as `substreams.frames` does."""
    check = partial(check_length_untrusted, payload_size_max=payload_size_max, peer=peer)
    return await frames.read_frame_untrusted(reader, check, peer)
