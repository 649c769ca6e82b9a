"""Parties without an event loop, to which substreams are files. At every party: python substream_files.py CONFIG"""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
from typing import TYPE_CHECKING

from partywire import BatchRunner, BlockingParty, Ring64, Session

if TYPE_CHECKING:
    from partywire.engine.peers.contract import PeerConnection
    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter

LINES = "/example/lines/1.0"
DIGEST = "/example/digest/1.0"


async def total(session: Session, value: int) -> int:
    return sum(int(share) for share in await session.gather(Ring64(value)))


def serve(party: BlockingParty) -> None:
    """Handlers run whenever a call of the party waits, a batch included; they await their reader and writer only."""

    @party.protocol(LINES)
    async def lines(connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        for number in range(3):
            writer.write(f"line {number} of {party.name}\n".encode())
            await writer.drain()

    @party.protocol(DIGEST)
    async def digest(connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        hashed = hashlib.sha256()
        while data := await reader.read(1 << 16):
            hashed.update(data)
        writer.write(hashed.digest())


def main(config: str) -> None:
    party = BlockingParty(config)
    serve(party)
    with party:
        for peer in party.names:
            if peer == party.name:
                continue
            with party.open_file(peer, LINES, timeout=30) as file:
                print(f"{party.name}: {b''.join(file).decode().splitlines()}")
            with party.open_file(peer, DIGEST, timeout=30) as file:
                shutil.copyfileobj(io.BytesIO(bytes(1_000_000)), file)
                file.write_eof()
                assert file.read() == hashlib.sha256(bytes(1_000_000)).digest()
        totals = BatchRunner(party).map(total, range(20))  # others may still be served meanwhile
        print(f"{party.name}: total {sum(totals)}")
        party.barrier()  # nobody leaves while another one still reads


if __name__ == "__main__":
    main(sys.argv[1])
