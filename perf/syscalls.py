"""System calls per message, counted by the kernel's tracepoints in a play of its own.

`perf stat` counts without stopping anybody, so what is counted is what happens otherwise; where it is not allowed or
not there, `strace -c` counts, which slows everything down and so changes how messages are batched. Either way no rate
is taken from this play.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .party_set import PartySet
from .run import play_timeout_s, units_for, warmed_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from .matrix import Cell

NAMED = (
    "sendto", "sendmsg", "recvfrom", "recvmsg", "read", "readv", "write", "writev", "poll", "ppoll", "pselect6",
    "epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl", "futex", "membarrier", "sched_yield", "clock_nanosleep",
    "mmap", "munmap", "madvise", "getpid",
)  # fmt: skip
"""The calls that perf is asked for by name; the rest is `other`."""

TOTAL_EVENT = "raw_syscalls:sys_enter"

TOOL_TIMEOUT_S = 20.0
"""For attaching to some dozen processes, and for the summary."""


class SyscallsUnavailable(Exception):
    """Raised when neither tool can count here; the text says what they said."""


def count_syscalls(contender: str, cell: Cell, seconds: float) -> dict[str, float]:
    """System calls of all parties per message, by name; those that never happened are left out.

    Raises:
        ContenderFailed: the contender failed.
        SyscallsUnavailable: nothing here can count them.
    """
    with (
        PartySet(contender, cell.work, cell.link) as parties,
        tempfile.TemporaryDirectory(prefix="partywire-") as folder,
    ):
        units = units_for(warmed_up(parties, seconds), seconds)
        pids = [pid for family in parties.families() for pid in family]
        counts = Path(folder) / "counts"
        counter = attached(pids, counts)
        try:
            parties.play(units, 10 * play_timeout_s(seconds))
        finally:
            end(counter.process)
        found = counter.parse(counts.read_text())
    messages = units * cell.work.counted_sessions * cell.work.messages_per_unit
    return {name: count / messages for name, count in found.items() if count}


@dataclass(frozen=True, slots=True)
class Counter:
    """A tool that counts until it is interrupted, and then writes its summary."""

    process: subprocess.Popen[bytes]
    parse: Callable[[str], dict[str, int]]


def attached(pids: list[int], output: Path) -> Counter:
    """The first tool that could attach to all these processes.

    Raises:
        SyscallsUnavailable.
    """
    refusals = []
    for tool, attach in (("perf", attach_perf), ("strace", attach_strace)):
        if shutil.which(tool) is None:
            refusals.append(f"{tool} is not installed")
            continue
        try:
            return attach(pids, output)
        except SyscallsUnavailable as refusal:
            refusals.append(str(refusal))
    raise SyscallsUnavailable("; ".join(refusals))


def attach_perf(pids: list[int], output: Path) -> Counter:
    """Counts from the moment when perf has answered that it does.

    Raises:
        SyscallsUnavailable.
    """
    with ExitStack() as ours, ExitStack() as theirs:
        their_commands, our_commands = pipe_ends(theirs, ours)
        our_answers, their_answers = pipe_ends(ours, theirs)
        process = subprocess.Popen(
            [
                "perf", "stat", "-x", ";", "-o", str(output), "-D", "-1",
                "--control", f"fd:{their_commands},{their_answers}",
                "-e", ",".join(tracepoints()), "-p", ",".join(map(str, pids)),
            ],
            pass_fds=[their_commands, their_answers],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        theirs.close()
        try:
            os.write(our_commands, b"enable\n")
        except BrokenPipeError:
            pass  # it has ended, which the empty answer says as well
        readable, _, _ = select.select([our_answers], [], [], TOOL_TIMEOUT_S)
        if not readable or b"ack" not in os.read(our_answers, 64):
            raise SyscallsUnavailable(f"perf: {complaint(process)}")
    return Counter(process, parse_perf)


def attach_strace(pids: list[int], output: Path) -> Counter:
    """Counts from the moment when strace has attached to the last process.

    Raises:
        SyscallsUnavailable.
    """
    targets = [word for pid in pids for word in ("-p", str(pid))]
    process = subprocess.Popen(
        ["strace", "-c", "-f", "-U", "calls,name", "-o", str(output), *targets],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    deadline = time.monotonic() + TOOL_TIMEOUT_S
    said = b""
    while said.count(b" attached") < len(pids):
        readable, _, _ = select.select([process.stderr], [], [], max(0.0, deadline - time.monotonic()))
        data = os.read(process.stderr.fileno(), 4096) if readable else b""
        if not data:
            raise SyscallsUnavailable(f"strace: {last_line(said)}; {complaint(process)}")
        said += data
    return Counter(process, parse_strace)


def pipe_ends(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    """A pipe, whose two ends are closed by their owners."""
    read_fd, write_fd = os.pipe()
    reader.callback(os.close, read_fd)
    writer.callback(os.close, write_fd)
    return read_fd, write_fd


def complaint(process: subprocess.Popen[bytes]) -> str:
    """End a tool that did not attach; returns the last thing it said."""
    process.send_signal(signal.SIGINT)
    try:
        _, said = process.communicate(timeout=TOOL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        _, said = process.communicate()
    return last_line(said)


def last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"


def end(process: subprocess.Popen[bytes]) -> None:
    """Let the tool write its summary."""
    complaint(process)


def tracepoints() -> list[str]:
    """The events that this kernel has."""
    for folder in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
        events = Path(folder) / "events" / "syscalls"
        if events.is_dir():
            names = [f"syscalls:sys_enter_{name}" for name in NAMED if (events / f"sys_enter_{name}").is_dir()]
            return [TOTAL_EVENT, *names]
    return [TOTAL_EVENT]


def parse_perf(text: str) -> dict[str, int]:
    """`perf stat -x ;`: count, unit, event, ..."""
    counts: dict[str, int] = {}
    for line in text.splitlines():
        fields = line.split(";")
        if len(fields) > 2 and fields[0].isdigit():
            counts[fields[2].removeprefix("syscalls:sys_enter_")] = int(fields[0])
    total = counts.pop(TOTAL_EVENT, 0)
    return counts | {"other": max(0, total - sum(counts.values()))}


def parse_strace(text: str) -> dict[str, int]:
    """`strace -c -U calls,name`: a count and a name in each line, the total last."""
    rows = (line.split() for line in text.splitlines())
    return {row[1]: int(row[0]) for row in rows if len(row) == 2 and row[0].isdigit() and row[1] != "total"}
