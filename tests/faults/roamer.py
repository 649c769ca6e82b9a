"""One party of a cable test as a program: it talks, tells every event of its links, and begins again after a loss.

`python -m tests.faults.roamer HEARTBEAT_S NAME name=host:port ...`. Ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING

from partywire.engine.errors import PartyWireError
from partywire.workers.config import PartyConfig
from partywire.workers.party import Party
from tests.faults.rig import DEADLINE_S, PAUSE_S

if TYPE_CHECKING:
    from partywire.workers.link_events import LinkEvent

STEADY_ROUNDS = 20
RETRY_S = 0.1


def say(**document: object) -> None:
    sys.stdout.write(json.dumps({**document, "at": time.monotonic()}) + "\n")  # whole, whichever thread says it
    sys.stdout.flush()


def tell(event: LinkEvent) -> None:
    say(event=event.kind.value, peer=event.peer, cause=event.cause)


async def talk(party: Party) -> None:
    while True:
        try:
            [session] = await party.make_sessions(1, timeout=DEADLINE_S)
            for round_ in range(1 << 30):
                await session.send_next(b"round and round")
                await session.recv_prev(timeout=DEADLINE_S)
                if round_ == STEADY_ROUNDS:
                    say(steady=session.id)
                await asyncio.sleep(PAUSE_S)
        except PartyWireError as error:
            say(error=type(error).__name__, peer=getattr(error, "peer", None), message=str(error))
            await asyncio.sleep(RETRY_S)


async def roam(config: PartyConfig) -> None:
    async with Party(config, on_event=tell) as party:
        say(pids=party.pids)
        talking = asyncio.ensure_future(talk(party))
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        talking.cancel()
        await asyncio.wait([talking])


def main() -> None:
    heartbeat_s, name = float(sys.argv[1]), sys.argv[2]
    parties = dict(entry.split("=") for entry in sys.argv[3:])
    listen = "*:" + parties[name].rpartition(":")[2]
    config = PartyConfig(name=name, parties=parties, listen=listen, heartbeat_s=heartbeat_s, close_s=1.0, insecure=True)
    asyncio.run(roam(config))


if __name__ == "__main__":
    main()
