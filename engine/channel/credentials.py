"""Reads the files that prove who we are and who a peer must be.

Between the files of `LinkSecurity` and the channels. The one invariant: a private key that others could have read is
refused, so is a file that others may write, and no error holds more of a file than its path.
"""

from __future__ import annotations

import base64
import grp
import hashlib
import os
import pwd
import ssl
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .errors import CredentialError

if TYPE_CHECKING:
    from ..noise import PrivateKey
    from .link_security import LinkSecurity

FILE_SIZE_MAX: Final = 1024 * 1024
"""Of a file with keys or certificates; the certificates of a whole public key infrastructure are smaller."""

ALPN: Final = "partywire/1"
"""Named by both ends of a TLS handshake, so that a connection made for another protocol is refused."""


def read_file(path: str, *, private: bool = False) -> bytes:
    """The content of a file that nobody else may write; of a private one only if nobody else could have read it.

    Raises:
        CredentialError: it cannot be read, is too large, or is open to others.
    """
    try:
        # Not blocking: a pipe in the place of the file would hold up all links of a process until somebody writes to it
        with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CredentialError(path, "is not a file")
            if private and status.st_mode & 0o077:
                mode = stat.S_IMODE(status.st_mode)
                raise CredentialError(
                    path, f"is a private key that other users may read or change (mode {mode:04o}): chmod 600 it"
                )
            if what := what_others_may_write(status):
                raise CredentialError(path, what)
            if status.st_size > FILE_SIZE_MAX:
                raise CredentialError(path, f"has {status.st_size} bytes, at most {FILE_SIZE_MAX} are read")
            return file.read(FILE_SIZE_MAX)
    except OSError as error:
        raise CredentialError(path, f"cannot be read: {(error.strerror or str(error)).lower()}") from error


def what_others_may_write(status: os.stat_result) -> str:
    """What is wrong with a file that says whom we believe, as the rest of "FILE ..."; empty if only we may write it.

    A group that nobody but us can be in, as some systems give to every user, is no other user.
    """
    others = status.st_mode & stat.S_IWOTH
    group = status.st_mode & stat.S_IWGRP and not _is_group_of_us_alone(status.st_gid)
    if not (others or group):
        return ""
    mode = stat.S_IMODE(status.st_mode)
    return f"says whom to believe, and other users may change it (mode {mode:04o}): chmod go-w it"


def _is_group_of_us_alone(gid: int) -> bool:
    try:
        us, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return gid == us.pw_gid and group.gr_name == us.pw_name and set(group.gr_mem) <= {us.pw_name}


def certificates_of(path: str) -> list[bytes]:
    """Every certificate (DER) of a PEM file, in order, at least one.

    Raises:
        CredentialError: it cannot be read, or holds none.
    """
    return _blocks_of(path, "CERTIFICATE", "certificate")


def revocations_of(path: str) -> list[bytes]:
    """Every list of revoked certificates (DER) of a PEM file, in order, at least one.

    Raises:
        CredentialError: it cannot be read, or holds none.
    """
    return _blocks_of(path, "X509 CRL", "list of revoked certificates")


def _blocks_of(path: str, kind: str, what: str) -> list[bytes]:
    """What stands (DER) between the first and the last line of each block of a kind in a PEM file."""
    parts = read_file(path).decode("ascii", "replace").split(f"-----BEGIN {kind}-----")[1:]
    bodies = [part.partition(f"-----END {kind}-----")[0] for part in parts]
    try:
        found = [base64.b64decode("".join(body.split()), validate=True) for body in bodies]
    except ValueError:
        found = []
    if not found:
        raise CredentialError(path, f"holds no {what} in PEM form (-----BEGIN {kind}-----)")
    return found


def fingerprint_of(certificate: bytes) -> str:
    """SHA-256 of a certificate (DER), in 64 hexadecimal digits."""
    return hashlib.sha256(certificate).hexdigest()


@dataclass(frozen=True, slots=True)
class TlsPin:
    """What the peer's certificate must be, beyond being vouched for and valid."""

    name: str
    """Must be among its DNS names; empty: whatever they are."""
    fingerprints: frozenset[str]
    """Must hold that of the certificate; empty: any."""


def tls_pin(security: LinkSecurity, peer: str) -> TlsPin:
    """What proves that a peer is `peer`: one certificate of a file, or its name from our issuers.

    Raises:
        CredentialError: the file of its certificate cannot be used.
    """
    fingerprints = {security.fingerprint} if security.fingerprint else set()
    if security.peer_certificate:
        listed = {fingerprint_of(certificate) for certificate in certificates_of(security.peer_certificate)}
        if fingerprints and not fingerprints <= listed:
            raise CredentialError(security.peer_certificate, "has another fingerprint than the configuration says")
        return TlsPin("", frozenset(fingerprints or listed))
    return TlsPin(peer, frozenset(fingerprints))


def tls_context(security: LinkSecurity, *, accepts: bool, alpn: str | None = ALPN) -> ssl.SSLContext:
    """TLS 1.3 alone, with certificates from both ends, without tickets, resumption or compression.

    `alpn` None: for a protocol that names itself nowhere.

    Raises:
        CredentialError: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if accepts else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the name is a party's, and is compared by the channel
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    if accepts:
        context.num_tickets = 0
    if alpn is not None:
        context.set_alpn_protocols([alpn])
    _trust(context, security)
    _prove(context, security)
    return context


def _trust(context: ssl.SSLContext, security: LinkSecurity) -> None:
    path = security.peer_certificate or security.ca
    if security.peer_certificate:
        # The peer's certificate itself is the anchor, whoever issued it; its dates still count.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=b"".join(certificates_of(path)))
    except ssl.SSLError as error:
        raise CredentialError(path, f"holds a certificate that cannot be used ({reason_of(error)})") from None
    if security.crl and not security.peer_certificate:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        _load_revocations(context, security.crl)


def _load_revocations(context: ssl.SSLContext, path: str) -> None:
    """From memory: in the file itself OpenSSL would take certificates for issuers whom we believe."""
    lists = [base64.encodebytes(one) for one in revocations_of(path)]
    with open(os.memfd_create("crl"), "wb", buffering=0) as file:
        file.write(b"".join(b"-----BEGIN X509 CRL-----\n%s-----END X509 CRL-----\n" % one for one in lists))
        try:
            context.load_verify_locations(cafile=f"/proc/self/fd/{file.fileno()}")
        except (ssl.SSLError, OSError):
            raise CredentialError(path, "holds a list of revoked certificates that cannot be used") from None


def _prove(context: ssl.SSLContext, security: LinkSecurity) -> None:
    certificates_of(security.certificate)
    read_file(security.key, private=True)
    try:
        context.load_cert_chain(security.certificate, security.key, password=_no_password)
    except _EncryptedKey:
        what = "is encrypted: store it without a pass phrase, readable by you alone"
        raise CredentialError(security.key, what) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            what = f"is not the private key of the certificate {security.certificate}"
        else:
            what = f"and {security.certificate} cannot be used as key and certificate ({reason_of(error)})"
        raise CredentialError(security.key, what) from None


class _EncryptedKey(Exception):
    pass


def _no_password() -> str:
    """OpenSSL would ask on the terminal."""
    raise _EncryptedKey


def reason_of(error: ssl.SSLError) -> str:
    """OpenSSL's word for an error, without its file and line."""
    return (error.reason or "unknown reason").replace("_", " ").lower()


def files_of(security: LinkSecurity) -> tuple[str, ...]:
    """The files whose content decides about a link."""
    paths = (
        security.certificate,
        security.key,
        security.ca,
        security.crl,
        security.peer_certificate,
        security.noise_key,
    )
    return tuple(path for path in paths if path)


def stamp_of(security: LinkSecurity) -> tuple[tuple[int, ...], ...]:
    """Changes when a file of a link is replaced, also by one that is as old; one that cannot be looked at is ()."""
    return tuple(_stamp(path) for path in files_of(security))


def _stamp(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def noise_private_key(path: str) -> PrivateKey:
    """Our static key of Noise: a file with 64 hexadecimal digits that nobody else could have read.

    Raises:
        CredentialError: it cannot be read or used.
    """
    from ..noise import PrivateKey

    text = read_file(path, private=True)
    try:
        return PrivateKey.from_bytes(bytes.fromhex(text.decode("ascii")))
    except ValueError:  # says nothing of what it was given
        raise CredentialError(path, "does not hold a private key of Noise: 64 hexadecimal digits") from None
