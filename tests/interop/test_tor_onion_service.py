"""A real onion service: ours, through a private Tor network on loopback, dialled through another tor's SOCKS5 port; by
itself, and as the address of a node."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import uvloop

from partywire.engine.exchange import receive_some, send_all
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.peers.errors import PeerNotReached
from partywire.engine.transports import DialFailed, OnionService, Router, SocksProxy, TransportSettings
from partywire.engine.transports.errors import SocksError
from partywire.workers.node import OnionConfig, PeerNode, SocksConfig
from tests.interop.tor_network import tor_network
from tests.interop.tor_programs import needs
from tests.support.scripted_tor import onion_id

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

    from partywire.engine.peers.peer_id import PeerId
    from partywire.engine.transport import Stream
    from tests.interop.tor_network import TorNetwork

pytestmark = pytest.mark.interop

DEADLINE_S = 240.0
DIAL_TIMEOUT_S = 60.0
SIZE = 100_000


def run(scenario: Coroutine[object, object, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scenario, DEADLINE_S))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorNetwork]:
    needs("tor", "tor", "tor-gencert")
    with tor_network(tmp_path_factory.mktemp("tor")) as made:
        yield made


def test_an_onion_service_is_reached_and_has_its_address_again_the_next_time(
    network: TorNetwork, tmp_path: Path
) -> None:
    async def scenario() -> None:
        first = await conversation(network, tmp_path / "onion.key")
        assert await conversation(network, tmp_path / "onion.key") == first

    run(scenario())


def test_a_node_is_found_at_its_onion_service_and_answers_from_there(network: TorNetwork, tmp_path: Path) -> None:
    onion = OnionConfig(
        control=f"/ip4/127.0.0.1/tcp/{network.service_control}", key_file=str(tmp_path / "node.onion"), port=7300
    )
    socks = SocksConfig(address=f"/ip4/127.0.0.1/tcp/{network.client_socks}", scope="all")

    async def scenario() -> None:
        async with PeerNode(onion=onion) as alice, PeerNode(socks=socks) as bob:
            (address,) = alice.addresses
            assert str(address).startswith("/onion3/")
            assert alice.peers.claim.addresses == (address,)
            bob.add_peer(alice.peer_id, address)
            await found(bob, alice.peer_id)
            await (await bob.messages.send(alice.peer_id, b"from bob")).acknowledged()
            message = await alice.messages.receive()
            assert (message.peer_id, message.body) == (bob.peer_id, b"from bob")
            await (await alice.messages.send(bob.peer_id, b"from alice")).acknowledged()
            assert (await bob.messages.receive()).body == b"from alice"
            assert alice.peers.counters.dials == 0  # whom it could not have dialled
            assert bob.peers.select(5, connected=True) == [alice.peer_id]

    run(scenario())


async def found(node: PeerNode, peer_id: PeerId) -> None:
    """A service that was published a moment ago may still be unknown to the directory that is asked."""
    while True:
        try:
            await node.connect(peer_id)
            return
        except PeerNotReached:
            await asyncio.sleep(1)


async def conversation(network: TorNetwork, key: Path) -> Multiaddr:
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[None]] = []
    streams: list[Stream] = []

    async def echo(stream: Stream) -> None:
        while part := await receive_some(stream, 1 << 16):
            await send_all(stream, part)
        stream.shutdown_write()

    def accept(stream: Stream, source: Multiaddr) -> None:
        assert str(source).startswith("/ip4/127.0.0.1/tcp/")
        streams.append(stream)
        tasks.append(loop.create_task(echo(stream)))

    service = OnionService(Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{network.service_control}"), key, 80)
    listening = await Router(loop).listen_onion(service, accept)
    try:
        await listening.wait_published(DEADLINE_S)
        proxy = SocksProxy(Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{network.client_socks}"))
        router = Router(loop, TransportSettings(proxy))
        stream = await dial(router, listening.address)
        streams.append(stream)
        sent = bytes(range(250)) * (SIZE // 250)
        sending = asyncio.ensure_future(send_all(stream, sent))
        received = b""
        while len(received) < SIZE:
            part = await receive_some(stream, 1 << 16)
            assert part
            received += part
        await sending
        assert received == sent
        with pytest.raises(DialFailed):  # Tor does not take an address that is no key's
            await router.dial(Multiaddr.parse(f"/onion3/{onion_id(3)}:80"), DIAL_TIMEOUT_S)
        with pytest.raises(SocksError):  # looked up by an exit of this network, which knows no such name
            await router.dial(Multiaddr.parse("/dns/no-such-party.invalid/tcp/80"), DIAL_TIMEOUT_S)
        return listening.address
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in streams:
            each.close()
        listening.close()


async def dial(router: Router, address: Multiaddr) -> Stream:
    """A service that one directory of several has may still be unknown to the one that is asked."""
    while True:
        try:
            return await router.dial(address, DIAL_TIMEOUT_S)
        except DialFailed:
            await asyncio.sleep(1)
