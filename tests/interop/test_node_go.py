"""A node of ours and a peer that was written in Go from the description: identity, protocols, messages both ways."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from partywire.engine.noise import CIPHERS, PrivateKey
from partywire.engine.peers.events import InboundFailed
from partywire.engine.peers.identity import NodeIdentity
from partywire.engine.peers.options import NOISE_PATTERNS, PeerOptions
from partywire.engine.peers.peer_id import PeerId
from partywire.workers.node import PeerNode
from tests.interop import go_peer
from tests.interop.substream_peers import DEADLINE_S, run
from tests.peers.peer_net import next_event

if TYPE_CHECKING:
    from partywire.engine.peers.contract import PeerConnection
    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter

pytestmark = pytest.mark.interop

SEED = bytes(range(32))


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(__file__).parent
    made = tmp_path_factory.mktemp("go")
    return go_peer.build(folder / "node_peer.go", made, "flynn/noise", folder / "noise_channel.go")


def node_of(options: PeerOptions) -> PeerNode:
    node = PeerNode(listen="/ip4/127.0.0.1/tcp/0", connections=options)

    @node.protocol("/test/echo/1")
    async def echo(_: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        while data := await reader.read(100_000):
            writer.write(data)
            await writer.drain()

    return node


async def start(go: Path, node: PeerNode, options: PeerOptions, prologue: bytes) -> asyncio.subprocess.Process:
    byte = bytes((options.network_byte,))
    port = str(node.addresses[0].value_of("tcp"))
    secret = PrivateKey.generate().secret_bytes().hex()
    return await asyncio.create_subprocess_exec(
        go, options.noise.name, (prologue + byte).hex(), secret, byte.hex(), port, SEED.hex(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("pattern", NOISE_PATTERNS)
def test_a_go_peer_is_a_peer(go: Path, pattern: str, cipher: str) -> None:
    options = PeerOptions(network_byte=0x18, noise_pattern=pattern, noise_cipher=cipher)

    async def scenario() -> None:
        async with node_of(options) as node:
            process = await start(go, node, options, b"partywire peer 1")
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                message = await node.messages.receive()
                assert message.body == b"from go"
                (connection,) = node.connections
                assert (connection.peer_id, connection.claim.user_agent) == (message.peer_id, "go peer")
                assert (await process.stdout.readline()).decode().split() == [str(message.peer_id), str(node.peer_id)]
                assert 0 < await connection.ping() < DEADLINE_S
                await (await node.messages.send(message.peer_id, b"from python")).acknowledged()
                assert await process.stdout.readline() == b"from python\n"
                process.stdin.close()
                assert await process.stdout.readline() == b"ok\n"
                await connection.closed
                assert node.counters["peers_violations"] == node.counters["peers_inbound_failed"] == 0
            finally:
                if process.returncode is None:
                    process.kill()
                _, complaints = await process.communicate()
            assert not complaints

    run(scenario())


def test_a_go_peer_of_another_version_or_that_is_banned_is_turned_away(go: Path) -> None:
    options = PeerOptions()
    public_key = NodeIdentity(Ed25519PrivateKey.from_private_bytes(SEED)).public_key

    async def scenario() -> None:
        async with node_of(options) as node:
            events = node.events()
            process = await start(go, node, options, b"partywire peer 2")
            _, complaints = await process.communicate()
            assert complaints.startswith(b"error: ")
            assert "Noise handshake" in (await next_event(events, InboundFailed)).cause
            await node.peers.ban(PeerId.of_key(public_key), "no reason that it hears", 60.0)
            process = await start(go, node, options, b"partywire peer 1")
            _, complaints = await process.communicate()
            assert complaints == b"error: refused with 2: the peer is banned\n"

    run(scenario())
