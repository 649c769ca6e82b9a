"""The Noise protocol (revision 34, https://noiseprotocol.org/noise.html) without I/O: handshakes, then sealed records.

    private = PrivateKey.generate()
    handshake = HandshakeState(NoiseProtocol.parse("Noise_XX_25519_ChaChaPoly_BLAKE2s"), True, private, prologue=...)
    ... while handshake.turn says so: write_message, read_message_untrusted, verify_peer ...
    sending, receiving = handshake.split()
    sealer, opener = RecordSealer(sending), RecordOpener(receiving, peer)

How handshake messages are framed, deadlines, and who is accepted are the caller's. Start reading in `handshake.py`,
then `records.py`; `protocol.py` is the table of patterns.
"""

from .cipher import CipherState
from .errors import (
    NoiseError,
    NoiseHandshakeFailed,
    NonceExhausted,
    RecordRefused,
    UnsupportedProtocol,
    UntrustedStaticKey,
)
from .handshake import HandshakeState, Turn
from .keys import PrivateKey, PublicKey
from .protocol import CIPHERS, HASHES, PATTERNS, NoiseProtocol
from .records import RecordOpener, RecordSealer

__all__ = [
    "PrivateKey",
    "PublicKey",
    "NoiseProtocol",
    "PATTERNS",
    "CIPHERS",
    "HASHES",
    "HandshakeState",
    "Turn",
    "CipherState",
    "RecordSealer",
    "RecordOpener",
    "NoiseError",
    "UnsupportedProtocol",
    "NoiseHandshakeFailed",
    "UntrustedStaticKey",
    "RecordRefused",
    "NonceExhausted",
]
