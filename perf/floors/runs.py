"""Which floors there are, and how each is run for a workload."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

from partywire.perf.report import Figure
from partywire.perf.workloads import OneWay, PingPong, RingRounds, Workload

from .programs import FloorUnsupported, run_program

RING_KIB: Final = 4096
"""As the engine's rings by default (docs/memory.md)."""

SMALL_RING_KIB: Final = 1024
"""What six of these rings hold fits beside the kernel's buffers in the caches of a common server core."""

SPIN_US: Final = 50
"""Long enough for what a neighbour on another core needs to answer, short enough to be no load when nobody does."""

SESSIONS_MAX: Final = 1024
SIZE_MAX: Final = 1024 * 1024
PARTIES_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Floor:
    """One floor: the same state machine in C, over one way of carrying its bytes."""

    name: str
    summary: str
    program: str
    spin_us: int = 0
    ring_kib: int = RING_KIB


FLOORS: Final[dict[str, Floor]] = {
    floor.name: floor
    for floor in (
        Floor("c-epoll", "C, one epoll process per party", "epoll"),
        Floor("c-split", "C, compute and I/O processes split by rings, as the engine is", "split"),
        Floor("c-split-spin", f"the same, polling for {SPIN_US} us before it sleeps", "split", spin_us=SPIN_US),
        Floor("c-split-small", f"c-split with rings of {SMALL_RING_KIB} KiB", "split", ring_kib=SMALL_RING_KIB),
    )
}
"""By name, for tables and the command line."""


@dataclass(frozen=True, slots=True)
class FloorResult:
    """What a floor did while the clock ran, its warm-up not included."""

    rate: float
    """Units a second, as the workload counts them, all sessions together."""
    latencies_ns: list[int]
    """Of the first sessions of party 0, the latest ones of each; none for a one-way stream."""
    cpu_s_per_party: list[float]
    """CPU seconds by party, all of its processes together."""
    units: int
    elapsed_s: float
    context_switches: int
    """Of all processes of all parties."""


def run_floor(name: str, work: Workload, seconds: float) -> FloorResult:
    """Play `work` for `seconds` in C. Blocks; nothing is left running, whatever happens.

    Raises:
        KeyError: there is no such floor.
        FloorUnsupported: no C compiler, or a workload that the floors do not play.
        FloorFailed: the floor ended without a figure.
    """
    floor = FLOORS[name]
    if not isinstance(work, RingRounds | PingPong | OneWay):
        raise FloorUnsupported(f"{name} plays ring rounds, ping-pong and one-way streams, not {work.name!r}")
    parties_max = PARTIES_MAX if isinstance(work, RingRounds) else 2
    if not (2 <= work.parties <= parties_max and 1 <= work.sessions <= SESSIONS_MAX and 1 <= work.size <= SIZE_MAX):
        raise FloorUnsupported(
            f"{name} plays {work.name!r} with 2 to {parties_max} parties, up to {SESSIONS_MAX} sessions and {SIZE_MAX}"
            f" bytes, not with {work.parties}, {work.sessions} and {work.size}"
        )
    script = [work.name, work.parties, work.sessions, work.size, seconds, floor.spin_us, floor.ring_kib]
    printed = run_program(floor.program, [str(word) for word in script], seconds)
    units, elapsed_s = cast("int", printed["units"]), cast("float", printed["elapsed_s"])
    return FloorResult(
        rate=units / elapsed_s,
        latencies_ns=cast("list[int]", printed["latencies_ns"]),
        cpu_s_per_party=cast("list[float]", printed["cpu_s_per_party"]),
        units=units,
        elapsed_s=elapsed_s,
        context_switches=cast("int", printed["context_switches"]),
    )


@dataclass(frozen=True, slots=True)
class MachineFloor:
    """One small measurement: a time for each round, or bytes a second where `size` is what counts."""

    name: str
    program_name: str
    size: int
    is_rate: bool = False


KIB: Final = 1024
MACHINE_FLOORS: Final = (
    *(MachineFloor(f"memcpy of {kib:,} KiB", "memcpy", kib * KIB, is_rate=True) for kib in (4, 64, 256, 1024)),
    MachineFloor("shared memory round trip, spinning", "spin", 0),
    MachineFloor("shared memory round trip, sched_yield", "yield", 0),
    MachineFloor("eventfd round trip, sleeping", "eventfd", 0),
    MachineFloor("TCP round trip of 64 B, blocking", "tcp-pingpong", 64),
    MachineFloor("TCP round trip of 1 MiB, blocking", "tcp-pingpong", 1024 * KIB),
    MachineFloor("TCP one way, writes of 1 MiB", "tcp-oneway", 1024 * KIB, is_rate=True),
)


def machine_floors(seconds: float, repeats: int = 1) -> list[Figure]:
    """What this machine can do at all, each measured for `seconds` and `repeats` times: microseconds or bytes a second.

    Raises:
        FloorUnsupported: no C compiler.
        FloorFailed: one of them ended without a figure.
    """
    samples: list[list[float]] = [[] for _ in MACHINE_FLOORS]
    # Repeats go around: whatever else the machine does for a while hits all of them.
    for _ in range(repeats):
        for floor, taken in zip(MACHINE_FLOORS, samples, strict=True):
            arguments = [floor.program_name, str(floor.size), str(seconds)]
            printed = run_program("machine", arguments, seconds)
            count, elapsed_s = cast("int", printed["count"]), cast("float", printed["elapsed_s"])
            taken.append(count * floor.size / elapsed_s if floor.is_rate else elapsed_s / count * 1e6)
    return [
        Figure(floor.name, "B/s" if floor.is_rate else "us", tuple(taken), lower_is_better=not floor.is_rate)
        for floor, taken in zip(MACHINE_FLOORS, samples, strict=True)
    ]
