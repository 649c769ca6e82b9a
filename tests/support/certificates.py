"""Certificates for tests, made on the fly: P-256 keys, any dates, names and issuers."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID, NameOID

from partywire.engine.channel.link_security import LinkSecurity
from partywire.engine.noise import PrivateKey
from partywire.engine.preamble import SecurityMode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DAY = datetime.timedelta(days=1)

CA_USAGE = x509.KeyUsage(
    digital_signature=False, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
    data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
)  # fmt: skip


@dataclass(slots=True)
class Issued:
    """A certificate and its key, and the paths of both once they are written."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    certificate_path: str = ""
    key_path: str = ""

    def write(self, folder: Path, name: str) -> Issued:
        folder.mkdir(exist_ok=True)
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        certificate.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        certificate.chmod(0o644)  # whatever the umask is
        key.touch(0o600)
        key.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self.certificate_path, self.key_path = str(certificate), str(key)
        return self


def issue(
    name: str,
    issuer: Issued | None = None,
    *,
    days: tuple[int, int] = (-1, 2),
    is_ca: bool = False,
    names: Sequence[str] = (),
    raw_names: bytes = b"",
    to_the_letter: bool = False,
) -> Issued:
    """A certificate for `name`, or for `names`, valid between two days from now; of itself without `issuer`.

    `raw_names` stands in it in their place, whatever it is. `to_the_letter` of RFC 5280 are those that clients ask for
    by default from Python 3.13 on.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    signing_key = issuer.key if issuer else key
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * DAY)
        .not_valid_after(now + days[1] * DAY)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if not is_ca:
        builder = builder.add_extension(_alternatives(names or (name,), raw_names), critical=False)
    if to_the_letter:
        ours = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        theirs = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key())
        builder = builder.add_extension(ours, critical=False).add_extension(theirs, critical=False)
        if is_ca:
            builder = builder.add_extension(CA_USAGE, critical=True)
    return Issued(builder.sign(signing_key, hashes.SHA256()), key)


def _alternatives(names: Sequence[str], raw: bytes) -> x509.SubjectAlternativeName | x509.UnrecognizedExtension:
    if raw:
        return x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, raw)
    return x509.SubjectAlternativeName([x509.DNSName(name) for name in names])


def revocations(
    issuer: Issued, *revoked: Issued, days: tuple[int, int] = (-1, 2), signer: Issued | None = None
) -> bytes:
    """The issuer's list of certificates that are good no more (PEM), signed by its key, or by that of `signer`."""
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now + days[0] * DAY)
        .next_update(now + days[1] * DAY)
    )
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number).revocation_date(now - DAY)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign((signer or issuer).key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def tls_link(ours: Issued, *, ca: Issued | None = None, peer: Issued | None = None) -> LinkSecurity:
    """What a link needs of written files: our own, and whom to believe."""
    return LinkSecurity(
        mode=SecurityMode.TLS,
        certificate=ours.certificate_path,
        key=ours.key_path,
        ca=ca.certificate_path if ca else "",
        peer_certificate=peer.certificate_path if peer else "",
    )


def noise_links(folder: Path, mode: SecurityMode) -> tuple[LinkSecurity, LinkSecurity]:
    """Alice's and bob's ends of a link of Noise, with new keys in files."""
    keys = PrivateKey.generate(), PrivateKey.generate()
    links = []
    for index, name in enumerate(("alice", "bob")):
        path = folder / f"{name}.noise"
        path.touch(0o600)
        path.write_text(keys[index].secret_bytes().hex())
        links.append(LinkSecurity(mode=mode, noise_key=str(path), peer_key=str(keys[1 - index].public)))
    return links[0], links[1]
