"""How long sessions take to be there: `make_sessions` on open parties, and all from the start of the processes.

Three parties on this host; `make_sessions` from the call to its return, at the slowest party. The parties meet in a
barrier before each call, so the time does not include waiting for a party that is late to come. Memory of a session is
what the first call makes the memory of the opener grow by, over the sessions; later calls use the memory of sessions
that were closed. Each party is a sample of it.
What would make it lie: other load, and too few repeats (each takes milliseconds).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import time
from typing import TYPE_CHECKING

from partywire.perf.party_set import PartySet
from partywire.perf.processes import pss_bytes
from partywire.perf.report import Figure, print_figures, warn_if_busy
from partywire.perf.workloads import RingRounds

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from partywire import BlockingParty

PARTIES = ("alice", "bob", "charlie")
FEW = 256
MANY = 10_000
MAKE_FEW_MAX_MS = 100.0
SESSION_MAX_KIB = 6.0
READY_MAX_S = 2.5


def run_party(index: int, listener: socket.socket, ports: list[int], repeats: int, results: Connection) -> None:
    """Send the milliseconds of each call for many sessions, of each for few, and the KiB of one of many."""
    from partywire import BlockingParty, PartyConfig

    addresses = {name: ("127.0.0.1", port) for name, port in zip(PARTIES, ports, strict=True)}
    with BlockingParty(PartyConfig(name=PARTIES[index], parties=addresses), listener=listener) as party:
        party.barrier()
        before = pss_bytes([os.getpid()])
        made = party.make_sessions(MANY)
        kib_per_session = (pss_bytes([os.getpid()]) - before) / MANY / 1024
        for session in made:
            session.close()
        many_ms, few_ms = (time_calls(party, sessions, repeats) for sessions in (MANY, FEW))
        party.barrier()
    results.send((many_ms, few_ms, kib_per_session))


def time_calls(party: BlockingParty, sessions: int, repeats: int) -> list[float]:
    """Milliseconds of each."""
    times_ms = []
    for _ in range(repeats):
        party.barrier()
        start = time.perf_counter()
        made = party.make_sessions(sessions)
        times_ms.append((time.perf_counter() - start) * 1000)
        for session in made:
            session.close()
    return times_ms


def measure_making(repeats: int) -> list[Figure]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in PARTIES]
    ports = [listener.getsockname()[1] for listener in listeners]
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in PARTIES]
    processes = [
        context.Process(target=run_party, args=(index, listener, ports, repeats, pipe[1]))
        for index, (listener, pipe) in enumerate(zip(listeners, pipes, strict=True))
    ]
    for process in processes:
        process.start()
    for listener in listeners:
        listener.close()
    try:
        answers = [receiver.recv() if receiver.poll(60) else ([], [], 0.0) for receiver, _ in pipes]
    finally:
        for process in processes:
            process.join(10)
            process.kill()
    many_ms, few_ms, kib = zip(*answers, strict=True)
    return [
        Figure(f"make_sessions({FEW})", "ms", slowest(few_ms), MAKE_FEW_MAX_MS, lower_is_better=True),
        Figure(f"make_sessions({MANY})", "ms", slowest(many_ms), lower_is_better=True),
        Figure(f"memory of one of {MANY} sessions", "KiB", kib, SESSION_MAX_KIB, lower_is_better=True),
    ]


def slowest(columns: tuple[list[float], ...]) -> tuple[float, ...]:
    """Of each call, the time at the party where it took longest."""
    return tuple(max(row) for row in zip(*columns, strict=True))


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
    repeats, starts = (1, 1) if options.smoke else (options.repeats, 3)
    print_figures([*measure_making(repeats), measure_ready(FEW, starts)], json=options.json)


if __name__ == "__main__":
    main()
