"""What `timeout` and `max_retries` mean, as those of tno.mpc.communication are given."""

from __future__ import annotations

from typing import Any, Final

LATE_S: Final = 300.0
"""How long a call waits for a peer that was never met, unless told otherwise: people start parties by hand."""

RETRY_PAUSE_S: Final = 1.0
"""What one retry of `max_retries` is worth: tno.mpc.communication pauses so long between two."""


def _seconds(timeout: Any) -> float | None:
    """A timeout as seconds; of aiohttp's ClientTimeout the whole."""
    seconds = getattr(timeout, "total", timeout)
    return None if seconds is None else float(seconds)


def late_s(timeout: Any, max_retries: int) -> float | None:
    """How long to wait for a peer that was never met: the shorter of both arguments."""
    seconds = _seconds(timeout)
    if max_retries < 0:
        return seconds
    by_retries = max(max_retries, 1) * RETRY_PAUSE_S
    return by_retries if seconds is None else min(seconds, by_retries)


def send_seconds(timeout: Any, max_retries: int | None) -> float | None:
    """The deadline of one call; None if neither argument was given."""
    if timeout is None and max_retries is None:
        return None
    return late_s(timeout, -1 if max_retries is None else max_retries)
