"""Makes what proves a party: a certificate authority and certificates for TLS, or keys for Noise.

Between the person who sets up a computation and the files that [security] names. The one invariant: a private key is
written to a new file that nobody else can read, and into nothing else.

Certificates have keys of the curve P-256. The name of a party stands in the subjectAltName, as a DNS name, where peers
look for it; each certificate is good for both ends of a connection, because names decide who dials.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from partywire.engine.channel.credentials import certificates_of, read_file, revocations_of
from partywire.engine.channel.errors import CredentialError
from partywire.engine.noise import PrivateKey

from .exit_code import UsageMistake
from .security import CIPHERS, PATTERNS, PeerSecurity, SecurityConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

CA_NAME: Final = "PartyWire CA"
CA_DAYS: Final = 3_650
"""Of an authority: longer than the certificates that it signs, which are renewed under it."""

CLOCK_SKEW: Final = datetime.timedelta(hours=1)
"""A certificate is valid from a little before it was made, for hosts whose clock is behind."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs certificates. Whoever has its key can be any party."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewFile:
    """One file to be written."""

    content: bytes = field(repr=False)
    is_private: bool = False


def make_authority(days: int = CA_DAYS, key: ec.EllipticCurvePrivateKey | None = None) -> Authority:
    """A new authority, with a new key unless one is given."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CA_NAME)])
    usage = _usage(digital_signature=False, key_cert_sign=True)
    builder = (
        _builder(name, name, key, key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


def load_authority(folder: Path) -> Authority:
    """The authority whose `ca.crt` and `ca.key` are in a folder.

    Raises:
        UsageMistake: they cannot be read, or do not belong together.
    """
    try:
        certificate = x509.load_der_x509_certificate(certificates_of(str(folder / "ca.crt"))[0])
        key = serialization.load_pem_private_key(read_file(str(folder / "ca.key"), private=True), None)
    except CredentialError as error:
        raise UsageMistake(str(error)) from error
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageMistake(f"{folder} does not hold a certificate authority: ca.crt and ca.key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise UsageMistake(f"{folder}/ca.key is not the key of {folder}/ca.crt, as keygen makes them")
    return Authority(certificate, key)


def issue(authority: Authority, name: str, days: int, hosts: Sequence[str] = ()) -> tuple[bytes, bytes]:
    """A certificate for a party and its private key, both PEM. It names the hosts as well, by address or by name."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        _builder(subject, authority.certificate.subject, key, authority.key, days)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name), *map(_host_name, hosts)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True, key_cert_sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    )
    certificate = builder.sign(authority.key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key)


def revoke(authority: Authority, paths: Iterable[Path], days: int, old: Path) -> bytes:
    """The authority's list of revoked certificates (PEM): those of these files, and of the list `old` if it is there.

    Raises:
        UsageMistake: a file cannot be read, or is not of this authority.
    """
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now - CLOCK_SKEW)
        .next_update(now + datetime.timedelta(days=days))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)  # greater in each later list
    )
    dates = {entry.serial_number: entry.revocation_date_utc for entry in _revoked_before(authority, old)}
    for path in paths:
        dates.setdefault(_issued_by(authority, path).serial_number, now)
    for number, date in dates.items():
        entry = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(date)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def revocations_until(path: str) -> datetime.datetime | None:
    """When the first of the lists of a file has to be replaced by its next one; None if they are good for ever.

    Raises:
        CredentialError: the file cannot be used.
    """
    lists = _lists_of(path)
    return min((one.next_update_utc for one in lists if one.next_update_utc is not None), default=None)


def is_revoked(certificate_path: str, list_path: str) -> bool:
    """Whether a list that its own issuer made names the certificate of a file.

    Raises:
        CredentialError: a file cannot be used.
    """
    try:
        certificate = x509.load_der_x509_certificate(certificates_of(certificate_path)[0])
    except ValueError as error:
        raise CredentialError(certificate_path, f"holds no certificate that can be read ({error})") from None
    return any(
        one.issuer == certificate.issuer
        and one.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
        for one in _lists_of(list_path)
    )


def _lists_of(path: str) -> list[x509.CertificateRevocationList]:
    try:
        return [x509.load_der_x509_crl(one) for one in revocations_of(path)]
    except ValueError as error:
        raise CredentialError(path, f"holds a list of revoked certificates that cannot be read ({error})") from None


def _revoked_before(authority: Authority, path: Path) -> Iterable[x509.RevokedCertificate]:
    if not path.exists():
        return
    try:
        lists = _lists_of(str(path))
    except CredentialError as error:
        raise UsageMistake(str(error)) from error
    for one in lists:
        if not one.is_signature_valid(authority.key.public_key()):
            raise UsageMistake(f"{path} is a list of another authority; move it away, or give the right --ca")
        yield from one


def _issued_by(authority: Authority, path: Path) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(certificates_of(str(path))[0])
        certificate.verify_directly_issued_by(authority.certificate)
    except CredentialError as error:
        raise UsageMistake(str(error)) from error
    except (ValueError, TypeError, InvalidSignature):
        raise UsageMistake(f"{path} is no certificate of this authority, which cannot revoke it") from None
    return certificate


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    days: int,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


def _usage(*, digital_signature: bool, key_cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


# The files of all parties.


def tls_files(
    names: Iterable[str], days: int, authority: Authority | None = None, hosts: Sequence[str] = ()
) -> dict[str, NewFile]:
    """Certificates and keys by file name; with those of a new authority, unless one is given. `hosts` of one party."""
    files: dict[str, NewFile] = {}
    if authority is None:
        authority = make_authority(max(days, CA_DAYS))
        files["ca.key"] = NewFile(_key_pem(authority.key), is_private=True)
    files["ca.crt"] = NewFile(authority.certificate.public_bytes(serialization.Encoding.PEM))
    for name in names:
        certificate, key = issue(authority, name, days, hosts)
        files[f"{name}.crt"] = NewFile(certificate)
        files[f"{name}.key"] = NewFile(key, is_private=True)
    return files


def tls_security(name: str, prefix: str = "") -> SecurityConfig:
    """[security] of a party whose files are called as `tls_files` calls them, behind `prefix`."""
    return SecurityConfig(
        mode="tls", certificate=f"{prefix}{name}.crt", key=f"{prefix}{name}.key", ca=f"{prefix}ca.crt"
    )


def noise_files(names: Iterable[str]) -> tuple[dict[str, NewFile], dict[str, str]]:
    """Private keys by file name, and public keys by party."""
    keys = {name: PrivateKey.generate() for name in names}
    files = {
        f"{name}.noise": NewFile(f"{key.secret_bytes().hex()}\n".encode(), is_private=True)
        for name, key in keys.items()
    }
    return files, {name: str(key.public) for name, key in keys.items()}


def noise_security(name: str, public: Mapping[str, str], pattern: str, cipher: str, prefix: str = "") -> SecurityConfig:
    """[security] of a party whose file is called as `noise_files` calls it, behind `prefix`."""
    peers = {peer: PeerSecurity(public_key=key) for peer, key in public.items() if peer != name}
    return SecurityConfig(mode="noise", noise_key=f"{prefix}{name}.noise", pattern=pattern, cipher=cipher, peers=peers)


def new_keys(
    names: Iterable[str], security: str, days: int, prefix: str = ""
) -> tuple[dict[str, NewFile], dict[str, SecurityConfig]]:
    """The files of all parties for the mode "tls" or "noise", and for each party the table that names its own."""
    names = list(names)
    if security == "noise":
        files, public = noise_files(names)
        return files, {name: noise_security(name, public, PATTERNS[0], CIPHERS[0], prefix) for name in names}
    return tls_files(names, days), {name: tls_security(name, prefix) for name in names}


def write_files(folder: Path, files: Mapping[str, NewFile]) -> None:
    """Write new files, all or none, private ones readable by nobody else.

    Raises:
        UsageMistake: one exists, or cannot be written.
    """
    for name in files:
        if (folder / name).exists():
            raise UsageMistake(
                f"{folder / name} exists already and was not changed; choose another --out, or move it away"
            )
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, file in files.items():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with open(os.open(folder / name, flags, 0o600 if file.is_private else 0o644), "wb") as opened:
                written.append(folder / name)
                opened.write(file.content)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise UsageMistake(f"{error.filename or folder} cannot be written: {error.strerror}") from error
