"""What a pool writes into each message of a channel: a head, then the object.

Between two pools. A head is `kind u8 | id kind u8 | zero u16 | id size u32 | arrived u64`, little endian, then the id,
zeros up to a multiple of 16, then the object (workers/objects). `arrived` counts the messages of the channel's life
that have come to the sender of the head: each head says it anew, so an acknowledgement of its own is needed only when
nothing else goes that way. The one invariant: what is not exactly so raises LinkProtocolError, before anything of the
message is used.

A `bytes` is not packed. A small one follows its head of kind BYTES; of a large one a head of kind RAW goes ahead, and
the next message of the channel is the value itself, which saves its copy out of a larger buffer.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from partywire.engine.errors import LinkProtocolError

from ..objects.errors import ObjectDecodeError
from ..objects.packing import pack_object, unpack_object
from ..objects.registry import ObjectRegistry

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..objects.limits import ObjectLimits

MESSAGE: Final = 1
ACKNOWLEDGEMENT: Final = 2
RAW: Final = 3
BYTES: Final = 4

ID_NUMBER: Final = 0
ID_TEXT: Final = 1
ID_OBJECT: Final = 2

ID_SIZE_MAX: Final = 4096
"""Bytes of a packed id. Ids name messages; this is arbitrary, and far above what anybody has been seen to use."""

RAW_SIZE_MIN: Final = 64 * 1024
"""From here on a `bytes` goes as a message of its own: one copy less is worth more than one message more."""

ALIGNMENT: Final = 16

_HEAD: Final = struct.Struct("<BBHIQ")
_NUMBER_HEAD: Final = struct.Struct("<BBHIQqQ")
_NUMBER_SIZE: Final = 8
_WITH_VALUE: Final = (MESSAGE, BYTES)
_ID_REGISTRY: Final = ObjectRegistry()
"""Ids are built-in values only."""

HEAD_SIZE: Final = _HEAD.size


def encode_head(kind: int, msg_id: Hashable, arrived: int) -> bytes:
    """The head of a message with this id.

    Raises:
        TypeError: an id of this type cannot be sent.
        ValueError: it is too large.
    """
    if type(msg_id) is int and -(1 << 63) <= msg_id < 1 << 63:
        return _NUMBER_HEAD.pack(kind, ID_NUMBER, 0, _NUMBER_SIZE, arrived, msg_id, 0)
    if type(msg_id) is str:
        packed = msg_id.encode()
        id_kind = ID_TEXT
    else:
        hash(msg_id)
        packed = b"".join(pack_object(msg_id, _ID_REGISTRY).parts)
        id_kind = ID_OBJECT
    if len(packed) > ID_SIZE_MAX:
        raise ValueError(f"a message id of {len(packed)} bytes; {ID_SIZE_MAX} are allowed")
    return _HEAD.pack(kind, id_kind, 0, len(packed), arrived) + packed + bytes(-len(packed) % ALIGNMENT)


def encode_acknowledgement(arrived: int) -> bytes:
    """A message that says nothing but how many have arrived."""
    return _HEAD.pack(ACKNOWLEDGEMENT, ID_NUMBER, 0, 0, arrived)


def decode_head_untrusted(data: bytes | bytearray, limits: ObjectLimits, peer: str) -> tuple[int, Hashable, int, int]:
    """Kind, id, what has arrived there, and where the object begins.

    Raises:
        LinkProtocolError: this is no head.
    """
    if len(data) >= _NUMBER_HEAD.size:
        # Hot: the common head by one call.
        kind, id_kind, zero, id_size, arrived, number, padding = _NUMBER_HEAD.unpack_from(data)
        if id_size == _NUMBER_SIZE and id_kind == ID_NUMBER and kind in _WITH_VALUE and not zero and not padding:
            return kind, number, arrived, _NUMBER_HEAD.size
    if len(data) < HEAD_SIZE:
        raise LinkProtocolError(peer, "bytes of a pool's message", len(data), HEAD_SIZE)
    kind, id_kind, zero, id_size, arrived = _HEAD.unpack_from(data)
    if kind == ACKNOWLEDGEMENT:
        if len(data) != HEAD_SIZE or id_size or id_kind or zero:
            raise LinkProtocolError(peer, "bytes of an acknowledgement", len(data), HEAD_SIZE)
        return ACKNOWLEDGEMENT, None, arrived, HEAD_SIZE
    end = HEAD_SIZE + id_size
    begin = end + (-id_size % ALIGNMENT)
    if kind not in (MESSAGE, RAW, BYTES) or zero or id_size > ID_SIZE_MAX or begin > len(data) or any(data[end:begin]):
        raise LinkProtocolError(peer, "the head of a pool's message, kind", kind)
    if kind == RAW and begin != len(data):
        raise LinkProtocolError(peer, "bytes behind a head", len(data), begin)
    if id_kind == ID_NUMBER and id_size == _NUMBER_SIZE:
        return kind, _NUMBER_HEAD.unpack_from(data)[5], arrived, begin
    return kind, _decode_id_untrusted(id_kind, bytes(data[HEAD_SIZE:end]), limits, peer), arrived, begin


def _decode_id_untrusted(id_kind: int, packed: bytes, limits: ObjectLimits, peer: str) -> Hashable:
    try:
        if id_kind == ID_TEXT:
            return packed.decode()
        if id_kind == ID_OBJECT:
            msg_id: Any = unpack_object(packed, _ID_REGISTRY, limits)
            hash(msg_id)
            found: Hashable = msg_id
            return found
    except (UnicodeDecodeError, ObjectDecodeError, TypeError) as error:
        raise LinkProtocolError(peer, f"an id of a message ({type(error).__name__}), size", len(packed)) from error
    raise LinkProtocolError(peer, "kind of a message's id", id_kind, ID_OBJECT)
