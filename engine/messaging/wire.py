"""The frames of messages: what travels on a substream of `/partywire/messaging/1`. Without I/O.

    length u32 | kind u8 | id (16 bytes) | body          big-endian; length counts everything behind itself

    MESSAGE   body                     sender -> receiver, on a substream that the sender opened
    TAKEN     (no body)                receiver -> sender: what receives messages there has it
    REFUSED   (no body)                receiver -> sender: it never will

Ids are random; a message that is sent again, on another connection, has the same one.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from ..errors import FrameTooLarge, LinkProtocolError

PROTOCOL: Final = "/partywire/messaging/1"

LENGTH: Final = struct.Struct(">I")

ID_SIZE: Final = 16

BODY_SIZE_MAX: Final = 8 * 1024 * 1024
"""Of one message, as in Tari Comms."""

JOINED_SIZE_MAX: Final = 512
"""A body below this is copied behind its head: a substream would copy both anyway, one by one."""

_HEAD: Final = struct.Struct(f">IB{ID_SIZE}s")

_HEAD_SIZE: Final = 1 + ID_SIZE


class Kind(IntEnum):
    """What a frame is."""

    MESSAGE = 1
    TAKEN = 2
    REFUSED = 3


_KINDS: Final = {int(kind): kind for kind in Kind}


class Frame(NamedTuple):
    """One frame."""

    kind: Kind
    message_id: bytes
    body: bytes = b""


def encode(frame: Frame) -> list[bytes]:
    """The frame in pieces; a body that is not small is not copied."""
    kind, message_id, body = frame
    head = _HEAD.pack(_HEAD_SIZE + len(body), kind, message_id)
    return [head + body] if len(body) < JOINED_SIZE_MAX else [head, body]


def check_length_untrusted(length: int, body_size_max: int, peer: str) -> None:
    """Refuse a frame before anything is kept of it.

    Raises:
        LinkProtocolError: too short to be one, or (FrameTooLarge) too long.
    """
    if length < _HEAD_SIZE:
        raise LinkProtocolError(peer, "length of a frame of messages", length, f"{_HEAD_SIZE} at least")
    if length > _HEAD_SIZE + body_size_max:
        raise FrameTooLarge(peer, "a message", length - _HEAD_SIZE, body_size_max)


def decode_untrusted(data: bytes | memoryview, peer: str) -> Frame:
    """The frame in `data`, which is everything behind its length.

    Raises:
        LinkProtocolError: this is none.
    """
    kind, size = _KINDS.get(data[0]), len(data) - _HEAD_SIZE
    if kind is None or (size and kind is not Kind.MESSAGE):
        raise LinkProtocolError(peer, "kind of a frame of messages", f"{data[0]} with {size} bytes")
    return Frame(kind, bytes(data[1:_HEAD_SIZE]), bytes(data[_HEAD_SIZE:]))
