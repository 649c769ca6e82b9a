"""One party that talks without an end: `python -m tests.workers.stat_program INDEX LISTENER_FD name=port ...`.

Alice sends to all and hears from nobody, so that whoever stops taking holds her up. Prints {"pids": ...} once it runs.
Logs warnings of links as JSON lines on standard error.
"""

from __future__ import annotations

import json
import logging
import socket
import sys

from partywire.engine.errors import PartyWireError
from partywire.workers.blocking_party import BlockingParty
from partywire.workers.config import PartyConfig
from partywire.workers.logs import JsonFormatter

SIZE = 16 * 1024
TIMEOUT_S = 60.0


def main() -> None:
    index, fd = int(sys.argv[1]), int(sys.argv[2])
    ports = dict(argument.split("=") for argument in sys.argv[3:])
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.getLogger("partywire").addHandler(handler)
    name = list(ports)[index]
    config = PartyConfig(
        name=name,
        parties={peer: ("127.0.0.1", int(port)) for peer, port in ports.items()},
        ring_mib=1,
        heartbeat_s=30,
        close_s=1,
    )
    with socket.socket(fileno=fd) as listener, BlockingParty(config, listener) as party:
        [session] = party.make_sessions(1, timeout=TIMEOUT_S)
        print(json.dumps({"pids": party.pids}), flush=True)
        try:
            while True:
                if name == "alice":
                    session.broadcast(bytes(SIZE))
                else:
                    session.recv("alice")
        except PartyWireError:
            sys.stdin.read()  # until the test has looked


if __name__ == "__main__":
    main()
