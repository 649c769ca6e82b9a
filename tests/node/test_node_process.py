"""The program of a party's node, in this process: told by a supervisor, handed connections by a gateway."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from partywire import NodeConfig, PeerNode
from partywire.engine.commands import Accepted, AreYouThere, Close, Here, LinkClaimed, PublishStat
from partywire.engine.control_socket import ControlSocket, close_all
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.node_commands import NodeFailed, NodeLane, NodeOptions, RunNode
from partywire.engine.peer_store.store import PeerStore
from partywire.engine.peers.identity import NodeIdentity
from partywire.engine.peers.options import PeerOptions
from partywire.engine.ring_stream import RingStream
from partywire.engine.stat_page import StatPageReader, create_stat_page
from partywire.shm import fence
from partywire.shm.doorbell import Bell, create_doorbell
from partywire.shm.ring import RingReader, RingWriter
from partywire.shm.segment import Segment
from partywire.workers.node.node_process import NodeProcess
from partywire.workers.node.table import table_of
from tests.node.test_peer_node import in_time
from tests.peers.claim_making import claim_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from partywire.engine.commands import Message


class Rig:
    """A NodeProcess between ends that are the test's."""

    def __init__(self, supervisor: ControlSocket, gateway: ControlSocket, running: asyncio.Task[None]) -> None:
        self.supervisor = supervisor
        self.gateway = gateway
        self.running = running

    async def hear(self, kind: type[Any]) -> Any:
        """The next message of the node, whose descriptors are closed."""
        message, fds = await self.receive()
        close_all(fds)
        assert isinstance(message, kind), message
        return message

    async def receive(self) -> tuple[Message, list[int]]:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self.supervisor.fileno(), ready.set)
        try:
            while (received := self.supervisor.try_receive()) is None:
                ready.clear()
                await ready.wait()
        finally:
            loop.remove_reader(self.supervisor.fileno())
        return received

    def dial(self) -> socket.socket:
        """A connection as the gateway hands it over."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()
            with theirs:
                self.gateway.send(Accepted(b"", "127.0.0.1:1"), [theirs.fileno()])
        ours.settimeout(10)
        return ours


def run_node(config: NodeConfig, *advertised: str, ring_size: int = 64 * 1024) -> RunNode:
    options = NodeOptions(json.dumps(table_of(config)), config.path, 0)
    return RunNode("alice", options, list(advertised), epoch=3, ring_size=ring_size, close_timeout_s=2.0)


@asynccontextmanager
async def node_process(config: NodeConfig, *advertised: str, **changes: Any) -> AsyncIterator[Rig]:
    bell = create_doorbell()
    control, supervisor = ControlSocket.pair()
    node_end, gateway = ControlSocket.pair()
    with (
        ControlSocket(control, "the supervisor") as told,
        ControlSocket(supervisor, "the node") as tells,
        ControlSocket(gateway, "the node") as hands_over,
    ):
        node = NodeProcess(told, run_node(config, *advertised, **changes), [*bell, node_end.detach()])
        running = asyncio.create_task(node.run())
        rig = Rig(tells, hands_over, running)
        try:
            await rig.hear(Here)
            yield rig
        finally:
            if not running.done():
                tells.post(Close())
            await running


FAST = PeerOptions(close_timeout_s=0.1, back_off_min_s=0.001, back_off_max_s=0.01)


def test_a_node_that_stands_says_where_and_claims_the_address_of_its_party(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = NodeConfig(identity=tmp_path / "alice.key", listen="/ip4/127.0.0.1/tcp/0", connections=FAST)
        async with node_process(config, "/dns/alice.example/tcp/7101") as rig:
            lane: NodeLane = await rig.hear(NodeLane)
            assert lane.peer_id == str(NodeIdentity.load(tmp_path / "alice.key").peer_id)
            [listening] = lane.addresses
            async with PeerNode(connections=FAST) as stranger:
                stranger.add_peer(lane.peer_id, listening)
                connection = await stranger.connect(lane.peer_id)
                assert [str(one) for one in connection.claim.addresses] == [listening, "/dns/alice.example/tcp/7101"]

    in_time(scenario())


@pytest.mark.parametrize("advertise", ["/dns4/elsewhere.example/tcp/1", []])
def test_what_is_to_be_claimed_instead_is(tmp_path: Path, advertise: Any) -> None:
    async def scenario() -> None:
        config = NodeConfig(
            identity=tmp_path / "key", listen="/ip4/127.0.0.1/tcp/0", advertise=advertise, connections=FAST
        )
        async with node_process(config, "/dns/alice.example/tcp/7101") as rig:
            lane: NodeLane = await rig.hear(NodeLane)
            async with PeerNode(connections=FAST) as stranger:
                stranger.add_peer(lane.peer_id, *lane.addresses)
                claim = (await stranger.connect(lane.peer_id)).claim
                assert [str(one) for one in claim.addresses] == ([advertise] if advertise else [])

    in_time(scenario())


def test_the_gateway_hands_over_who_dials_and_who_asks_for_an_echo(tmp_path: Path) -> None:
    async def scenario() -> None:
        options = PeerOptions(close_timeout_s=0.1, liveness_permits=1, network_byte=9, first_byte_timeout_s=0.2)
        async with node_process(NodeConfig(identity=tmp_path / "key", connections=options)) as rig:
            await rig.hear(NodeLane)
            with rig.dial() as echoed, rig.dial() as foreign, rig.dial() as silent, rig.dial() as gone:
                gone.close()
                foreign.sendall(b"\x08")
                echoed.sendall(b"\xa7hello\n")
                for sock, heard in ((echoed, b"hello\n"), (foreign, b""), (silent, b"")):
                    try:
                        assert await asyncio.to_thread(sock.recv, 100) == heard
                    except ConnectionResetError:
                        assert heard == b""

    in_time(scenario())


def claimed(identity: NodeIdentity, address: str) -> LinkClaimed:
    claim = claim_of(identity, addresses=(Multiaddr.parse(address),))
    return LinkClaimed(1, claim.encode(), "")


def test_what_linked_peers_say_about_themselves_is_known_to_the_node_and_kept(tmp_path: Path) -> None:
    bob, charlie = NodeIdentity.generate(), NodeIdentity.generate()

    async def scenario() -> None:
        config = NodeConfig(identity=tmp_path / "key", store=tmp_path / "peers", connections=FAST)
        async with node_process(config) as rig:
            rig.supervisor.send(claimed(bob, "/dns/bob.example/tcp/1"))  # before the node stands
            await rig.hear(NodeLane)
            rig.supervisor.send(LinkClaimed(2, b"no claim", ""))
            rig.supervisor.send(claimed(charlie, "/dns/charlie.example/tcp/2"))
            rig.supervisor.send(AreYouThere())
            await rig.hear(Here)
        with PeerStore(tmp_path / "peers") as store:
            for peer, address in ((bob, "/dns/bob.example/tcp/1"), (charlie, "/dns/charlie.example/tcp/2")):
                record = store.get(peer.peer_id)
                assert record is not None
                assert [str(known.address) for known in record.addresses] == [address]
            assert store.count() == 2

    in_time(scenario())


def test_a_node_shows_its_figures(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with node_process(NodeConfig(identity=tmp_path / "key", connections=FAST)) as rig:
            await rig.hear(NodeLane)
            page = create_stat_page()
            reader = StatPageReader(os.dup(page))
            try:
                rig.supervisor.send(PublishStat(), [page])
                rig.supervisor.send(AreYouThere())
                await rig.hear(Here)
                published = reader.read()
                assert published is not None
                figures = {(value.name, value.labels): value.value for value in published.values}
                assert figures["node_connections", ()] == 0
                assert figures["node_events_total", (("event", "dials"),)] == 0
            finally:
                reader.close()
                os.close(page)

    in_time(scenario())


def test_a_lane_that_broke_is_followed_by_another_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with node_process(NodeConfig(identity=tmp_path / "key", connections=FAST)) as rig:
            first, fds = await rig.receive()
            assert isinstance(first, NodeLane)
            bell, order = Bell.from_fds(fds[0], fds[1]), fence.probe()
            reader = RingReader(Segment.attach(fds[3]), order, bell)
            writer = RingWriter(Segment.attach(fds[2]), order, bell)
            opener = RingStream(reader, writer, first.epoch, asyncio.get_running_loop().call_soon, "the node")
            opener.abort("Ctrl-C")
            bell.close()
            second: NodeLane = await rig.hear(NodeLane)
            assert second.epoch != first.epoch
            assert second.peer_id == first.peer_id

    in_time(scenario())


def test_a_party_that_closes_at_once_waits_for_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        has_begun = asyncio.Event()

        async def listen(*_: object) -> list[Multiaddr]:
            has_begun.set()
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

        monkeypatch.setattr("partywire.workers.node.node_process.listen", listen)
        async with node_process(NodeConfig(identity=tmp_path / "key", connections=FAST)) as rig:
            await has_begun.wait()
            rig.supervisor.send(Close())
            await rig.running
            assert rig.supervisor.try_receive() is None

    in_time(scenario())


def test_a_node_whose_supervisor_is_gone_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with node_process(NodeConfig(identity=tmp_path / "key", connections=FAST)) as rig:
            await rig.hear(NodeLane)
            rig.supervisor.close()
            await rig.running

    in_time(scenario())


def test_a_start_that_comes_to_nothing_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("no key\n")
    (tmp_path / "key").chmod(0o600)

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as other, PeerStore(tmp_path / "peers"):
            cases: dict[str, dict[str, Any]] = {
                "key": {"identity": tmp_path / "key"},
                "address already in use": {"listen": f"/ip4/127.0.0.1/tcp/{other.getsockname()[1]}"},
                "give each node a folder of its own": {"store": tmp_path / "peers"},
                "No module named 'not_there_for_test'": {"protocols": {"/test/1": "not_there_for_test:handler"}},
            }
            for why, settings in cases.items():
                async with node_process(NodeConfig(**settings, connections=FAST)) as rig:
                    failed: NodeFailed = await rig.hear(NodeFailed)
                    assert failed.message.startswith("the node of alice cannot start: ")
                    assert why in failed.message
                    await rig.running

    in_time(scenario())
