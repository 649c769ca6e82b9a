"""CipherState: one key, one counter, and the AEAD under them (Noise rev 34, sections 4.2, 5.1, 11.3, 12.3 and 12.4).

The one invariant: no nonce is used twice under one key. The counter goes up with every success, never back, and
rekeying keeps it; at its end the state refuses to go on.

A failed decryption leaves the counter as it was, as the specification says; that the connection ends with it is the
business of the handshake and of the record layer.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from .errors import NonceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Buffer", "CipherState", "InvalidTag", "KEY_SIZE", "NONCE_MAX", "TAG_SIZE"]

Buffer: TypeAlias = bytes | bytearray | memoryview

KEY_SIZE: Final = 32
TAG_SIZE: Final = 16

NONCE_MAX: Final = 2**64 - 1
"""Never used for a message: this nonce makes the next key (section 4.2, REKEY)."""

_NONCE_LAYOUTS: Final = {
    "ChaChaPoly": struct.Struct("<4xQ"),
    "AESGCM": struct.Struct(">4xQ"),
}
"""Four zero bytes, then the counter: little-endian for ChaChaPoly (section 12.3), big-endian for AESGCM (12.4)."""


class Aead(Protocol):
    """What we use of the AEAD classes of `cryptography`."""

    def encrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None) -> bytes:
        """Ciphertext and tag."""

    def decrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None) -> bytes:
        """The plaintext, or InvalidTag."""

    def encrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int:
        """As `encrypt`, into memory of exactly the size."""

    def decrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int:
        """As `decrypt`, into memory of exactly the size."""


class CopyingAead:
    """Gives the AEAD of an older `cryptography`, which always allocates its result, the methods that write in place."""

    def __init__(self, aead: AESGCM | ChaCha20Poly1305) -> None:
        self.encrypt: Final = aead.encrypt
        self.decrypt: Final = aead.decrypt

    def encrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int:
        """As `Aead.encrypt_into`; copies the ciphertext once."""
        return _copy(self.encrypt(nonce, data, associated_data), buf)

    def decrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int:
        """As `Aead.decrypt_into`; copies the plaintext once."""
        return _copy(self.decrypt(nonce, data, associated_data), buf)


def _copy(data: bytes, buf: Buffer) -> int:
    memoryview(buf)[:] = data
    return len(data)


def make_aead(cipher: str, key: bytes) -> Aead:
    """The AEAD of that Noise name under `key`."""
    aead = AESGCM(key) if cipher == "AESGCM" else ChaCha20Poly1305(key)
    return aead if hasattr(aead, "encrypt_into") else CopyingAead(aead)


class CipherState:
    """A key in use in one direction. Driven by the handshake, then by one half of the record layer."""

    def __init__(self, cipher: str, key: bytes, peer: str = "") -> None:
        """`cipher` is its Noise name, `key` has 32 bytes; `peer` is for messages."""
        self._cipher: Final = cipher
        self._peer: Final = peer
        self._pack: Final[Callable[[int], bytes]] = _NONCE_LAYOUTS[cipher].pack
        self._aead = make_aead(cipher, key)  # replaced by `rekey`
        self._nonce = 0  # the next one; every value below was used

    @property
    def position(self) -> int:
        """How many messages were sealed or opened, over all keys."""
        return self._nonce

    def encrypt(self, associated_data: Buffer, plaintext: Buffer) -> bytes:
        """EncryptWithAd: ciphertext and tag.

        Raises:
            NonceExhausted: nothing was encrypted.
        """
        nonce = self._next_nonce()
        ciphertext = self._aead.encrypt(nonce, plaintext, associated_data)
        self._nonce += 1
        return ciphertext

    def decrypt(self, associated_data: Buffer, ciphertext: Buffer) -> bytes:
        """DecryptWithAd: the plaintext.

        Raises:
            InvalidTag: it is not what the peer encrypted at this place, or is shorter than a tag.
            NonceExhausted: nothing was decrypted.
        """
        nonce = self._next_nonce()
        plaintext = self._aead.decrypt(nonce, ciphertext, associated_data)
        self._nonce += 1
        return plaintext

    def encrypt_into(self, plaintext: Buffer, out: memoryview) -> None:
        """As `encrypt` without associated data, into `out`, which is TAG_SIZE longer and does not overlap."""
        nonce = self._next_nonce()
        self._aead.encrypt_into(nonce, plaintext, None, out)
        self._nonce += 1

    def decrypt_into(self, ciphertext: Buffer, out: memoryview) -> None:
        """As `decrypt` without associated data, into `out`, which is TAG_SIZE shorter and does not overlap.

        After InvalidTag the contents of `out` mean nothing.
        """
        nonce = self._next_nonce()
        self._aead.decrypt_into(nonce, ciphertext, None, out)
        self._nonce += 1

    def rekey(self) -> None:
        """Rekey (sections 5.1 and 11.3): a new key that does not tell the old one. The counter goes on."""
        key = self._aead.encrypt(self._pack(NONCE_MAX), bytes(KEY_SIZE), b"")[:KEY_SIZE]
        self._aead = make_aead(self._cipher, key)

    def _next_nonce(self) -> bytes:
        if self._nonce >= NONCE_MAX:
            raise NonceExhausted(self._peer)
        return self._pack(self._nonce)
