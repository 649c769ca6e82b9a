"""What can go wrong in the Noise core, as types with fields; `__str__` makes the sentence.

    PartyWireError
    └── NoiseError                   root of the errors below
        ├── UnsupportedProtocol      a protocol name that we do not speak
        ├── NoiseHandshakeFailed     a handshake message that was refused, at either place of it
        ├── UntrustedStaticKey       the peer's static key is none of those that the caller accepts
        ├── RecordRefused            a transport record that was changed, replayed, reordered or cut off
        └── NonceExhausted           a key has sealed as many records as it may

Functions that read a peer's bytes raise these only. A call that the state does not allow, the first one after an error
included, is a LocalProtocolError; an argument that no caller may pass is a ValueError. Fields hold names, sizes,
positions and public keys, never payload, secrets or nonces. All of these survive pickling: `args` are the fields.
"""

from __future__ import annotations

from ..errors import PartyWireError

__all__ = [
    "NoiseError",
    "UnsupportedProtocol",
    "NoiseHandshakeFailed",
    "UntrustedStaticKey",
    "RecordRefused",
    "NonceExhausted",
]


class NoiseError(PartyWireError):
    """Root of the errors of the Noise core."""


class UnsupportedProtocol(NoiseError):
    """Raised when a protocol name is not of the form that Noise defines, or names a part that we do not speak."""

    def __init__(self, name: str, part: str, allowed: str) -> None:
        super().__init__(name, part, allowed)
        self.name = name
        self.part = part
        self.allowed = allowed

    def __str__(self) -> str:
        return f"Noise protocol {self.name!r}: the {self.part} must be {self.allowed}. Correct the name"


class NoiseHandshakeFailed(NoiseError):
    """Raised when a handshake message of the peer is refused. `message` counts the handshake's messages from 1."""

    def __init__(self, peer: str, protocol: str, message: int, what: str) -> None:
        super().__init__(peer, protocol, message, what)
        self.peer = peer
        self.protocol = protocol
        self.message = message
        self.what = what

    def __str__(self) -> str:
        return (
            f"{self.peer or 'a stranger'} failed in message {self.message} of the handshake {self.protocol}: "
            f"{self.what}. The connection is closed; check that both parties use the same security settings and keys"
        )


class UntrustedStaticKey(NoiseError):
    """Raised when the static key of the peer is none of the accepted ones. `seen` is its public key in hexadecimal."""

    def __init__(self, peer: str, seen: str) -> None:
        super().__init__(peer, seen)
        self.peer = peer
        self.seen = seen

    def __str__(self) -> str:
        return (
            f"{self.peer or 'a stranger'} shows the public key {self.seen}, which is not the one on file. "
            "The connection is closed; if the key was changed on purpose, put the new one into the configuration"
        )


class RecordRefused(NoiseError):
    """Raised when a transport record is not the one that the peer sealed for this place. `position` counts from 0."""

    def __init__(self, peer: str, position: int, what: str) -> None:
        super().__init__(peer, position, what)
        self.peer = peer
        self.position = position
        self.what = what

    def __str__(self) -> str:
        return (
            f"record {self.position} from {self.peer or 'a stranger'} was refused: {self.what}. "
            "Nothing behind it is delivered and the connection is closed; something on the way changes its bytes"
        )


class NonceExhausted(NoiseError):
    """Raised instead of using a nonce twice: all 2**64 - 1 of a connection are spent."""

    def __init__(self, peer: str) -> None:
        super().__init__(peer)
        self.peer = peer

    def __str__(self) -> str:
        return f"the connection with {self.peer or 'a stranger'} has used up its nonces. Open a new connection"
