"""The first 32 bytes of a connection: what a gateway needs to route it, and nothing else.

Between a dialler and the acceptor's gateway, in the clear, before any secure channel. It proves nothing: the handshake
that follows binds it, so a forged preamble leads to a rejected handshake and no further. The first byte is neither
that of an HTTP verb nor of a TLS record, so one port can serve all three.

Layout: magic 8 | version u16 LE | mode u8 | class u8 | index u16 LE | reserved u16 (zero) | routing tag 16.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from .errors import LinkProtocolError
from .topology import ROUTING_TAG_SIZE

MAGIC: Final = b"\x93PtyWire"
PREAMBLE_VERSION: Final = 1
PREAMBLE_SIZE: Final = 32

_LAYOUT = struct.Struct("<8sHBBHH16s")


class SecurityMode(IntEnum):
    """What protects the bytes behind the preamble, with the pattern and cipher of Noise; the same at both ends."""

    PLAINTEXT = 0
    TLS = 1
    NOISE_XX_CHACHA = 2
    NOISE_XX_AES = 3
    NOISE_IX_CHACHA = 4
    NOISE_IX_AES = 5
    NOISE_KK_CHACHA = 6
    NOISE_KK_AES = 7


class ConnectionClass(IntEnum):
    """What a connection is for. BULK is for sessions with large messages, and dialled when they are made.

    A PROBE asks whether a link would be accepted and becomes no part of one. An INTRODUCTION makes two pools known to
    each other that have no names. A gateway that does not know one of them closes the connection without a word.
    """

    CONTROL = 0
    NORMAL = 1
    BULK = 2
    PROBE = 3
    INTRODUCTION = 4


@dataclass(frozen=True, slots=True)
class Preamble:
    """One decoded preamble. `index` counts the connections of a class; it is 0 for the control connection."""

    connection_class: ConnectionClass
    index: int
    routing_tag: bytes = field(repr=False)
    mode: SecurityMode = SecurityMode.PLAINTEXT

    def __post_init__(self) -> None:
        if len(self.routing_tag) != ROUTING_TAG_SIZE or not 0 <= self.index <= 0xFFFF:
            raise ValueError("a preamble needs a routing tag of 16 bytes and an index of 16 bits")

    def encode(self) -> bytes:
        """The 32 bytes."""
        return _LAYOUT.pack(
            MAGIC, PREAMBLE_VERSION, self.mode, self.connection_class, self.index, 0, self.routing_tag
        )

    @classmethod
    def decode_untrusted(cls, received: bytes) -> Preamble | None:
        """The preamble at the start of `received`, or None while bytes are missing. Later bytes are not looked at.

        A stranger is told apart at the first byte that differs, not after 32.

        Raises:
            LinkProtocolError: this is not a preamble, or not one of this version.
        """
        if received[: len(MAGIC)] != MAGIC[: len(received)]:
            raise LinkProtocolError("", "the connection does not begin like PartyWire, bytes received", len(received))
        if len(received) < PREAMBLE_SIZE:
            return None
        _, version, mode, class_, index, reserved, tag = _LAYOUT.unpack_from(received)
        if version != PREAMBLE_VERSION:
            raise LinkProtocolError("", "preamble version", version, PREAMBLE_VERSION)
        if mode not in SecurityMode.__members__.values():
            raise LinkProtocolError("", "security mode in a preamble", mode, max(SecurityMode).value)
        if class_ not in ConnectionClass.__members__.values():
            raise LinkProtocolError("", "connection class in a preamble", class_, max(ConnectionClass).value)
        if reserved:
            raise LinkProtocolError("", "reserved field in a preamble", reserved, 0)
        return cls(ConnectionClass(class_), index, tag, SecurityMode(mode))
