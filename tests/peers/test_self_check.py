"""Whether a node finds out that it is reached at its own addresses, and that it is not."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from partywire.engine.exchange import receive_some, send_all
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.peers.events import AddressChecked
from partywire.engine.peers.wire import LIVENESS
from tests.peers.peer_net import MEMORY, TCP, caught_logs, next_event, scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from partywire.engine.transport import Stream
    from tests.peers.peer_net import PeerNet


@pytest.mark.parametrize("listen", [MEMORY, TCP])
@scenario
async def test_an_address_of_ours_is_live(net: PeerNet, listen: str) -> None:
    alice = await net.node("alice", listen=listen)
    events = alice.peers.events()
    assert not alice.peers.checked_addresses
    (result,) = await alice.peers.check_addresses()
    assert (result.address, result.cause) == (alice.addresses[0], "")
    assert result.latency_s is not None
    assert 0 < result.latency_s < 5
    assert await next_event(events, AddressChecked) == result
    assert list(alice.peers.checked_addresses) == [result]
    stream = await net.router.dial(alice.addresses[0], 5.0)  # nobody else gets an echo, now that none is expected
    await send_all(stream, bytes((LIVENESS,)) + b"pingpong\n")
    with pytest.raises(OSError, match=r"."):
        await receive_some(stream)
    stream.close()


@scenario
async def test_an_address_that_leads_elsewhere_is_not_live(net: PeerNet) -> None:
    async def parrot(stream: Stream) -> None:
        assert await receive_some(stream, 1) == bytes((LIVENESS,))
        await send_all(stream, await receive_some(stream))
        stream.shutdown_write()

    async def mute(stream: Stream) -> None:
        stream.shutdown_write()

    tasks: list[asyncio.Task[None]] = []

    def by(serve: Callable[[Stream], Coroutine[object, object, None]]) -> Callable[[Stream, Multiaddr], None]:
        return lambda stream, _: tasks.append(net.loop.create_task(serve(stream)))

    alice = await net.node("alice")
    other = await net.node("other", liveness_permits=1, liveness_networks=("/memory/0",))
    addresses = [Multiaddr.parse("/memory/60001"), other.addresses[0]]
    listenings = []
    for serve in (parrot, mute):
        listening = await net.router.listen(Multiaddr.parse(MEMORY), by(serve))
        listenings.append(listening)
        addresses.append(listening.address)
    alice.peers.advertise(addresses)
    with caught_logs() as logs:
        results = await alice.peers.check_addresses()
        await alice.peers.check_addresses()
    warnings = [record.getMessage() for record in logs if record.levelno == logging.WARNING]
    assert len(warnings) == len(addresses)  # of two checks
    assert all(f"at {address}," in warning for address, warning in zip(addresses, warnings, strict=True))
    assert [result.address for result in results] == addresses
    assert all(result.latency_s is None for result in results)
    nobody, somebody, parroted, muted = [result.cause for result in results]
    assert "60001" in nobody or "refused" in nobody or "available" in nobody
    assert somebody == parroted == "another program answers there"
    assert muted == "who answers there does not send back what it gets"
    for listening in listenings:
        listening.close()
    await asyncio.gather(*tasks)


@scenario
async def test_an_address_where_nobody_answers_is_given_up(net: PeerNet) -> None:
    streams: list[Stream] = []
    listening = await net.router.listen(Multiaddr.parse(MEMORY), lambda stream, _: streams.append(stream))
    alice = await net.node("alice", first_byte_timeout_s=0.02)
    alice.peers.advertise([listening.address])
    (result,) = await alice.peers.check_addresses()
    assert result.cause == "no answer in time"
    listening.close()
    for stream in streams:
        stream.close()


@scenario
async def test_addresses_are_checked_again_and_again_if_asked_for(net: PeerNet) -> None:
    alice = await net.node("alice", self_check_interval_s=0.01)
    events = alice.peers.events()
    for _ in range(3):
        assert (await next_event(events, AddressChecked)).latency_s is not None
