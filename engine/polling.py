"""Whether a process that has run out of work looks again for a moment before it sleeps.

Between a process that answers a doorbell and the scheduler of the kernel. A sleep and its wake-up cost some ten
microseconds and two context switches, so where the next message is nearly there, looking again is cheaper; where it
is not, or where another process computes on this core, looking is waste. Nothing here knows which is the case, so it
is learnt: from whether earlier polls found something, and from how long the core is away when it is offered.

The one invariant: what is spent in vain is bounded by POLL_S per piece of work, and by a small part of that once polls
stopped paying. A process without work is never asked and never polls.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

POLL_NS: Final = 200_000
POLL_S: Final = POLL_NS / 1e9
"""Longest poll, by turns of the owner or within one call of the compiled core. A message that is answered by another
party passes six processes; while all of them look again, that takes less. A poll of 50 us gave up before the answer of
a peer that had slept could come, and so found nothing."""

YIELD_MAX_S: Final = 1e-3
"""A core that comes back later than this was taken by somebody who computes, and not by one who looks as we do: about
a time slice of the scheduler. Shorter absences are what polling is for: others ran, and may have brought the work."""

MISSES_MAX: Final = 8
"""Polls in vain, one after another, before polls are skipped."""

SKIPS_MIN: Final = 8
SKIPS_MAX: Final = 64
"""Sleeps without a poll before one is tried again: doubled by each trial in vain, the minimum again after a success."""


class Polling:
    """One process's polls. Driven by its owner, who says when nothing was found and when something was.

    The owner looks at its sources, and then calls `found` if there was work or `look_again` if there was none; it
    sleeps when `look_again` says so, and then only after arming its doorbell and looking once more.
    """

    def __init__(
        self, clock: Callable[[], float] = time.perf_counter, give_way: Callable[[], object] = os.sched_yield
    ) -> None:
        """`clock` counts seconds; `give_way` offers the core to others and returns when it is ours again."""
        self._clock = clock
        self._give_way = give_way
        self._deadline = 0.0  # of the poll that is under way; 0 between polls
        self._misses = 0  # polls in vain since the last success
        self._skips = SKIPS_MIN  # what the next pause will be
        self._skips_left = 0  # of the present pause

    def look_again(self) -> bool:
        """There was no work: offer the core, then say whether to look at every source again (True) or to sleep."""
        if self._skips_left:
            self._skips_left -= 1
            return False
        before = self._clock()
        if not self._deadline:
            self._deadline = before + POLL_S
        elif before >= self._deadline:
            self._deadline = 0.0
            self._misses += 1
            if self._misses >= MISSES_MAX:
                self._pause()
            return False
        self._give_way()
        if self._clock() - before > YIELD_MAX_S:
            self._pause()
            return False
        return True

    def found(self) -> None:
        """There was work. If a poll was under way, it paid."""
        if self._deadline:
            self._deadline = 0.0
            self._misses = 0
            self._skips = SKIPS_MIN

    def _pause(self) -> None:
        self._deadline = 0.0
        self._misses = MISSES_MAX - 1  # the trial after the pause is the only one unless it pays
        self._skips_left = self._skips
        self._skips = min(2 * self._skips, SKIPS_MAX)
