"""Two peers in one process: one serves a protocol, the other finds it by id, and both hear what happens.

python peers.py /ip4/127.0.0.1/tcp/0
"""

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from partywire.engine.multiaddr import Multiaddr
from partywire.engine.peers.address_book import MemoryAddressBook
from partywire.engine.peers.connections import PeerConnections
from partywire.engine.peers.contract import PeerConnection
from partywire.engine.peers.events import PeerDisconnected
from partywire.engine.peers.identity import NodeIdentity
from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter
from partywire.engine.transports import Router


async def shout(connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()


async def serve(peers: PeerConnections, address: str) -> Multiaddr:
    peers.serve("/example/shout/1", shout)
    return await peers.listen(Multiaddr.parse(address))


async def ask(connection: PeerConnection, line: bytes) -> bytes:
    protocol, reader, writer = await connection.open(["/example/shout/2", "/example/shout/1"])
    writer.write(line)
    answer = await reader.readline()
    writer.close()
    return protocol.encode() + b": " + answer


async def main(address: str, folder: Path) -> None:
    router = Router(asyncio.get_running_loop())
    book = MemoryAddressBook()
    alice = PeerConnections(NodeIdentity.create(folder / "alice"), router, book, user_agent="example 1.0")
    bob = PeerConnections(NodeIdentity.create(folder / "bob"), router, MemoryAddressBook())
    async with alice, bob:
        book.add(bob.peer_id, [await serve(bob, address)])
        events = alice.events()
        connection = await alice.connect(bob.peer_id)
        print((await ask(connection, b"hello\n")).decode(), end="")
        await bob.aclose()
        async for event in events:
            print(type(event).__name__, event.cause if isinstance(event, PeerDisconnected) else "")
            if isinstance(event, PeerDisconnected):
                break


with TemporaryDirectory() as folder:
    asyncio.run(main(sys.argv[1], Path(folder)))
