"""The frames of messages: what travels on a substream of `/partywire/messaging/1`. Without I/O.

    length u32 | kind u8 | id (16 bytes) | body          big-endian; length counts everything behind itself

    MESSAGE   body                     sender -> receiver, on a substream that the sender opened
    TAKEN     (no body)                receiver -> sender: what receives messages there has it
    REFUSED   (no body)                receiver -> sender: it never will

Ids are random; a message that is sent again, on another connection, has the same one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from ..errors import FrameTooLarge, LinkProtocolError

PROTOCOL: Final = "/partywire/messaging/1"

LENGTH: Final = struct.Struct(">I")

ID_SIZE: Final = 16

BODY_SIZE_MAX: Final = 8 * 1024 * 1024
"""Of one message, as in Tari Comms."""

_HEAD_SIZE: Final = 1 + ID_SIZE


class Kind(IntEnum):
    """What a frame is."""

    MESSAGE = 1
    TAKEN = 2
    REFUSED = 3


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame."""

    kind: Kind
    message_id: bytes
    body: bytes = b""


def encode(frame: Frame) -> list[bytes]:
    """The frame in pieces, the body not copied."""
    return [LENGTH.pack(_HEAD_SIZE + len(frame.body)) + bytes((frame.kind,)) + frame.message_id, frame.body]


def check_length_untrusted(length: int, body_size_max: int, peer: str) -> None:
    """Refuse a frame before anything is kept of it.

    Raises:
        LinkProtocolError: too short to be one, or (FrameTooLarge) too long.
    """
    if length < _HEAD_SIZE:
        raise LinkProtocolError(peer, "length of a frame of messages", length, f"{_HEAD_SIZE} at least")
    if length > _HEAD_SIZE + body_size_max:
        raise FrameTooLarge(peer, "a message", length - _HEAD_SIZE, body_size_max)


def decode_untrusted(data: bytes, peer: str) -> Frame:
    """The frame in `data`, which is everything behind its length.

    Raises:
        LinkProtocolError: this is none.
    """
    kind, message_id, body = data[0], data[1:_HEAD_SIZE], data[_HEAD_SIZE:]
    if kind not in (Kind.MESSAGE, Kind.TAKEN, Kind.REFUSED) or (kind != Kind.MESSAGE and body):
        raise LinkProtocolError(peer, "kind of a frame of messages", f"{kind} with {len(body)} bytes")
    return Frame(Kind(kind), message_id, body)
