"""Which Noise protocols we speak: handshake patterns as data, and names like Noise_XX_25519_ChaChaPoly_BLAKE2s.

    XX   nobody knows a key beforehand; both are sent encrypted, the initiator's to the proven responder only
    IX   one round trip; the initiator's key travels in the clear, and it proves it only with its first record
    KK   both know the key of the other, which never travels; one round trip; as IX, the initiator's proof that it is
         there now, and not a replay, is its first record

Source: The Noise Protocol Framework, revision 34, sections 7.5 (patterns), 8 (names) and 12 (functions).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from .errors import UnsupportedProtocol


class Token(Enum):
    """One step of a handshake message (section 7.1). In a pair, the first letter is the initiator's key."""

    E = "e"
    S = "s"
    EE = "ee"
    ES = "es"
    SE = "se"
    SS = "ss"


_T = Token


@dataclass(frozen=True, slots=True)
class Pattern:
    """One handshake pattern. The messages alternate, the initiator's is the first."""

    initiator_known: bool  # pre-message "-> s": the responder has the initiator's static key
    responder_known: bool  # pre-message "<- s"
    messages: tuple[tuple[Token, ...], ...]


PATTERNS: Final[dict[str, Pattern]] = {
    "XX": Pattern(False, False, ((_T.E,), (_T.E, _T.EE, _T.S, _T.ES), (_T.S, _T.SE))),
    "IX": Pattern(False, False, ((_T.E, _T.S), (_T.E, _T.EE, _T.SE, _T.S, _T.ES))),
    "KK": Pattern(True, True, ((_T.E, _T.ES, _T.SS), (_T.E, _T.EE, _T.SE))),
}

CIPHERS: Final = ("ChaChaPoly", "AESGCM")

HASHES: Final[dict[str, str]] = {
    "BLAKE2s": "blake2s",
    "BLAKE2b": "blake2b",
    "SHA256": "sha256",
    "SHA512": "sha512",
}
"""Hash functions by their Noise name -> their name in hashlib."""


@dataclass(frozen=True, slots=True)
class NoiseProtocol:
    """One supported combination; all have X25519 in common."""

    pattern: str
    cipher: str
    hash: str

    def __post_init__(self) -> None:
        for part, value, allowed in (
            ("pattern", self.pattern, tuple(PATTERNS)),
            ("cipher", self.cipher, CIPHERS),
            ("hash", self.hash, tuple(HASHES)),
        ):
            if value not in allowed:
                raise UnsupportedProtocol(self.name, part, " or ".join(allowed))

    @property
    def name(self) -> str:
        """As it is hashed into the transcript and shown to people."""
        return f"Noise_{self.pattern}_25519_{self.cipher}_{self.hash}"

    @classmethod
    def parse(cls, name: str) -> NoiseProtocol:
        """The protocol of that name; upper and lower case count.

        Raises:
            UnsupportedProtocol: the name has another form, or a part that we do not speak.
        """
        parts = name.split("_")
        if len(parts) != 5 or parts[0] != "Noise":
            raise UnsupportedProtocol(name, "name", "of the form Noise_XX_25519_ChaChaPoly_BLAKE2s")
        _, pattern, group, cipher, hash_ = parts
        if group != "25519":
            raise UnsupportedProtocol(name, "group", "25519")
        return cls(pattern, cipher, hash_)
