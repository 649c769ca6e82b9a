"""Substreams of which something is owed, by the peer or by us, and when it is too late for that. Without I/O.

Between the session and its clock. The one invariant: all of them have the same time, so who came first is due first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .substream import Substream


class Overdue:
    """What is owed is the same for all in here. Times are in seconds, of the session's clock."""

    def __init__(self, timeout_s: float, cause: str) -> None:
        """`cause` says what becomes of a substream of which it did not come."""
        self.cause = cause
        self._timeout_s = timeout_s
        self._deadlines: dict[Substream, float] = {}

    def __len__(self) -> int:
        return len(self._deadlines)

    def __contains__(self, substream: Substream) -> bool:
        return substream in self._deadlines

    def __iter__(self) -> Iterator[Substream]:
        return iter(self._deadlines)

    def begin(self, substream: Substream, now: float) -> None:
        """It is owed from now on."""
        self._deadlines[substream] = now + self._timeout_s

    def end(self, substream: Substream) -> bool:
        """It is owed no more. Whether it was."""
        return self._deadlines.pop(substream, None) is not None

    def clear(self) -> None:
        """Nothing is owed any more."""
        self._deadlines.clear()

    @property
    def deadline(self) -> float:
        """When the first one is due; infinity: none is."""
        return next(iter(self._deadlines.values()), float("inf"))

    def take_due(self, now: float) -> Substream | None:
        """One of which it is too late, and is in here no more."""
        if self.deadline > now:
            return None
        substream = next(iter(self._deadlines))
        del self._deadlines[substream]
        return substream
