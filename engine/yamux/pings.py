"""The pings of a session: when one is due, what the last one measured, and when its answer is too late. Without I/O.

Between the session, which sends and receives the frames, and its clock. At most one ping waits for its answer.
"""

from __future__ import annotations

from typing import Final

from .frames import LENGTH_MAX

MEASURE_S: Final = 10.0
"""Between two pings that are made because the round trip is wanted."""


class Pings:
    """Of one session. Times are in seconds, of its clock."""

    def __init__(self, now: float, keepalive_s: float, timeout_s: float) -> None:
        self.round_trip_s: float | None = None
        """As the last ping measured it."""
        self._keepalive_s = keepalive_s
        self._timeout_s = timeout_s
        self._value = 0
        self._sent_at: float | None = None  # of the one that waits
        self._due = now + keepalive_s
        self._measured_at = float("-inf")

    def begin(self, now: float) -> int | None:
        """The value of a ping to be sent now; None while another one waits for its answer."""
        self._due = now + self._keepalive_s
        if self._sent_at is not None:
            return None
        self._sent_at = now
        return self._value

    def answered(self, value: int, now: float) -> float | None:
        """The round trip, if this is the answer to the ping that waits; any other is ignored."""
        if self._sent_at is None or value != self._value:
            return None
        self.round_trip_s = now - self._sent_at
        self._sent_at = None
        self._value = (self._value + 1) & LENGTH_MAX
        return self.round_trip_s

    def is_measurement_due(self, now: float) -> bool:
        """Whether somebody who wants the round trip should ping; said once in a while."""
        if now - self._measured_at < MEASURE_S:
            return False
        self._measured_at = now
        return True

    def is_due(self, now: float) -> bool:
        """Whether the session has to show that it lives."""
        return now >= self._due

    def is_lost(self, now: float) -> bool:
        """Whether an answer did not come in time."""
        return self._sent_at is not None and now >= self._sent_at + self._timeout_s

    @property
    def deadline(self) -> float:
        """When one of these changes by time alone."""
        return self._due if self._sent_at is None else min(self._due, self._sent_at + self._timeout_s)
