"""Two nodes over TCP on this host, many substreams, messages and bytes at once; everything that arrives is verified.

python node_stress.py --substreams 200 --substream-kib 1024 --messages 10000 --calls 2000
"""

import argparse
import asyncio
import hashlib
import random
import time
from collections.abc import Awaitable, Callable

from partywire import PeerNode, RpcService
from partywire.engine.peers.contract import PeerConnection
from partywire.engine.rpc.service import RpcCall
from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter
from partywire.workers.node import NodeRpc

BLOCK_SIZE = 64 * 1024
DIGEST_PROTOCOL = "/example/digest/1"
CALL_PROTOCOL = "/example/double/1"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--substreams", type=int, default=50, help="open at a time")
    parser.add_argument("--substream-kib", type=int, default=256, help="sent on each")
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--deadline", type=float, default=300.0, metavar="SECONDS")
    return parser.parse_args()


def serve(node: PeerNode) -> RpcService:
    """What the second node does for the first one."""

    @node.protocol(DIGEST_PROTOCOL)
    async def digest(connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        digest = hashlib.sha256()
        while data := await reader.read(BLOCK_SIZE):
            digest.update(data)
        writer.write(digest.digest())
        await writer.drain()

    service = RpcService(CALL_PROTOCOL)

    @service.method("double")
    async def double(call: RpcCall, payload: bytes) -> bytes:
        return payload + payload

    return service


async def stream_all(here: PeerNode, there: PeerNode, options: argparse.Namespace) -> int:
    connection = await here.connect(there.peer_id)

    async def stream_one(seed: int) -> None:
        data = random.Random(seed).randbytes(options.substream_kib * 1024)
        _, reader, writer = await connection.open([DIGEST_PROTOCOL])
        for start in range(0, len(data), BLOCK_SIZE):
            writer.write(data[start : start + BLOCK_SIZE])
            await writer.drain()
        writer.write_eof()
        assert await reader.readexactly(32) == hashlib.sha256(data).digest(), f"substream {seed} came changed"
        writer.close()

    await asyncio.gather(*(stream_one(options.seed + one) for one in range(options.substreams)))
    return int(options.substreams * options.substream_kib * 1024)


async def message_all(here: PeerNode, there: PeerNode, options: argparse.Namespace) -> int:
    async def receive() -> None:
        for number in range(options.messages):
            message = await there.messages.receive()
            assert message.body == f"message {number}".encode(), "a message is missing, doubled or out of order"

    receiving = asyncio.create_task(receive())
    deliveries = [await here.messages.send(there.peer_id, f"message {one}".encode()) for one in range(options.messages)]
    await asyncio.gather(receiving, *(delivery.acknowledged() for delivery in deliveries))
    return sum(len(f"message {one}") for one in range(options.messages))


async def call_all(rpc: NodeRpc, there: PeerNode, options: argparse.Namespace) -> int:
    async with rpc.client(there.peer_id, CALL_PROTOCOL, substreams_max=8) as client:

        async def call_one(number: int) -> None:
            payload = str(number).encode()
            assert await client.call("double", payload) == payload * 2, f"call {number} was answered wrongly"

        await asyncio.gather(*(call_one(one) for one in range(options.calls)))
    return sum(3 * len(str(one)) for one in range(options.calls))


async def report(what: str, count: int, play: Callable[[], Awaitable[int]]) -> None:
    began = time.perf_counter()
    size = await play()
    seconds = time.perf_counter() - began
    rate = f"{count / seconds:10,.0f}/s {size / seconds / 1e6:8.1f} MB/s"
    print(f"{count:8,} {what:10} {size:14,} bytes verified in {seconds:7.3f} s {rate}")


async def main(options: argparse.Namespace) -> None:
    loopback = "/ip4/127.0.0.1/tcp/0"
    async with asyncio.timeout(options.deadline), PeerNode(listen=loopback) as here, PeerNode(listen=loopback) as there:
        there.rpc.add(serve(there))
        here.add_peer(there.peer_id, *there.addresses)
        await report("substreams", options.substreams, lambda: stream_all(here, there, options))
        await report("messages", options.messages, lambda: message_all(here, there, options))
        await report("calls", options.calls, lambda: call_all(here.rpc, there, options))
        counters = here.counters
        print(f"connections made: {counters['peers_connected']}; lost: {counters['peers_disconnected']}")


asyncio.run(main(arguments()))
