"""One party of the soak: `python -m tests.soak.party INDEX LISTENER_FD SEED WORKERS name=port ...`.

Reads orders from its standard input, runs them, and prints a JSON line for each; ends with the input. An order is the
number of a batch, which says what its inputs are, and the number of the order, which is that of the runner's batch: who
was started again enters the one that the others are in.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import socket
import sys

from partywire import BatchRunner, BlockingParty
from partywire.engine.errors import PartyWireError
from partywire.workers.config import PartyConfig
from partywire.workers.errors import PartyFailed
from tests.soak.jobs import exchange, tasks_of
from tests.support.processes import descriptor_count, rss_kib

RETRIES = 50
"""More than the soak kills processes within one batch."""


def say(**document: object) -> None:
    print(json.dumps(document), flush=True)


def give_back_freed_memory() -> None:
    """What malloc keeps of freed messages is bounded (docs/memory.md), and depends on the order of the batches; what is
    measured is what is in use."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


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
        for line in sys.stdin:
            batch, order = map(int, line.split())
            runner = BatchRunner(party, sessions=8, retries=RETRIES, first_batch=order)
            try:
                results = runner.map(exchange, tasks_of(seed, batch))
            except PartyFailed as error:
                sys.exit(f"{error}")  # the supervisor: the only way back is another process
            except PartyWireError as error:
                say(order=order, error=f"{type(error).__name__}: {error}")
                continue
            me = os.getpid()
            give_back_freed_memory()
            say(
                order=order,
                results=results,
                opener=(rss_kib(me), descriptor_count(me)),
                supervisor=(rss_kib(supervisor), descriptor_count(supervisor)),
            )


if __name__ == "__main__":
    main()
