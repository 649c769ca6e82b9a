"""How windows grow that limit their sender. Without I/O.

Between the session, which gives credit, and its limits. The one invariant: all windows of a session together have grown
by at most `growth_max`, and none is larger than `window_size_max`.

A window whose half is read in fewer than two round trips holds its sender up, and is doubled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .frames import WINDOW_SIZE

if TYPE_CHECKING:
    from .limits import YamuxLimits
    from .substream import Substream

GROWTH_ROUND_TRIPS: Final = 2
"""A window whose half was read in fewer round trips limits the sender."""


class WindowGrowth:
    """Of one session. Times are in seconds, of its clock."""

    def __init__(self, limits: YamuxLimits) -> None:
        self.size = 0
        """What all windows have grown by, together."""
        self._limits = limits

    def grow(self, substream: Substream, now: float, round_trip_s: float | None) -> int:
        """Half the window of `substream` was read again: by how much the window has grown for it."""
        elapsed, substream.credited_at = now - substream.credited_at, now
        if round_trip_s is None or elapsed >= GROWTH_ROUND_TRIPS * round_trip_s:
            return 0
        room = min(self._limits.window_size_max - substream.window_size, self._limits.growth_max - self.size)
        growth = max(min(substream.window_size, room), 0)
        substream.window_size += growth
        self.size += growth
        return growth

    def give_back(self, substream: Substream) -> None:
        """The substream is over."""
        self.size -= substream.window_size - WINDOW_SIZE
