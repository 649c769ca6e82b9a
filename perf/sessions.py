"""How long sessions take to be there: `make_sessions(256)` on open parties, and all from the start of the processes.

Three parties on this host; `make_sessions` from the call to its return, at the slowest party.
The parties meet in a barrier before each call, so the time does not include waiting for a party that is late to come.
What would make it lie: other load, and too few repeats (each takes milliseconds).
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import time
from typing import TYPE_CHECKING

from partywire.perf.party_set import PartySet
from partywire.perf.report import Figure, print_figures, warn_if_busy
from partywire.perf.workloads import RingRounds

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

PARTIES = ("alice", "bob", "charlie")
MAKE_SESSIONS_MAX_MS = 100.0
READY_MAX_S = 2.5


def run_party(
    index: int, listener: socket.socket, ports: list[int], sessions: int, repeats: int, results: Connection
) -> None:
    from partywire import BlockingParty, PartyConfig

    addresses = {name: ("127.0.0.1", port) for name, port in zip(PARTIES, ports, strict=True)}
    times_ms = []
    with BlockingParty(PartyConfig(name=PARTIES[index], parties=addresses), listener=listener) as party:
        for _ in range(repeats):
            party.barrier()
            start = time.perf_counter()
            made = party.make_sessions(sessions)
            times_ms.append((time.perf_counter() - start) * 1000)
            for session in made:
                session.close()
        party.barrier()
    results.send(times_ms)


def measure(sessions: int, repeats: int) -> Figure:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in PARTIES]
    ports = [listener.getsockname()[1] for listener in listeners]
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in PARTIES]
    processes = [
        context.Process(target=run_party, args=(index, listener, ports, sessions, repeats, pipe[1]))
        for index, (listener, pipe) in enumerate(zip(listeners, pipes, strict=True))
    ]
    for process in processes:
        process.start()
    for listener in listeners:
        listener.close()
    try:
        columns = [receiver.recv() if receiver.poll(60) else [] for receiver, _ in pipes]
    finally:
        for process in processes:
            process.join(10)
            process.kill()
    slowest = tuple(max(row) for row in zip(*columns, strict=True))
    return Figure(f"make_sessions({sessions})", "ms", slowest, MAKE_SESSIONS_MAX_MS, lower_is_better=True)


def measure_ready(sessions: int, repeats: int) -> Figure:
    """Raises ContenderFailed."""
    times_s = []
    for _ in range(repeats):
        with PartySet("partywire-async", RingRounds(sessions, 64)) as parties:
            times_s.append(parties.ready_s)
    return Figure(f"start to ready, {sessions} sessions", "s", tuple(times_s), READY_MAX_S, lower_is_better=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m partywire.perf.sessions", description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=20, help="calls (20)")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    options = parser.parse_args()
    warn_if_busy()
    repeats, starts = (2, 1) if options.smoke else (options.repeats, 3)
    print_figures([measure(256, repeats), measure_ready(256, starts)], json=options.json)


if __name__ == "__main__":
    main()
