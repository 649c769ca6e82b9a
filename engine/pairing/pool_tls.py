"""What secures the links of a pool: our certificate, the issuers of all, and for each peer perhaps its certificate.

Between the files that a user gave to the pool and the channels of its connections. The one invariant: with TLS every
connection of a pool passes a channel whose other end has shown a certificate that our issuers vouch for, and for a peer
that was given with a certificate it is exactly that one: the same serial number of another issuer, or of another key,
is another certificate.

Unlike a party's, a pool's certificate need not hold any name. Files are read again when they were replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..channel.credentials import TlsPin, certificates_of, fingerprint_of, stamp_of, tls_context
from ..channel.tls import TlsChannel
from ..frames import printable_untrusted
from ..handshake import Role

if TYPE_CHECKING:
    import ssl

    from ..channel.channel import Channel
    from ..channel.link_security import LinkSecurity

DESCRIPTION_SIZE_MAX: Final = 300
"""Characters of what is said of one certificate, whose issuer may have put anything into it."""


class PoolTls:
    """Makes the channels of one pool. A channel takes about a millisecond to make when files were replaced."""

    def __init__(self, security: LinkSecurity) -> None:
        self._security = security
        self._stamp: object = None  # of the files as they were read
        self._contexts: dict[Role, ssl.SSLContext] = {}

    def make(self, role: Role, peer: str, fingerprints: frozenset[str] = frozenset()) -> PoolChannel:
        """A fresh end for a connection with `peer`, whose certificate must have one of the fingerprints, if any.

        Raises:
            CredentialError: a file cannot be used.
        """
        if (stamp := stamp_of(self._security)) != self._stamp:
            self._contexts.clear()
            self._stamp = stamp
        if role not in self._contexts:
            self._contexts[role] = tls_context(self._security, accepts=role is Role.RESPONDER)
        return PoolChannel(self._contexts[role], role, peer, TlsPin("", fingerprints))

    def describe_ours(self) -> str:
        """Our own certificate, for an error.

        Raises:
            CredentialError: its file cannot be read.
        """
        return describe_untrusted(certificates_of(self._security.certificate)[0])


class PairTls:
    """The channels of one link, whose peer has shown its certificate before. In the place of a ChannelMaker."""

    def __init__(self, tls: PoolTls, peer: str, fingerprint: str) -> None:
        self._tls = tls
        self._peer = peer
        self._fingerprints = frozenset((fingerprint,))

    def make(self, role: Role, preamble: bytes) -> Channel:
        """As `ChannelMaker.make`."""
        return self._tls.make(role, self._peer, self._fingerprints)


class PoolChannel(TlsChannel):
    """As any channel of TLS; a refusal of a valid certificate says whose it is."""

    @property
    def certificate(self) -> bytes:
        """What the other end showed (DER), once the handshake is done."""
        return self._tls.getpeercert(binary_form=True) or b""

    def _refuse_inside(self, detail: str) -> None:
        super()._refuse_inside(f"{detail}: {describe_untrusted(self.certificate)}")


def fingerprint_of_file(path: str) -> str:
    """Of the certificate that a peer must show: the first of the file.

    Behind it may be those of its issuers, whose keys make nobody the peer.

    Raises:
        CredentialError: it cannot be read, or holds none.
    """
    return fingerprint_of(certificates_of(path)[0])


def describe_file(path: str) -> str:
    """The first certificate of a file, for an error.

    Raises:
        CredentialError: it cannot be read, or holds none.
    """
    return describe_untrusted(certificates_of(path)[0])


def describe_untrusted(certificate: bytes) -> str:
    """Subject, issuer, serial number and digest of a certificate (DER), in bounded size."""
    from cryptography import x509  # only here: nobody needs it as long as nothing is wrong

    digest = f"SHA-256 {fingerprint_of(certificate)[:16]}..."
    try:
        read = x509.load_der_x509_certificate(certificate)
        names = f"subject {read.subject.rfc4514_string()}, issuer {read.issuer.rfc4514_string()}"
        text = f"{names[:DESCRIPTION_SIZE_MAX]}, serial {read.serial_number}, {digest}"
    except ValueError:
        return digest
    return printable_untrusted(text.encode("utf-8", "replace"))
