"""When the side that dials a link begins to dial again after the link was up.

Between the keeper of a link and time. The one invariant: links that do not stand are made anew at ever longer
intervals, whatever ends them, and one that stood is made anew at once.

(Inside one attempt to bring the link up, the dialler backs off by itself; this is about links that came up.)
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PAUSE_MIN_S: Final = 0.05
"""Before a link that stood is dialled again. The peer learns of the loss in the same moment, or has to be restarted,
which takes longer; what is dialled too early waits at its gateway or costs one more back-off of the dialler."""

PAUSE_MAX_S: Final = 5.0
"""Longest pause after links that came up and were lost at once: rings and connections of each are made for nothing."""

STEADY_S: Final = 5.0
"""A link that stood for so long was no failure to make one: as long as the default heartbeat timeout, within which a
link that never carried anything would have been found dead."""

GOODBYE_PAUSE_S: Final = 0.5
"""After the peer's goodbye: it ends, and so shall we in most cases; or it starts anew, which takes about as long."""


class Redial:
    """The pauses of one link. Driven by its keeper."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pause_s = PAUSE_MIN_S
        self._up_at = 0.0

    def link_is_up(self) -> None:
        """From now on it stands."""
        self._up_at = self._clock()

    def next_pause_s(self, *, clean: bool) -> float:
        """The link is over, `clean` if it ended with goodbyes: how long to wait, before jitter."""
        if self._clock() - self._up_at >= STEADY_S:
            self._pause_s = PAUSE_MIN_S
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, PAUSE_MAX_S)
        return max(pause_s, GOODBYE_PAUSE_S) if clean else pause_s

    async def pause(self, clean: bool) -> None:
        """Wait before the link is made anew; a random part of it, so that parties do not dial in step."""
        await asyncio.sleep(self.next_pause_s(clean=clean) * random.uniform(0.5, 1.0))
