"""What two real parties do for each message of a ping-pong: processor time, wake-ups, records, bells, system calls.

Counters are read right before and right after one play, from outside: the kernel's of every process, and the header
pages of the rings, whose descriptors the worker holds. Reading disturbs nobody. System calls are counted in a play of
their own, since strace slows everything down.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from partywire.shm import Segment, ShmError

from ..party_set import PartySet
from ..processes import Usage, usage_of
from ..run import play_timeout_s, units_for, warmed_up
from ..syscalls import attached, end
from ..workloads import PingPong

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from partywire.shm import RingStat

CONTENDER: Final = "partywire"

WORKER: Final = "worker"
IO: Final = "I/O process"
OTHERS: Final = "supervisor, gateway"
ROLES: Final = (WORKER, IO, OTHERS)
MODULES: Final = {"partywire.perf.party_process": WORKER, "partywire.engine.io_process": IO}

SENT: Final = "worker to I/O process"
RECEIVED: Final = "I/O process to worker"


@dataclass(frozen=True, slots=True)
class RingUse:
    """Of all rings in one direction, at both parties. Control lanes are among them; they carry a heartbeat a second."""

    records: int
    bytes: int
    bells: int
    full_events: int
    timeouts_with_data: int


@dataclass(frozen=True, slots=True)
class Run:
    """One play."""

    messages: int
    seconds: float
    usage: dict[str, Usage]
    """By role, both parties together."""
    rings: dict[str, RingUse]
    round_trips_us: tuple[float, ...]
    """Of the sampled sessions, sorted."""

    def wakeups(self, role: str) -> float:
        """Sleeps that ended, a message."""
        return self.usage[role].switches_voluntary / self.messages


def run(sessions: int, size: int, seconds: float) -> Run:
    """Play for about so long.

    Raises:
        ContenderFailed: a party failed.
    """
    work = PingPong(sessions, size)
    with PartySet(CONTENDER, work) as parties:
        units = units_for(warmed_up(parties, seconds), seconds)
        roles = by_role(pid for family in parties.families() for pid in family)
        with Rings(roles[WORKER]) as rings:
            before = {role: usage_of(pids) for role, pids in roles.items()}
            rings_before = rings.use()
            play = parties.play(units, play_timeout_s(seconds))
            rings_after = rings.use()
            usage = {role: usage_of(pids) - before[role] for role, pids in roles.items()}
    latencies = [latency / 1e3 for party in play.latencies_ns for session in party for latency in session]
    return Run(
        messages=units * sessions * work.messages_per_unit,
        seconds=play.seconds,
        usage=usage,
        rings={direction: difference(rings_after[direction], rings_before[direction]) for direction in rings_after},
        round_trips_us=tuple(sorted(latencies)),
    )


def system_calls(sessions: int, size: int, seconds: float) -> dict[str, dict[str, float]]:
    """System calls a message: by role, by name. One play for each role, as a tool sums over all that it watches.

    Raises:
        ContenderFailed: a party failed.
        SyscallsUnavailable: nothing here can count them.
    """
    work = PingPong(sessions, size)
    found = {}
    with PartySet(CONTENDER, work) as parties, tempfile.TemporaryDirectory(prefix="partywire-") as folder:
        units = units_for(warmed_up(parties, seconds), seconds)
        roles = by_role(pid for family in parties.families() for pid in family)
        for role in (WORKER, IO):
            counts = Path(folder) / role.replace("/", "")
            counter = attached(roles[role], counts)
            try:
                parties.play(units, 10 * play_timeout_s(seconds))
            finally:
                end(counter.process)
            messages = units * sessions * work.messages_per_unit
            found[role] = {name: count / messages for name, count in counter.parse(counts.read_text()).items() if count}
    return found


def by_role(pids: Iterable[int]) -> dict[str, list[int]]:
    """What each process does for its party, told by the module that it runs."""
    found: dict[str, list[int]] = {role: [] for role in ROLES}
    for pid in pids:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it ended while we looked
        found[next((MODULES[word] for word in words if word in MODULES), OTHERS)].append(pid)
    return found


class Rings:
    """A context: the rings of some workers, mapped a second time to read their figures."""

    def __init__(self, workers: Sequence[int]) -> None:
        self._workers = workers
        self._segments: dict[str, list[Segment]] = {SENT: [], RECEIVED: []}

    def __enter__(self) -> Rings:
        for pid in self._workers:
            for segment in segments_of(pid):
                producer = segment.stat().producer_pid
                self._segments[SENT if producer == pid else RECEIVED].append(segment)
        return self

    def __exit__(self, *_: object) -> None:
        for segments in self._segments.values():
            for segment in segments:
                segment.close()

    def use(self) -> dict[str, RingUse]:
        return {
            direction: total(segment.stat() for segment in segments) for direction, segments in self._segments.items()
        }


def segments_of(pid: int) -> list[Segment]:
    """Every segment that a process holds a descriptor of."""
    found = {}
    for entry in list(Path(f"/proc/{pid}/fd").iterdir()):
        try:
            if not os.readlink(entry).startswith("/dev/shm/partywire-"):
                continue
            segment = Segment.attach(os.open(entry, os.O_RDWR | os.O_CLOEXEC))
        except (OSError, ShmError):
            continue  # closed meanwhile, or something else of ours
        if segment.epoch in found:
            segment.close()
        else:
            found[segment.epoch] = segment
    return list(found.values())


def total(stats: Iterable[RingStat]) -> RingUse:
    found = list(stats)
    return RingUse(
        records=sum(stat.records for stat in found),
        bytes=sum(stat.bytes for stat in found),
        bells=sum(stat.bells for stat in found),
        full_events=sum(stat.full_events for stat in found),
        timeouts_with_data=sum(stat.timeouts_with_data for stat in found),
    )


def difference(after: RingUse, before: RingUse) -> RingUse:
    return RingUse(
        after.records - before.records,
        after.bytes - before.bytes,
        after.bells - before.bells,
        after.full_events - before.full_events,
        after.timeouts_with_data - before.timeouts_with_data,
    )
