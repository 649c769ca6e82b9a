"""Who is who on secured pools: certificates that are right, and each way in which one can be wrong."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from partywire.engine.channel.credentials import ALPN, certificates_of
from partywire.engine.channel.errors import CredentialError
from partywire.engine.channel.link_security import LinkSecurity
from partywire.engine.errors import HandshakeRejected
from partywire.engine.handshake import Role
from partywire.engine.pairing.pool_tls import DESCRIPTION_SIZE_MAX, PoolTls, describe_untrusted
from partywire.engine.preamble import SecurityMode
from partywire.workers.pool.pairs import PairLinks
from tests.support.certificates import Issued, issue
from tests.support.pool_certificates import Files, certificate
from tests.support.pool_links import Ear, Rig, run
from tests.support.reserved_ports import reserved_ports


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("by_certificate", [True, False])
def test_pools_know_each_other_by_their_certificates_or_by_address_within_tls(
    files: Files, by_certificate: bool
) -> None:
    async def scenario(rig: Rig) -> None:
        alice, bob = rig.links(*files.of(files.alice)), rig.links(*files.of(files.bob))
        ports = alice.listen("127.0.0.1", 0), bob.listen("127.0.0.1", 0)
        if by_certificate:
            ears = [
                Ear(alice.add_peer("bob", "127.0.0.1", ports[1], files.bob.certificate_path)),
                Ear(bob.add_peer("alice", None, None, files.alice.certificate_path)),  # who is left to dial
            ]
        else:
            ears = [
                Ear(alice.add_peer("bob", "127.0.0.1", ports[1], None)),
                Ear(bob.add_peer("alice", "127.0.0.1", ports[0], None)),
            ]
        for ear in ears:
            await ear.opened()
        await ears[0].send(b"secret" * 100_000)
        assert await ears[1].next() == b"secret" * 100_000

    run(scenario)


@pytest.mark.parametrize(
    ("wrong", "at_alice", "at_bob"),
    [
        ("same_serial", ["another one", "CN=bob, issuer CN=ca2, serial 8"], ["refused us", "CN=ca2, serial 8"]),
        ("same_names", ["another one", "issuer CN=ca1,O=Org,C=NL, serial 8"], ["refused us", "another certificate"]),
        ("unknown", ["an issuer that we do not know"], ["refused us", "does not know the issuer", "CN=ca3, serial 8"]),
        ("expired", ["has expired"], ["refused us", "our certificate has expired", "CN=ca1,O=Org,C=NL, serial 8"]),
    ],
)
def test_a_wrong_certificate_is_refused_by_a_sentence_at_both_ends(
    files: Files, wrong: str, at_alice: list[str], at_bob: list[str]
) -> None:
    async def scenario(rig: Rig) -> None:
        alice, bob = rig.links(*files.of(files.alice)), rig.links(*files.of(getattr(files, wrong)))
        with reserved_ports(1) as (unused,):
            port = bob.listen("127.0.0.1", 0)
            our_port = alice.listen("127.0.0.1", 0)
            # Alice dials only, then bob does only: each end hears of both directions in its own words.
            ear = Ear(alice.add_peer("bob", "127.0.0.1", port, files.bob.certificate_path))
            waiting = Ear(bob.add_peer("nobody", "127.0.0.1", unused, None))
            assert re.search("certificate (shown for|of) bob", await ear.says(*at_alice))
            assert not ear.lives
            theirs = Ear(bob.add_peer("alice", "127.0.0.1", our_port, files.alice.certificate_path))
            await theirs.says(*at_bob)
            assert not theirs.lives
            assert not waiting.lives

    run(scenario)


def test_an_issuer_that_stands_behind_a_peers_certificate_is_not_the_peer(files: Files, tmp_path: Path) -> None:
    chain = tmp_path / "chain.pem"
    chain.write_text(
        "".join(Path(path).read_text() for path in (files.bob.certificate_path, files.alice.certificate_path))
    )

    async def scenario(rig: Rig) -> None:
        alice, impostor = rig.links(*files.of(files.alice)), rig.links(*files.of(files.alice))
        ear = Ear(alice.add_peer("bob", "127.0.0.1", impostor.listen("127.0.0.1", 0), chain))
        await ear.says("the certificate shown for bob is another one", "CN=alice")
        assert not ear.lives

    run(scenario)


def test_one_certificate_is_one_peer(files: Files, tmp_path: Path) -> None:
    copy = tmp_path / "copy.pem"
    copy.write_bytes(Path(files.bob.certificate_path).read_bytes())
    links = PairLinks(*files.of(files.alice))
    try:
        links.add_peer("bob", "127.0.0.1", 1, files.bob.certificate_path)
        with pytest.raises(ValueError, match="carl has the certificate of bob"):
            links.add_peer("carl", "127.0.0.1", 2, copy)
    finally:
        links.kill()


def test_a_pool_with_tls_and_one_without_say_what_is_missing(files: Files) -> None:
    async def scenario(rig: Rig) -> None:
        alice, bob = rig.links(*files.of(files.alice)), rig.links()
        ports = alice.listen("127.0.0.1", 0), bob.listen("127.0.0.1", 0)
        ears = [
            Ear(alice.add_peer("bob", "127.0.0.1", ports[1], None)),
            Ear(bob.add_peer("alice", "127.0.0.1", ports[0], None)),
        ]
        for ear in ears:
            await ear.says("give key, cert and ca_cert to both")

    run(scenario)


def test_who_shows_no_certificate_is_refused(files: Files) -> None:
    key, cert, ca = files.of(files.alice)
    tls = PoolTls(LinkSecurity(SecurityMode.TLS, certificate=cert, key=key, ca=ca))
    channel = tls.make(Role.RESPONDER, "who dialled us")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([ALPN])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    channel.receive_data(outgoing.read())
    incoming.write(channel.data_to_send())
    client.do_handshake()
    with pytest.raises(HandshakeRejected, match="who dialled us showed no certificate"):
        channel.receive_data(outgoing.read())


def test_files_that_cannot_be_used_are_refused_at_once(files: Files, tmp_path: Path) -> None:
    key, cert, ca = files.of(files.alice)
    with pytest.raises(CredentialError, match="no such file"):
        PairLinks(str(tmp_path / "none"), cert, ca)
    with pytest.raises(CredentialError, match="is not the private key"):
        PairLinks(files.bob.key_path, cert, ca)
    links = PairLinks(key, cert, ca)
    with pytest.raises(CredentialError, match="holds no certificate"):
        links.add_peer("bob", "127.0.0.1", 1, key)
    with pytest.raises(ValueError, match="needs a pool with key"):
        PairLinks().add_peer("bob", "127.0.0.1", 1, cert)


def test_a_certificate_is_described_in_bounded_size(files: Files) -> None:
    (bob,) = certificates_of(files.bob.certificate_path)
    assert describe_untrusted(bob).startswith("subject CN=bob, issuer CN=ca1,O=Org,C=NL, serial 8, SHA-")
    assert describe_untrusted(b"no certificate").startswith("SHA-256 ")
    long = certificate("x" * 64, Issued(issue("y" * 64, is_ca=True).certificate, files.bob.key), 2**158).certificate
    assert len(describe_untrusted(long.public_bytes(serialization.Encoding.DER))) <= DESCRIPTION_SIZE_MAX + 100
