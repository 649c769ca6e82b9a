"""Connections between nodes of one process, over memory and over TCP: the scenarios of the reference, and ours."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import uvloop

from partywire.engine.memory import memory_pair
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.negotiation import NegotiationFailed
from partywire.engine.peers.contract import Direction
from partywire.engine.peers.errors import (
    ConnectionsClosed,
    PeerIsBanned,
    PeerNotKnown,
    PeerNotReached,
)
from partywire.engine.peers.events import (
    InboundFailed,
    NodeStateChanged,
    PeerBanned,
    PeerConnected,
    PeerConnectFailed,
    PeerDisconnected,
    PeerUpdated,
)
from partywire.engine.peers.identity import NodeIdentity
from partywire.engine.yamux.limits import YamuxLimits
from tests.peers.peer_net import ECHO, MEMORY, TCP, PeerNet, ask, next_event, scenario, until

everywhere = pytest.mark.parametrize("listen", [MEMORY, TCP])


# Reference: connection_manager.


@everywhere
@scenario
async def test_listening_at_port_0_tells_a_real_address(net: PeerNet, listen: str) -> None:
    node = await net.node("alice", listen=listen)
    assert node.addresses[0].parts[-1][1] != 0
    assert node.peers.claim.addresses == (node.addresses[0],)


@everywhere
@pytest.mark.parametrize("pattern", ["XX", "IX"])
@scenario
async def test_two_peers_connect_talk_and_part(net: PeerNet, listen: str, pattern: str) -> None:
    """The reference's smoke test: both ends hear of it, and know each other afterwards."""
    alice, bob = await net.pair(listen, noise_pattern=pattern)
    bob.serve_echo()
    heard = alice.peers.events(), bob.peers.events()
    connection = await alice.connect(bob)
    assert await ask(connection, b"HELLO") == b"HELLO"
    for events, node, other in zip(heard, (alice, bob), (bob, alice), strict=True):
        assert (await next_event(events, PeerConnected)).peer_id == other.peers.peer_id
        assert node.book.claim_of(other.peers.peer_id) == other.peers.claim
    theirs = bob.to(alice)
    assert theirs is not None
    assert (connection.direction, theirs.direction) == (Direction.DIALLED, Direction.ACCEPTED)
    assert connection.public_key == bob.identity.public_key
    assert connection.address == bob.addresses[0]
    await connection.aclose()
    for events, other in zip(heard, (bob, alice), strict=True):
        assert (await next_event(events, PeerDisconnected)).peer_id == other.peers.peer_id
    assert alice.peers.connections == bob.peers.connections == []


def test_peers_connect_on_uvloop_too() -> None:
    async def main() -> None:
        async with asyncio.timeout(20), PeerNet() as net:
            alice, bob = await net.pair(TCP)
            bob.serve_echo()
            connections = await asyncio.gather(alice.connect(bob), bob.connect(alice))
            assert await ask(connections[0], bytes(100_000)) == bytes(100_000)
            await connections[1].aclose()
            await connections[0].closed

    uvloop.run(main())


@scenario
async def test_a_banned_peer_is_refused_and_learns_so_and_its_ban_can_be_lifted(net: PeerNet) -> None:
    alice, bob = await net.pair(dial_attempts=1)
    connection = await alice.connect(bob)
    events = bob.peers.events()
    await bob.peers.ban(alice.peers.peer_id, "it was rude", 60.0)
    assert (await next_event(events, PeerBanned)).reason == "it was rude"
    await connection.closed
    with pytest.raises(PeerNotReached, match="BANNED"):
        await alice.connect(bob)
    assert bob.peers.counters.banned_refused == 1
    with pytest.raises(PeerIsBanned, match="it was rude"):
        await bob.connect(alice)
    assert bob.peers.unban(alice.peers.peer_id)
    assert not bob.peers.unban(alice.peers.peer_id)
    assert (await alice.connect(bob)).peer_id == bob.peers.peer_id


@scenario
async def test_a_ban_holds_for_a_peer_whose_key_was_never_seen_and_ends_with_its_time(net: PeerNet) -> None:
    alice, bob = await net.pair(dial_attempts=1)
    await bob.peers.ban(alice.peers.peer_id, "hearsay", 60.0)
    assert bob.book.peer_of_noise_key(alice.identity.noise_key.public.raw) is None
    with pytest.raises(PeerNotReached, match="BANNED"):
        await alice.connect(bob)
    bob.book._clock = lambda: time.time() + 61
    await alice.connect(bob)


@scenario
async def test_we_neither_ban_ourselves_nor_for_no_time(net: PeerNet) -> None:
    alice, bob = await net.pair()
    for peer_id, duration_s in (
        (alice.peers.peer_id, 1.0),
        (bob.peers.peer_id, 0.0),
        (bob.peers.peer_id, float("nan")),
    ):
        with pytest.raises(ValueError, match="a ban of"):
            await alice.peers.ban(peer_id, "", duration_s)


@scenario
async def test_a_peer_that_nobody_told_of_is_not_known(net: PeerNet) -> None:
    alice = await net.node("alice")
    events = alice.peers.events()
    stranger = NodeIdentity.generate().peer_id
    with pytest.raises(PeerNotKnown, match=str(stranger)):
        await alice.peers.connect(stranger)
    assert (await next_event(events, PeerConnectFailed)).peer_id == stranger


@everywhere
@scenario
async def test_a_dial_succeeds_and_both_ends_have_protocols_and_user_agent(net: PeerNet, listen: str) -> None:
    alice, bob = await net.pair(listen)
    bob.serve_echo()
    connection = await alice.connect(bob)
    theirs = bob.to(alice)
    assert theirs is not None
    assert (connection.claim.user_agent, theirs.claim.user_agent) == ("test bob", "test alice")
    assert ECHO in connection.claim.protocols
    with pytest.raises(NegotiationFailed):
        await connection.open(["/test/nobody/1"])
    assert await ask(connection, b"carried") == b"carried"


@scenario
async def test_a_dial_that_nobody_waits_for_is_cancelled(net: PeerNet) -> None:
    silent = await net.loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    async with silent:
        alice, bob = await net.pair()
        port = silent.sockets[0].getsockname()[1]
        alice.book.add(bob.peers.peer_id, [])
        carol = NodeIdentity.generate().peer_id
        alice.book.add(carol, [Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{port}")])
        waiting = [asyncio.create_task(alice.peers.connect(carol)) for _ in range(2)]
        await until(lambda: alice.peers.counters.dials == 1)
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        assert not waiting[1].done()
        waiting[1].cancel()
        await asyncio.wait(waiting)
        assert all(task.cancelled() for task in waiting)
        await until(lambda: not alice.peers._pool.dials)
        assert alice.peers.counters.dials_failed == 0


@scenario
async def test_callers_at_the_same_time_share_one_dial(net: PeerNet) -> None:
    alice, bob = await net.pair()
    connections = await asyncio.gather(*(alice.connect(bob) for _ in range(20)))
    assert len({id(connection) for connection in connections}) == 1
    assert alice.peers.counters.dials == 1
    assert await alice.connect(bob) is connections[0]


# Reference: connectivity.


@scenario
async def test_ten_peers_connect_to_each_other_and_each_event_is_heard(net: PeerNet) -> None:
    nodes = [await net.node(f"node{index}") for index in range(10)]
    for node in nodes:
        node.knows(*nodes)
        node.serve_echo()
    events = nodes[0].peers.events()
    pairs = [(one, two) for one in nodes for two in nodes if one is not two]
    await asyncio.gather(*(one.connect(two) for one, two in pairs))
    await until(lambda: all(len(node.peers.connections) == 9 for node in nodes))
    heard = {(await next_event(events, PeerConnected)).peer_id for _ in range(9)}
    assert heard == {node.peers.peer_id for node in nodes[1:]}
    connections = [await one.connect(two) for one, two in pairs]
    assert await asyncio.gather(*(ask(connection, b"x") for connection in connections)) == [b"x"] * 90
    assert sum(node.peers.counters.connected for node in nodes) == 90


@scenario
async def test_a_peer_that_goes_and_comes_back_is_connected_anew(net: PeerNet) -> None:
    alice, bob = await net.pair()
    await alice.connect(bob)
    events = alice.peers.events()
    await bob.peers.aclose()
    assert (await next_event(events, PeerDisconnected)).peer_id == bob.peers.peer_id
    with pytest.raises(PeerNotReached) as caught:
        await alice.connect(bob)
    assert caught.value.attempts == 3
    again = await net.node("bob again", identity=bob.identity, listen=str(bob.addresses[0]))
    assert (await alice.connect(again)).claim.user_agent == "test bob again"
    assert (await next_event(events, PeerConnected)).peer_id == bob.peers.peer_id


@scenario
async def test_idle_connections_above_the_number_to_keep_are_closed_and_used_ones_stay(net: PeerNet) -> None:
    hub = await net.node("hub", idle_timeout_s=100.0, idle_keep=1)
    nodes = [await net.node(f"node{index}") for index in range(4)]
    hub.knows(*nodes)
    for node in nodes:
        node.serve_echo()
    used, *idle = [await hub.connect(node) for node in nodes]
    _, reader, writer = await used.open([ECHO])
    await until(lambda: not any(one.substreams for one in hub.peers._pool.standing.values() if one is not used))
    now = net.loop.time()
    hub.peers._pool.reap(now + 90)
    assert hub.peers.counters.reaped == 0
    hub.peers._pool.reap(now + 150)
    assert hub.peers.counters.reaped == 3
    await asyncio.gather(*(connection.closed for connection in idle))
    writer.write(b"still here")
    assert await reader.readexactly(10) == b"still here"
    writer.close()
    hub.peers._pool.reap(now + 1000)
    assert hub.peers.connections == [used]


@scenario
async def test_idle_connections_are_looked_for_now_and_then(net: PeerNet) -> None:
    alice, bob = await net.pair(idle_timeout_s=0.01, idle_keep=0, reap_interval_s=0.02)
    await (await alice.connect(bob)).closed
    assert alice.peers.counters.reaped + bob.peers.counters.reaped >= 1


# Which address.


@scenario
async def test_a_bad_address_is_passed_over_and_a_good_one_remembered(net: PeerNet) -> None:
    alice = await net.node("alice")
    bob = await net.node("bob", listen=TCP)
    nobody = Multiaddr.parse("/memory/54321")
    udp = Multiaddr.parse("/ip4/127.0.0.1/udp/1")
    alice.book.add(bob.peers.peer_id, [nobody, udp, bob.addresses[0]])
    connection = await alice.connect(bob)
    assert connection.address == bob.addresses[0]
    assert alice.peers.counters.addresses_failed == 2
    await connection.aclose()
    assert alice.book.addresses_of(bob.peers.peer_id)[0] == bob.addresses[0]
    await alice.connect(bob)
    assert alice.peers.counters.addresses_failed == 2


@pytest.mark.parametrize("rule", ["127.0.0.0/8", "the address"])
@scenario
async def test_an_excluded_address_is_not_dialled_and_others_are(net: PeerNet, rule: str) -> None:
    """Reference: excluded_yes, excluded_no."""
    bob = await net.node("bob", listen=TCP)
    rules = (str(bob.addresses[0]) if rule == "the address" else rule,)
    alice = await net.node("alice", never_dial=rules)
    alice.knows(bob)
    with pytest.raises(PeerNotReached, match="never_dial excludes it"):
        await alice.connect(bob)
    assert bob.peers.counters.inbound == 0
    await bob.listen()
    alice.knows(bob)
    assert (await alice.connect(bob)).address == bob.addresses[1]
    carol = await net.node("carol", never_dial=("10.0.0.0/8", "/ip4/127.0.0.1/tcp/1"))
    carol.knows(bob)
    assert (await carol.connect(bob)).address == bob.addresses[0]


@scenario
async def test_an_address_that_does_not_answer_does_not_hold_up_the_next_one(net: PeerNet) -> None:
    class Stuck:
        """Connects to nothing at one address."""

        async def dial(self, address: Multiaddr, timeout_s: float) -> object:
            if address == stuck:
                await asyncio.Event().wait()
            return await net.router.dial(address, timeout_s)

        listen = net.router.listen

    stuck = Multiaddr.parse("/memory/54321")
    alice = await net.node("alice", transports=Stuck(), dial_stagger_s=0.01)  # type: ignore[arg-type]
    bob = await net.node("bob")
    alice.book.add(bob.peers.peer_id, [stuck, *bob.addresses])
    assert (await alice.connect(bob)).address == bob.addresses[0]


@scenario
async def test_another_peer_at_the_address_is_not_the_one_that_was_dialled(net: PeerNet) -> None:
    alice, bob = await net.pair(dial_attempts=2)
    mallory = await net.node("mallory")
    carol = NodeIdentity.generate().peer_id
    alice.book.add(carol, mallory.addresses)
    with pytest.raises(PeerNotReached, match=f"it is peer {mallory.peers.peer_id}") as caught:
        await alice.peers.connect(carol)
    assert caught.value.attempts == 2
    assert alice.peers.connections == []
    await until(lambda: mallory.peers.connections == [])
    # Whose key is known already is found out before anything of ours is shown.
    await (await alice.connect(bob)).aclose()
    await bob.peers.aclose()
    impostor = await net.node("impostor", listen=str(bob.addresses[0]))
    with pytest.raises(PeerNotReached, match="not that of the peer to be found there"):
        await alice.connect(bob)
    assert impostor.peers.counters.connected == 0


@scenario
async def test_the_same_peer_at_both_ends_is_refused(net: PeerNet) -> None:
    alice = await net.node("alice")
    twin = await net.node("twin", identity=alice.identity)
    alice.knows(twin)
    with pytest.raises(PeerNotReached, match="OURSELVES"):
        await alice.connect(twin)


@pytest.mark.parametrize("change", [{"network_byte": 1}, {"noise_pattern": "IX"}, {"noise_cipher": "AESGCM"}])
@scenario
async def test_peers_of_another_network_or_handshake_do_not_find_together(net: PeerNet, change: dict[str, Any]) -> None:
    alice = await net.node("alice", dial_attempts=1)
    bob = await net.node("bob", handshake_timeout_s=0.2, **change)
    alice.knows(bob)
    events = bob.peers.events()
    with pytest.raises(PeerNotReached):
        await alice.connect(bob)
    failed = await next_event(events, InboundFailed)
    assert ("first byte" in failed.cause) == ("network_byte" in change)
    assert bob.peers.counters.inbound_failed == 1


# What we say about ourselves.


@scenario
async def test_changes_are_told_to_connected_peers_and_kept_by_them(net: PeerNet) -> None:
    alice, bob = await net.pair()
    connection = await bob.connect(alice)
    events = bob.peers.events()
    before = connection.claim
    elsewhere = Multiaddr.parse("/dns4/alice.example/tcp/7101")
    alice.peers.advertise([elsewhere], features=5)
    alice.serve_echo()
    assert (await next_event(events, PeerUpdated)).peer_id == alice.peers.peer_id
    assert (connection.claim.addresses, connection.claim.features) == ((elsewhere,), 5)
    assert ECHO in connection.claim.protocols
    assert connection.claim.updated_at > before.updated_at
    assert bob.book.claim_of(alice.peers.peer_id) == connection.claim
    alice.peers.unserve(ECHO)
    await next_event(events, PeerUpdated)
    assert ECHO not in connection.claim.protocols
    with pytest.raises(ValueError, match="cannot be claimed"):
        alice.peers.advertise([Multiaddr.parse("/ip4/0.0.0.0/tcp/1")])
    assert alice.peers.claim.addresses == (elsewhere,)


@scenario
async def test_a_peer_that_takes_no_change_holds_up_no_other(net: PeerNet) -> None:
    alice, slow, quick = [await net.node(name) for name in ("alice", "slow", "quick")]
    alice.knows(slow, quick)
    await alice.connect(slow)
    await alice.connect(quick)
    slow.peers._own.handlers["/partywire/identity/push/1"] = lambda *_: asyncio.Event().wait()  # type: ignore[assignment]
    events = quick.peers.events()
    alice.serve_echo()
    await next_event(events, PeerUpdated)
    alice.peers.unserve(ECHO)
    await next_event(events, PeerUpdated)
    heard = slow.to(alice)
    assert heard is not None
    assert heard.claim.updated_at < alice.peers.claim.updated_at


@scenario
async def test_more_addresses_than_a_claim_holds_are_listened_at(net: PeerNet) -> None:
    node = await net.node("alice")
    for _ in range(9):
        await node.listen()
    assert node.peers.claim.addresses == tuple(node.addresses[:8])
    outside = await net.node("outside", is_local=False)
    assert outside.peers.claim.addresses == ()
    with pytest.raises(ValueError, match="outside its process"):
        outside.peers.advertise(outside.addresses)


@everywhere
@scenario
async def test_each_end_tells_where_it_sees_the_other_one(net: PeerNet, listen: str) -> None:
    alice, bob = await net.pair(listen)
    ours = await alice.connect(bob)
    theirs = bob.to(alice)
    assert theirs is not None
    assert ours.observed == theirs.address  # type: ignore[attr-defined]
    assert theirs.observed == bob.addresses[0]  # type: ignore[attr-defined]


@scenario
async def test_a_wildcard_is_listened_at_and_never_claimed(net: PeerNet) -> None:
    node = await net.node("alice", listen="/ip4/0.0.0.0/tcp/0")
    assert node.peers.claim.addresses == ()


# Limits and the end.


@scenario
async def test_peers_above_the_limit_are_told_that_there_is_no_room(net: PeerNet) -> None:
    hub = await net.node("hub", connections_max=2)
    nodes = [await net.node(f"node{index}", dial_attempts=1) for index in range(3)]
    for node in nodes:
        node.knows(hub)
    await nodes[0].connect(hub)
    connection = await nodes[1].connect(hub)
    with pytest.raises(PeerNotReached, match="FULL"):
        await nodes[2].connect(hub)
    await connection.aclose()
    await until(lambda: len(hub.peers.connections) == 1)
    await nodes[2].connect(hub)


@scenario
async def test_only_peers_on_the_list_may_dial(net: PeerNet) -> None:
    carol, dave = [await net.node(name, dial_attempts=1) for name in ("carol", "dave")]
    hub = await net.node("hub", allowed=frozenset({carol.peers.peer_id}))
    for node in (carol, dave):
        node.knows(hub)
        hub.knows(node)
    await carol.connect(hub)
    with pytest.raises(PeerNotReached, match="NOT_ALLOWED"):
        await dave.connect(hub)
    assert (await hub.connect(dave)).direction is Direction.DIALLED


@scenario
async def test_a_connection_that_is_being_closed_is_not_given_to_anybody(net: PeerNet) -> None:
    alice, bob = await net.pair(close_timeout_s=5.0)
    alice.serve_echo()
    bob.serve_echo()
    old = await alice.connect(bob)
    _, _, writer = await old.open([ECHO])
    writer.write(b"x")
    closing = asyncio.create_task(old.aclose())
    await until(lambda: alice.peers.connections == bob.peers.connections == [])
    assert not old.closed.done()
    new = await alice.connect(bob)
    assert new is not old
    assert await ask(new, b"new") == b"new"
    assert await ask(await bob.connect(alice), b"back") == b"back"
    writer.close()
    await closing


@scenario
async def test_a_dead_peer_is_found_by_pings(net: PeerNet) -> None:
    alice = await net.node("alice", substreams=YamuxLimits(keepalive_s=0.05, ping_timeout_s=0.5))
    bob = await net.node("bob")
    alice.knows(bob)
    connection = await alice.connect(bob)
    assert await connection.ping() >= 0
    theirs = bob.to(alice)
    theirs._substreams._stream.on_readable(None)  # type: ignore[union-attr]  # it is there, and does nothing
    theirs._substreams._read_on = lambda: None  # type: ignore[union-attr]
    assert "ping" in await connection.closed


@scenario
async def test_behind_its_end_a_node_does_nothing_any_more(net: PeerNet) -> None:
    alice, bob = await net.pair()
    await alice.connect(bob)
    events = alice.peers.events()
    await alice.peers.aclose()
    assert [type(event) async for event in events] == [PeerDisconnected, NodeStateChanged]
    with pytest.raises(ConnectionsClosed):
        await alice.connect(bob)
    with pytest.raises(ConnectionsClosed):
        await alice.listen()
    with pytest.raises(PeerNotReached):
        await bob.connect(alice)
    await alice.peers.aclose()


@scenario
async def test_what_is_cancelled_before_it_began_leaves_nothing(net: PeerNet) -> None:
    alice, bob = await net.pair()
    task = asyncio.create_task(alice.connect(bob))
    await asyncio.sleep(0)
    task.cancel()  # its dial has not run yet
    await asyncio.wait((task,))
    assert (await alice.connect(bob)).peer_id == bob.peers.peer_id
    stream, accepted = memory_pair(net.loop)
    bob.peers.accept(accepted, bob.addresses[0])
    await bob.peers.aclose()
    with pytest.raises(OSError, match=r"."):
        stream.try_recv_into(memoryview(bytearray(1)))
    stream.close()


@scenario
async def test_the_end_of_a_node_ends_its_dials(net: PeerNet) -> None:
    silent = await net.loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    async with silent:
        alice = await net.node("alice")
        carol = NodeIdentity.generate().peer_id
        alice.book.add(carol, [Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{silent.sockets[0].getsockname()[1]}")])
        task = asyncio.create_task(alice.peers.connect(carol))
        await until(lambda: alice.peers.counters.dials)
        await alice.peers.aclose()
        with pytest.raises(ConnectionsClosed):
            await task
