"""Three parties that compute, and meanwhile talk beside the computation. At every party: python control_plane.py CONFIG

`partywire init --node` writes such configurations.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from partywire import BatchRunner, Party, Ring64, RpcService, Session

if TYPE_CHECKING:
    from partywire.engine.peers.contract import PeerConnection
    from partywire.engine.rpc.service import RpcCall
    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter

NOTES = "/example/notes/1.0"
PROGRESS = "/example/progress/1.0"


async def total(session: Session, value: int) -> int:
    return sum(int(share) for share in await session.gather(Ring64(value)))


def serve(party: Party, done: list[int]) -> None:
    """What the other parties may ask for. Registered before the party opens, so that nobody asks too early."""

    @party.protocol(NOTES)
    async def notes(connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        while line := await reader.readline():
            writer.write(f"{party.name} read ".encode() + line)
            await writer.drain()

    service = RpcService(PROGRESS)

    @service.method("done")
    async def how_many(call: RpcCall, payload: bytes) -> bytes:
        return str(len(done)).encode()

    party.node.rpc.add(service)


async def talk(party: Party, peer: str) -> str:
    """A substream, a call and a message to one peer, by its name."""
    reader, writer = await party.node.open(peer, NOTES)
    writer.write(b"hello\n")
    answer = await reader.readline()
    writer.close()
    async with party.node.rpc.client(peer, PROGRESS) as client:
        progress = await client.call("done")
    delivery = await party.node.messages.send(peer, f"{party.name} saw {len(progress)} digits".encode())
    await delivery.acknowledged()
    return answer.decode().strip()


async def main(config: str) -> None:
    party = Party(config)
    done: list[int] = []
    serve(party, done)
    async with party:
        peers = [name for name in party.names if name != party.name]

        async def compute() -> None:
            for _ in range(4):
                done.extend(await BatchRunner(party).amap(total, range(20)))

        computing = asyncio.create_task(compute())
        answers = await asyncio.gather(*(talk(party, peer) for peer in peers))
        messages = [(await party.node.messages.receive()).body.decode() for _ in peers]
        await computing
        print(f"{party.name}: {'; '.join(answers)}; {'; '.join(sorted(messages))}; total {sum(done)}")
        await party.barrier()  # nobody leaves while another one still talks to it


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
