"""TLS channels joined in memory: what they accept, what they refuse and in which words, and what they carry."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from partywire.engine.channel.channel import encode_refusal
from partywire.engine.channel.credentials import (
    TlsPin,
    certificates_of,
    fingerprint_of,
    tls_context,
    tls_pin,
)
from partywire.engine.channel.errors import CredentialError
from partywire.engine.channel.tls import TlsChannel
from partywire.engine.errors import HandshakeRejected, LinkProtocolError, RejectCode
from partywire.engine.handshake import Role
from partywire.engine.handshake_messages import MessageReader, MessageType
from tests.support.certificates import Issued, issue, tls_link
from tests.support.channels import carry, drained, open_all, shake

if TYPE_CHECKING:
    from partywire.engine.channel.channel import Channel
    from partywire.engine.channel.link_security import LinkSecurity


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Issued]:
    folder = tmp_path_factory.mktemp("certificates")
    ca, other_ca = issue("ca", is_ca=True), issue("ca", is_ca=True)
    made = {
        "ca": ca,
        "other_ca": other_ca,
        "alice": issue("alice", ca),
        "bob": issue("bob", ca),
        "bob_expired": issue("bob", ca, days=(-9, -1)),
        "bob_early": issue("bob", ca, days=(1, 9)),
        "bob_of_other_ca": issue("bob", other_ca),
        "bob_of_somebody": issue("bob", issue("somebody", is_ca=True)),
        "mallory": issue("mallory", ca),
        "alone": issue("bob"),
    }
    return {name: issued.write(folder, name) for name, issued in made.items()}


def dialler(security: LinkSecurity, peer: str = "alice") -> TlsChannel:
    return TlsChannel(tls_context(security, accepts=False), Role.INITIATOR, peer, tls_pin(security, peer))


def acceptor(security: LinkSecurity, peer: str = "bob") -> TlsChannel:
    return TlsChannel(tls_context(security, accepts=True), Role.RESPONDER, peer, tls_pin(security, peer))


def pair(files: dict[str, Issued], bob: str = "bob", **bob_trusts: Issued) -> tuple[TlsChannel, TlsChannel]:
    """Bob, who dials, and alice, who trusts the CA."""
    bob_link = tls_link(files[bob], **(bob_trusts or {"ca": files["ca"]}))
    return dialler(bob_link), acceptor(tls_link(files["alice"], ca=files["ca"]))


def refusal_inside(channel: Channel) -> HandshakeRejected:
    """The other end has refused inside the channel, or by an alert: what this one makes of it."""
    reader = MessageReader("peer")
    try:
        reader.receive_data(open_all(channel))
    except HandshakeRejected as error:
        return error
    message = reader.next_message_untrusted()
    assert message is not None
    assert message[0] is MessageType.REJECT
    return HandshakeRejected("peer", RejectCode(message[1][0]), message[1][1:].decode(), by_us=False)


def test_both_ends_prove_themselves_by_name_and_carry_bytes_both_ways(files: dict[str, Issued]) -> None:
    bob, alice = pair(files)
    assert (bob.result, alice.result) == (None, None)
    shake(bob, alice)
    assert alice.result == fingerprint_of(certificates_of(files["bob"].certificate_path)[0])
    assert bob.result == fingerprint_of(certificates_of(files["alice"].certificate_path)[0])
    large = bytes(range(256)) * 1000
    assert carry(bob, alice, [b"one", b"two", large, b"three"]) == b"onetwo" + large + b"three"
    assert carry(alice, bob, [b"back"]) == b"back"


def test_small_views_share_a_record_and_no_more_is_sealed_than_asked_for(files: dict[str, Issued]) -> None:
    bob, alice = pair(files)
    shake(bob, alice)
    sealed, size = bob.seal([b"x" * 10] * 100, 1 << 20)
    assert size == 1000
    assert len(sealed) < 1000 + 64  # one header and one tag
    alice.feed(sealed)
    sealed, size = bob.seal([bytes(7000), bytes(7000), bytes(100_000)], 50_000)
    assert size == 50_000
    alice.feed(sealed)
    assert len(open_all(alice)) == 51_000


def test_a_record_is_opened_in_parts_where_there_is_little_room(files: dict[str, Issued]) -> None:
    bob, alice = pair(files)
    shake(bob, alice)
    alice.feed(bob.seal([bytes(range(100))], 100)[0])
    room = bytearray(30)
    assert alice.open_into(memoryview(room)) == 30
    assert alice.has_more
    assert bytes(room) + open_all(alice) == bytes(range(100))
    assert not alice.has_more


def test_bytes_fed_one_at_a_time_are_opened(files: dict[str, Issued]) -> None:
    bob, alice = pair(files)
    shake(bob, alice, step=1)
    opened = b""
    for byte in bytes(bob.seal([b"slowly"], 6)[0]):
        alice.feed(bytes((byte,)))
        opened += open_all(alice)
    assert opened == b"slowly"


def test_either_end_ends_its_direction_alone_and_loses_nothing_on_the_way(files: dict[str, Issued]) -> None:
    bob, alice = pair(files)
    shake(bob, alice)
    bob.feed(alice.seal([b"sent before the end"], 100)[0])  # not opened when the end is sealed
    alice.feed(bob.seal_end())
    assert alice.open_into(memoryview(bytearray(9))) == 0
    alice.receive_end_of_file()
    assert open_all(bob) == b"sent before the end"
    bob.feed(alice.seal([b"and behind it"], 100)[0])
    assert open_all(bob) == b"and behind it"
    bob.feed(alice.seal_end())
    assert drained(bob) == (b"", True)
    assert bob.open_into(memoryview(bytearray(9))) == 0
    bob.receive_end_of_file()


def test_a_stream_that_is_cut_off_is_told_from_one_that_ended(files: dict[str, Issued]) -> None:
    bob, alice = pair(files)
    shake(bob, alice)
    sealed = bob.seal([b"half of this"], 100)[0]
    alice.feed(memoryview(sealed)[:10])
    assert alice.open_into(memoryview(bytearray(9))) is None
    with pytest.raises(LinkProtocolError, match="cut off"):
        alice.receive_end_of_file()


@pytest.mark.parametrize("position", [0, 3, 7, -1])
def test_a_changed_record_ends_the_channel(files: dict[str, Issued], position: int) -> None:
    bob, alice = pair(files)
    shake(bob, alice)
    sealed = bytearray(bob.seal([b"payload"], 100)[0])
    sealed[position] ^= 1
    with pytest.raises(LinkProtocolError, match="TLS record") as caught:  # noqa: PT012 - a length may ask for more
        alice.feed(sealed)
        alice.open_into(memoryview(bytearray(100)))
        alice.feed(bytes(20_000))
        alice.open_into(memoryview(bytearray(100)))
    assert "payload" not in str(caught.value)


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ("bob_expired", "has expired"),
        ("bob_early", "not valid yet"),
        ("bob_of_other_ca", "another one of the same name"),
        ("bob_of_somebody", "issuer that we do not know"),
        ("alone", "signed by itself"),
        ("mallory", "belongs to mallory"),
    ],
)
def test_the_acceptor_refuses_a_wrong_certificate_and_the_dialler_hears_of_it(
    files: dict[str, Issued], shown: str, words: str
) -> None:
    bob, alice = pair(files, shown)
    with pytest.raises(HandshakeRejected, match=words) as caught:
        shake(bob, alice)
    assert (caught.value.by_us, caught.value.code) == (True, RejectCode.CREDENTIALS)
    assert alice.result is None
    assert bob.result is not None  # it has finished, and sees the refusal in what it opens
    bob.feed(alice.data_to_send())
    heard = refusal_inside(bob)
    assert (heard.by_us, heard.code) == (False, RejectCode.CREDENTIALS)


@pytest.mark.parametrize(
    ("shown", "words"), [("bob_expired", "has expired"), ("bob_of_other_ca", "issuer"), ("mallory", "belongs to")]
)
def test_the_dialler_refuses_a_wrong_certificate_and_the_acceptor_hears_of_it(
    files: dict[str, Issued], shown: str, words: str
) -> None:
    """The other way round: "alice", who dials here, meets somebody who says to be bob."""
    alice = dialler(tls_link(files["alice"], ca=files["ca"]), "bob")
    bob = acceptor(tls_link(files[shown], ca=files["ca"]), "alice")
    with pytest.raises(HandshakeRejected, match=words) as caught:
        shake(alice, bob)
    assert caught.value.by_us
    last_words = alice.data_to_send()
    try:
        bob.receive_data(last_words)
    except HandshakeRejected as error:
        heard = error
    else:
        heard = refusal_inside(bob)
    assert (heard.by_us, heard.code) == (False, RejectCode.CREDENTIALS)


def test_a_dialler_without_a_certificate_is_refused(files: dict[str, Issued]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["partywire/1"])
    stranger = TlsChannel(context, Role.INITIATOR, "alice", TlsPin("", frozenset()))
    alice = acceptor(tls_link(files["alice"], ca=files["ca"]))
    with pytest.raises(HandshakeRejected, match="no certificate"):
        shake(stranger, alice)
    assert alice.result is None


def test_another_protocol_in_the_same_certificates_is_refused(files: dict[str, Issued]) -> None:
    security = tls_link(files["bob"], ca=files["ca"])
    context = tls_context(security, accepts=False)
    context.set_alpn_protocols(["h2"])
    stranger = TlsChannel(context, Role.INITIATOR, "alice", tls_pin(security, "alice"))
    with pytest.raises(HandshakeRejected, match="does not speak partywire"):
        shake(stranger, acceptor(tls_link(files["alice"], ca=files["ca"])))


def test_a_pinned_certificate_needs_no_issuer_and_no_other_one_will_do(files: dict[str, Issued]) -> None:
    alone, bob = tls_link(files["alone"], peer=files["alice"]), tls_link(files["bob"], peer=files["alice"])
    alice = tls_link(files["alice"], peer=files["alone"])
    good = dialler(alone), acceptor(alice)
    shake(*good)
    assert good[0].result is not None
    assert good[1].result is not None
    with pytest.raises(HandshakeRejected, match="certificate of bob"):
        shake(dialler(bob), acceptor(alice))


def test_a_fingerprint_decides_among_the_certificates_of_one_issuer(files: dict[str, Issued]) -> None:
    right = fingerprint_of(certificates_of(files["bob"].certificate_path)[0])
    alice = tls_link(files["alice"], ca=files["ca"])
    ends = dialler(tls_link(files["bob"], ca=files["ca"])), acceptor(replace(alice, fingerprint=right))
    shake(*ends)
    assert ends[1].result == right
    with pytest.raises(HandshakeRejected, match="another one"):
        shake(dialler(tls_link(files["bob"], ca=files["ca"])), acceptor(replace(alice, fingerprint="0" * 64)))


def test_two_certificates_in_a_file_are_both_good_while_one_replaces_the_other(
    files: dict[str, Issued], tmp_path: Path
) -> None:
    both = tmp_path / "bob.crt"
    both.write_bytes(b"".join(Path(files[name].certificate_path).read_bytes() for name in ("alone", "bob")))
    alice = replace(tls_link(files["alice"]), peer_certificate=str(both))
    for name in ("alone", "bob"):
        ends = dialler(tls_link(files[name], peer=files["alice"])), acceptor(alice)
        shake(*ends)
        assert ends[1].result is not None


def test_nothing_below_tls_1_3_is_spoken(files: dict[str, Issued]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    old = TlsChannel(context, Role.INITIATOR, "alice", tls_pin(tls_link(files["bob"], ca=files["ca"]), "alice"))
    with pytest.raises(LinkProtocolError, match="unsupported protocol"):
        shake(old, acceptor(tls_link(files["alice"], ca=files["ca"])))


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(200), b"\x16\x03\x01\xff\xff" + bytes(300)])
def test_garbage_in_the_place_of_a_handshake_is_a_protocol_error(files: dict[str, Issued], garbage: bytes) -> None:
    bob, alice = pair(files)
    with pytest.raises(LinkProtocolError):
        alice.receive_data(garbage)
    with pytest.raises(LinkProtocolError):
        bob.receive_data(garbage)


def test_garbage_after_the_first_messages_is_a_protocol_error(files: dict[str, Issued]) -> None:
    bob, alice = pair(files)
    alice.receive_data(bob.data_to_send())
    answer = bytearray(alice.data_to_send())
    answer[-20] ^= 1
    with pytest.raises(LinkProtocolError):
        bob.receive_data(answer)
    with pytest.raises(LinkProtocolError):
        alice.receive_data(bytes(100))


def test_end_of_file_in_the_handshake_is_a_protocol_error(files: dict[str, Issued]) -> None:
    with pytest.raises(LinkProtocolError, match="handshake of its secure channel"):
        pair(files)[0].receive_eof()


def test_an_acceptor_without_tls_tells_the_dialler_in_the_clear(files: dict[str, Issued]) -> None:
    bob, _ = pair(files)
    refusal = encode_refusal(RejectCode.SECURITY, "none here, tls there")
    bob.receive_data(refusal[:5])
    with pytest.raises(HandshakeRejected, match="none here, tls there") as caught:
        bob.receive_data(refusal[5:])
    assert caught.value.code is RejectCode.SECURITY


# Files.


def test_a_key_that_others_may_read_is_refused(files: dict[str, Issued], tmp_path: Path) -> None:
    open_key = tmp_path / "open.key"
    open_key.write_bytes(Path(files["bob"].key_path).read_bytes())
    open_key.chmod(0o640)
    with pytest.raises(CredentialError, match=r"mode 0640.*chmod 600"):
        tls_context(replace(tls_link(files["bob"], ca=files["ca"]), key=str(open_key)), accepts=False)
    open_key.chmod(0o400)
    tls_context(replace(tls_link(files["bob"], ca=files["ca"]), key=str(open_key)), accepts=False)


@pytest.mark.parametrize(
    ("field", "of", "words"),
    [
        ("key", "alice.key", "is not the private key of the certificate"),
        ("key", "missing.key", "no such file"),
        ("key", "ca.crt", "chmod 600"),
        ("certificate", "bob.key", "no certificate in PEM form"),
        ("ca", "missing.crt", "no such file"),
        ("ca", "bob.key", "no certificate in PEM form"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(
    files: dict[str, Issued], field: str, of: str, words: str
) -> None:
    folder = files["bob"].key_path.rpartition("/")[0]
    changed: Any = {field: f"{folder}/{of}"}
    security = replace(tls_link(files["bob"], ca=files["ca"]), **changed)
    with pytest.raises(CredentialError, match=words) as caught:
        tls_context(security, accepts=True)
    assert of in str(caught.value)
    assert "BEGIN" not in str(caught.value).replace("-----BEGIN CERTIFICATE-----", "")


def test_an_encrypted_key_is_refused_without_asking_on_the_terminal(files: dict[str, Issued], tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    locked = tmp_path / "locked.key"
    locked.touch(0o600)
    locked.write_bytes(
        files["bob"].key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(CredentialError, match="encrypted"):
        tls_context(replace(tls_link(files["bob"], ca=files["ca"]), key=str(locked)), accepts=False)
