"""What the kernel says of a process: memory, descriptors, CPU time, and whether it is there."""

from __future__ import annotations

import os
import time
from pathlib import Path

END_TIMEOUT_S = 30.0


def rss_kib(pid: int) -> int:
    """Resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def descriptor_count(pid: int) -> int:
    """Open descriptors."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_s(pid: int) -> float:
    """CPU time, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def core_wait_s(pid: int) -> float:
    """How long it has waited for a core, ready to run, while others ran; 0 where the kernel does not tell."""
    try:
        fields = Path(f"/proc/{pid}/schedstat").read_text().split()
    except OSError:
        return 0.0
    return int(fields[1]) / 1e9


def children_of(pid: int) -> list[int]:
    """Its child processes at this moment."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_gone(pid: int) -> bool:
    """Whether the process has ended; a zombie that nobody has collected yet has."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


def wait_until_gone(pids: list[int]) -> None:
    """Every one of them ends, or the test fails and names one that does not; /dev/shm has nothing of them."""
    deadline = time.monotonic() + END_TIMEOUT_S
    for pid in pids:
        while not is_gone(pid):
            assert time.monotonic() < deadline, f"process {pid} lives on: {Path(f'/proc/{pid}/cmdline').read_bytes()!r}"
            time.sleep(0.01)
    names = [name for name in os.listdir("/dev/shm") for pid in pids if name.startswith(f"partywire-{pid}-")]
    assert not names
