"""MPyC programs over PartyWire and over MPyC's own transport, in turns: three parties on this host, started by MPyC.

Always: chained secure multiplications and openings a second, and MB/s of large transfers (`mpyc_bench`), each with the
time from the command line to the end of party 0, less what was measured: starting and ending. With --demos, or
MPYC_DEMOS in the environment, a folder with the demos of MPyC's repository: the elapsed time that each prints, which
begins when all parties are connected, and its wall time.
What would make it lie: other load; and secretsanta draws the number of its rounds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from partywire.perf.report import Figure, print_figures, warn_if_busy

ADAPTER = ["-m", "partywire.workers.adapters.mpyc"]
TRANSPORTS: dict[str, list[str]] = {"asyncio": [], "PartyWire": ADAPTER}
PROCESSES = ("PartyWire, processes", [*ADAPTER, "--io=processes"])
"""With --processes also this one; on one host the links are otherwise in the program's own process."""
BENCH = Path(__file__).with_name("mpyc_bench.py")
RUN_TIMEOUT_S = 600.0
PARTIES = 3

DEMOS = {
    "secretsanta": ["secretsanta.py", "8"],
    "aes": ["aes.py"],
    "np_aes": ["np_aes.py"],
    "np_lpsolver -i4": ["np_lpsolver.py", "-i4"],
    "onewayhashchains -k2": ["onewayhashchains.py", "-k2"],
    "sort 64": ["sort.py", "64"],
    "sha3": ["sha3.py"],
}


class RunFailed(Exception):
    """Raised when a program failed; the text has the end of what it said."""


def base_port() -> int:
    """The first of enough free ports in a row."""
    while True:
        with ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                for other in range(port + 1, port + PARTIES):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", other))
            except (OSError, OverflowError):
                continue
            return port


def run(transport: str, program: list[str], folder: Path, parties: int = PARTIES) -> tuple[str, float]:
    """What party 0 said, and the seconds until it ended. Raises RunFailed."""
    options = [f"-M{parties}", "-B", str(base_port())]
    command = [sys.executable, *TRANSPORTS[transport], program[0], *options, *program[1:]]
    start = time.perf_counter()
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False)
    seconds = time.perf_counter() - start
    if ran.returncode != 0:
        said = (ran.stdout + ran.stderr)[-500:]
        raise RunFailed(f"{' '.join(command)} ended with exit code {ran.returncode}: {said}")
    return ran.stdout, seconds


def elapsed_s(said: str) -> float:
    """The time that MPyC's runtime prints at its end. Raises RunFailed."""
    found = re.search(r"elapsed time: (\d+):(\d+):([\d.]+)", said)
    if found is None:
        raise RunFailed(f"MPyC printed no elapsed time, but: {said[-500:]}")
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])


def bench(seconds: float, repeats: int, parties: int = PARTIES) -> list[Figure]:
    """The figures of `mpyc_bench` over each transport."""
    samples: dict[tuple[str, str], list[float]] = {}
    for _ in range(repeats):
        for transport in TRANSPORTS:
            said, wall_s = run(transport, [str(BENCH), str(seconds)], BENCH.parent, parties)
            line = next(line for line in said.splitlines() if line.startswith("{"))
            found = json.loads(line) | {"start and end": wall_s - elapsed_s(said)}
            for name, value in found.items():
                samples.setdefault((name, transport), []).append(value)
    units = {"multiplications": "/s", "openings": "/s", "transfer": "MB/s", "start and end": "s"}
    return [
        Figure(f"MPyC {name}: {transport}", units[name], tuple(values), lower_is_better=units[name] == "s")
        for (name, transport), values in samples.items()
    ]


def demos(folder: Path, names: list[str], repeats: int) -> list[Figure]:
    """Elapsed and wall time of each demo over each transport."""
    samples: dict[tuple[str, str, str], list[float]] = {}
    for name in names:
        for _ in range(repeats):
            for transport in TRANSPORTS:
                said, wall_s = run(transport, DEMOS[name], folder)
                samples.setdefault((name, "elapsed", transport), []).append(elapsed_s(said))
                samples.setdefault((name, "wall", transport), []).append(wall_s)
    return [
        Figure(f"MPyC {name}, {what}: {transport}", "s", tuple(values), lower_is_better=True)
        for (name, what, transport), values in samples.items()
    ]


def main() -> None:
    description = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m partywire.perf.mpyc_demos", description=description)
    parser.add_argument("--repeats", type=int, default=5, help="runs over each transport (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long each rate is measured (1)")
    parser.add_argument("--demos", default=os.environ.get("MPYC_DEMOS"), help="folder with MPyC's demos (MPYC_DEMOS)")
    parser.add_argument("--only", default=",".join(DEMOS), help=f"which of them ({','.join(DEMOS)})")
    parser.add_argument("--processes", action="store_true", help="also with the links in processes of their own")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    options = parser.parse_args()
    if importlib.util.find_spec("mpyc") is None:
        print("mpyc: left out, because MPyC is not installed: pip install 'partywire[mpyc]'", file=sys.stderr)
        return
    names = [name.strip() for name in options.only.split(",")]
    if unknown := [name for name in names if name not in DEMOS]:
        parser.error(f"there is no demo {unknown[0]}; there are {', '.join(DEMOS)}")
    if options.processes:
        name, command = PROCESSES
        TRANSPORTS[name] = command
    warn_if_busy()
    repeats = options.repeats
    try:
        figures = bench(0.02, 1, 2) if options.smoke else bench(options.seconds, repeats)
        if options.demos and not options.smoke:
            figures += demos(Path(options.demos), names, repeats)
    except (RunFailed, subprocess.TimeoutExpired) as error:
        sys.exit(f"{parser.prog}: {error}")
    print_figures(figures, json=options.json)


if __name__ == "__main__":
    main()
