"""The hops, the wake-ups and the counters side by side, and what they leave unexplained.

Two sums are held against what real parties were measured at. Latency, at one session: hops plus wake-ups, as many as
were counted. Processor time, at the sessions asked for: hops alone; the rest has no hop of its own and is named. A rest
below zero says that parts overlap, or that the measured run met quieter cores than the parts did.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .running import IO, RECEIVED, ROLES, SENT, WORKER
from .walk import DEMULTIPLEX, HOPS, PUBLISH, RESUME, SEND, SOCKET_RECV, SOCKET_SEND

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .running import Run

MICROSECONDS: Final = "us"
PER_MESSAGE: Final = "per message"

HOP_NOTES: Final[dict[str, str]] = {
    SEND: "worker: the session's call",
    PUBLISH: "worker: gather, copy into the ring, publish; 1 copy, in pure Python 2 up to 16 KiB",
    SOCKET_SEND: "I/O process: ring to socket, TCP both ways; 1 copy, by the kernel",
    SOCKET_RECV: "peer's I/O process: socket to ring, publish; 1 copy, by the kernel",
    DEMULTIPLEX: "peer's worker: ring to mailbox, wake the session; 1 copy",
    RESUME: "peer's worker: resume the session, its recv returns",
}
"""Where each hop runs, and how often it copies a message that is no larger than a fragment. A larger one is copied into
the ring by `send` itself, which is then the expensive hop."""


CPU_OF: Final = {
    WORKER: ((SEND, PUBLISH, DEMULTIPLEX, RESUME), "bells, polling before sleep, sleeping and waking, colder caches"),
    IO: ((SOCKET_SEND, SOCKET_RECV), "event loop, bells, sleeping and waking, colder caches"),
}
"""The hops of each kind of process, and what else it spends its time on."""

COUNT_MIN: Final = 0.0005
"""System calls rarer than that, for each message, are left out."""


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of the profile. `spread` holds the middle four fifths of what was measured, where that was much."""

    part: str
    name: str
    value: float
    unit: str
    note: str = ""
    spread: tuple[float, float] | None = None


def hop_lines(hops: Mapping[str, Sequence[float]], part: str) -> Iterator[Line]:
    """Every hop with its median, and their sum."""
    for hop in HOPS:
        yield line_of(part, hop, hops[hop], HOP_NOTES[hop])
    yield Line(part, "all hops", hop_sum(hops), MICROSECONDS, "in one process, nobody asleep; 4 copies")


def wakeup_lines(bells: Sequence[float], sockets: Sequence[float]) -> Iterator[Line]:
    """What each kind of wake-up costs."""
    yield line_of("wake-up", "bell", bells, "from ringing until the sleeper is awake")
    yield line_of("wake-up", "socket", sockets, "from the end of the send until the sleeper is awake")


def run_lines(run: Run, calls: Mapping[str, Mapping[str, float]] | None) -> Iterator[Line]:
    """What a message costs each kind of process, and how messages share records, bells and system calls."""
    messages = run.messages
    for role in ROLES:
        usage = run.usage[role]
        yield Line(role, "CPU", usage.cpu_s * 1e6 / messages, MICROSECONDS)
        yield Line(role, "wake-ups", run.wakeups(role), PER_MESSAGE, "voluntary context switches")
        yield Line(role, "preemptions", usage.switches_involuntary / messages, PER_MESSAGE, "had to wait for a core")
        for name, count in sorted((calls or {}).get(role, {}).items(), key=lambda pair: -pair[1]):
            if count >= COUNT_MIN:
                yield Line(role, f"system call {name}", count, PER_MESSAGE)
    for direction, rings in run.rings.items():
        part = f"rings, {direction}"
        if rings.records:
            yield Line(part, "batch", messages / rings.records, "messages", "that share a record, and so its costs")
        yield Line(part, "bytes", rings.bytes / messages, PER_MESSAGE, "headers and padding included")
        yield Line(part, "bells", rings.bells / messages, PER_MESSAGE, "the reader slept")
        yield Line(part, "refused for room", rings.full_events / messages, PER_MESSAGE)
        yield Line(part, "lost wake-ups", rings.timeouts_with_data, "in all", "more than 0 is a bug")


def cpu_lines(run: Run, hops: Mapping[str, Sequence[float]]) -> Iterator[Line]:
    """Processor time of each kind of process: its hops against what it used at both parties together."""
    for role, (names, rest) in CPU_OF.items():
        part = f"CPU of a message, {role}"
        explained, whole = hop_sum(hops, names), run.usage[role].cpu_s * 1e6 / run.messages
        yield Line(part, "hops", explained, MICROSECONDS, ", ".join(names))
        yield Line(part, "measured", whole, MICROSECONDS, "at both parties")
        yield Line(part, "unexplained", whole - explained, MICROSECONDS, rest)


def latency_lines(
    run: Run, hops: Mapping[str, Sequence[float]], bells: Sequence[float], sockets: Sequence[float]
) -> Iterator[Line]:
    """One way at one session: hops and wake-ups against half of the measured round trip."""
    part = "one way, 1 session"
    if not run.round_trips_us:
        return
    by_bell = run.rings[RECEIVED].bells / run.messages
    io_by_bell = min(run.rings[SENT].bells / run.messages, run.wakeups(IO))
    by_socket = max(0.0, run.wakeups(IO) - io_by_bell)
    bell, sock = statistics.median(bells), statistics.median(sockets)
    bell_count = min(by_bell, run.wakeups(WORKER)) + io_by_bell
    explained = hop_sum(hops) + bell_count * bell + by_socket * sock
    whole = statistics.median(run.round_trips_us) / 2
    yield Line(part, "hops", hop_sum(hops), MICROSECONDS)
    yield Line(part, "wake-ups by bells", bell_count * bell, MICROSECONDS, f"{bell_count:.2f} a message")
    yield Line(part, "wake-ups by sockets", by_socket * sock, MICROSECONDS, f"{by_socket:.2f} a message")
    yield Line(part, "measured", whole, MICROSECONDS, "half of the median round trip")
    rest = "event loops, polling before sleep, waiting for a core, cores that went idle"
    yield Line(part, "unexplained", whole - explained, MICROSECONDS, rest)


def line_of(part: str, name: str, samples: Sequence[float], note: str) -> Line:
    ordered = sorted(samples)
    tenth = len(ordered) // 10
    return Line(part, name, statistics.median(ordered), MICROSECONDS, note, (ordered[tenth], ordered[-1 - tenth]))


def hop_sum(hops: Mapping[str, Sequence[float]], names: Sequence[str] = HOPS) -> float:
    """Of the medians."""
    return sum(statistics.median(hops[name]) for name in names)
