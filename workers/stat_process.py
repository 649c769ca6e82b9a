"""What the kernel says about a process: CPU time, wake-ups, memory. Read from /proc by whoever looks, at no cost to it.

Between /proc and the stat reader. The one invariant: figures are of the process that was meant, or None: a number that
another process has taken over has another start time.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PAGE_SIZE: Final = os.sysconf("SC_PAGE_SIZE")


class ProcessUse(NamedTuple):
    """One process since its start."""

    cpu_s: float  # user and system
    wakeups: int  # times that it waited and was woken: voluntary context switches of its main thread
    memory_size: int  # resident bytes, shared memory included
    started: int  # clock ticks after boot


def process_use(pid: int, started: int | None = None) -> ProcessUse | None:
    """What process `pid` has used; None if it ended, or did not start when `started` says."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            switches = next(line for line in file if line.startswith("voluntary_ctxt_switches"))
        use = ProcessUse(
            cpu_s=(int(fields[11]) + int(fields[12])) / TICKS_PER_S,
            wakeups=int(switches.split()[1]),
            memory_size=int(fields[21]) * PAGE_SIZE,
            started=int(fields[19]),
        )
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    is_zombie = fields[0] in ("Z", "X")
    return None if is_zombie or started not in (None, use.started) else use
