"""Which cells are measured: each is a workload with its parameters on a link, and all contenders meet in it.

A cell is what figures may be compared within. The default cells are chosen for what MPC does: many sessions with tiny
messages, one with few, and a size at which bandwidth begins to count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .workloads import AllToAll, BesideStream, IrisTrace, OneWay, PingPong, RingRounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .party_set import Link
    from .workloads import Workload

KIB = 1024
MIB = 1024 * KIB

WITH_SIZES: dict[str, type[RingRounds | PingPong | OneWay | AllToAll]] = {
    kind.name: kind for kind in (RingRounds, PingPong, OneWay, AllToAll)
}
"""Workloads that are made of a number of sessions and a size."""

USUAL: dict[str, tuple[Workload, ...]] = {
    "ring": (
        *(RingRounds(sessions, 64) for sessions in (1, 8, 64, 256, 1024)),
        *(RingRounds(64, size) for size in (4 * KIB, 64 * KIB, MIB)),
    ),
    "pingpong": (PingPong(1, 64), PingPong(64, 64), PingPong(1, 64 * KIB)),
    "oneway": (OneWay(1, MIB), OneWay(64, 64)),
    "alltoall": (AllToAll(64, 64),),
    "iris": (IrisTrace(32),),
    "beside": (BesideStream(stream_mb_s=0), BesideStream(stream_mb_s=200)),
}
"""What each workload is measured with when it is named and nothing is said about it."""

DEFAULT: tuple[Workload, ...] = (
    *(RingRounds(sessions, 64) for sessions in (1, 8, 64, 256)),
    RingRounds(64, 64 * KIB),
    IrisTrace(32),
)
"""When no workload is named."""

SMOKE: dict[str, tuple[Workload, ...]] = {
    "ring": (RingRounds(2, 64),),
    "pingpong": (PingPong(1, 64),),
    "oneway": (OneWay(2, 64 * KIB),),
    "alltoall": (AllToAll(2, 64),),
    "iris": (IrisTrace(2),),
    "beside": (BesideStream(stream_mb_s=20),),
}

USUAL_SESSIONS = {"ring": 64, "alltoall": 64, "pingpong": 1, "oneway": 1, "iris": 32}
USUAL_SIZE = {"ring": 64, "alltoall": 64, "pingpong": 64, "oneway": MIB}
"""When only the other one of the two is said."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of the matrix."""

    work: Workload
    link: Link | None = None

    @property
    def sessions(self) -> int:
        return self.work.sessions

    @property
    def size(self) -> int | None:
        """Bytes of a message, if all have the same."""
        return getattr(self.work, "size", None)

    @property
    def parameters(self) -> dict[str, int]:
        """What else tells this cell from others of its workload."""
        rate = getattr(self.work, "stream_mb_s", None)
        return {} if rate is None else {"stream_mb_s": rate}

    def __str__(self) -> str:
        size = "" if self.size is None else f" x {size_text(self.size)}"
        others = "".join(f", {name} {value}" for name, value in self.parameters.items())
        link = "" if self.link is None else f", {self.link}"
        return f"{self.work.name} {self.sessions}{size}{others}{link}"


def cells(
    workloads: Sequence[str], sessions: Sequence[int], sizes: Sequence[int], link: Link | None, *, is_smoke: bool
) -> list[Cell]:
    """The cells to measure, in their order. Empty sequences mean: as usual. Options that do not apply are ignored."""
    if is_smoke:
        return [Cell(work, link) for name in workloads or SMOKE for work in SMOKE[name]]
    if not workloads and not sessions and not sizes:
        return [Cell(work, link) for work in DEFAULT]
    names = workloads or ["ring"]
    return [Cell(work, link) for name in names for work in works(name, sessions, sizes)]


def works(name: str, sessions: Sequence[int], sizes: Sequence[int]) -> tuple[Workload, ...]:
    """One workload with all combinations of its parameters."""
    if not sessions and not sizes:
        return USUAL[name]
    if name in WITH_SIZES:
        kind = WITH_SIZES[name]
        return tuple(
            kind(count, size)
            for size in sizes or [USUAL_SIZE[name]]
            for count in sessions or [USUAL_SESSIONS[name]]
        )  # fmt: skip
    if name == IrisTrace.name:
        return tuple(IrisTrace(count) for count in sessions or [USUAL_SESSIONS[name]])
    return USUAL[name]


def parse_size(text: str) -> int:
    """`64`, `4K`, `64KiB`, `1M` in bytes.

    Raises:
        ValueError: the text is no size.
    """
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    factor = 1
    for suffix, value in (("K", KIB), ("M", MIB)):
        if number.endswith(suffix):
            number, factor = number[:-1], value
    size = int(number) * factor
    if size < 1:
        raise ValueError(f"{text} is not a size of at least one byte")
    return size


def size_text(size: int) -> str:
    """As `parse_size` reads it, with the unit written out."""
    for factor, unit in ((MIB, "MiB"), (KIB, "KiB")):
        if size >= factor and size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size} B"
