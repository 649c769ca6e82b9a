"""SymmetricState: the transcript hash, the chaining key and the current cipher (Noise rev 34, section 5.2).

The one invariant: `handshake_hash` covers, in order, everything that both ends have seen, so that they go on only if
they saw the same.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from .cipher import KEY_SIZE, TAG_SIZE, Buffer, CipherState
from .protocol import HASHES

if TYPE_CHECKING:
    from .protocol import NoiseProtocol


class SymmetricState:
    """What both ends of a handshake compute alike. Driven by a HandshakeState."""

    def __init__(self, protocol: NoiseProtocol, peer: str) -> None:
        """InitializeSymmetric."""
        self._cipher_name: Final = protocol.cipher
        self._hash_name: Final = HASHES[protocol.hash]
        self._peer: Final = peer
        self._cipher: CipherState | None = None  # set by the first mix_key
        name = protocol.name.encode("ascii")
        size = hashlib.new(self._hash_name).digest_size
        self.handshake_hash = name.ljust(size, b"\0") if len(name) <= size else self._hash(name)
        self._chaining_key = self.handshake_hash

    @property
    def tag_size(self) -> int:
        """What encrypting adds: nothing as long as there is no key."""
        return 0 if self._cipher is None else TAG_SIZE

    def mix_key(self, secret: bytes) -> None:
        """MixKey: everything that is encrypted from here on needs `secret` too."""
        self._chaining_key, key = self._hkdf(secret)
        self._cipher = CipherState(self._cipher_name, key[:KEY_SIZE], self._peer)

    def mix_hash(self, data: Buffer) -> None:
        """MixHash: both ends must have seen `data`."""
        self.handshake_hash = self._hash(self.handshake_hash, data)

    def encrypt_and_hash(self, plaintext: Buffer) -> bytes:
        """EncryptAndHash; the plaintext itself while there is no key."""
        sealed = bytes(plaintext) if self._cipher is None else self._cipher.encrypt(self.handshake_hash, plaintext)
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash(self, sealed: Buffer) -> bytes:
        """DecryptAndHash.

        Raises:
            InvalidTag: the peer did not encrypt this with the same keys and transcript.
        """
        plaintext = bytes(sealed) if self._cipher is None else self._cipher.decrypt(self.handshake_hash, sealed)
        self.mix_hash(sealed)
        return plaintext

    def split(self) -> tuple[CipherState, CipherState]:
        """Split: the ciphers from the initiator to the responder, and back. Only the hash is kept: who gets hold of
        this object later must not be able to make them again."""
        first, second = self._hkdf(b"")
        self._chaining_key = b""
        self._cipher = None
        return (
            CipherState(self._cipher_name, first[:KEY_SIZE], self._peer),
            CipherState(self._cipher_name, second[:KEY_SIZE], self._peer),
        )

    def _hash(self, *parts: Buffer) -> bytes:
        digest = hashlib.new(self._hash_name)
        for part in parts:
            digest.update(part)
        return digest.digest()

    def _hkdf(self, secret: bytes) -> tuple[bytes, bytes]:
        """HKDF with two outputs (section 4.3)."""
        extracted = hmac.digest(self._chaining_key, secret, self._hash_name)
        first = hmac.digest(extracted, b"\1", self._hash_name)
        return first, hmac.digest(extracted, first + b"\2", self._hash_name)
