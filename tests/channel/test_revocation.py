"""Certificates that their issuer has revoked: who is refused by what list, at either end, and what a list cannot do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from partywire.engine.channel.credentials import tls_context, tls_pin
from partywire.engine.channel.errors import CredentialError
from partywire.engine.channel.maker import ChannelMaker
from partywire.engine.channel.tls import TlsChannel
from partywire.engine.errors import HandshakeRejected, RejectCode
from partywire.engine.handshake import Role
from partywire.engine.preamble import PREAMBLE_SIZE
from tests.support.certificates import Issued, issue, revocations, tls_link
from tests.support.channels import carry, open_all, shake

if TYPE_CHECKING:
    from pathlib import Path

    from partywire.engine.channel.link_security import LinkSecurity


class Cast:
    """An authority, what it has issued, and the list of what it has revoked, in files."""

    def __init__(self, folder: Path) -> None:
        self.ca = issue("ca", is_ca=True).write(folder, "ca")
        self.alice, self.bob = (issue(name, self.ca).write(folder, name) for name in ("alice", "bob"))
        self.path = folder / "ca.crl"
        self.list(revocations(self.ca))

    def list(self, *lists: bytes) -> None:
        """Put these into the file."""
        self.path.write_bytes(b"".join(lists))
        self.path.chmod(0o644)

    def links(self) -> tuple[LinkSecurity, LinkSecurity]:
        """Alice's, and bob's, who dials."""
        alice, bob = (tls_link(one, ca=self.ca) for one in (self.alice, self.bob))
        return replace(alice, crl=str(self.path)), replace(bob, crl=str(self.path))


@pytest.fixture
def cast(tmp_path: Path) -> Cast:
    return Cast(tmp_path)


def meet(ends: tuple[LinkSecurity, LinkSecurity]) -> None:
    bob = TlsChannel(tls_context(ends[1], accepts=False), Role.INITIATOR, "alice", tls_pin(ends[1], "alice"))
    alice = TlsChannel(tls_context(ends[0], accepts=True), Role.RESPONDER, "bob", tls_pin(ends[0], "bob"))
    try:
        shake(bob, alice)
    except HandshakeRejected:
        if bob.result is not None:  # the dialler was done, and hears of it next
            bob.feed(alice.data_to_send())
            with pytest.raises(HandshakeRejected):
                open_all(bob)
        raise
    assert carry(bob, alice, [b"good"]) == b"good"


def test_only_what_is_listed_is_refused(cast: Cast) -> None:
    meet(cast.links())
    cast.list(revocations(cast.ca, issue("charlie", cast.ca), issue("bob", cast.ca)))
    meet(cast.links())  # another certificate of bob's name was revoked


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_a_revoked_certificate_is_refused_at_either_end(cast: Cast, who: str) -> None:
    revoked: Issued = getattr(cast, who)
    cast.list(revocations(cast.ca, revoked))
    with pytest.raises(HandshakeRejected, match=f"the certificate of {who} was revoked") as caught:
        meet(cast.links())
    assert caught.value.code is RejectCode.CREDENTIALS


def test_a_list_that_cannot_be_relied_on_lets_nobody_in(cast: Cast, tmp_path: Path) -> None:
    other = issue("other", is_ca=True).write(tmp_path, "other")
    forger = issue("ca", is_ca=True)
    for listed, words in (
        (revocations(cast.ca, days=(-9, -1)), "has expired"),
        (revocations(cast.ca, days=(1, 9)), "not valid yet"),
        (revocations(other), "say nothing"),
        (revocations(cast.ca, signer=forger), "not signed by its issuer"),
    ):
        cast.list(listed)
        with pytest.raises(HandshakeRejected, match=words):
            meet(cast.links())
    cast.list(revocations(other), revocations(cast.ca))
    meet(cast.links())


def test_a_pinned_certificate_needs_no_list(cast: Cast) -> None:
    """Who does not want it any more takes it out of the configuration."""
    cast.list(revocations(cast.ca, cast.bob))
    alice, bob = cast.links()
    meet((replace(alice, peer_certificate=cast.bob.certificate_path), bob))


def test_a_certificate_in_the_list_is_no_issuer_whom_we_believe(cast: Cast, tmp_path: Path) -> None:
    """OpenSSL reads both from one file."""
    mallory = issue("mallory", is_ca=True).write(tmp_path, "mallory")
    impostor = issue("bob", mallory).write(tmp_path, "impostor")
    both = revocations(cast.ca) + revocations(mallory) + (tmp_path / "mallory.crt").read_bytes()
    cast.list(both)
    alice, bob = cast.links()
    bob = replace(bob, certificate=impostor.certificate_path, key=impostor.key_path)
    with pytest.raises(HandshakeRejected, match="an issuer that we do not know"):
        meet((alice, bob))


def test_a_new_list_holds_for_the_next_connection(cast: Cast) -> None:
    ends = cast.links()
    makers = ChannelMaker("alice", "bob", ends[0]), ChannelMaker("bob", "alice", ends[1])

    def meet_again() -> None:
        preamble = bytes(PREAMBLE_SIZE)
        shake(makers[1].make(Role.INITIATOR, preamble), makers[0].make(Role.RESPONDER, preamble))

    meet_again()
    cast.list(revocations(cast.ca, cast.bob))
    with pytest.raises(HandshakeRejected, match="was revoked"):
        meet_again()


@pytest.mark.parametrize(
    "content",
    [b"", b"-----BEGIN X509 CRL-----\nAAAA", b"-----BEGIN X509 CRL-----\n?\n-----END X509 CRL-----\n"],
    ids=["empty", "cut", "garbage"],
)
def test_a_file_without_a_list_is_a_mistake_and_no_empty_list(cast: Cast, content: bytes) -> None:
    cast.list(content)
    with pytest.raises(CredentialError, match=r"ca\.crl.*list of revoked"):
        tls_context(cast.links()[0], accepts=True)


def test_a_list_that_others_may_write_is_refused(cast: Cast) -> None:
    cast.path.chmod(0o666)
    with pytest.raises(CredentialError, match="chmod go-w"):
        tls_context(cast.links()[0], accepts=True)
