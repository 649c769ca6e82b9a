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


class PollsInCore:
    """For `Multiplexer`, whose fields these are."""

    if TYPE_CHECKING:
        _served: list[ConnectionPump]
        _bulk: list[ConnectionPump]
        _lane: ControlLane
        _polling: Polling
        _outcome: StreamEnd | None
        _moved: int
        _pump_quiet_ns: int
        _pump_total_ns: int

        def ring_broke(self, end: ConnectionPump | ControlLane, error: ShmError) -> None: ...

    def _pump_for_a_moment(self) -> None:
        """Poll and move bytes in one call of the compiled core, as long as there are any, then let the loop turn.

        Without it, or while a pump is not in its usual state, the turns of the loop are the poll.
        """
        if core is None or self._outcome is not None:
            return
        served = self._served
        lines = tuple(line for pump in served if (line := pump.line) is not None)
        if not isinstance(self._lane.tx, core.ReaderCore):
            return
        times: tuple[int, ...] = self._pump_quiet_ns, self._pump_total_ns
        if self._bulk:
            served, times = self._open_beside_bulk()
        if len(lines) != len(served):
            self._look_around(core)
            return
        moved, index, rest = core.pump_while_busy(lines, self._lane.tx, *times)
        for pump, count in zip(served, moved, strict=True):
            pump.bytes_moved += count
            if count:
                self._polling.found()
        if index >= 0:
            served[index].meet(rest)

    def _open_beside_bulk(self) -> tuple[list[ConnectionPump], tuple[int, ...]]:
        """Whom to pump for and how long. A bulk connection that is blocked is left to the loop, whose turn comes sooner
        then; a normal one that is in no usual state leaves all to it, as ever."""
        open_ = [pump for pump in self._served if pump.line is not None]
        bulk_count = sum(pump in self._bulk for pump in open_)
        blocked_count = len(self._bulk) - bulk_count
        if len(open_) + blocked_count < len(self._served):
            open_ = self._served
        longest_ns = BLOCKED_BULK_NS if blocked_count else PUMP_TOTAL_NS
        times = min(self._pump_quiet_ns, longest_ns), min(self._pump_total_ns, longest_ns), bulk_count
        return open_, times

    def _look_around(self, core: ModuleType) -> None:
        """Poll as above where connections are secured: what shows up is moved by its pump, in Python.

        Only while little moves at a time. Where there is more, what comes during a turn of the loop is sealed or opened
        in one piece, which saves more than the turn costs.
        """
        served = self._served
        moved, self._moved = self._moved, sum(pump.bytes_moved for pump in served)
        sources = tuple(pump.source for pump in served) if self._moved - moved <= SMALL_BATCH_SIZE else (None,)
        until_ns = time.monotonic_ns() + self._pump_total_ns
        place = -1
        while None not in sources:
            # Whoever had something is looked at last: one that always has must not keep the others waiting.
            place = core.look_around(sources, place + 1, self._lane.tx, self._pump_quiet_ns)
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
