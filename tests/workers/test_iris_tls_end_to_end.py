"""A party whose link to a foreign peer speaks iris-mpc's protocol over TLS, with all of its processes."""

from __future__ import annotations

import socket
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest

from partywire import BlockingParty, ConnectFailed, HandshakeRejected, PeerLost, Ring32, SecurityConfig
from tests.support.certificates import Issued, issue
from tests.support.iris_peer import DEADLINE_S, IrisPeer, Tls
from tests.support.iris_place import Place, playing
from tests.support.reserved_ports import reserved_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTS = {"alice": "alice.example", "bob": "bob.example"}
LARGE = bytes(range(256)) * 4000


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Issued]:
    folder = tmp_path_factory.mktemp("keys")
    ca = issue("ca", is_ca=True)
    made = {
        "ca": ca,
        "alice": issue("alice", ca, names=["alice", HOSTS["alice"]]),
        "bob": issue("bob", ca, names=["bob", HOSTS["bob"]]),
        "charlie": issue("charlie", ca),
        "impostor": issue("bob", issue("another ca", is_ca=True)),
    }
    return {name: issued.write(folder, name) for name, issued in made.items()}


@pytest.fixture
def at() -> Iterator[Place]:
    with closing(Place("alice", "bob")) as place:
        yield place


def security(keys: dict[str, Issued], name: str) -> SecurityConfig:
    return SecurityConfig(
        certificate=keys[name].certificate_path, key=keys[name].key_path, ca=keys["ca"].certificate_path
    )


def tls(keys: dict[str, Issued], certificate: str, host: str) -> Tls:
    issued = keys[certificate]
    return Tls(issued.certificate_path, issued.key_path, keys["ca"].certificate_path, host)


def converse_as_foreigner(peer: IrisPeer, sessions: range) -> None:
    peer.validate(sessions)
    for session in sessions:
        peer.send(session, b"\x04" + session.to_bytes(4, "little"))
        assert peer.receive(session) == b"\x04" + (session + 1).to_bytes(4, "little")
    assert peer.receive(sessions[0]) == b"\x0c" + len(LARGE).to_bytes(4, "little") + LARGE
    peer.send(sessions[0], b"\x0c" + len(LARGE).to_bytes(4, "little") + LARGE)


def converse(party: BlockingParty, them: str, ids: list[int], *, goes: bool = False) -> None:
    made = party.make_sessions(len(ids), timeout=DEADLINE_S)
    assert [session.id for session in made] == ids
    for session in made:
        assert int(session.recv(them, timeout=DEADLINE_S)) == session.id
        session.send(them, Ring32(session.id + 1))
    made[0].send(them, LARGE)
    assert made[0].recv(them, timeout=DEADLINE_S) == LARGE
    if goes:
        for session in made:
            with pytest.raises(PeerLost):
                session.recv(them, timeout=DEADLINE_S)


def test_a_peer_dials_its_own_port_and_comes_again_while_strangers_are_refused(
    at: Place, keys: dict[str, Issued]
) -> None:
    bob = IrisPeer("bob", connections=2, tls=tls(keys, "bob", HOSTS["alice"]))

    def stranger(name: str, certificate: str) -> IrisPeer:
        return IrisPeer(name, tls=tls(keys, certificate, HOSTS["alice"]))

    def play(own: tuple[str, int]) -> None:
        bob.dial(own)  # first, because only now anybody listens for certain
        converse_as_foreigner(bob, range(2))
        with socket.create_connection(own) as sock, pytest.raises(OSError):  # while the link stands: not even TLS
            tls(keys, "bob", HOSTS["alice"]).dialled(sock)
        bob.close()
        with socket.create_connection(own), socket.create_connection(own) as half:  # one says nothing at all
            half.sendall(b"\x16\x03\x01")
            assert IrisPeer("bob")._try_dial(at.addresses["alice"], 0) is None  # in the clear, as if without TLS
            assert IrisPeer("bob")._try_dial(own, 0) is None
            assert stranger("bob", "impostor")._try_dial(own, 0) is None
            assert stranger("bob", "charlie")._try_dial(own, 0) is None  # a good certificate, and not bob's
            assert stranger("charlie", "bob")._try_dial(own, 0) is None  # a proof of bob, and another name
            bob.dial(own)
            converse_as_foreigner(bob, range(2, 4))
            bob.expect_end()

    with reserved_ports(1) as (port,), playing(lambda: play(("127.0.0.1", port))):
        listen = f"127.0.0.1:{port}"
        config = at.config("alice", "bob", connections=2, tls=True, listen=listen, security=security(keys, "alice"))
        try:
            with BlockingParty(config, at.listeners["alice"]) as alice:
                converse(alice, "bob", [0, 1], goes=True)
                converse(alice, "bob", [2, 3])
        finally:
            bob.close()


def test_we_dial_a_peer_by_tls_and_again_when_it_is_gone(at: Place, keys: dict[str, Issued]) -> None:
    alice = IrisPeer("alice", connections=2, tls=tls(keys, "alice", ""))

    def play() -> None:
        alice.accept(at.listeners["alice"], "bob")
        converse_as_foreigner(alice, range(2))
        alice.close()
        alice.accept(at.listeners["alice"], "bob")
        converse_as_foreigner(alice, range(2, 4))
        alice.expect_end()

    with playing(play):
        config = at.config("bob", "alice", connections=2, tls=True, security=security(keys, "bob"))
        try:
            with BlockingParty(config, at.listeners["bob"]) as bob:
                converse(bob, "alice", [0, 1], goes=True)
                converse(bob, "alice", [2, 3])
        finally:
            alice.close()


@pytest.mark.parametrize("wrong", ["theirs", "ours"])
def test_a_wrong_certificate_at_the_peer_that_we_dial_is_told_at_once(
    at: Place, keys: dict[str, Issued], wrong: str
) -> None:
    alice = IrisPeer("alice", tls=tls(keys, "charlie" if wrong == "theirs" else "alice", ""))
    ours = security(keys, "bob" if wrong == "theirs" else "impostor")

    def play() -> None:
        with suppress(OSError, EOFError):
            alice.accept(at.listeners["alice"], "bob")

    with playing(play):
        config = at.config("bob", "alice", tls=True, security=ours)
        with pytest.raises(ConnectFailed) as caught:
            BlockingParty(config, at.listeners["bob"]).open()
        assert isinstance(caught.value.__cause__, HandshakeRejected)
        expected = "belongs to charlie" if wrong == "theirs" else "does not know the issuer of our certificate"
        assert expected in str(caught.value)


def test_a_peer_that_leaves_when_it_has_seen_our_certificate_may_have_refused_it(
    at: Place, keys: dict[str, Issued]
) -> None:
    """One of ours does, where the name in it is another one: behind the handshake there is no alert for that."""
    theirs = tls(keys, "alice", "")

    def play() -> None:
        sock, _ = at.listeners["alice"].accept()
        with sock, suppress(OSError):
            theirs.accepted(sock).close()

    causes: list[str] = []
    with playing(play):
        config = at.config("bob", "alice", tls=True, security=security(keys, "bob"), connect_s=1.0)
        with pytest.raises(ConnectFailed):
            BlockingParty(config, at.listeners["bob"], on_progress=lambda _, cause: causes.append(cause)).open()
    assert any("refuses our certificate" in cause for cause in causes)
