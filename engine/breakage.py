"""Which connections of a link broke while it stood, and which of them the link goes on without.

Between the multiplexer, whose connections break, and the keeper of the link, which tells the next attempt what broke
early in this one. Without I/O. A connection that breaks loses the link, which is made anew with all of them; one that
broke soon after the link had come up, twice in a row, breaks alone, so that the others have a link at all.
"""

from __future__ import annotations

from .redial import STEADY_S


class Breakage:
    """Of one attempt. `brittle`: connections that broke early in the one before."""

    def __init__(self, brittle: frozenset[int]) -> None:
        self.connections: set[int] = set()
        """Those that broke; the link hears of it at its end."""
        self.early: set[int] = set()
        """Those of them that broke soon after the link came up."""
        self._brittle = brittle
        self._up_at = 0.0

    def link_is_up(self, now: float) -> None:
        """From now on it is known how early a connection breaks."""
        self._up_at = now

    def breaks_alone(self, connection: int, now: float) -> bool:
        """Note how early a connection broke; whether it did so in the attempt before as well."""
        if now - self._up_at >= STEADY_S:
            return False
        self.early.add(connection)
        return connection in self._brittle
