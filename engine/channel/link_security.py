"""What protects one link, as the configuration says it and the processes of a party pass it on.

Between the configuration and the I/O processes and the gateway. The one invariant: nothing in here is secret: private
keys are named by the path of their file, and each process that needs one reads it itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..preamble import SecurityMode

NOISE_MODES: Final = {
    ("XX", "chacha20-poly1305"): SecurityMode.NOISE_XX_CHACHA,
    ("XX", "aes-256-gcm"): SecurityMode.NOISE_XX_AES,
    ("IX", "chacha20-poly1305"): SecurityMode.NOISE_IX_CHACHA,
    ("IX", "aes-256-gcm"): SecurityMode.NOISE_IX_AES,
    ("KK", "chacha20-poly1305"): SecurityMode.NOISE_KK_CHACHA,
    ("KK", "aes-256-gcm"): SecurityMode.NOISE_KK_AES,
}
"""(pattern, cipher) as the configuration spells them -> the mode that both ends of a link must have."""

PROVING_MODES: Final = frozenset({SecurityMode.TLS, SecurityMode.NOISE_XX_CHACHA, SecurityMode.NOISE_XX_AES})
"""Modes whose acceptor knows at the end of the handshake who dialled. In IX and KK it might be somebody who repeats an
old message, until the first record was opened."""

_NOISE_NAMES: Final = {mode: f"noise {pattern} {cipher}" for (pattern, cipher), mode in NOISE_MODES.items()}


def mode_text(mode: SecurityMode) -> str:
    """A mode in words, for messages."""
    if mode is SecurityMode.PLAINTEXT:
        return "none"
    return "tls" if mode is SecurityMode.TLS else _NOISE_NAMES[mode]


def refusal_of_mode(our_name: str, peer: str, ours: SecurityMode, theirs: SecurityMode) -> str | None:
    """Why a connection of that mode is refused, or None if it is the mode of the link."""
    if ours is theirs:
        return None
    return f"the link is secured by {mode_text(ours)!r} at {our_name} but by {mode_text(theirs)!r} at {peer}"


@dataclass(frozen=True, slots=True)
class LinkSecurity:
    """Mode and files of one link. Paths are absolute; what the mode does not use is empty."""

    mode: int = SecurityMode.PLAINTEXT
    """Number of a SecurityMode: the same at both ends of the link."""
    certificate: str = ""
    """Path of our certificate (PEM), with those of intermediate issuers behind it."""
    key: str = ""
    """Path of its private key (PEM)."""
    ca: str = ""
    """Path of the issuers (PEM) that we believe which name belongs to a certificate."""
    crl: str = ""
    """Path of lists of revoked certificates (PEM), one of whoever issues those of peers; not asked about a
    `peer_certificate`."""
    peer_certificate: str = ""
    """Path of the certificates (PEM) one of which the peer must have; then `ca` is not asked."""
    fingerprint: str = ""
    """SHA-256 of the certificate that the peer must have, in 64 hexadecimal digits."""
    noise_key: str = ""
    """Path of our static X25519 key, in 64 hexadecimal digits."""
    peer_key: str = ""
    """The peer's static public key, in 64 hexadecimal digits."""

    def __post_init__(self) -> None:
        if self.mode not in SecurityMode.__members__.values():
            raise ValueError(f"{self.mode} is not a security mode")

    @property
    def security_mode(self) -> SecurityMode:
        """The mode as what it is."""
        return SecurityMode(self.mode)


PLAINTEXT_LINK: Final = LinkSecurity()
"""A link whose connections have no channel."""


def security_of(security: tuple[LinkSecurity, ...], peer: int) -> LinkSecurity:
    """What protects the link to party number `peer`; a party whose configuration says nothing has plaintext links."""
    return security[peer] if security else PLAINTEXT_LINK
