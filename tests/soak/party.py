"""One party of the soak: `python -m tests.soak.party INDEX LISTENER_FD SEED WORKERS name=port ...`.

Reads the number of a batch from its standard input, runs it, and prints a JSON line; ends with the input.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys

from partywire import BatchRunner, BlockingParty
from partywire.engine.errors import PartyWireError
from partywire.workers.config import PartyConfig
from tests.soak.jobs import exchange, tasks_of
from tests.support.processes import descriptor_count, rss_kib

RETRIES = 50
"""More than the soak kills processes within one batch."""


def say(**document: object) -> None:
    print(json.dumps(document), flush=True)


def main() -> None:
    index, fd, seed, workers = (int(text) for text in sys.argv[1:5])
    addresses = dict(entry.split("=") for entry in sys.argv[5:])
    logging.getLogger("partywire").setLevel(logging.CRITICAL)  # losses are what this is about
    config = PartyConfig(
        name=list(addresses)[index],
        parties={name: ("127.0.0.1", int(port)) for name, port in addresses.items()},
        workers=workers,
        ring_mib=1,
        heartbeat_s=1.5,
    )
    with socket.socket(fileno=fd) as listener, BlockingParty(config, listener) as party:
        supervisor = party.pids["supervisor"]
        say(supervisor=supervisor)
        runner = BatchRunner(party, sessions=8, retries=RETRIES)
        for line in sys.stdin:
            try:
                results = runner.map(exchange, tasks_of(seed, int(line)))
            except PartyWireError as error:
                say(batch=int(line), error=f"{type(error).__name__}: {error}")
                return
            me = os.getpid()
            say(
                batch=int(line),
                results=results,
                opener=(rss_kib(me), descriptor_count(me)),
                supervisor=(rss_kib(supervisor), descriptor_count(supervisor)),
            )


if __name__ == "__main__":
    main()
