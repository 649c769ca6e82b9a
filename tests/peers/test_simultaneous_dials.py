"""Two peers that dial each other at the same time: one connection stays, and it is the same one at both ends."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from partywire.engine.peers.contract import Direction
from partywire.engine.peers.events import InboundFailed, NodeStateChanged, PeerConnected, PeerDisconnected
from partywire.engine.yamux.errors import SubstreamRefused, SubstreamReset, SubstreamSessionOver
from tests.peers.peer_net import ECHO, Node, PeerNet, ask, scenario, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from partywire.engine.multiaddr import Multiaddr
    from partywire.engine.peers.contract import Listening
    from partywire.engine.transport import Buffer, Stream

ROUNDS = 25


class LateStream:
    """A stream on which every arrival waits a random number of turns of the loop, as on a network with jitter."""

    def __init__(self, stream: Stream, chance: random.Random) -> None:
        self._stream = stream
        self._chance = chance
        self._turns = 0
        self._handle: asyncio.Handle | None = None
        self._callback: object = None

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def try_send(self, views: Sequence[Buffer]) -> int | None:
        return self._stream.try_send(views)

    def on_readable(self, callback: object) -> None:
        self._callback = callback
        self._stream.on_readable(None if callback is None else self._late)

    def _late(self) -> None:
        if self._turns == 0:
            self._turns = self._chance.choice((1, 1, 2, 5, 20))
        self._turns -= 1
        if self._turns == 0 and callable(self._callback):
            self._callback()


class LateTransports:
    """Jitter on everything that passes a node."""

    def __init__(self, net: PeerNet, chance: random.Random) -> None:
        self._net = net
        self._chance = chance

    async def dial(self, address: Multiaddr, timeout_s: float) -> Stream:
        for _ in range(self._chance.choice((0, 0, 1, 3, 20))):
            await asyncio.sleep(0)
        return LateStream(await self._net.router.dial(address, timeout_s), self._chance)  # type: ignore[return-value]

    async def listen(self, address: Multiaddr, on_accept: object) -> Listening:
        def accept(stream: Stream, of: Multiaddr) -> None:
            on_accept(LateStream(stream, self._chance), of)  # type: ignore[operator]

        return await self._net.router.listen(address, accept)


async def settled(alice: Node, bob: Node) -> None:
    """Both ends have one connection, the same one, and it carries."""
    await until(lambda: not (alice.peers._pool.dials or bob.peers._pool.dials))
    await until(lambda: len(alice.peers.connections) == len(bob.peers.connections) == 1)
    ours, theirs = alice.to(bob), bob.to(alice)
    assert ours is not None
    assert theirs is not None
    assert {ours.direction, theirs.direction} == {Direction.DIALLED, Direction.ACCEPTED}
    assert await ask(ours, b"to bob") == b"to bob"
    assert await ask(theirs, b"to alice") == b"to alice"


async def is_settled(alice: Node, bob: Node) -> bool:
    """Whether they settle as they stand now."""
    try:
        async with asyncio.timeout(0.5):
            await settled(alice, bob)
    except (AssertionError, SubstreamReset, SubstreamRefused, SubstreamSessionOver, TimeoutError):
        return False
    return True


async def pair_with_jitter(net: PeerNet, chance: random.Random) -> tuple[Node, Node]:
    nodes = [
        await net.node(name, transports=LateTransports(net, chance), dial_attempts=10) for name in ("one", "other")
    ]
    alice, bob = sorted(nodes, key=lambda node: node.peers.peer_id)
    for node in nodes:
        node.knows(*nodes)
        node.serve_echo()
    return alice, bob


@pytest.mark.parametrize("seed", range(4))
@scenario
async def test_one_of_two_connections_is_kept_whatever_the_schedule(net: PeerNet, seed: int) -> None:
    chance = random.Random(seed)
    alice, bob = await pair_with_jitter(net, chance)
    kept = {Direction.DIALLED: 0, Direction.ACCEPTED: 0}
    for _ in range(ROUNDS):
        events = alice.peers.events()
        order = [alice, bob]
        chance.shuffle(order)
        dials = []
        for node, other in zip(order, reversed(order), strict=True):
            dials.append(asyncio.create_task(node.connect(other)))
            for _ in range(chance.choice((0, 0, 1, 10, 40))):
                await asyncio.sleep(0)
        first, second = await asyncio.gather(*dials)
        await settled(alice, bob)
        connection = alice.to(bob)
        assert connection is not None
        # Neither end's callers were given a connection that another one took the place of.
        assert {first, second} == {alice.to(bob), bob.to(alice)}
        kept[connection.direction] += 1
        await connection.aclose()
        await until(lambda: not (alice.peers.connections or bob.peers.connections))
        events.close()
        heard = [type(event) async for event in events if not isinstance(event, InboundFailed)]
        assert heard == [PeerConnected, NodeStateChanged, PeerDisconnected, NodeStateChanged]
    assert all(kept.values())


@scenario
async def test_dials_that_are_cancelled_at_any_moment_leave_one_connection_for_the_others(net: PeerNet) -> None:
    chance = random.Random(7)
    alice, bob = await pair_with_jitter(net, chance)
    for _ in range(ROUNDS):
        cancelled, other = chance.sample([alice, bob], 2)
        stays = asyncio.create_task(other.connect(cancelled))
        goes = asyncio.create_task(cancelled.connect(other))
        for _ in range(chance.randrange(60)):
            await asyncio.sleep(0)
        goes.cancel()
        await asyncio.wait((goes,))
        # Who waits gets a connection. If it was that of the dial which was cancelled, the next one lasts.
        await stays
        while not await is_settled(alice, bob):
            await other.connect(cancelled)
        for connection in (*alice.peers.connections, *bob.peers.connections):
            await connection.aclose()
        await until(lambda: not (alice.peers.connections or bob.peers.connections))


@pytest.mark.parametrize("smaller_dials_again", [True, False])
@scenario
async def test_a_peer_that_lost_the_connection_unnoticed_gets_a_new_one(
    net: PeerNet, smaller_dials_again: bool
) -> None:
    """The other end still has the old one, dialled by either: it answers no ping, so it gives way."""
    for is_dialled_by_other in (True, False):
        alice, bob = await net.pair(duplicate_ping_s=0.05)
        alice.serve_echo()
        bob.serve_echo()
        again, other = (alice, bob) if smaller_dials_again else (bob, alice)
        dialler, acceptor = (other, again) if is_dialled_by_other else (again, other)
        old = await dialler.connect(acceptor)
        # What `again` had is gone, and nobody told `other`.
        lost = again.to(other)
        assert lost is not None
        lost._substreams._stream.on_readable(None)  # type: ignore[attr-defined]
        del again.peers._pool.standing[other.peers.peer_id]
        new = await again.connect(other)
        assert new is not lost
        assert await ask(new, b"new") == b"new"
        await until(lambda: other.to(again) is not old and len(other.peers.connections) == 1)  # noqa: B023
        back = other.to(again)
        assert back is not None
        assert await ask(back, b"back", ECHO) == b"back"
        lost._substreams.abort("lost")  # type: ignore[attr-defined]


@scenario
async def test_a_second_connection_to_one_that_lives_is_refused_by_the_smaller_id(net: PeerNet) -> None:
    alice, bob = await net.pair(dial_attempts=1)
    assert alice.peers.peer_id < bob.peers.peer_id
    standing = await alice.connect(bob)
    del bob.peers._pool.standing[alice.peers.peer_id]  # bob forgets it, and it still answers
    dial = asyncio.create_task(bob.connect(alice))
    await asyncio.wait((dial,))
    assert "DUPLICATE" in str(dial.exception())
    assert alice.to(bob) is standing
    assert not standing.closed.done()
