"""PeerId: the name of a peer, which follows from its public key and cannot be chosen. Without I/O."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from ..errors import LinkProtocolError

PEER_ID_SIZE: Final = 13
"""Bytes of an id: those of Tari Comms, whose ids (and prefixes of them) people know."""

PUBLIC_KEY_SIZE: Final = 32


@dataclass(frozen=True, slots=True, order=True)
class PeerId:
    """BLAKE2b with 13 bytes of output over the 32 bytes of a peer's public identity key. Ordered as its bytes are."""

    raw: bytes

    def __post_init__(self) -> None:
        if not isinstance(self.raw, bytes) or len(self.raw) != PEER_ID_SIZE:
            raise ValueError(f"the id of a peer is {PEER_ID_SIZE} bytes")

    @classmethod
    def of_key(cls, public_key: bytes) -> PeerId:
        """The id of whoever holds the identity key with this public half.

        Raises:
            ValueError: these are not 32 bytes.
        """
        if len(public_key) != PUBLIC_KEY_SIZE:
            raise ValueError(f"a public identity key is {PUBLIC_KEY_SIZE} bytes, not {len(public_key)}")
        return cls(hashlib.blake2b(public_key, digest_size=PEER_ID_SIZE).digest())

    @classmethod
    def parse(cls, text: str) -> PeerId:
        """The id that 26 hexadecimal digits stand for.

        Raises:
            ValueError: these are none.
        """
        if len(text) != 2 * PEER_ID_SIZE or not all(digit in "0123456789abcdefABCDEF" for digit in text):
            raise ValueError(f"{text[:40]!r} is not the id of a peer: {2 * PEER_ID_SIZE} hexadecimal digits")
        return cls(bytes.fromhex(text))

    @classmethod
    def decode_untrusted(cls, data: bytes, peer: str = "") -> PeerId:
        """The id in bytes of a peer's.

        Raises:
            LinkProtocolError: these are none.
        """
        if len(data) != PEER_ID_SIZE:
            raise LinkProtocolError(peer, "bytes of the id of a peer", len(data), PEER_ID_SIZE)
        return cls(bytes(data))

    def distance(self, other: PeerId) -> int:
        """XOR of the two ids as numbers, big-endian: 0 to oneself, the same both ways."""
        return int.from_bytes(self.raw, "big") ^ int.from_bytes(other.raw, "big")

    @property
    def short(self) -> str:
        """The first 8 bytes, for tables."""
        return self.raw[:8].hex()

    def __str__(self) -> str:
        return self.raw.hex()

    def __repr__(self) -> str:
        return f"PeerId({self.raw.hex()})"
