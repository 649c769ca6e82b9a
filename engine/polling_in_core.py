"""What a multiplexer does in place of a sleep that may not pay: it moves bytes, or looks for some, in one call in C.

A part of `multiplexer`, which decides when to poll (`polling`) and deals with everything but the usual. The one
invariant: a call ends in time for the control connection, the timers and the other links of the process, and none of
several connections keeps the others waiting.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from partywire.shm.compiled import core
from partywire.shm.errors import ShmError

from .polling import POLL_NS

if TYPE_CHECKING:
    from types import ModuleType

    from .connection_pump import ConnectionPump
    from .control_lane import ControlLane
    from .polling import Polling
    from .records import StreamEnd

PUMP_TOTAL_NS: Final = 1_000_000
"""A call of the compiled core that moves bytes ends after this, so that the control connection and the timers have
their turn, or sooner when nothing moved for POLL_NS."""

BLOCKED_BULK_NS: Final = 50_000
"""The same while a bulk connection waits for its socket or its ring, which only a turn of the loop notices."""

SMALL_BATCH_SIZE: Final = 256
"""Bytes between two polls of secured connections up to which they are looked at in C: the rounds of some sessions. With
many of them it cost CPU, since their messages came in smaller batches, each of which is sealed and opened."""

SMALL_SHARED_SIZE: Final = 2048
"""Bytes between two polls of links that share a process up to which one call serves all of them. Where more moves, the
turns of the loop between their calls make larger batches."""

LINES_MAX: Final = 64
"""Connections of one call; as in pump.c."""


class PollsInCore:
    """For `Multiplexer`, whose fields these are."""

    if TYPE_CHECKING:
        _served: list[ConnectionPump]
        _bulk: list[ConnectionPump]
        _lane: ControlLane
        _polling: Polling
        _outcome: StreamEnd | None
        _moved: int
        _neighbours: list[PollsInCore]

        def ring_broke(self, end: ConnectionPump | ControlLane, error: ShmError) -> None: ...

    def _join_neighbours(self) -> None:
        self._neighbours.append(self)

    def _leave_neighbours(self) -> None:
        if self in self._neighbours:
            self._neighbours.remove(self)

    def _pump_for_a_moment(self) -> None:
        """Poll and move bytes in one call of the compiled core, as long as there are any, then let the loop turn.

        Without it, or while a pump is not in its usual state, the turns of the loop are the poll.
        """
        if core is None or self._outcome is not None:
            return
        if not isinstance(self._lane.tx, core.ReaderCore):
            return
        served = self._served
        times: tuple[int, ...] = self._times_alone
        if self._bulk:
            served, times = self._open_beside_bulk()
        elif others := [one for one in self._neighbours if one is not self]:
            served, times = self._beside(others)
        lines = tuple(line for pump in served if (line := pump.line) is not None)
        if len(lines) != len(served):
            self._look_around(core)
            return
        moved, index, rest = core.pump_while_busy(lines, self._lane.tx, *times)
        for pump, count in zip(served, moved, strict=True):
            pump.bytes_moved += count
        if any(moved):
            for one in self._neighbours:
                one._polling.found()
        if index >= 0:
            served[index].meet(rest)

    @property
    def _times_alone(self) -> tuple[int, int]:
        """How long to look in vain, and in all, for our own link: others that share the process have their part."""
        links = len(self._neighbours)
        return POLL_NS if links == 1 else 0, PUMP_TOTAL_NS // links

    def _beside(self, others: list[PollsInCore]) -> tuple[list[ConnectionPump], tuple[int, int]]:
        """Whom to pump for and how long where several links share the process. While little moves, for all of them in
        one call, if each is in its usual state: then nobody waits for it, and it may look in vain. Else for ours."""
        served = [*self._served, *(pump for one in others for pump in one._served)]
        if any(one._bulk or one._outcome is not None for one in others) or len(served) > LINES_MAX:
            return self._served, self._times_alone
        if any(pump.line is None for pump in served):
            return self._served, self._times_alone
        moved, self._moved = self._moved, sum(pump.bytes_moved for pump in served)
        if self._moved - moved > SMALL_SHARED_SIZE:
            return self._served, self._times_alone
        return served, (POLL_NS, PUMP_TOTAL_NS)

    def _open_beside_bulk(self) -> tuple[list[ConnectionPump], tuple[int, ...]]:
        """Whom to pump for and how long. A bulk connection that is blocked is left to the loop, whose turn comes sooner
        then; a normal one that is in no usual state leaves all to it, as ever."""
        open_ = [pump for pump in self._served if pump.line is not None]
        bulk_count = sum(pump in self._bulk for pump in open_)
        blocked_count = len(self._bulk) - bulk_count
        if len(open_) + blocked_count < len(self._served):
            open_ = self._served
        longest_ns = BLOCKED_BULK_NS if blocked_count else PUMP_TOTAL_NS
        quiet_ns, total_ns = self._times_alone
        times = min(quiet_ns, longest_ns), min(total_ns, longest_ns), bulk_count
        return open_, times

    def _look_around(self, core: ModuleType) -> None:
        """Poll as above where connections are secured: what shows up is moved by its pump, in Python.

        Only while little moves at a time. Where there is more, what comes during a turn of the loop is sealed or opened
        in one piece, which saves more than the turn costs.
        """
        served = self._served
        moved, self._moved = self._moved, sum(pump.bytes_moved for pump in served)
        sources = tuple(pump.source for pump in served) if self._moved - moved <= SMALL_BATCH_SIZE else (None,)
        quiet_ns, total_ns = self._times_alone
        until_ns = time.monotonic_ns() + total_ns
        place = -1
        while None not in sources:
            # Whoever had something is looked at last: one that always has must not keep the others waiting.
            place = core.look_around(sources, place + 1, self._lane.tx, quiet_ns)
            if place < 0:
                return
            pump = served[place // 2]
            moved = pump.bytes_moved
            if place % 2:
                pump.receive()
            else:
                self._serve_in_a_poll(pump)
            if (
                pump.source is None  # it met something unusual, or is over
                or pump.bytes_moved - moved > SMALL_BATCH_SIZE
                or time.monotonic_ns() > until_ns  # others have their turn
            ):
                return

    def _serve_in_a_poll(self, pump: ConnectionPump) -> None:
        try:
            if pump.serve_ring():
                self._polling.found()
        except ShmError as error:
            self.ring_broke(pump, error)
