"""One party of a fault test as a program: it talks in one session until something ends that, and says what.

`python -m tests.faults.talker SCENARIO INDEX LISTENER_FD name=port ...`, as `tests.workers.party_cast` starts it. The
scenario is the heartbeat time-out in seconds.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time

from partywire.engine.errors import PartyWireError
from partywire.workers.config import PartyConfig
from partywire.workers.party import Party
from tests.faults.rig import DEADLINE_S, PAUSE_S


def say(**document: object) -> None:
    print(json.dumps(document), flush=True)


async def talk(config: PartyConfig, listener: socket.socket) -> None:
    async with Party(config, listener) as party:
        [session] = await party.make_sessions(1, timeout=DEADLINE_S)
        for round_ in range(1 << 30):
            await session.send_next(b"round and round")
            await session.recv_prev(timeout=DEADLINE_S)
            if round_ == 5:
                say(pids=party.pids)
            await asyncio.sleep(PAUSE_S)


def main() -> None:
    heartbeat_s, index, fd = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    addresses = dict(entry.split("=") for entry in sys.argv[4:])
    config = PartyConfig(
        name=list(addresses)[index],
        parties={name: ("127.0.0.1", int(port)) for name, port in addresses.items()},
        heartbeat_s=heartbeat_s,
        close_s=2.0,
    )
    with socket.socket(fileno=fd) as listener:
        try:
            asyncio.run(talk(config, listener))
        except PartyWireError as error:
            say(
                error=type(error).__name__,
                message=str(error),
                peer=getattr(error, "peer", None),
                session=getattr(error, "session", None),
                at=time.monotonic(),
            )


if __name__ == "__main__":
    main()
