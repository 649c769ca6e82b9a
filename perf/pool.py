"""A Pool beside that of tno.mpc.communication: round trips, small messages in flight, bytes and numpy arrays.

Each library plays pool_cases.py, which says what is measured, in two processes on this host, plain and over TLS; they
take turns. The other library takes part where it is installed beside ours, or in the environments of the interpreters
that `--python` names, because its versions 4.x and 5.x exclude each other:

    python -m venv tno5 && tno5/bin/pip install 'tno.mpc.communication[tls]==5.0.4' numpy
    python -m venv tno4 && tno4/bin/pip install 'tno.mpc.communication[tls]==4.12.0' numpy
    partywire perf pool, or python -m partywire.perf.pool --python tno5/bin/python --python tno4/bin/python

A ratio above 1 says that ours was better in the same turn. numpy arrays arrive as lists in the other library. What
would make it lie: other load, and fewer than four cores, on which both processes of ours wait for their engines.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import orjson

from partywire.perf.objects import MeasurementRefused, rivals
from partywire.perf.report import Figure, print_figures, warn_if_busy
from partywire.workers.keygen import tls_files, write_files

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM: Final = Path(__file__).with_name("pool_cases.py")
DEADLINE_S: Final = 300
REPEATS: Final = 5

LATENCY: Final = "ping-pong of 100 B"
TARGETS: Final = {
    LATENCY: 4.0,
    "1,000 of 100 B in flight": 10.0,
    "1 MiB of bytes": 3.0,
    "16 MiB of bytes": 3.0,
    "1 MiB of numpy int64": 10.0,
    "16 MiB of numpy int64": 10.0,
}
"""How many times better than the newest tno.mpc.communication ours is meant to be, in the clear."""

UNITS: Final = {LATENCY: "us", "1,000 of 100 B in flight": "/s"}


def free_ports(count: int) -> list[int]:
    """Ports that nobody had a moment ago; the other library cannot be given one by the kernel."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in sockets]


def play(python: str, library: str, certificates: Path | None, *, is_smoke: bool) -> dict[str, list[float]]:
    """What Alice printed.

    Raises:
        MeasurementRefused: a process failed; the text says why.
    """
    ports = free_ports(2)
    extra = ["--small"] if is_smoke else []
    if certificates is not None:
        extra += ["--certificates", str(certificates)]
    started = []
    try:
        for role, own, other in (("bob", ports[1], ports[0]), ("alice", ports[0], ports[1])):
            command = [python, "-P", str(PROGRAM), library, role, str(own), str(other), *extra]
            started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        said = [process.communicate(timeout=DEADLINE_S) for process in reversed(started)]
    except subprocess.TimeoutExpired:
        raise MeasurementRefused(f"{library} under {python} did not end within {DEADLINE_S} s") from None
    finally:
        for process in started:
            process.kill()
            process.wait()
    for process, (_, errors) in zip(reversed(started), said, strict=True):
        if process.returncode:
            reason = (errors.strip().splitlines() or ["it said nothing"])[-1]
            raise MeasurementRefused(f"{library} under {python}: {reason}")
    answers: dict[str, list[float]] = orjson.loads(said[0][0].splitlines()[-1])
    return answers


def figures(mode: str, samples: dict[str, dict[str, list[float]]]) -> list[Figure]:
    """Of each case everybody's figure, then how many times better ours is than each other library."""
    made = []
    for case in TARGETS:
        is_latency = case == LATENCY
        for name, cases in samples.items():
            unit = UNITS.get(case, "MB/s")
            made.append(Figure(f"{mode}, {case}, {name}", unit, tuple(cases[case]), lower_is_better=is_latency))
        ours = samples["partywire"][case]
        for name, cases in samples.items():
            if name != "partywire":
                pairs = zip(ours, cases[case], strict=True)
                ratios = tuple(their / our if is_latency else our / their for our, their in pairs)
                target = TARGETS[case] if mode == "plain" and " 5." in name else None
                made.append(Figure(f"{mode}, {case}, ratio to {name}", "x", ratios, target))
    return made


def measure(players: Sequence[tuple[str, str, str]], repeats: int, *, is_smoke: bool) -> list[Figure]:
    """`players` are (name, interpreter, library)."""
    made: list[Figure] = []
    with TemporaryDirectory() as folder:
        certificates = Path(folder)
        write_files(certificates, tls_files(["alice", "bob"], 1))
        for mode, files in (("plain", None), ("TLS", certificates)):
            samples: dict[str, dict[str, list[float]]] = {name: {} for name, _, _ in players}
            for _ in range(repeats):
                for name, python, library in players:
                    for case, values in play(python, library, files, is_smoke=is_smoke).items():
                        samples[name].setdefault(case, []).extend(values)
            made += figures(mode, samples)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m partywire.perf.pool", description=__doc__.split("\n")[0])
    parser.add_argument("--python", action="append", default=[], metavar="PATH", help="an interpreter with a rival")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"turns ({REPEATS})")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    options = parser.parse_args()
    warn_if_busy()
    try:
        players = [("partywire", sys.executable, "partywire")]
        players += [(name, python, "tno") for name, python in rivals(options.python)]
        found = measure(players, 1 if options.smoke else options.repeats, is_smoke=options.smoke)
    except MeasurementRefused as error:
        sys.exit(f"pool: {error}")
    print_figures(found, json=options.json)


if __name__ == "__main__":
    main()
