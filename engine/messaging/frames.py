"""Reads whole frames of messages from a substream."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..substreams import frames
from .wire import Frame, check_length_untrusted, decode_untrusted

if TYPE_CHECKING:
    from ..substreams.streams import SubstreamReader


async def read_frame_untrusted(reader: SubstreamReader, body_size_max: int, peer: str) -> Frame | None:
    """The next frame; None at the peer's end. Raises as `substreams.frames` does, and for what is no frame."""
    check = partial(check_length_untrusted, body_size_max=body_size_max, peer=peer)
    data = await frames.read_frame_untrusted(reader, check, peer)
    return None if data is None else decode_untrusted(data, peer)
