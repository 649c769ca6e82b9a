"""The main job as its user meets it: `partywire run digits --local 3`, from the command line to the summary.

Measured from the start of the command's process (its own report, by process age): until all sessions were ready; and
until it ended. Memory is the greatest proportional set size of the command and every process below it, sampled while it
runs, so a short peak between two samples may be missed. Each run must end with a result equal to the plaintext answer.
What would make it lie: other load; a page cache that is cold on the first run (the median of several runs is taken).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson

from partywire.perf.processes import descendants, pss_bytes
from partywire.perf.report import Figure, print_figures, warn_if_busy

COMMAND = Path(sys.executable).with_name("partywire")
SAMPLE_INTERVAL_S = 0.02

READY_MAX_S = 2.5
WALL_MAX_S = 20.0
MEMORY_MAX_MIB = 1.2 * 1024


def run_once(arguments: list[str]) -> tuple[float, float, float]:
    """(seconds until ready, seconds in all, MiB at the peak) of one run.

    Raises:
        RuntimeError: the command failed, or its result was not the plaintext answer.
    """
    start = time.monotonic()
    process = subprocess.Popen([COMMAND, "run", "digits", "--local", "3", "--json", *arguments], stdout=subprocess.PIPE)
    peak = 0
    while process.poll() is None:
        peak = max(peak, pss_bytes(descendants(process.pid)))
        time.sleep(SAMPLE_INTERVAL_S)
    wall = time.monotonic() - start
    assert process.stdout is not None
    with process.stdout:
        output = process.stdout.read()
    report = checked_report(process.returncode, output)
    return report["seconds"]["ready"], wall, peak / 2**20


def checked_report(code: int, output: bytes) -> dict[str, Any]:
    """What `partywire run --json` printed.

    Raises:
        RuntimeError: the command failed, or its result was not the plaintext answer.
    """
    if code != 0:
        raise RuntimeError(f"partywire run ended with exit code {code}")
    report: dict[str, Any] = orjson.loads(output)
    if report["checked"] is not True:
        raise RuntimeError("the result was not checked against the plaintext answer")
    return report


def figures(repeats: int, arguments: list[str]) -> list[Figure]:
    samples = [run_once(arguments) for _ in range(repeats)]
    ready, wall, memory = (tuple(column) for column in zip(*samples, strict=True))
    return [
        Figure("digits: command to all sessions ready", "s", ready, READY_MAX_S, lower_is_better=True),
        Figure("digits: 297 probes x 1,500 images, command to summary", "s", wall, WALL_MAX_S, lower_is_better=True),
        Figure("digits: memory of all processes (PSS)", "MiB", memory, MEMORY_MAX_MIB, lower_is_better=True),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m partywire.perf.main_job", description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="runs (5)")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    options = parser.parse_args()
    warn_if_busy()
    arguments = ["--probes", "4"] if options.smoke else []
    try:
        measured = figures(1 if options.smoke else options.repeats, arguments)
    except RuntimeError as error:
        sys.exit(f"{parser.prog}: {error}; its own message is above")
    print_figures(measured, json=options.json)


if __name__ == "__main__":
    main()
