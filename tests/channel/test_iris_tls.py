"""TLS of links that speak iris-mpc's protocol, joined in memory: what differs from that of our own links."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from partywire.engine.channel.channel import encode_refusal
from partywire.engine.channel.credentials import TlsPin, fingerprint_of, tls_context, tls_pin
from partywire.engine.channel.tls import TlsChannel
from partywire.engine.errors import HandshakeRejected, LinkProtocolError, RejectCode
from partywire.engine.handshake import Role
from partywire.engine.iris_tls import IrisTlsChannel
from tests.support.certificates import Issued, issue, tls_link
from tests.support.channels import carry, drained, open_all, shake

if TYPE_CHECKING:
    from collections.abc import Callable

    from partywire.engine.channel.link_security import LinkSecurity


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LinkSecurity]:
    folder = tmp_path_factory.mktemp("certificates")
    ca = issue("ca", is_ca=True).write(folder, "ca")
    made: dict[str, Issued] = {"alice": issue("alice", ca), "bob": issue("bob", ca, names=["bob.example"])}
    return {name: tls_link(issued.write(folder, name), ca=ca) for name, issued in made.items()}


def dialler(link: LinkSecurity, name: str = "alice") -> IrisTlsChannel:
    context = tls_context(link, accepts=False, alpn=None)
    return IrisTlsChannel(context, Role.INITIATOR, "alice", tls_pin(link, name), "alice.example")


def acceptor(link: LinkSecurity, name: str = "bob.example") -> IrisTlsChannel:
    return IrisTlsChannel(tls_context(link, accepts=True, alpn=None), Role.RESPONDER, "bob", tls_pin(link, name))


def test_both_ends_prove_themselves_by_the_name_that_is_expected_of_each(links: dict[str, LinkSecurity]) -> None:
    bob, alice = dialler(links["bob"]), acceptor(links["alice"])
    shake(bob, alice, 100)
    assert bob.result
    assert alice.result
    assert carry(bob, alice, [b"one", bytes(100_000)]) == b"one" + bytes(100_000)
    assert carry(alice, bob, [b"back"]) == b"back"


def test_an_end_of_file_without_the_end_of_tls_is_one_and_comes_behind_everything(
    links: dict[str, LinkSecurity],
) -> None:
    bob, alice = dialler(links["bob"]), acceptor(links["alice"])
    shake(bob, alice)
    alice.feed(bob.seal([b"last"], 100)[0])
    assert open_all(alice) == b"last"
    alice.receive_end_of_file()
    assert drained(alice) == (b"", True)


def test_our_own_end_is_that_of_tls(links: dict[str, LinkSecurity]) -> None:
    bob, alice = dialler(links["bob"]), acceptor(links["alice"])
    shake(bob, alice)
    alice.feed(bytes(bob.seal([b"last"], 100)[0]) + bob.seal_end())
    assert drained(alice) == (b"last", True)


@pytest.mark.parametrize(
    "pin",
    [TlsPin("bob", frozenset()), TlsPin("", frozenset({fingerprint_of(b"another")}))],
    ids=["another name", "another certificate"],
)
def test_a_refusal_is_not_a_word_of_ours(links: dict[str, LinkSecurity], pin: TlsPin) -> None:
    bob = dialler(links["bob"])
    alice = IrisTlsChannel(tls_context(links["alice"], accepts=True, alpn=None), Role.RESPONDER, "bob", pin)
    with pytest.raises(HandshakeRejected, match="certificate shown for bob") as caught:
        shake(bob, alice)
    assert caught.value.code is RejectCode.CREDENTIALS
    assert bob.result  # has not heard of it yet
    if said := alice.data_to_send():
        bob.feed(said)
    assert open_all(bob) == b""


def test_a_refusal_of_ours_in_the_clear_means_nothing_there(links: dict[str, LinkSecurity]) -> None:
    bob = dialler(links["bob"])
    with pytest.raises(LinkProtocolError):
        bob.receive_data(encode_refusal(RejectCode.SECURITY, "not like that"))


def of_ours(role: Role) -> Callable[[LinkSecurity, str], TlsChannel]:
    return lambda link, name: TlsChannel(
        tls_context(link, accepts=role is Role.RESPONDER), role, name, tls_pin(link, name)
    )


def test_a_certificate_that_is_good_there_opens_no_link_of_ours(links: dict[str, LinkSecurity]) -> None:
    """Neither end of the one protocol can be led into a connection of the other one."""
    with pytest.raises(HandshakeRejected, match="does not speak partywire/1"):
        shake(dialler(links["bob"]), of_ours(Role.RESPONDER)(links["alice"], "bob.example"))
    with pytest.raises(HandshakeRejected, match="does not speak partywire/1"):
        shake(of_ours(Role.INITIATOR)(links["bob"], "alice"), acceptor(links["alice"]))
