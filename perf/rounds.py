"""Ring rounds: how many times per second can all sessions send to the next party and hear from the previous one?

Three parties on this host. In each round every session at every party sends SIZE bytes to the next party and waits for
SIZE bytes from the previous. A round counts once for the three of them; the rate is the sum over sessions, from the
moment the first party starts until the last one ends (CLOCK_MONOTONIC is one clock for all processes of a host), after
a warm-up of a tenth of the rounds. Each contender runs in processes of its own, contenders take turns, and every
party is one compute process, so what differs is what carries the messages:

- `partywire`: `BatchRunner` with one job per session, `await session.send_next(...)`, `await session.recv_prev()`;
- `uvloop`: perf/uvloop_rounds.py, the plain way: length-prefixed frames, a task per session.

What would make it lie: other load on the cores (a warning is printed), too few rounds (raise --seconds).
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import orjson

from partywire.perf.report import machine, print_table, scaled, warn_if_busy
from partywire.perf.workload import RingRounds

if TYPE_CHECKING:
    from partywire import Session
    from partywire.perf.workload import Span

PARTIES = ("alice", "bob", "charlie")
CONTENDERS = ("partywire", "uvloop")
SESSIONS = (1, 64, 256)
# A first guess of each contender's rate, to choose a number of rounds that takes about --seconds.
EXPECTED_RATE = {"partywire": {1: 8_000, 64: 150_000, 256: 250_000}, "uvloop": {1: 25_000, 64: 90_000, 256: 110_000}}


async def rounds_job(session: Session, work: RingRounds) -> Span:
    payload = bytes(work.size)
    for _ in range(work.warm_up_rounds):
        await session.send_next(payload)
        await session.recv_prev()
    start = time.monotonic()
    for _ in range(work.rounds):
        await session.send_next(payload)
        message = await session.recv_prev()
    assert len(message) == work.size
    return start, time.monotonic()


def run_partywire(party: int, ports: list[int], listener: socket.socket, work: RingRounds) -> Span:
    from partywire import BatchRunner, BlockingParty, PartyConfig

    addresses = {name: ("127.0.0.1", port) for name, port in zip(PARTIES, ports, strict=True)}
    config = PartyConfig(name=PARTIES[party], parties=addresses)
    with BlockingParty(config, listener=listener) as opened:
        spans = BatchRunner(opened, sessions=work.sessions).map(rounds_job, [work] * work.sessions)
    return min(start for start, _ in spans), max(end for _, end in spans)


def run_contender(contender: str, work: RingRounds) -> float:
    """Rounds per second of one run: three processes, each with a listener that we bound for it."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in PARTIES]
    ports = [listener.getsockname()[1] for listener in listeners]
    processes = [
        subprocess.Popen(
            [
                sys.executable, "-m", "partywire.perf.rounds", "--party", str(party), "--contender", contender,
                "--listener", str(listener.fileno()), "--ports", ",".join(map(str, ports)),
                "--sessions", str(work.sessions), "--size", str(work.size), "--rounds", str(work.rounds),
            ],
            pass_fds=[listener.fileno()],
            stdout=subprocess.PIPE,
        )
        for party, listener in enumerate(listeners)
    ]  # fmt: skip
    for listener in listeners:
        listener.close()
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if any(process.returncode for process in processes):
        raise RuntimeError(f"{contender}: a party failed; its message is above")
    spans: list[Span] = [orjson.loads(output) for output in outputs]
    return work.rounds * work.sessions / (max(end for _, end in spans) - min(start for start, _ in spans))


def expected_rate(contender: str, sessions: int) -> float:
    known = EXPECTED_RATE[contender]
    return known[min(known, key=lambda count: abs(count - sessions))]


def measure(sessions_list: list[int], size: int, seconds: float, repeats: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for sessions in sessions_list:
        samples: dict[str, list[float]] = {contender: [] for contender in CONTENDERS}
        for _ in range(repeats):
            for contender in CONTENDERS:
                rate = samples[contender][-1] if samples[contender] else expected_rate(contender, sessions)
                work = RingRounds(sessions, size, rounds=max(10, int(rate * seconds / sessions)))
                samples[contender].append(run_contender(contender, work))
        rows.extend(
            {
                "workload": "ring rounds", "contender": contender, "sessions": sessions, "size": size,
                "rounds_per_s": statistics.median(samples[contender]), "samples": samples[contender],
            }
            for contender in CONTENDERS
        )  # fmt: skip
    return rows


def print_rows(rows: list[dict[str, object]]) -> None:
    rates = {(row["contender"], row["sessions"]): float(str(row["rounds_per_s"])) for row in rows}
    table = []
    for row in rows:
        samples = [float(sample) for sample in row["samples"]]  # type: ignore[attr-defined]
        ratio = rates[row["contender"], row["sessions"]] / rates["uvloop", row["sessions"]]
        table.append(
            (
                str(row["sessions"]), str(row["contender"]), f"{scaled(rates[row['contender'], row['sessions']])}",
                f"{scaled(min(samples))} .. {scaled(max(samples))}", f"{ratio:.2f} x",
            )
        )  # fmt: skip
    print_table(("sessions", "contender", "rounds/s", "spread", "of uvloop"), table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m partywire.perf.rounds", description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=64, help="bytes a message (64)")
    parser.add_argument("--seconds", type=float, default=2.0, help="about how long one run takes (2)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each contender, taking turns (3)")
    parser.add_argument("--sessions", default=",".join(map(str, SESSIONS)), help="numbers of sessions (1,64,256)")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    for name in ("--party", "--listener", "--rounds"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--ports", help=argparse.SUPPRESS)
    options = parser.parse_args()

    if options.party is not None:
        listener = socket.socket(fileno=options.listener)
        ports = [int(port) for port in options.ports.split(",")]
        if options.contender == "uvloop":
            from partywire.perf.uvloop_rounds import run_party as run
        else:
            run = run_partywire
        work = RingRounds(int(options.sessions), options.size, options.rounds)
        span = run(options.party, ports, listener, work)
        os.write(1, orjson.dumps(span))
        return

    warn_if_busy()
    sessions_list = [int(count) for count in options.sessions.split(",")]
    seconds, repeats = (0.02, 1) if options.smoke else (options.seconds, options.repeats)
    rows = measure(sessions_list, options.size, seconds, repeats)
    if options.json:
        for row in rows:
            print(orjson.dumps({**row, **machine()}).decode())
    else:
        print_rows(rows)


if __name__ == "__main__":
    main()
