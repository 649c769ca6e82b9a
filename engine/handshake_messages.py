"""The messages of the handshake and their bytes.

Between the two ends of a connection, right behind the preamble (docs/wire.md, Handshake). A message is
`type u8 | length u16 LE | body`. The one invariant: whatever `Hello.encode` produces, `Hello.decode_untrusted` returns
unchanged, and nothing else decodes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from . import limits
from .errors import FrameTooLarge, LinkProtocolError, RejectCode
from .frames import printable_untrusted
from .topology import check_name

PROTOCOL_VERSION: Final = 1

NONCE_SIZE: Final = 32
DIGEST_SIZE: Final = 32

_MESSAGE_HEADER = struct.Struct("<BH")
_HELLO_TAIL = struct.Struct("<32sIHIQ32s")
_HEARTBEAT_MS_MAX = 3_600_000

_ABILITIES_SIZE: Final = 4

CAN_SUBSTREAMS: Final = 1
"""A bit of the abilities: this side's control connection can carry substreams. Where both can, it does."""


class MessageType(IntEnum):
    """The first byte of a handshake message."""

    HELLO = 1
    ACCEPT = 2
    REJECT = 3
    ATTACH = 4
    PROBE = 5  # the question of a probe; only behind a preamble of that class
    PROBED = 6  # its answer
    INTRODUCE = 7  # who a pool is; only behind a preamble of class INTRODUCTION
    INTRODUCED = 8  # who the other one is


def encode_message(type_: MessageType, body: bytes) -> bytes:
    """One whole message."""
    return _MESSAGE_HEADER.pack(type_, len(body)) + body


class MessageReader:
    """Collects handshake messages from slices of a stream. Holds at most one message and what came behind it."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._received = bytearray()

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next slice."""
        self._received += data

    @property
    def received_size(self) -> int:
        """Bytes that no message has used yet."""
        return len(self._received)

    def next_message_untrusted(self) -> tuple[MessageType, bytes] | None:
        """The next complete message, or None.

        Raises:
            LinkProtocolError: unknown type.
            FrameTooLarge: a length above HANDSHAKE_SIZE_MAX; seen in the header, before the body is waited for.
        """
        received = self._received
        if received and received[0] not in MessageType.__members__.values():
            raise LinkProtocolError(self._peer, "unknown handshake message type", received[0])
        if len(received) < _MESSAGE_HEADER.size:
            return None
        number, size = _MESSAGE_HEADER.unpack_from(received)
        if size > limits.HANDSHAKE_SIZE_MAX:
            raise FrameTooLarge(self._peer, "a handshake message", size, limits.HANDSHAKE_SIZE_MAX)
        end = _MESSAGE_HEADER.size + size
        if len(received) < end:
            return None
        body = bytes(received[_MESSAGE_HEADER.size : end])
        del received[:end]
        return MessageType(number), body

    def take_rest(self) -> bytes:
        """Everything behind the last message, which belongs to the frame stream."""
        rest = bytes(self._received)
        self._received.clear()
        return rest


class _BodyReader:
    """Reads a message body field by field; every read is checked against what is left."""

    def __init__(self, peer: str, message: str, body: bytes) -> None:
        self._peer = peer
        self._message = message
        self._body = body
        self._position = 0

    def take(self, size: int) -> bytes:
        left = self.left
        if size > left:
            raise LinkProtocolError(self._peer, f"{self._message} is cut short, bytes left", left, f">= {size}")
        self._position += size
        return self._body[self._position - size : self._position]

    def take_name(self) -> str:
        encoded = self.take(self.take(1)[0])
        try:
            name = encoded.decode("utf-8")
            check_name(name)
        except ValueError:
            what = f"name in {self._message} is not a valid name, bytes"
            raise LinkProtocolError(self._peer, what, len(encoded)) from None
        return name

    @property
    def left(self) -> int:
        return len(self._body) - self._position

    def finish(self) -> None:
        if left := self.left:
            raise LinkProtocolError(self._peer, f"bytes behind the end of {self._message}", left, 0)


def _encode_name(name: str) -> bytes:
    encoded = name.encode("utf-8")
    return bytes((len(encoded),)) + encoded


@dataclass(frozen=True, slots=True)
class Hello:
    """What one side says of itself.

    The nonce must be 32 fresh random bytes for every connection attempt: the link's secret is made of both.
    """

    name: str
    peer: str
    """Whom this side expects at the other end."""
    nonce: bytes = field(repr=False)
    epoch: int = 1
    """The least link epoch that this side accepts; the greater of both becomes the link's."""
    party_set: tuple[str, ...] = ()
    """All names in index order, or empty for a pairwise link."""
    workers: int = 1
    heartbeat_interval_ms: int = int(limits.HEARTBEAT_INTERVAL_S * 1000)
    message_size_max: int = limits.MESSAGE_SIZE_MAX
    parameter_digest: bytes = bytes(DIGEST_SIZE)
    """A digest of everything that must be equal at both ends and is not in this message."""
    version: int = PROTOCOL_VERSION
    abilities: int = 0
    """Bits of what this side can do beyond; those of a later version mean nothing here."""

    def __post_init__(self) -> None:
        for name in (self.name, self.peer, *self.party_set):
            check_name(name)
        if len(self.nonce) != NONCE_SIZE or len(self.parameter_digest) != DIGEST_SIZE:
            raise ValueError("a HELLO needs a nonce and a parameter digest of 32 bytes each")
        if len(self.party_set) > limits.PARTIES_MAX or len(set(self.party_set)) != len(self.party_set):
            raise ValueError(f"a party set has at most {limits.PARTIES_MAX} names, each once")
        bounds = (
            ("epoch", self.epoch, 1, 2**32 - 1),
            ("workers", self.workers, 1, limits.WORKERS_MAX),
            ("heartbeat_interval_ms", self.heartbeat_interval_ms, 1, _HEARTBEAT_MS_MAX),
            ("message_size_max", self.message_size_max, 1, limits.MESSAGE_SIZE_MAX),
            ("version", self.version, 0, 0xFFFF),
            ("abilities", self.abilities, 0, 2**32 - 1),
        )
        for what, value, least, greatest in bounds:
            if not least <= value <= greatest:
                raise ValueError(f"{what} {value} is not between {least} and {greatest}")

    def encode(self) -> bytes:
        """The body of a HELLO."""
        names = b"".join(_encode_name(name) for name in self.party_set)
        return (
            self.version.to_bytes(2, "little")
            + _encode_name(self.name)
            + _encode_name(self.peer)
            + bytes((len(self.party_set),))
            + names
            + _HELLO_TAIL.pack(
                self.nonce,
                self.epoch,
                self.workers,
                self.heartbeat_interval_ms,
                self.message_size_max,
                self.parameter_digest,
            )
            + (self.abilities.to_bytes(_ABILITIES_SIZE, "little") if self.abilities else b"")
        )

    @staticmethod
    def version_untrusted(body: bytes, peer: str) -> int:
        """The version alone: the only field whose place never changes.

        Raises:
            LinkProtocolError: not even the version is there.
        """
        return int.from_bytes(_BodyReader(peer, "HELLO", body).take(2), "little")

    @classmethod
    def decode_untrusted(cls, body: bytes, peer: str = "") -> Hello:
        """A HELLO of our version.

        Raises:
            LinkProtocolError: cut short, bytes behind its end, an invalid name, or a field out of its bounds.
        """
        reader = _BodyReader(peer, "HELLO", body)
        version = int.from_bytes(reader.take(2), "little")
        name = reader.take_name()
        expected = reader.take_name()
        count = reader.take(1)[0]
        if count > limits.PARTIES_MAX:
            raise LinkProtocolError(peer, "parties in a HELLO", count, limits.PARTIES_MAX)
        party_set = tuple(reader.take_name() for _ in range(count))
        tail = reader.take(_HELLO_TAIL.size)
        nonce, epoch, workers, heartbeat_ms, message_size_max, digest = _HELLO_TAIL.unpack(tail)
        abilities = 0
        if reader.left:
            abilities = int.from_bytes(reader.take(_ABILITIES_SIZE), "little")
            if not abilities:
                raise LinkProtocolError(peer, "abilities in a HELLO that has none", 0)
        reader.finish()
        try:
            return cls(
                name, expected, nonce, epoch, party_set, workers, heartbeat_ms, message_size_max, digest, version,
                abilities,
            )  # fmt: skip
        except ValueError as error:
            raise LinkProtocolError(peer, "HELLO with a field out of bounds", str(error)) from None


def encode_reject(code: RejectCode, detail: str) -> bytes:
    """The body of a REJECT."""
    return bytes((code,)) + detail.encode("utf-8", "replace")[: limits.REASON_SIZE_MAX]


def decode_reject_untrusted(body: bytes, peer: str) -> tuple[RejectCode, str]:
    """Code and sentence of a REJECT; a code of a later version counts as PROTOCOL, so that the sentence is still shown.

    Raises:
        LinkProtocolError: no code, or a sentence above REASON_SIZE_MAX.
    """
    reader = _BodyReader(peer, "REJECT", body)
    number = reader.take(1)[0]
    if len(body) - 1 > limits.REASON_SIZE_MAX:
        raise FrameTooLarge(peer, "the reason of a REJECT", len(body) - 1, limits.REASON_SIZE_MAX)
    known = number in RejectCode.__members__.values()
    return RejectCode(number) if known else RejectCode.PROTOCOL, printable_untrusted(body[1:])


@dataclass(frozen=True, slots=True)
class AttachRequest:
    """The body of an ATTACH: which link a normal connection belongs to, and the proof."""

    name: str
    epoch: int
    token: bytes = field(repr=False)

    def encode(self) -> bytes:
        """The body of an ATTACH."""
        return _encode_name(self.name) + self.epoch.to_bytes(4, "little") + self.token

    @classmethod
    def decode_untrusted(cls, body: bytes, peer: str = "") -> AttachRequest:
        """An ATTACH.

        Raises:
            LinkProtocolError: cut short, bytes behind its end, or an invalid name.
        """
        reader = _BodyReader(peer, "ATTACH", body)
        name = reader.take_name()
        epoch = int.from_bytes(reader.take(4), "little")
        token = reader.take(DIGEST_SIZE)
        reader.finish()
        return cls(name, epoch, token)
