"""A whole party with a table [node]: links, strangers and liveness echoes at one port, and a node that dies."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NoReturn

import pytest

from partywire import NodeConfig, NodeUnavailable, Party, PartyConfig, PeerNode, Ring64, RpcService
from partywire.engine.messaging import wire
from partywire.engine.peer_store.store import PeerStore
from partywire.engine.peers.errors import PeerNotKnown, PeerNotReached
from partywire.engine.peers.identity import NodeIdentity
from partywire.engine.peers.options import PeerOptions
from partywire.engine.yamux.errors import SubstreamSessionOver
from partywire.shm.errors import SegmentError
from partywire.workers.exit_code import ExitCode, code_of
from partywire.workers.party_node.errors import NoWayToPeer
from tests.support.reserved_ports import reserved_ports

if TYPE_CHECKING:
    from pathlib import Path

    from partywire.engine.peers.peer_id import PeerId
    from partywire.engine.rpc.service import RpcCall

TIMEOUT_S = 60.0

NETWORK = 0x26

HANDLERS = """
async def shout(connection, reader, writer):
    writer.write((await reader.readline()).upper())
"""


async def be_a_stranger(party: Party, port: int) -> None:
    """Be a node that knows the id and the port, and no more: use what the node's process serves, and the opener."""
    at, peer_id = f"/ip4/127.0.0.1/tcp/{port}", party.node.peer_id
    async with PeerNode(connections=PeerOptions(network_byte=NETWORK)) as stranger:
        stranger.add_peer(peer_id, at)
        events = stranger.events()
        connection = await stranger.connect(peer_id)
        assert [str(address) for address in connection.claim.addresses] == [at]
        _, reader, writer = await connection.open(["/test/shout/1"])
        writer.write(b"hello\n")
        assert await reader.readline() == b"HELLO\n"
        writer.close()
        while not {"/test/calls/1", wire.PROTOCOL} <= set(connection.claim.protocols):
            await anext(events)  # until the opener has said what it serves
        async with stranger.rpc.client(peer_id, "/test/calls/1") as client:
            assert await client.call("double", b"ab") == b"abab"
        delivery = await stranger.messages.send(peer_id, b"a message")
        message = await anext(aiter(party.node.messages))
        assert (message.peer_id, bytes(message.body)) == (stranger.peer_id, b"a message")
        await delivery.acknowledged()


def calls() -> RpcService:
    service = RpcService("/test/calls/1")

    @service.method("double")
    async def double(call: RpcCall, payload: bytes) -> bytes:
        return payload + payload

    return service


async def be_refused(peer_id: PeerId, port: int) -> None:
    """By a party whose table says nothing of strangers."""
    async with PeerNode(connections=PeerOptions(dial_attempts=1)) as stranger:
        stranger.add_peer(peer_id, f"/ip4/127.0.0.1/tcp/{port}")
        with pytest.raises(PeerNotReached, match="not on the list"):
            await stranger.connect(peer_id)


async def ask_for_an_echo(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\xa7are you there?\n")
    assert await reader.readline() == b"are you there?\n"
    writer.close()


def test_one_port_serves_links_strangers_and_echoes_and_a_node_that_dies_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "handlers_of_party.py").write_text(HANDLERS)
    (tmp_path / "ipaddress.py").write_text("raise ImportError('this is not the standard library')")
    monkeypatch.chdir(tmp_path)  # where the node's process looks for modules that are nowhere else
    node = NodeConfig(
        identity="bob.key",
        store="bob.peers",
        strangers=True,
        protocols={"/test/shout/1": "handlers_of_party:shout"},
        connections=PeerOptions(liveness_permits=1, network_byte=NETWORK),
    )

    async def everybody(ports: list[int]) -> None:
        parties = dict(zip(("alice", "bob"), (("127.0.0.1", port) for port in ports), strict=True))
        # bob is the greater name: alice accepts, so both are at their ports.
        configs = [
            PartyConfig(name="alice", parties=parties, node=NodeConfig(identity="alice.key")),
            PartyConfig(name="bob", parties=parties, node=node),
        ]
        async with AsyncExitStack() as stack:
            alice, bob = [Party(config) for config in configs]
            await asyncio.gather(*(stack.enter_async_context(party) for party in (alice, bob)))
            sessions = await asyncio.gather(*(party.make_sessions(1, timeout=TIMEOUT_S) for party in (alice, bob)))

            async def talk() -> None:
                values = await asyncio.gather(
                    *(session.gather(Ring64(index), timeout=TIMEOUT_S) for index, [session] in enumerate(sessions))
                )
                assert values == [[Ring64(0), Ring64(1)]] * 2

            bob.node.rpc.add(calls())
            linked = await bob.node.connect("alice")
            assert linked.peer_id == alice.node.peer_id
            reader, writer = await alice.node.open("bob", "/test/shout/1")  # served by the process of the link
            writer.write(b"by the link\n")
            assert await reader.readline() == b"BY THE LINK\n"
            writer.close()
            await talk()
            await be_a_stranger(bob, ports[1])
            await be_refused(alice.node.peer_id, ports[0])
            await ask_for_an_echo(ports[1])
            died = bob.pids["node"]
            os.kill(died, signal.SIGKILL)
            await be_a_stranger(bob, ports[1])  # it waits at the gateway for the one that follows
            assert bob.pids["node"] != died
            await talk()
            assert all(link.epoch == 1 for link in (*alice.worker.links.values(), *bob.worker.links.values()))

    with reserved_ports(2) as ports:
        asyncio.run(asyncio.wait_for(everybody(ports), TIMEOUT_S))
    assert (tmp_path / "alice.key").stat().st_mode & 0o777 == 0o600
    with PeerStore(tmp_path / "bob.peers") as store:  # what linked peers say of themselves is kept, too
        alice = store.get(NodeIdentity.load(tmp_path / "alice.key").peer_id)
        assert alice is not None
        assert [str(known.address) for known in alice.addresses] == [f"/ip4/127.0.0.1/tcp/{ports[0]}"]


def test_a_node_that_cannot_start_ends_the_opening_with_a_sentence(tmp_path: Path) -> None:
    async def open_party(ports: list[int]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = other.getsockname()[1]
            parties = {"alice": ("127.0.0.1", ports[0]), "bob": ("127.0.0.1", ports[1])}
            node = NodeConfig(identity=tmp_path / "key", listen=f"/ip4/127.0.0.1/tcp/{taken}")
            party = Party(PartyConfig(name="alice", parties=parties, node=node))
            with pytest.raises(NodeUnavailable, match=f"the node of alice cannot start: .*{taken}.* in use") as caught:
                await party.open()
            assert code_of(caught.value) is ExitCode.PEERS

    with reserved_ports(2) as ports:
        asyncio.run(asyncio.wait_for(open_party(ports), TIMEOUT_S))


def test_a_node_whose_lane_cannot_be_mapped_is_no_way_until_it_is_started_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise SegmentError("a segment cannot be mapped") from OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    async def play(ports: list[int]) -> None:
        parties = dict(zip(("alice", "bob"), (("127.0.0.1", port) for port in ports), strict=True))
        nodes = {name: NodeConfig(identity=tmp_path / f"{name}.key") for name in parties}
        configs = [PartyConfig(name=name, parties=parties, node=nodes[name]) for name in parties]
        nobody = NodeIdentity.generate().peer_id

        async def lose_node(party: Party) -> None:
            os.kill(party.pids["node"], signal.SIGKILL)
            await party.worker.until(lambda: party.node._is_process_awaited)
            while True:
                try:
                    await party.node.connect(nobody)
                except SubstreamSessionOver:
                    pass  # it was asked before we knew of its end

        async with AsyncExitStack() as stack:
            alice, bob = [Party(config) for config in configs]
            await asyncio.gather(*(stack.enter_async_context(party) for party in (alice, bob)))
            with monkeypatch.context() as short:
                short.setattr("partywire.shm.segment.map_whole", refuse)
                with pytest.raises(NoWayToPeer, match=r"alice cannot map the rings of its node's process: .* memory"):
                    await lose_node(alice)
            with pytest.raises(PeerNotKnown):
                await lose_node(alice)

    with reserved_ports(2) as ports:
        asyncio.run(asyncio.wait_for(play(ports), TIMEOUT_S))
