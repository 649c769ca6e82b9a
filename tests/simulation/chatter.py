"""What happens on the substreams of a link, beside that of its control codec, while everything else is judged.

Each I/O process serves an echo on its links, and talks to that of each peer again and again. What comes back must be
what was said; everything else that may happen to a substream is told by a typed error, and then it begins again.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from partywire.engine.errors import PartyWireError
from partywire.engine.peers.identity import NodeIdentity

from .world import Violation

if TYPE_CHECKING:
    from partywire.engine.link_substreams.link_peers import LinkPeers
    from partywire.engine.peers.contract import PeerConnection
    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter

    from .loop import SimLoop

ECHO: Final = "/simulation/echo/1"
PARTIES: Final = 4
PAUSE_S: Final = 0.05
PAUSE_MAX_S: Final = 5.0
"""At first and in the end; it grows, since a run may last for minutes and has a ceiling of steps."""
SIZE_MAX: Final = 2000


@functools.cache
def _identities() -> tuple[str, ...]:
    folder = tempfile.TemporaryDirectory(prefix="partywire-simulated-")
    atexit.register(folder.cleanup)
    paths = [Path(folder.name) / str(party) for party in range(PARTIES)]
    for path in paths:
        NodeIdentity.create(path)
    return tuple(str(path) for path in paths)


def options_of(party: int, seed: int) -> dict[str, Any]:
    """Fields of LinkOptions that turn substreams on; one party of some worlds has none."""
    is_without = party == 0 and seed % 4 == 0
    return {} if is_without else {"substreams": True, "identity_path": _identities()[party]}


def begin(loop: SimLoop, peers: LinkPeers) -> None:
    """Talk over one link until its process ends."""
    peers.serve(ECHO, _echo)
    loop.create_task(_talk(loop, peers))


async def _echo(_connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
    while data := await reader.read(SIZE_MAX):
        writer.write(data)
        await writer.drain()


async def _talk(loop: SimLoop, peers: LinkPeers) -> None:
    chance = loop.world.random
    pause_s = PAUSE_S
    while True:
        try:
            connection = await peers.connect_link()
            _, reader, writer = await connection.open([ECHO])
            said = chance.randbytes(chance.randint(1, SIZE_MAX))
            writer.write(said)
            heard = await reader.readexactly(len(said))
            if heard != said:
                raise Violation(f"{loop.name} heard something else on a substream than it said")
            writer.close()
        except (PartyWireError, asyncio.IncompleteReadError):
            pass  # the link was lost, or is not up
        pause_s = min(1.2 * pause_s, PAUSE_MAX_S)
        await asyncio.sleep(pause_s * chance.random())
