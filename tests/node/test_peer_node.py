"""A node as a program has it: set up, used, and ended."""

from __future__ import annotations

import asyncio
import stat
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from partywire import NodeConfig, PartyWireError, PeerNode, RpcService
from partywire.engine.channel.errors import CredentialError
from partywire.engine.listening import ListenError
from partywire.engine.named_handlers import HandlerNotLoaded
from partywire.engine.peer_store.store import PeerStore
from partywire.engine.peers.errors import PeerNotReached
from partywire.engine.peers.options import PeerOptions
from partywire.engine.transports import Switchboard, TransportSettings, WebSocketSettings
from partywire.workers.node import SocksConfig
from tests.peers.peer_net import ask, echo, next_event

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from partywire.engine.messaging.messaging import Message, Next
    from partywire.engine.rpc.service import RpcCall

DEADLINE_S = 20.0

LOOPBACK = "/ip4/127.0.0.1/tcp/0"

FAST = PeerOptions(is_local=True, close_timeout_s=0.1, back_off_min_s=0.001, back_off_max_s=0.01)


def in_time(scenario: Coroutine[object, object, None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await scenario

    asyncio.run(main())


@pytest.mark.parametrize("listen", ["/memory/0", LOOPBACK])
def test_two_nodes_exchange_messages_calls_and_substreams(listen: str) -> None:
    async def scenario() -> None:
        bob = PeerNode(listen=listen, connections=FAST)
        bob.protocol("/test/early/1")(echo)
        async with PeerNode(connections=FAST) as alice, bob:
            bob.serve("/test/late/1", echo)
            service = RpcService("/test/service/1")

            @service.method("whoami")
            async def whoami(call: RpcCall, payload: bytes) -> bytes:
                return str(call.peer_id).encode()

            bob.rpc.add(service)
            assert alice.add_peer(str(bob.peer_id), *map(str, bob.addresses)) == bob.peer_id
            events = alice.events()
            connection = await alice.connect(str(bob.peer_id))
            for protocol in ("/test/early/1", "/test/late/1"):
                assert await ask(connection, b"hello", protocol) == b"hello"
            delivery = await alice.messages.send(bob.peer_id, b"to bob")
            assert (await bob.messages.receive()).body == b"to bob"
            await delivery.acknowledged()
            await (await bob.messages.send(alice.peer_id, b"to alice")).acknowledged()  # over the same connection
            assert (await alice.messages.receive()).peer_id == bob.peer_id
            async with alice.rpc.client(bob.peer_id, "/test/service/1") as client:
                assert await client.call("whoami") == str(alice.peer_id).encode()
            bob.rpc.remove(service)
            assert [one.peer_id for one in alice.connections] == [bob.peer_id]
            counters = bob.counters
            assert counters["connections"] == counters["peers_connected"] == 1
            assert counters["messages_sent"] == counters["messages_received"] == counters["rpc_calls"] == 1
            assert (await next_event(events, object)) is not None
        assert bob.counters["peers_disconnected"] == 1
        assert bob.counters["connections"] == 0

    in_time(scenario())


def test_the_identity_is_made_once_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "node.key"

    async def scenario() -> None:
        async with PeerNode(identity=path) as node:
            first = node.peer_id
        async with PeerNode(identity=str(path)) as again, PeerNode() as other:
            assert again.peer_id == first != other.peer_id
        path.chmod(0o644)
        with pytest.raises(CredentialError, match="chmod 600"):
            await PeerNode(identity=path).start()
        with pytest.raises(CredentialError, match="cannot be written"):
            await PeerNode(identity=tmp_path / "no folder" / "node.key").start()

    old = path.parent.stat().st_mode
    in_time(scenario())
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # as we left it: a refused file is not mended
    assert path.parent.stat().st_mode == old


def test_a_new_identity_file_has_mode_0600(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with PeerNode(identity=tmp_path / "node.key"):
            pass

    in_time(scenario())
    assert stat.S_IMODE((tmp_path / "node.key").stat().st_mode) == 0o600


def test_a_file_sets_everything_up_beside_itself(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(f'[node]\nidentity = "node.key"\nlisten = "{LOOPBACK}"\nuser_agent = "from a file"\n')

    async def scenario() -> None:
        async with PeerNode(path) as node:
            assert node.peers.claim.user_agent == "from a file"
            assert node.peers.claim.addresses == tuple(node.addresses)
            assert node.addresses[0].parts[1][1] != 0
        assert (tmp_path / "node.key").exists()

    in_time(scenario())


def test_what_a_store_holds_outlives_the_node(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with PeerNode(listen=LOOPBACK, connections=FAST) as bob:
            settings = NodeConfig(identity=tmp_path / "alice.key", store=tmp_path / "peers", connections=FAST)
            async with PeerNode(settings, peers={bob.peer_id: bob.addresses}) as alice:
                await alice.connect(bob.peer_id)
            async with PeerNode(settings) as alice:
                assert (await alice.connect(bob.peer_id)).peer_id == bob.peer_id
                await alice.peers.ban(bob.peer_id, "a test", 60)
            async with PeerNode(settings) as alice:
                with pytest.raises(PartyWireError, match="a test"):
                    await alice.connect(bob.peer_id)

    in_time(scenario())


def test_a_node_that_cannot_start_leaves_nothing_open() -> None:
    switchboard = Switchboard()

    async def scenario() -> None:
        async with PeerNode(listen=LOOPBACK) as first:
            failing = PeerNode(listen=["/memory/7", *first.addresses], switchboard=switchboard)
            with pytest.raises(ListenError, match="in use"):
                await failing.start()
        with pytest.raises(RuntimeError, match="once"):
            await failing.start()
        async with PeerNode(listen="/memory/7", switchboard=switchboard):  # so it was given back
            pass

    in_time(scenario())


def test_a_node_says_when_it_is_used_too_early_or_too_late() -> None:
    async def scenario() -> None:
        node = PeerNode()
        assert "not started" in repr(node)
        for use in ("peer_id", "peers", "messages", "rpc", "counters", "connections"):
            with pytest.raises(RuntimeError, match="not started"):
                getattr(node, use)
        with pytest.raises(RuntimeError, match="not started"):
            node.add_peer("ab" * 13, LOOPBACK)
        node.serve("/test/once/1", echo)
        for protocol in ("/test/once/1", ""):
            with pytest.raises(ValueError, match=r"served already|1 to 255|bytes"):
                node.serve(protocol, echo)
        async with node:
            with pytest.raises(ValueError, match="served already"):
                node.serve("/test/once/1", echo)
            with pytest.raises(ValueError, match="not the id"):
                node.add_peer("bob", LOOPBACK)
            with pytest.raises(ValueError, match="not a multiaddress"):
                node.add_peer("ab" * 13, "bob:7300")
        await node.aclose()
        assert "ended" in repr(node)
        with pytest.raises(RuntimeError, match="has ended"):
            node.add_peer("ab" * 13, LOOPBACK)
        with pytest.raises(PartyWireError):
            await node.connect("ab" * 13)

    in_time(scenario())


def test_a_start_that_is_cancelled_leaves_the_store_to_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        began, may_open = asyncio.Event(), threading.Event()

        def open_late(path: Path) -> PeerStore:
            loop.call_soon_threadsafe(began.set)
            assert may_open.wait(DEADLINE_S)
            return PeerStore(path)

        with monkeypatch.context() as patched:
            patched.setattr("partywire.engine.peer_store.store.PeerStore", open_late)
            starting = asyncio.create_task(PeerNode(store=tmp_path / "peers").start())
            await began.wait()
            starting.cancel()
            await asyncio.sleep(0)
            may_open.set()
            with pytest.raises(asyncio.CancelledError):
                await starting
        async with PeerNode(store=tmp_path / "peers"):
            pass

    in_time(scenario())


def test_a_node_that_was_closed_is_not_started() -> None:
    async def scenario() -> None:
        node = PeerNode()
        await node.aclose()
        with pytest.raises(RuntimeError, match="once"):
            await node.start()

    in_time(scenario())


def test_layers_see_messages_in_order() -> None:
    async def scenario() -> None:
        seen: list[str] = []

        def layer(name: str) -> object:
            async def call(message: Message, following: Next) -> None:
                seen.append(name)
                await following(message)

            return call

        outbound, inbound = [layer("out")], [layer("first"), layer("second")]
        async with (
            PeerNode(outbound=outbound, connections=FAST) as alice,  # type: ignore[arg-type]
            PeerNode(listen="/memory/0", inbound=inbound, connections=FAST) as bob,  # type: ignore[arg-type]
        ):
            alice.add_peer(bob.peer_id, *bob.addresses)
            await (await alice.messages.send(bob.peer_id, b"")).acknowledged()
        assert seen == ["out", "first", "second"]

    in_time(scenario())


def test_closing_fails_what_was_not_delivered() -> None:
    async def scenario() -> None:
        async with PeerNode(connections=FAST) as bob:
            absent = bob.peer_id
        async with PeerNode(listen="/memory/0") as alice:
            alice.add_peer(absent, "/memory/9999")
            delivery = await alice.messages.send(absent, b"never")
        with pytest.raises(PartyWireError):
            await delivery.acknowledged()

    in_time(scenario())


def test_everything_goes_through_the_proxy_that_was_asked_for(tmp_path: Path) -> None:
    """A proxy that is not there: no connection is made around it, and its password is read from a private file."""
    password = tmp_path / "password"
    password.write_text("secret\n")

    async def scenario() -> None:
        async with PeerNode(listen=LOOPBACK, connections=FAST) as bob:
            socks = SocksConfig(
                address="/unix" + str(tmp_path / "proxy"), scope="all", username="a", password_file=str(password)
            )
            with pytest.raises(CredentialError, match="chmod 600"):
                await PeerNode(socks=socks).start()
            password.chmod(0o600)
            async with PeerNode(socks=socks, connections=FAST) as alice:
                alice.add_peer(bob.peer_id, *bob.addresses)
                with pytest.raises(PeerNotReached, match="proxy"):
                    await alice.connect(bob.peer_id)
            assert bob.counters["peers_inbound"] == 0

    in_time(scenario())


def test_a_program_may_bring_transport_settings() -> None:
    async def scenario() -> None:
        settings = TransportSettings(websocket=WebSocketSettings(path="/node"))
        listen = "/ip4/127.0.0.1/tcp/0/ws"
        async with PeerNode(listen=listen, transports=settings) as bob:
            async with PeerNode(transports=settings) as alice:
                alice.add_peer(bob.peer_id, *bob.addresses)
                assert (await alice.connect(bob.peer_id)).peer_id == bob.peer_id
            async with PeerNode(connections=FAST) as eve:  # asks for another path
                eve.add_peer(bob.peer_id, *bob.addresses)
                with pytest.raises(PeerNotReached):
                    await eve.connect(bob.peer_id)

    in_time(scenario())


def test_a_node_serves_the_handlers_that_its_configuration_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shouting_for_test.py").write_text(
        "level = 3\nasync def shout(connection, reader, writer):\n    writer.write((await reader.readline()).upper())\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    async def scenario() -> None:
        named = {"/test/shout/1": "shouting_for_test:shout"}
        async with (
            PeerNode(listen="/memory/0", protocols=named, connections=FAST) as server,
            PeerNode(connections=FAST) as client,
        ):
            client.add_peer(server.peer_id, *server.addresses)
            connection = await client.connect(server.peer_id)
            _, reader, writer = await connection.open(["/test/shout/1"])
            writer.write(b"hello\n")
            assert await reader.readline() == b"HELLO\n"
            writer.close()
        for target, what in [
            ("shouting_for_test:level", "has no level that is an async function"),
            ("not_there_for_test:x", "ModuleNotFoundError"),
        ]:
            with pytest.raises(HandlerNotLoaded, match=what):
                await PeerNode(protocols={"/test/1": target}).start()

    in_time(scenario())
