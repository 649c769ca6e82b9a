"""The frames of a call: what travels on a substream between a client and a service. Without I/O.

    length u32 | kind u8 | call u32 | rest          big-endian; length counts everything behind itself

    REQUEST   deadline u32 (milliseconds) | size u8 | method (size bytes) | payload      client -> service
    ITEM      payload                                                                    service -> client
    END       status u8 | message (UTF-8)                                                service -> client

A substream carries one call after the other. Call ids count from 1; END with call 0 refuses the substream itself. Who
gives a call up resets the substream. A call without items has END alone, one with a single answer one ITEM and END.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from ..errors import FrameTooLarge, LinkProtocolError

LENGTH: Final = struct.Struct(">I")
_HEAD: Final = struct.Struct(">BI")
_REQUEST: Final = struct.Struct(">IB")

PAYLOAD_SIZE_MAX: Final = 4 * 1024 * 1024
"""Of one request or one item, unless service and client agree on less."""

METHOD_SIZE_MAX: Final = 255
MESSAGE_SIZE_MAX: Final = 1024
"""Bytes of the sentence in an END."""

DEADLINE_MS_MAX: Final = 2**32 - 1
CALL_MAX: Final = 2**32 - 1

OVERHEAD_MAX: Final = _HEAD.size + _REQUEST.size + METHOD_SIZE_MAX
"""Bytes of a frame beside its payload."""

_REQUEST_KIND: Final = 1
_ITEM_KIND: Final = 2
_END_KIND: Final = 3


class RpcStatus(IntEnum):
    """How a call ended. The numbers up to CONFLICT are those of Tari Comms (seed 002)."""

    OK = 0
    BAD_REQUEST = 1
    UNSUPPORTED_METHOD = 2
    NOT_IMPLEMENTED = 3
    TIMEOUT = 4
    MALFORMED_RESPONSE = 5
    GENERAL = 6
    NOT_FOUND = 7
    PROTOCOL_ERROR = 8
    FORBIDDEN = 9
    CONFLICT = 10
    BUSY = 11


@dataclass(frozen=True, slots=True)
class Request:
    """A client asks."""

    call: int
    method: str
    deadline_ms: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Item:
    """One answer, of which there may be more."""

    call: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The call is over; there is no answer behind it."""

    call: int
    status: RpcStatus
    message: str = ""


def encode_request(request: Request) -> list[bytes]:
    """The frame in pieces, the payload not copied.

    Raises:
        ValueError: the method has no name, or one above 255 bytes.
    """
    method = request.method.encode()
    if not 1 <= len(method) <= METHOD_SIZE_MAX:
        raise ValueError(f"name of a method with {len(method)} bytes, between 1 and {METHOD_SIZE_MAX} are possible")
    head = _HEAD.pack(_REQUEST_KIND, request.call) + _REQUEST.pack(request.deadline_ms, len(method)) + method
    return [LENGTH.pack(len(head) + len(request.payload)) + head, request.payload]


def encode_item(item: Item) -> list[bytes]:
    """The frame in pieces, the payload not copied."""
    return [LENGTH.pack(_HEAD.size + len(item.payload)) + _HEAD.pack(_ITEM_KIND, item.call), item.payload]


def encode_end(end: End) -> bytes:
    """The frame; a message above MESSAGE_SIZE_MAX is cut."""
    message = end.message.encode("utf-8", "replace")[:MESSAGE_SIZE_MAX]
    body = _HEAD.pack(_END_KIND, end.call) + bytes((end.status,)) + message
    return LENGTH.pack(len(body)) + body


def check_length_untrusted(length: int, payload_size_max: int, peer: str) -> None:
    """Refuse a frame before anything is kept of it.

    Raises:
        LinkProtocolError: too short to be one, or (FrameTooLarge) too long.
    """
    if length < _HEAD.size:
        raise LinkProtocolError(peer, "length of a frame of a call", length, f"{_HEAD.size} at least")
    if length > payload_size_max + OVERHEAD_MAX:
        raise FrameTooLarge(peer, "a frame of a call", length, payload_size_max + OVERHEAD_MAX)


def decode_request_untrusted(body: bytes, peer: str) -> Request:
    """What a service gets; `body` is the frame behind its length.

    Raises:
        LinkProtocolError: this is no request.
    """
    kind, call = _HEAD.unpack_from(body)
    if kind != _REQUEST_KIND or not call or len(body) < _HEAD.size + _REQUEST.size:
        raise LinkProtocolError(peer, "a request", f"kind {kind} of call {call}, {len(body)} bytes")
    deadline_ms, size = _REQUEST.unpack_from(body, _HEAD.size)
    start = _HEAD.size + _REQUEST.size
    method = body[start : start + size]
    if not size or len(method) != size:
        raise LinkProtocolError(peer, "the method of a request", f"{len(method)} of {size} bytes")
    try:
        return Request(call, method.decode(), deadline_ms, body[start + size :])
    except UnicodeDecodeError:
        raise LinkProtocolError(peer, "the method of a request", "bytes that are not UTF-8") from None


def decode_answer_untrusted(body: bytes, peer: str) -> Item | End:
    """What a client gets; `body` is the frame behind its length.

    Raises:
        LinkProtocolError: this is no answer.
    """
    kind, call = _HEAD.unpack_from(body)
    rest = body[_HEAD.size :]
    if kind == _ITEM_KIND:
        return Item(call, rest)
    if kind != _END_KIND or not 1 <= len(rest) <= 1 + MESSAGE_SIZE_MAX:
        raise LinkProtocolError(peer, "an answer", f"kind {kind} with {len(rest)} bytes")
    try:
        return End(call, RpcStatus(rest[0]), rest[1:].decode("utf-8", "replace"))
    except ValueError:
        raise LinkProtocolError(peer, "status of an answer", rest[0]) from None
