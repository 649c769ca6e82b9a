"""Certificates of pools, right ones and wrong ones of every kind."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.certificates import DAY, Issued, issue

if TYPE_CHECKING:
    from pathlib import Path

CA_NAME = x509.Name(
    [
        x509.NameAttribute(NameOID.COUNTRY_NAME, "NL"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Org"),
        x509.NameAttribute(NameOID.COMMON_NAME, "ca1"),
    ]
)


def ca_of_an_organisation() -> Issued:
    """An issuer whose name does not begin with its common name."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(CA_NAME)
        .issuer_name(CA_NAME)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Issued(certificate, key)


def certificate(name: str, issuer: Issued, serial: int, days: tuple[int, int] = (-1, 2)) -> Issued:
    """Of a pool: no alternative names, as the certificates that such pools have."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now + days[0] * DAY)
        .not_valid_after(now + days[1] * DAY)
        .sign(issuer.key, hashes.SHA256())
    )
    return Issued(signed, key)


class Files:
    """Two issuers that are both believed, one that is not, and certificates of all kinds."""

    def __init__(self, folder: Path) -> None:
        ca1, ca2, ca3 = ca_of_an_organisation(), issue("ca2", is_ca=True), issue("ca3", is_ca=True)
        for name, ca in (("ca1", ca1), ("ca2", ca2), ("ca3", ca3)):
            ca.write(folder, name)
        both = folder / "both.pem"
        both.write_text("".join((folder / f"{name}.crt").read_text() for name in ("ca1", "ca2")))
        self.ca = str(both)
        self.alice = certificate("alice", ca1, 7).write(folder, "alice")
        self.bob = certificate("bob", ca1, 8).write(folder, "bob")
        self.same_serial = certificate("bob", ca2, 8).write(folder, "same")  # of another issuer
        self.same_names = certificate("bob", ca1, 8).write(folder, "again")  # issued twice
        self.unknown = certificate("bob", ca3, 8).write(folder, "unknown")
        self.expired = certificate("bob", ca1, 8, (-3, -1)).write(folder, "expired")

    def of(self, issued: Issued) -> tuple[str, str, str]:
        """key, cert and ca_cert of a pool."""
        return issued.key_path, issued.certificate_path, self.ca
