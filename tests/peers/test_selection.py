"""Which peers are chosen: the nearest, any, with features and protocols; of those known and of those connected."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine.multiaddr import Multiaddr
from partywire.engine.peers.connectivity import FAILURES_MAX, Connectivity, NodeState, PeerState
from partywire.engine.peers.contract import Ban
from partywire.engine.peers.errors import PeerNotReached
from partywire.engine.peers.events import EventHub, NodeStateChanged
from partywire.engine.peers.identity import NodeIdentity
from partywire.engine.peers.peer_id import PEER_ID_SIZE, PeerId
from partywire.engine.peers.selection import Selection
from tests.peers.peer_net import next_event, scenario, until

if TYPE_CHECKING:
    from tests.peers.peer_net import PeerNet

IDS = st.binary(min_size=PEER_ID_SIZE, max_size=PEER_ID_SIZE).map(PeerId)


def numbered(number: int) -> PeerId:
    return PeerId(number.to_bytes(PEER_ID_SIZE))


@given(st.sets(IDS, max_size=30), IDS, st.integers(1, 40))
def test_the_nearest_come_first_and_any_are_of_those_found(found: set[PeerId], near: PeerId, limit: int) -> None:
    expected = sorted(found, key=near.distance)[:limit]
    assert Selection(near=near).choose(found, limit, random.Random(1)) == expected
    chosen = Selection().choose(found, limit, random.Random(1))
    assert len(set(chosen)) == len(chosen) == min(limit, len(found))
    assert set(chosen) <= found


def test_a_random_choice_has_no_favourites() -> None:
    found = [numbered(number) for number in range(5)]
    chance = random.Random(7)
    counts = dict.fromkeys(found, 0)
    for _ in range(1000):
        for peer_id in Selection().choose(found, 2, chance):
            counts[peer_id] += 1
    assert all(330 < count < 470 for count in counts.values())


def test_features_protocols_and_exclusions_have_to_fit() -> None:
    claim = NodeIdentity.generate().sign(updated_at=1, features=0b110, protocols=["/app/1"])
    assert Selection(features=0b100, protocol="/app/1").fits(claim.peer_id, claim)
    assert not Selection(features=0b101).fits(claim.peer_id, claim)
    assert not Selection(protocol="/app/2").fits(claim.peer_id, claim)
    assert not Selection(exclude=frozenset({claim.peer_id})).fits(claim.peer_id, claim)
    assert Selection().fits(numbered(1), None)
    assert not Selection(features=1).fits(numbered(1), None)


@scenario
async def test_known_and_connected_peers_are_selected(net: PeerNet) -> None:
    alice = await net.node("alice")
    others = [await net.node(f"peer {number}") for number in range(4)]
    for number, other in enumerate(others):
        other.peers.advertise(None, features=number)
    others[0].serve_echo("/app/1")
    alice.knows(*others)
    ids = [other.peers.peer_id for other in others]
    assert set(alice.peers.select(10)) == set(ids)
    assert alice.peers.select(10, connected=True) == alice.peers.select(10, features=1) == []
    for other in others[:3]:
        await alice.connect(other)
    assert alice.peers.select(10, features=1) == [ids[1]]
    assert alice.peers.select(10, protocol="/app/1", connected=True) == [ids[0]]
    assert set(alice.peers.select(10, connected=True)) == set(ids[:3])
    assert alice.peers.select(1, near=ids[3]) == [ids[3]]
    nearest = sorted(ids[:3], key=ids[3].distance)
    assert alice.peers.select(2, near=ids[3], connected=True) == nearest[:2]
    assert set(alice.peers.select(10, exclude=ids[:2])) == set(ids[2:])
    assert len(alice.peers.select(3)) == 3
    await alice.peers.ban(ids[3], "no reason", 60.0)
    assert set(alice.peers.select(10)) == set(ids[:3])
    alice.book.add(alice.peers.peer_id, alice.addresses)
    assert alice.peers.peer_id not in alice.peers.select(10)
    with pytest.raises(ValueError, match="at least 1"):
        alice.peers.select(0)


# Who is there.


def test_a_node_is_online_by_its_connections_and_each_change_is_told_once() -> None:
    hub = EventHub()
    events = hub.subscribe()
    connectivity = Connectivity(2, hub)
    for count in (1, 1, 2, 3, 1, 0, 0):
        connectivity.count(count)
    told = [events._waiting[index] for index in range(len(events._waiting))]
    states = [(event.state, event.connections) for event in told if isinstance(event, NodeStateChanged)]
    assert states == [
        (NodeState.DEGRADED, 1),
        (NodeState.ONLINE, 2),
        (NodeState.DEGRADED, 1),
        (NodeState.OFFLINE, 0),
    ]


def test_failures_are_bounded() -> None:
    connectivity = Connectivity(1, EventHub())
    for number in range(FAILURES_MAX + 1):
        connectivity.not_reached(numbered(number), "nobody there")
    assert connectivity.failure_of(numbered(0)) is None
    assert connectivity.failure_of(numbered(1)) == "nobody there"
    connectivity.reached(numbered(1))
    assert connectivity.failure_of(numbered(1)) is None


@scenario
async def test_a_peer_goes_through_its_states(net: PeerNet) -> None:
    alice, bob = await net.node("alice", dial_attempts=1), await net.node("bob")
    events = alice.peers.events()
    peer_id = bob.peers.peer_id
    assert (alice.peers.state, alice.peers.state_of(peer_id)) == (NodeState.OFFLINE, PeerState.UNKNOWN)
    alice.book.add(peer_id, [Multiaddr.parse("/memory/60000")])
    assert alice.peers.state_of(peer_id) is PeerState.KNOWN
    with pytest.raises(PeerNotReached):
        await alice.connect(bob)
    assert alice.peers.state_of(peer_id) is PeerState.FAILED
    alice.knows(bob)
    connecting = net.loop.create_task(alice.connect(bob))
    await until(lambda: alice.peers.state_of(peer_id) is PeerState.DIALLING)
    await connecting
    assert (alice.peers.state, alice.peers.state_of(peer_id)) == (NodeState.ONLINE, PeerState.CONNECTED)
    assert (await next_event(events, NodeStateChanged)).state is NodeState.ONLINE
    await bob.peers.aclose()
    assert (await next_event(events, NodeStateChanged)).state is NodeState.OFFLINE
    assert alice.peers.state_of(peer_id) is PeerState.KNOWN
    alice.book.ban(peer_id, Ban("no reason", float("inf")))
    assert alice.peers.state_of(peer_id) is PeerState.BANNED
