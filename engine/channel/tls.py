"""TLS 1.3 as a channel: OpenSSL between two memory buffers, certificates from both ends, each pinned.

Between the owner of a connection's bytes and the `ssl` module. The dialler is the TLS client. The one invariant:
`result` is there only after OpenSSL has found the peer's certificate valid and vouched for, and this module has found
it to be the one, or to carry the name, that the configuration names.

The acceptor sees the dialler's certificate after the dialler has finished, so a refusal of it arrives there in the
first `open_into`. A certificate that is valid and not the peer's is refused inside the channel, with a sentence; for
everything else there is the alert of TLS, which has a word only.

What is sealed is encrypted into OpenSSL's buffer, which is taken out as one object: two copies more than plaintext.
What is opened is copied into OpenSSL's buffer and decrypted straight to where it belongs.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, ClassVar, Final, cast

from ..errors import HandshakeRejected, LinkProtocolError, RejectCode
from ..frames import printable_untrusted
from ..handshake import Role
from ..limits import NAME_SIZE_MAX
from .channel import CUT_OFF, END_OF_FILE, Buffer, Channel, ClearRefusal, encode_refusal
from .credentials import ALPN, TlsPin, fingerprint_of, reason_of

if TYPE_CHECKING:
    from collections.abc import Sequence

RECORD_SIZE_MAX: Final = 16 * 1024
"""Plaintext of one record: the limit of TLS."""

NAMES_SHOWN_MAX: Final = 4
"""Of a certificate that is not the peer's: enough to see whose it is. It may have thousands."""

ANSWERS_SIZE_MAX: Final = 4 * 1024
"""What OpenSSL may have written of its own accord and nothing that was sealed took along: its answers to a peer that
takes new keys, 27 bytes each. An honest peer does that once in hundreds of gigabytes."""

EMPTY_SIZE_MAX: Final = 64 * 1024
"""Ciphertext in a row that held nothing for us. The bytes of a record, of up to 16 KiB, come with the last of its
ciphertext; there is no other honest reason for much. TLS lets a peer send tickets and new keys without end, and each of
them costs us a derivation of keys."""

_VERIFY: Final = {
    3: "is from an issuer of which our lists of revoked certificates (crl) say nothing",
    7: "was not signed by the issuer that we know, but by another one of the same name",
    8: "cannot be checked: our list of revoked certificates (crl) was not signed by its issuer",
    9: "is not valid yet; check the clocks of both hosts",
    10: "has expired",
    11: "cannot be checked: our list of revoked certificates (crl) is not valid yet; check the clock",
    12: "cannot be checked: our list of revoked certificates (crl) has expired; get the next one from its issuer",
    18: "is signed by itself and is not the one that we know",
    19: "is from an issuer that we do not know",
    20: "is from an issuer that we do not know",
    21: "is from an issuer that we do not know",
    23: "was revoked by its issuer",
    26: "is not meant for this use; it needs both server and client authentication",
}
"""Verification errors of OpenSSL (X509_V_ERR_...) as the rest of "the certificate of ... "."""

_ALERTS: Final = {
    "UNKNOWN_CA": "does not know the issuer of our certificate, or knows another certificate of us",
    "CERTIFICATE_EXPIRED": "says that our certificate has expired",
    "CERTIFICATE_UNKNOWN": "does not accept our certificate",
    "CERTIFICATE_REVOKED": "says that our certificate was revoked",
    "CERTIFICATE_REQUIRED": "wants a certificate of us and saw none",
    "BAD_CERTIFICATE": "does not accept our certificate; is it valid already, do the clocks of both hosts agree?",
    "UNSUPPORTED_CERTIFICATE": "says that our certificate is not meant for this use",
    "ACCESS_DENIED": "does not accept our certificate",
    "DECRYPT_ERROR": "found a wrong signature in our handshake",
}
"""Alerts that speak of our certificate, by the end of OpenSSL's name for them, as the rest of "the peer ..."."""


def _listed(names: list[str]) -> str:
    """The names of a certificate, which its issuer may have taken as they came, in a sentence of bounded size."""
    shown = [printable_untrusted(name[:NAME_SIZE_MAX].encode("utf-8", "replace")) for name in names[:NAMES_SHOWN_MAX]]
    more = len(names) - len(shown)
    return (", ".join(shown) or "nobody") + (f" and {more} more" if more else "")


class TlsChannel(Channel):
    """Either end of one connection's TLS."""

    _alpn: ClassVar[str | None] = ALPN  # what the peer's end must have agreed to speak

    def __init__(
        self, context: ssl.SSLContext, role: Role, peer: str, pin: TlsPin, server_name: str | None = None
    ) -> None:
        """`context` is of `credentials.tls_context` for this role, `pin` says which certificate is the peer's.

        `server_name` is what a dialler tells in the clear whom it wants (SNI), for who answers under several names.
        """
        super().__init__(role, peer)
        self._pin = pin
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        is_server = role is Role.RESPONDER
        self._tls = context.wrap_bio(self._incoming, self._outgoing, is_server, server_name)
        self._proof: str | None = None
        self._refusal = ClearRefusal(peer) if role is Role.INITIATOR else None
        self._empty_size = 0  # ciphertext that was fed since something was opened
        self._opened = bytearray()  # what had to be opened before our end could be sealed
        self._is_ended = False  # whether the peer's end was opened
        self._is_answered = role is Role.RESPONDER  # whether the peer is known to have accepted our proof
        self._has_more = False
        if role is Role.INITIATOR:
            self._shake()

    # The handshake.

    @property
    def result(self) -> str | None:
        return self._proof

    def data_to_send(self) -> bytes:
        return self._outgoing.read()

    def receive_data(self, data: Buffer) -> None:
        if self._refusal is not None:
            if self._refusal.look_at(data):
                return
            self._refusal = None
        self._incoming.write(data)
        self._shake()

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLCertVerificationError as error:
            what = _VERIFY.get(error.verify_code, f"cannot be accepted ({error.verify_message})")
            self._refuse(RejectCode.CREDENTIALS, f"the certificate of {self._peer} {what}")
        except ssl.SSLError as error:
            if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
                self._refuse(RejectCode.CREDENTIALS, f"{self._peer} showed no certificate")
            self._raise_alert(error)
            raise LinkProtocolError(self._peer, "bytes that are no TLS handshake of ours", reason_of(error)) from None
        self._check_identity()

    def _check_identity(self) -> None:
        certificate = self._tls.getpeercert(binary_form=True)
        if certificate is None:
            self._refuse_inside(f"{self._peer} showed no certificate")
        elif self._tls.selected_alpn_protocol() != self._alpn:
            self._refuse_inside(f"the other end of the TLS connection does not speak {self._alpn}")
        elif self._pin.fingerprints and fingerprint_of(certificate) not in self._pin.fingerprints:
            seen = fingerprint_of(certificate)
            self._refuse_inside(f"the certificate shown for {self._peer} is another one (SHA-256 {seen[:16]}...)")
        elif self._pin.name and self._pin.name not in (names := self._peer_names()):
            self._refuse_inside(f"the certificate shown for {self._peer} belongs to {_listed(names)}")
        else:
            self._proof = fingerprint_of(certificate)
            self._has_more = self._has_pending

    def _peer_names(self) -> list[str]:
        try:
            described = self._tls.getpeercert() or {}
        except (ValueError, ssl.SSLError):
            return []  # some name in it is no text, and then `ssl` tells none of them
        alternatives = described.get("subjectAltName", ())
        return [str(entry[1]) for entry in alternatives if isinstance(entry, tuple) and entry[0] == "DNS"]

    def _refuse_inside(self, detail: str) -> None:
        """The peer, whose certificate is good but not the one we wait for, may know why."""
        self._tls.write(encode_refusal(RejectCode.CREDENTIALS, detail))
        self._refuse(RejectCode.CREDENTIALS, detail)

    def _raise_alert(self, error: ssl.SSLError) -> None:
        """Raise what an alert of the peer means, if the error is one that speaks of our certificate."""
        reason = error.reason or ""
        if "ALERT" in reason:
            for name, what in _ALERTS.items():
                if reason.endswith(name):
                    raise HandshakeRejected(self._peer, RejectCode.CREDENTIALS, f"it {what}", by_us=False) from None

    # Sealing.

    def seal(self, views: Sequence[Buffer], size_max: int) -> tuple[Buffer, int]:
        """One record for each 16 KiB; views that are smaller share records."""
        sealed = 0
        small: list[Buffer] = []
        small_size = 0
        for view in views:
            size = min(len(view), size_max - sealed - small_size)
            piece = view if size == len(view) else memoryview(view)[:size]
            if size < RECORD_SIZE_MAX:
                small.append(piece)
                small_size += size
            else:
                sealed += self._write_all(small, small_size) + self._write(piece)
                small, small_size = [], 0
            if sealed + small_size >= size_max:
                break
        sealed += self._write_all(small, small_size)
        return self._outgoing.read(), sealed

    def _write_all(self, pieces: list[Buffer], size: int) -> int:
        if pieces:
            self._write(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        return size

    def _write(self, data: Buffer) -> int:
        size = len(data)
        written = self._tls.write(data)  # one record; the buffer below it has no end, so nothing is ever refused
        while written < size:
            written += self._tls.write(memoryview(data)[written:])
        return size

    def seal_end(self) -> bytes:
        # OpenSSL would throw away what it opens while it seals the end.
        if self.has_more:
            self._open_all()
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # the peer's own end has not come yet, or the channel is broken and its owner knows
        return self._outgoing.read()

    def _open_all(self) -> None:
        piece = memoryview(bytearray(RECORD_SIZE_MAX))
        try:
            while count := self._open_record(piece):
                self._opened += piece[:count]
        except LinkProtocolError:
            pass  # found again by whoever opens what comes after
        self._has_more = bool(self._opened)

    # Opening.

    @property
    def has_more(self) -> bool:
        return self._has_more

    @property
    def _has_pending(self) -> bool:
        return bool(self._incoming.pending or self._tls.pending())

    def feed(self, ciphertext: Buffer) -> None:
        if (size := self._outgoing.pending) > ANSWERS_SIZE_MAX:
            what = "answers to new keys of TLS that nothing else was sent with, bytes"
            raise LinkProtocolError(self._peer, what, size, ANSWERS_SIZE_MAX)
        if self._empty_size > EMPTY_SIZE_MAX:
            what = "records of TLS that hold nothing, bytes"
            raise LinkProtocolError(self._peer, what, self._empty_size, EMPTY_SIZE_MAX)
        self._empty_size += len(ciphertext)
        self._incoming.write(ciphertext)
        self._has_more = True

    def open_into(self, view: memoryview) -> int | None:
        """One call of OpenSSL for each record."""
        opened = 0
        size = len(view)
        if self._opened:
            opened = min(size, len(self._opened))
            view[:opened] = self._opened[:opened]
            del self._opened[:opened]
        while opened < size:
            count = self._open_record(view[opened:] if opened else view)
            if not count:
                self._has_more = False
                return opened or count
            opened += count
            if not self._has_pending:
                break  # without asking OpenSSL in vain, which would cost an exception
        self._has_more = bool(self._opened) or self._has_pending
        return opened

    def _open_record(self, view: memoryview) -> int | None:
        if self._is_ended:
            return 0
        try:
            count = cast("int", self._tls.read(len(view), view))
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            count = 0
        except ssl.SSLError as error:
            self._has_more = False
            if not self._is_answered:
                self._raise_alert(error)
            raise LinkProtocolError(self._peer, "a TLS record was refused", reason_of(error)) from None
        self._is_answered = True
        self._is_ended = count == 0
        self._empty_size = 0
        return count

    def receive_end_of_file(self) -> None:
        if not self._is_ended:
            raise LinkProtocolError(self._peer, CUT_OFF, END_OF_FILE)
