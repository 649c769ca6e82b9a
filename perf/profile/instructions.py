"""Instructions a message, counted by callgrind: a figure that a busy machine does not change.

Valgrind runs the walk of walk.py in a process of its own, once with few laps and once with more; the difference is what
the messages of the laps in between cost, all hops together, in user space. The kernel's share is not in it, and neither
are caches, so it says how much work there is and not how long it takes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from .walk import Walk

LAPS_MIN: Final = 4
MESSAGES: Final = 20_000
"""What is counted: enough that the start of Python, which is never quite the same, does not show."""

PASS_TIME_NS: Final = 10_000_000_000
"""Valgrind is some fifty times slower; passes that end by the clock would be cut short."""

TIMEOUT_S: Final = 300.0
"""For one run. Valgrind takes some ten seconds to import the package."""

COLLECTED: Final = re.compile(r"Collected : (\d+)")


class InstructionsUnavailable(Exception):
    """Raised when callgrind cannot count here; the text says why."""


def instructions_per_message(sessions: int, size: int, core: str) -> float:
    """`core` is "compiled" or "pure", as PARTYWIRE_CORE has it.

    Raises:
        InstructionsUnavailable: valgrind is not there, refuses to run, or does not end in time.
    """
    laps = max(2, MESSAGES // sessions)
    few, many = (count(sessions, size, number, core) for number in (LAPS_MIN, LAPS_MIN + laps))
    return (many - few) / (laps * sessions)


def count(sessions: int, size: int, laps: int, core: str) -> int:
    """All instructions of a process that walks so many laps."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise InstructionsUnavailable("valgrind is not installed")
    with tempfile.TemporaryDirectory(prefix="partywire-") as folder:
        log = Path(folder) / "log"
        command = [
            valgrind, "--tool=callgrind", f"--callgrind-out-file={folder}/out", f"--log-file={log}",
            sys.executable, "-m", "partywire.perf.profile.instructions", str(sessions), str(size), str(laps),
        ]  # fmt: skip
        # Without a fixed seed dictionaries of names differ in their collisions, and so in instructions.
        environment = {**os.environ, "PARTYWIRE_CORE": core, "PYTHONHASHSEED": "0"}
        try:
            done = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InstructionsUnavailable(f"valgrind does not run: {error}") from None
        found = COLLECTED.search(log.read_text(errors="replace")) if log.exists() else None
    if done.returncode or found is None:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise InstructionsUnavailable(f"valgrind ended with {done.returncode}: {' '.join(last) or 'nothing said'}")
    return int(found[1])


def main(arguments: list[str]) -> None:
    """What valgrind runs."""
    sessions, size, laps = map(int, arguments)
    with Walk(sessions, size, pass_time_ns=PASS_TIME_NS) as walk:
        walk.play(laps)


if __name__ == "__main__":
    main(sys.argv[1:])
