"""Which waits end at a time: those of one worker, the earliest first.

Between the worker, which asks what is due, and whoever waits with a deadline. The one invariant: a wait whose deadline
has passed is woken by the next `expire`; one whose deadline was taken back is never woken, and soon forgotten.

A deadline that is taken back (a message came, in most cases) leaves its entry where it stands: most waits take the next
one at the same place, and a wait costs nothing then. But an entry holds its wait, and so a session that is over and all
that it had. Entries that stand for nothing are therefore thrown out whenever there are twice as many as after the last
time, which costs a wait two steps on average.
"""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Final

from .hot_pure import NEVER

if TYPE_CHECKING:
    from .waiting import Wait

ENTRIES_MIN: Final = 64
"""Entries that may stand there before any is looked at."""


class Timers:
    """Driven by the worker: by whoever waits (`add`), and by its passes (`expire`)."""

    def __init__(self) -> None:
        # A heap of (time, number, wait). Hot: a pass looks at the first one by itself.
        self.entries: Final[list[tuple[float, int, Wait]]] = []
        self._numbers = itertools.count()
        self._entries_max = ENTRIES_MIN

    def add(self, wait: Wait) -> None:
        """Wake `wait` at its deadline, for which no entry stands there yet; `wait.deadline = NEVER` takes that back."""
        wait.timer_at = wait.deadline
        heapq.heappush(self.entries, (wait.deadline, next(self._numbers), wait))
        if len(self.entries) > self._entries_max:
            self._forget()

    def next_deadline(self) -> float:
        """When `expire` next has something to do; it may turn out to be a deadline that was taken back."""
        return self.entries[0][0] if self.entries else NEVER

    def expire(self, now: float) -> int:
        """Wake whoever is due. Returns how many."""
        entries = self.entries
        count = 0
        while entries and entries[0][0] <= now:
            at, _, wait = heapq.heappop(entries)
            if at != wait.timer_at:
                continue  # a later entry of the same wait, for an earlier time, stood for it
            wait.timer_at = NEVER
            if wait.deadline <= now:
                wait.wake()
                count += 1
            elif wait.deadline < NEVER:
                self.add(wait)
        return count

    def clear(self) -> None:
        """Forget everybody."""
        self.entries.clear()

    def _forget(self) -> None:
        """Throw out what stands for nothing."""
        live = []
        for entry in self.entries:
            at, _, wait = entry
            if at != wait.timer_at:
                continue
            if wait.deadline < NEVER:
                live.append(entry)
            else:
                wait.timer_at = NEVER
        heapq.heapify(live)
        self.entries[:] = live
        self._entries_max = max(ENTRIES_MIN, 2 * len(live))
