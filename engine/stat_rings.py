"""The figures of rings and doorbells that pass through the supervisor's hands, read from their header pages.

Between the processes that use the rings, which keep these words for themselves and each other, and the stat page of
the supervisor. The one invariant: only the header page is mapped, for reading; no payload is mapped here, and a process
that hangs or computes is seen all the same.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Final, NamedTuple

from partywire.shm.counters import WORD_HEAD, WORD_SPACE_WANTED, read_stat
from partywire.shm.doorbell import PAGE_SIZE, WORD_TICKET_LAST
from partywire.shm.errors import ShmError
from partywire.shm.pure import WORD_TICKET
from partywire.shm.segment import HEADER_SIZE, validate

from .stat_page import Labels, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .bulk_commands import BulkLane
    from .commands import Lanes

RINGS_MAX: Final = 384
"""Rings whose header page the supervisor maps; each mapping holds a descriptor, of which a process often has 1024.
Eight peers and 16 workers at each party have 256 rings."""


class RingHeader:
    """The header page of a segment that belongs to others."""

    def __init__(self, fd: int) -> None:
        """`fd` stays the caller's.

        Raises:
            SegmentError: it is no segment.
            OSError: it cannot be mapped.
        """
        self.capacity, self.epoch, self.ring_id = validate(fd)
        self._map = mmap.mmap(fd, HEADER_SIZE, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        self.words: Final = memoryview(self._map).cast("Q")

    def close(self) -> None:
        self.words.release()
        self._map.close()


class TicketPage:
    """The page beside a doorbell that belongs to others."""

    def __init__(self, fd: int) -> None:
        """`fd` stays the caller's.

        Raises:
            OSError: it cannot be mapped.
        """
        if os.fstat(fd).st_size != PAGE_SIZE:
            raise OSError("the page of a doorbell has a wrong size")
        self._map = mmap.mmap(fd, PAGE_SIZE, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        self._words = memoryview(self._map).cast("Q")

    @property
    def is_asleep(self) -> bool:
        """Whether its owner sleeps, or is about to. May be stale."""
        return self._words[WORD_TICKET] != 0

    @property
    def sleeps(self) -> int:
        return self._words[WORD_TICKET_LAST]

    def close(self) -> None:
        self._words.release()
        self._map.close()


class _Ring(NamedTuple):
    header: RingHeader
    labels: Labels


class StatRings:
    """All rings of the party's lanes, by link. Driven by the supervisor alone."""

    def __init__(self, names: tuple[str, ...]) -> None:
        """`names`: of all parties, by index."""
        self._names = names
        self._rings: dict[tuple[int, int], list[_Ring]] = {}  # (peer, worker) -> its rings
        self._tickets: dict[str, TicketPage] = {}  # process -> whether it sleeps

    def add_doorbell(self, process: str, page_fd: int) -> None:
        """Watch the doorbell of a process; `page_fd` stays the caller's. One that cannot be mapped is left out."""
        self.drop_doorbell(process)
        try:
            self._tickets[process] = TicketPage(page_fd)
        except (OSError, ValueError):
            pass

    def drop_doorbell(self, process: str) -> None:
        """A process ended."""
        ticket = self._tickets.pop(process, None)
        if ticket is not None:
            ticket.close()

    def add_lanes(self, lanes: Lanes, fds: Sequence[int]) -> None:
        """A link is up: watch its rings with one worker. The descriptors stay the caller's."""
        self._drop(lanes.peer, lanes.worker)
        if lanes.control and len(fds) >= 2:
            self.add_doorbell(f"link {lanes.peer}", fds[1])  # once: every worker gets the same
        rings = self._rings[lanes.peer, lanes.worker] = []
        for position, connection in enumerate([str(number) for number in lanes.connections]):
            pair = fds[2 + 2 * position : 4 + 2 * position]
            for direction, fd in zip(("tx", "rx"), pair, strict=False):
                self._add_ring(rings, fd, lanes.peer, connection, lanes.worker, direction)

    def add_bulk_lane(self, lane: BulkLane, fds: Sequence[int]) -> None:
        """A bulk connection joined a link that is up: watch its rings too. The descriptors stay the caller's."""
        rings = self._rings.setdefault((lane.peer, lane.worker), [])
        for direction, fd in zip(("tx", "rx"), fds, strict=False):
            self._add_ring(rings, fd, lane.peer, str(lane.connection), lane.worker, direction)

    def _add_ring(self, rings: list[_Ring], fd: int, peer: int, connection: str, worker: int, direction: str) -> None:
        if sum(map(len, self._rings.values())) >= RINGS_MAX:
            return
        labels = (
            ("peer", self._names[peer]),
            ("connection", connection),
            ("worker", str(worker)),
            ("direction", direction),
        )
        try:
            rings.append(_Ring(RingHeader(fd), labels))
        except (OSError, ValueError, ShmError):
            pass  # only figures are missing; who uses the ring says what is wrong with it

    def drop_link(self, peer: int) -> None:
        """A link is over: let its memory go."""
        self.drop_doorbell(f"link {peer}")
        for known, worker in list(self._rings):
            if known == peer:
                self._drop(known, worker)

    def _drop(self, peer: int, worker: int) -> None:
        for ring in self._rings.pop((peer, worker), ()):
            ring.header.close()

    def values(self) -> list[Value]:
        """The figures of this moment."""
        found = []
        for process, ticket in self._tickets.items():
            labels = (("process", process),)
            found.append(Value("process_asleep", labels, int(ticket.is_asleep)))
            found.append(Value("process_sleeps_total", labels, ticket.sleeps))
        for rings in self._rings.values():
            for ring in rings:
                found += ring_values(ring.header, ring.labels)
        return found

    def close(self) -> None:
        """Let everything go. May be called again."""
        for peer, worker in list(self._rings):
            self._drop(peer, worker)
        for process in list(self._tickets):
            self.drop_doorbell(process)


def ring_values(header: RingHeader, labels: Labels) -> list[Value]:
    """What one ring's header page says."""
    words = header.words
    wanted = words[WORD_SPACE_WANTED]  # stays when its bell has been rung
    is_stalled = wanted != 0 and words[WORD_HEAD] < wanted
    stat = read_stat(header)
    return [
        Value("ring_capacity_bytes", labels, stat.capacity),
        Value("ring_depth_bytes", labels, stat.depth),
        Value("ring_depth_max_bytes", labels, stat.depth_max),
        Value("ring_bytes_total", labels, stat.bytes),
        Value("ring_records_total", labels, stat.records),
        Value("ring_full_total", labels, stat.full_events),
        Value("ring_stalled", labels, int(is_stalled)),
        Value("ring_bells_total", labels, stat.bells),
        Value("ring_space_bells_total", labels, stat.space_bells),
        Value("ring_late_wakeups_total", labels, stat.timeouts_with_data),
        Value("ring_bad_records_total", labels, stat.bad_records),
    ]
