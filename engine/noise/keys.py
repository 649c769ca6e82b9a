"""X25519 keys: a public key that can be compared and shown, and a private one that cannot leave by accident.

Between the configuration, which stores the 32 raw bytes of each, and a handshake. The one invariant: the secret comes
out of `PrivateKey.secret_bytes` only, never of a repr, an error, a pickle or a log line.

Python cannot wipe memory: a secret stays in the process until its memory is used again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NoReturn

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

KEY_SIZE: Final = 32
"""Bytes of a private key, of a public key and of a shared secret: DHLEN of 25519 (Noise rev 34, section 12.1)."""


class LowOrderKey(ValueError):
    """Raised when a shared secret would be all zeros, whatever our private key: the public key is of low order."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key, 32 bytes. Two are equal if their bytes are; `str` is hexadecimal."""

    raw: bytes

    def __post_init__(self) -> None:
        if not isinstance(self.raw, bytes) or len(self.raw) != KEY_SIZE:
            raise ValueError(f"an X25519 public key is {KEY_SIZE} bytes")

    def __str__(self) -> str:
        return self.raw.hex()

    def __repr__(self) -> str:
        return f"PublicKey({self.raw.hex()})"


class PrivateKey:
    """A private key and its public half. Is neither printed nor pickled."""

    __slots__ = ("_key", "public")

    def __init__(self, key: X25519PrivateKey) -> None:
        self._key: Final = key
        self.public: Final = PublicKey(key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> PrivateKey:
        """A new key from the operating system's random numbers."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, secret: bytes) -> PrivateKey:
        """The key with these 32 secret bytes.

        Raises:
            ValueError: they are not 32; the message does not show them.
        """
        if len(secret) != KEY_SIZE:
            raise ValueError(f"an X25519 private key is {KEY_SIZE} bytes, not {len(secret)}")
        return cls(X25519PrivateKey.from_private_bytes(secret))

    def secret_bytes(self) -> bytes:
        """The 32 secret bytes. Whoever has them is this party: write them to files that nobody else can read."""
        return self._key.private_bytes_raw()

    def exchange(self, theirs: PublicKey) -> bytes:
        """The shared secret, DH() of Noise rev 34, sections 4.1 and 12.1.

        Raises:
            LowOrderKey: it would be all zeros. The specification leaves refusing this to the implementation; we do,
                because such a key makes the secret known to everybody.
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(theirs.raw))
        except ValueError:
            raise LowOrderKey("the public key is of low order") from None

    def __repr__(self) -> str:
        return f"<PrivateKey of {self.public}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not pickled or copied; pass its secret_bytes on purpose")
