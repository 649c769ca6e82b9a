"""Parties whose links speak iris-mpc's protocol, with all of their processes: beside a foreign peer, and each other."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from partywire import (
    BlockingParty,
    LinkProtocolError,
    NetworkVec,
    Party,
    PeerLost,
    Ring16,
    Ring32,
    UnsupportedByPeer,
    VecRing32,
)
from partywire.engine.iris_options import VERSION_READY
from tests.support.iris_peer import DEADLINE_S, IrisPeer, receive_exactly
from tests.support.iris_place import Place, playing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def place() -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def make(*names: str) -> Place:
        made.append(Place(*names))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_foreign_peer_dials_us_and_exchanges_messages_over_several_connections_and_sessions(
    place: Callable[..., Place], caplog: pytest.LogCaptureFixture
) -> None:
    """Alice is party 0 and accepts; the foreign bob is party 1."""
    at = place("alice", "bob")
    bob = IrisPeer("bob", connections=3)
    sessions = range(7)
    large = bytes(range(256)) * 8000

    def play() -> None:
        address = at.addresses["alice"]
        stranger = IrisPeer("mallory")
        assert stranger._try_dial(address, 0) is None
        with socket.create_connection(address) as garbage:
            garbage.sendall(b"\0\0\0\0")
            assert receive_exactly(garbage, 4) == bytes(4)
            garbage.sendall(b"\xff" * 4)
            assert garbage.recv(1) == b""
        bob.dial(address)
        for session in sessions:  # before alice has made any
            bob.send(session, b"\x01" + session.to_bytes(8, "little") + bytes(8))
        for session in sessions:
            assert bob.receive(session) == b"\x01" + session.to_bytes(8, "little") + bytes(8)
        for turn in range(20):  # rounds in which everybody answers what it got
            for session in sessions:
                bob.send(session, b"\x03" + turn.to_bytes(2, "little"), connection=(session + turn) % 3)
            for session in sessions:
                assert bob.receive(session) == b"\x04" + (turn * 1000 + session).to_bytes(4, "little")
        assert bob.receive(0) == b"\x0c" + len(large).to_bytes(4, "little") + large
        assert bob.receive(1) == bytes.fromhex("07 08000000 01000000 02000000")
        bob.send(2, b"\x0c" + len(large).to_bytes(4, "little") + large)
        bob.send(2, bytes.fromhex("0a 06000000 030000 030100"))
        bob.expect_end()

    with playing(play):
        try:
            with BlockingParty(at.config("alice", "bob", connections=3), at.listeners["alice"]) as alice:
                made = alice.make_sessions(7, timeout=DEADLINE_S)
                assert [session.id for session in made] == list(sessions)
                for turn in range(20):
                    for session in made:
                        assert int(session.recv("bob", timeout=DEADLINE_S)) == turn
                        session.send("bob", Ring32(turn * 1000 + session.id))
                made[0].send("bob", large)
                made[1].send("bob", np.array([1, 2], "<u4"))
                assert made[2].recv("bob", timeout=DEADLINE_S) == large
                vector = made[2].recv("bob", timeout=DEADLINE_S)
                assert isinstance(vector, NetworkVec)
                assert [int(value) for value in vector] == [0, 1]
                with pytest.raises(UnsupportedByPeer):
                    alice.barrier(timeout=1)
        finally:
            bob.close()
    warnings = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert all("connections at our address were refused" in warning for warning in warnings)


def test_we_dial_a_foreign_peer_that_says_ready(place: Callable[..., Place]) -> None:
    at = place("alice", "bob")
    alice = IrisPeer("alice", connections=2, says_ready=True)

    def play() -> None:
        alice.accept(at.listeners["alice"], "bob")
        for session in range(4):
            alice.send(session, alice.receive(session))
        alice.expect_end()

    with playing(play):
        try:
            config = at.config("bob", "alice", connections=2, version=VERSION_READY)
            with BlockingParty(config, at.listeners["bob"]) as bob:
                for session in bob.make_sessions(4, timeout=DEADLINE_S):
                    seen = session.exchange("alice", VecRing32([session.id]), timeout=DEADLINE_S)
                    assert seen == VecRing32([session.id])
        finally:
            alice.close()


def test_two_parties_of_ours_speak_it_with_each_other(place: Callable[..., Place]) -> None:
    at = place("alice", "bob")

    async def play(name: str, peer: str) -> list[Any]:
        seen: list[Any] = []
        config = at.config(name, peer, connections=2)
        async with Party(config, at.listeners[name]) as party:
            for count in (3, 2):
                sessions = await party.make_sessions(count, timeout=DEADLINE_S)
                seen.append([session.id for session in sessions])
                values = [session.exchange(peer, Ring16(session.id), timeout=DEADLINE_S) for session in sessions]
                seen.append([int(value) for value in await asyncio.gather(*values)])
            both = [session.exchange(peer, bytes(3 << 20), timeout=DEADLINE_S) for session in sessions]
            assert await asyncio.gather(*both) == [bytes(3 << 20)] * 2
        return seen

    async def main() -> tuple[list[Any], ...]:
        return await asyncio.gather(play("alice", "bob"), play("bob", "alice"))

    for seen in asyncio.run(main()):
        assert seen == [[0, 1, 2], [0, 1, 2], [3, 4], [3, 4]]


def test_a_foreign_party_sits_at_a_table_of_ours(place: Callable[..., Place]) -> None:
    """Alice and bob agree over their control connection; charlie, who dials both, counts along."""
    at = place("alice", "bob", "charlie")
    charlie = {name: IrisPeer("charlie") for name in ("alice", "bob")}

    def play() -> None:
        for name, peer in charlie.items():
            peer.dial(at.addresses[name])
        for index in range(2):
            probe = b"\x01" + index.to_bytes(8, "little") + bytes(8)
            for peer in charlie.values():
                peer.send(index, probe)
            for peer in charlie.values():
                assert peer.receive(index) == probe
        for session in range(2):
            values = [int.from_bytes(peer.receive(session)[1:], "little") for peer in charlie.values()]
            for peer in charlie.values():
                peer.send(session, b"\x03" + sum(values).to_bytes(2, "little"))
        for peer in charlie.values():
            peer.expect_end()

    async def play_ours(name: str, peer: str) -> list[int]:
        sums = []
        async with Party(at.config(name, "charlie"), at.listeners[name]) as party:
            for session in await party.make_sessions(2, timeout=DEADLINE_S):
                await session.broadcast(Ring16(10 * (party.index + 1) + session.id), timeout=DEADLINE_S)
                theirs = await session.recv(peer, timeout=DEADLINE_S)
                sums.append(int(await session.recv("charlie", timeout=DEADLINE_S)) - int(theirs))
            with pytest.raises(UnsupportedByPeer, match="charlie"):
                await party.barrier(timeout=DEADLINE_S)
        return sums

    async def main() -> tuple[list[int], ...]:
        return await asyncio.gather(play_ours("alice", "bob"), play_ours("bob", "alice"))

    with playing(play):
        try:
            assert list(asyncio.run(main())) == [[10, 11], [20, 21]]
        finally:
            for peer in charlie.values():
                peer.close()


@pytest.mark.parametrize("ending", ["closes", "resets", "sends garbage"])
def test_a_foreign_peer_that_goes_is_lost_on_every_session_at_once(place: Callable[..., Place], ending: str) -> None:
    at = place("alice", "bob")
    bob = IrisPeer("bob", connections=2)

    def play() -> None:
        bob.dial(at.addresses["alice"])
        bob.validate(range(2))
        assert bob.receive(0) == b"\x12"
        if ending == "sends garbage":
            bob.send(0, b"\x7f")
            for sock in bob.sockets:
                assert sock.recv(1) == b""  # both connections end, not only the one with the garbage
        elif ending == "resets":
            bob.sockets[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            bob.sockets[1].close()
            receive_until_end(bob.sockets[0])
        bob.close()

    def receive_until_end(sock: socket.socket) -> None:
        with pytest.raises((EOFError, ConnectionResetError)):
            receive_exactly(sock, 1)

    with playing(play), BlockingParty(at.config("alice", "bob", connections=2), at.listeners["alice"]) as alice:
        sessions = alice.make_sessions(2, timeout=DEADLINE_S)
        sessions[0].send("bob", np.bool_(True))
        for session in sessions:
            with pytest.raises(PeerLost) as caught:
                session.recv("bob", timeout=DEADLINE_S)
            assert caught.value.cause
        with pytest.raises(PeerLost):  # a peer whose protocol has no goodbye is never one that closed
            alice.make_sessions(1, timeout=0.0)


@pytest.mark.parametrize("we_dial", [False, True])
def test_a_peer_that_comes_again_finds_a_link_and_the_ids_go_on(place: Callable[..., Place], we_dial: bool) -> None:
    us, them = ("bob", "alice") if we_dial else ("alice", "bob")
    at = place("alice", "bob")
    peer = IrisPeer(them, connections=2)

    def play() -> None:
        for sessions in (range(2), range(2, 4)):
            if we_dial:
                peer.accept(at.listeners[them], us)
            else:
                peer.dial(at.addresses[us])
            peer.validate(sessions)
            for session in sessions:
                assert peer.receive(session) == b"\x12"
            peer.close()

    with playing(play), BlockingParty(at.config(us, them, connections=2), at.listeners[us]) as party:
        for block in ([0, 1], [2, 3]):
            made = party.make_sessions(2, timeout=DEADLINE_S)
            assert [session.id for session in made] == block
            for session in made:
                session.send(them, np.bool_(True))
            for session in made:
                with pytest.raises(PeerLost):
                    session.recv(them, timeout=DEADLINE_S)


def test_a_session_that_is_validated_with_another_value_is_none(place: Callable[..., Place]) -> None:
    at = place("alice", "bob")
    bob = IrisPeer("bob")

    def play() -> None:
        bob.dial(at.addresses["alice"])
        bob.send(0, b"\x01" + (1).to_bytes(16, "little"))
        while bob.sockets[0].recv(100):
            pass
        bob.close()

    with playing(play), BlockingParty(at.config("alice", "bob"), at.listeners["alice"]) as alice:
        with pytest.raises(LinkProtocolError, match="first message of a new session"):
            alice.make_sessions(1, timeout=DEADLINE_S)
        with pytest.raises(PeerLost):
            alice.make_sessions(1, timeout=0.1)


def test_a_peer_with_more_connections_than_we_expect_is_told_of(place: Callable[..., Place]) -> None:
    at = place("alice", "bob")
    bob = IrisPeer("bob")
    over = threading.Event()

    def play() -> None:
        while not over.wait(0.01):
            if (sock := bob._try_dial(at.addresses["alice"], 2)) is not None:
                sock.close()
                raise AssertionError("connection 2 of 2 was taken")

    class Told(Exception):
        pass

    def listen(peer: str, cause: str) -> None:
        if "bob dials more connections than the 2 that [compat.bob] has here" in cause:
            raise Told  # no need to wait for the connect timeout

    with playing(play):
        try:
            config = at.config("alice", "bob", connections=2)
            with pytest.raises(Told):
                BlockingParty(config, at.listeners["alice"], on_progress=listen).open()
        finally:
            over.set()
            at.listeners["alice"].close()  # nobody accepts there any more
