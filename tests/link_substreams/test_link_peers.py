"""The peer of a link as the one peer there is: two keepers in one process, with real sockets between them."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from partywire.engine.commands import Lanes, LinkClaimed, LinkEnded, LinkFailed
from partywire.engine.errors import LinkProtocolError
from partywire.engine.link_substreams.errors import NoControlPlane
from partywire.engine.message import replaced
from partywire.engine.peers.claims import PeerClaim
from partywire.engine.peers.connection import EstablishedConnection
from partywire.engine.peers.contract import Direction
from partywire.engine.peers.errors import ConnectionsClosed, PeerIsBanned, PeerNotKnown, PeerNotReached
from partywire.engine.peers.events import PeerConnected, PeerDisconnected, PeerUpdated
from partywire.engine.peers.identity import NodeIdentity
from partywire.engine.preamble import SecurityMode
from partywire.engine.secure_stream import SecureStream
from partywire.engine.tcp import UNSENT_SIZE, TcpStream
from partywire.engine.yamux.errors import SubstreamReset, SubstreamSessionOver
from tests.support.certificates import noise_links
from tests.support.keepers import Rig, Side, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from partywire.engine.channel.link_security import LinkSecurity
    from partywire.engine.link_substreams.link_peers import LinkPeers
    from partywire.engine.peers.contract import PeerConnection
    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter

ECHO = "/test/echo/1"


class Pair:
    """Alice's and bob's keepers, whose link is up, and what they have of each other."""

    def __init__(self, rig: Rig, keeping: list[asyncio.Future[None]]) -> None:
        self.rig = rig
        self.keeping = keeping

    @property
    def alice(self) -> LinkPeers:
        return peers_of(self.rig.alice)

    @property
    def bob(self) -> LinkPeers:
        return peers_of(self.rig.bob)

    async def connections(self) -> tuple[PeerConnection, PeerConnection]:
        """Alice's to bob, and bob's to alice."""
        return await self.alice.connect_link(), await self.bob.connect_link()


def peers_of(side: Side) -> LinkPeers:
    assert side.keeper.peers is not None
    return side.keeper.peers


def play(
    scenario: Callable[[Pair], Awaitable[None]],
    folder: Path,
    *,
    without: str = "",
    same_key: bool = False,
    security: Sequence[LinkSecurity] = (),
) -> None:
    """Run a scenario with a link that is up. `without`: who has no substreams. `security`: alice's and bob's."""
    for name in ("alice", "bob"):
        NodeIdentity.create(folder / name)

    async def play_it(rig: Rig) -> None:
        for index, (name, side) in enumerate((("alice", rig.alice), ("bob", rig.bob))):
            key = str(folder / ("alice" if same_key else name))
            options = replace(side._command.options, security=tuple(security[index : index + 1]) * 2)
            if name != without:
                options = replace(options, substreams=True, identity_path=key)
            side._command = replaced(side._command, options=options)
        keeping = await rig.up()
        try:
            await scenario(Pair(rig, keeping))
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.wait(keeping)

    run(play_it)


async def echo(_: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
    while data := await reader.read(50_000):
        writer.write(data)
        await writer.drain()


async def ask(connection: PeerConnection, data: bytes = b"hello") -> bytes:
    """Have bytes echoed."""
    _, reader, writer = await connection.open([ECHO])
    writer.write(data)
    echoed, _ = await asyncio.gather(reader.readexactly(len(data)), writer.drain())
    writer.close()
    return echoed


def test_each_end_proves_who_it_is_and_serves_the_other(tmp_path: Path) -> None:
    async def scenario(pair: Pair) -> None:
        pair.alice.serve(ECHO, echo)
        pair.bob.protocol(ECHO)(echo)
        to_bob, to_alice = await pair.connections()
        assert (to_bob.peer_id, to_alice.peer_id) == (pair.bob.peer_id, pair.alice.peer_id)
        assert (to_bob.direction, to_alice.direction) == (Direction.ACCEPTED, Direction.DIALLED)
        assert await pair.alice.connect(pair.bob.peer_id) is pair.alice.connection_to(pair.bob.peer_id) is to_bob
        assert list(pair.alice.connections) == [to_bob]
        data = bytes(range(256)) * 4000
        assert await ask(to_bob, data) == data
        assert await ask(to_alice, data) == data
        assert await to_bob.ping() > 0
        for peers in (pair.alice, pair.bob):
            assert peers._epoch is not None
            stream = peers._epoch.connection._stream
            assert isinstance(stream, TcpStream)
            assert stream._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT_SIZE
        with pytest.raises(PeerNotKnown):
            await pair.alice.connect(pair.alice.peer_id)
        port = pair.rig.listener.getsockname()[1]
        told = pair.rig.alice.heard(LinkClaimed)[0]
        assert told.observed == f"/ip4/127.0.0.1/tcp/{port}"  # where bob dialled her
        claim = PeerClaim.decode_untrusted(told.claim, to_bob.claim.updated_at)
        assert claim.peer_id == pair.bob.peer_id

    play(scenario, tmp_path)


def test_a_peer_without_substreams_has_a_link_as_ever(tmp_path: Path) -> None:
    async def scenario(pair: Pair) -> None:
        assert pair.rig.bob.keeper.peers is None
        with pytest.raises(NoControlPlane, match=r"bob has no \[node\] table"):
            await pair.alice.connect_link()
        with pytest.raises(NoControlPlane):
            await pair.alice.connect(NodeIdentity.generate().peer_id)
        assert pair.alice.link_connection is None
        assert not pair.rig.alice.heard(LinkClaimed)

    play(scenario, tmp_path, without="bob")


def test_a_secured_link_carries_them_too(tmp_path: Path) -> None:
    async def scenario(pair: Pair) -> None:
        pair.alice.serve(ECHO, echo)
        _, to_alice = await pair.connections()
        data = bytes(range(256)) * 4000
        assert await ask(to_alice, data) == data

        epoch = pair.bob._epoch
        assert epoch is not None
        assert isinstance(epoch.connection._stream, SecureStream)

    play(scenario, tmp_path, security=noise_links(tmp_path, SecurityMode.NOISE_XX_AES))


def test_both_ends_with_one_key_have_a_link_and_no_substreams(tmp_path: Path) -> None:
    async def scenario(pair: Pair) -> None:
        for peers in (pair.alice, pair.bob):
            with pytest.raises(PeerNotReached, match="same identity key"):
                await peers.connect_link()
        assert (pair.alice.counters.inbound_failed, pair.bob.counters.dials_failed) == (1, 1)
        assert not pair.rig.alice.heard(LinkEnded)
        pair.alice._options = replace(pair.alice._options, dial_timeout_s=0.05)
        pair.keeping[1].cancel()
        await pair.rig.wait(lambda: pair.rig.alice.heard(LinkEnded))
        with pytest.raises(PeerNotReached, match="the link is not up"):  # that of another epoch is no answer
            await pair.alice.connect_link()
        assert not pair.rig.alice.heard(LinkClaimed)

    play(scenario, tmp_path, same_key=True)


def test_a_change_of_what_is_served_is_told(tmp_path: Path) -> None:
    async def scenario(pair: Pair) -> None:
        to_bob, _ = await pair.connections()
        events = pair.alice.events()
        pair.bob.serve(ECHO, echo)
        assert await anext(events) == PeerUpdated(pair.bob.peer_id)
        assert ECHO in to_bob.claim.protocols
        assert await ask(to_bob) == b"hello"
        assert len(pair.rig.alice.heard(LinkClaimed)) == 2

    play(scenario, tmp_path)


def test_a_link_that_is_made_anew_has_other_connections(tmp_path: Path) -> None:
    async def scenario(pair: Pair) -> None:
        pair.alice.serve(ECHO, echo)
        _, to_alice = await pair.connections()
        events = pair.bob.events()
        _, reader, writer = await to_alice.open([ECHO])
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        standing = pair.rig.alice.keeper._standing
        assert standing is not None
        standing.lose("a test wants it")
        with pytest.raises(SubstreamSessionOver):
            await reader.read()
        await to_alice.closed
        again = await pair.bob.connect(pair.alice.peer_id)
        assert again is not to_alice
        assert await ask(again) == b"hello"
        while not isinstance(event := await anext(events), PeerDisconnected):
            assert isinstance(event, PeerUpdated)  # the echo is told of
        assert isinstance(await anext(events), PeerConnected)
        await pair.rig.wait(lambda: len(pair.rig.bob.heard(Lanes)) == 2)
        first, *_, last = pair.rig.bob.heard(LinkClaimed)
        assert first.observed != last.observed  # another port of bob's

    play(scenario, tmp_path)


def test_what_yamux_forbids_loses_the_link_and_it_comes_back(tmp_path: Path) -> None:
    async def scenario(pair: Pair) -> None:
        pair.alice.serve(ECHO, echo)
        await pair.connections()
        epoch = pair.bob._epoch
        assert epoch is not None
        epoch.connection._unsent.append(memoryview(b"\xff" * 12))
        epoch.connection._flush()
        await pair.rig.wait(lambda: pair.rig.alice.heard(LinkEnded))
        [ended] = pair.rig.alice.heard(LinkEnded)
        assert ended.cause.startswith("bob broke the wire protocol: version of yamux: 255")
        await pair.rig.wait(lambda: len(pair.rig.alice.heard(Lanes)) == 2)
        assert await ask(await pair.bob.connect_link()) == b"hello"

    play(scenario, tmp_path)


def test_a_peer_that_breaks_a_protocol_loses_its_substreams_and_not_the_link(tmp_path: Path) -> None:
    async def scenario(pair: Pair) -> None:
        async def strict(connection: PeerConnection, _reader: SubstreamReader, _writer: SubstreamWriter) -> None:
            raise LinkProtocolError(str(connection.peer_id), "a word", "hello")

        pair.alice.serve("/test/strict/1", strict)
        pair.alice.serve(ECHO, echo)
        to_bob, to_alice = await pair.connections()
        with pytest.raises(SubstreamReset):
            await (await to_alice.open(["/test/strict/1"]))[1].read()
        await to_bob.closed
        with pytest.raises(PeerIsBanned, match="a word"):
            await pair.alice.connect_link()
        with pytest.raises(SubstreamReset):
            await ask(to_alice)
        assert pair.alice.unban(pair.bob.peer_id)
        assert await ask(to_alice) == b"hello"
        assert not pair.rig.alice.heard(LinkEnded)

    play(scenario, tmp_path)


def test_closing_a_connection_leaves_the_link_and_the_next_one(tmp_path: Path) -> None:
    async def scenario(pair: Pair) -> None:
        pair.alice.serve(ECHO, echo)
        _, to_alice = await pair.connections()
        _, reader, _ = await to_alice.open([ECHO])
        assert isinstance(to_alice, EstablishedConnection)
        to_alice._options = replace(to_alice._options, close_timeout_s=0.05)
        await to_alice.aclose()
        assert to_alice.closed.result() == ""
        with pytest.raises(SubstreamReset):
            await reader.read()
        again = await pair.bob.connect_link()
        assert again is not to_alice
        assert await ask(again) == b"hello"
        assert not pair.rig.bob.heard(LinkEnded)

    play(scenario, tmp_path)


def test_without_a_link_a_connection_is_waited_for_and_then_given_up(tmp_path: Path) -> None:
    async def scenario(pair: Pair) -> None:
        await pair.connections()
        pair.keeping[0].cancel()
        await asyncio.wait(pair.keeping[:1])
        with pytest.raises(ConnectionsClosed):
            await pair.alice.connect_link()
        await pair.rig.wait(lambda: pair.bob.link_connection is None)
        pair.bob._options = replace(pair.bob._options, dial_timeout_s=0.05)
        with pytest.raises(PeerNotReached, match="the link is not up"):
            await pair.bob.connect_link()

    play(scenario, tmp_path)


def test_without_a_key_there_is_no_link(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        options = replace(rig.bob._command.options, substreams=True, identity_path=str(tmp_path / "none"))
        rig.bob._command = replaced(rig.bob._command, options=options)
        await rig.bob.start()
        [failed] = rig.bob.heard(LinkFailed)
        assert failed.code == "LOCAL"
        assert str(tmp_path / "none") in failed.message

    run(scenario)
