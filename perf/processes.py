"""What families of processes use: memory, processor time, context switches; and how to end one. All from /proc."""

from __future__ import annotations

import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

TICKS_PER_S = os.sysconf("SC_CLK_TCK")

KILL_TIMEOUT_S = 5.0
"""How long killed processes may take to be gone; more than that means a machine in trouble."""


def descendants(root: int) -> list[int]:
    """`root` and every process below it, however deep; processes that end meanwhile are simply not in the list."""
    found, unseen = [], [root]
    while unseen:
        pid = unseen.pop()
        found.append(pid)
        try:
            tasks = list(Path(f"/proc/{pid}/task").iterdir())
        except OSError:
            continue
        for task in tasks:
            try:
                unseen.extend(int(child) for child in (task / "children").read_text().split())
            except OSError:
                continue
    return found


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional set size of all of them: memory shared among n processes counts 1/n in each, so once in the sum."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


@dataclass(frozen=True, slots=True)
class Usage:
    """What some processes have used since they began, all threads together."""

    cpu_s: float = 0.0
    system_s: float = 0.0
    """The part of `cpu_s` that was spent in the kernel; rounded to clock ticks."""
    switches_voluntary: int = 0
    """A thread went to sleep."""
    switches_involuntary: int = 0
    """A thread was made to wait for its core."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.cpu_s + other.cpu_s,
            self.system_s + other.system_s,
            self.switches_voluntary + other.switches_voluntary,
            self.switches_involuntary + other.switches_involuntary,
        )

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.cpu_s - other.cpu_s,
            self.system_s - other.system_s,
            self.switches_voluntary - other.switches_voluntary,
            self.switches_involuntary - other.switches_involuntary,
        )


def usage_of(pids: Iterable[int]) -> Usage:
    """The usage of the processes that still exist; a thread that ends between two calls makes their difference lie."""
    total = Usage()
    for pid in pids:
        try:
            tasks = list(Path(f"/proc/{pid}/task").iterdir())
        except OSError:
            continue
        for task in tasks:
            try:
                total += thread_usage(task)
            except (OSError, ValueError, IndexError):
                continue
    return total


def thread_usage(task: Path) -> Usage:
    """One thread's. Processor time comes from the scheduler's own nanoseconds where the kernel keeps them."""
    fields = (task / "stat").read_text().rpartition(")")[2].split()
    user_s, system_s = int(fields[11]) / TICKS_PER_S, int(fields[12]) / TICKS_PER_S
    try:
        cpu_s = int((task / "schedstat").read_text().split()[0]) / 1e9
    except OSError:
        cpu_s = user_s + system_s
    switches = {
        name: int(value)
        for name, _, value in (line.partition(":") for line in (task / "status").read_text().splitlines())
        if name.endswith("ctxt_switches")
    }
    return Usage(
        cpu_s, system_s, switches.get("voluntary_ctxt_switches", 0), switches.get("nonvoluntary_ctxt_switches", 0)
    )


def host_busy_s() -> float:
    """Seconds that all cores together have been busy since the host began, stolen time included."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S


def kill_families(roots: Iterable[int]) -> None:
    """Kill processes that the caller started as leaders of sessions of their own, and everything below them.

    The caller reaps the roots. Children that were re-parented are found by their process group.
    """
    for root in roots:
        pids = descendants(root)
        try:
            os.killpg(root, signal.SIGKILL)
        except ProcessLookupError:
            pass
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def wait_for_end(pids: Iterable[int]) -> None:
    """Return when none of these processes runs any more, or after KILL_TIMEOUT_S."""
    deadline = time.monotonic() + KILL_TIMEOUT_S
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))
        finally:
            os.close(pidfd)
