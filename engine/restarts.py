"""How often processes that died are started again.

Between the supervisor and time. The one invariant: of one process at most RESTARTS_MAX are started within WINDOW_S, so
what dies of a fault that a restart does not cure ends as a failure that somebody reads, and not as a busy machine.
"""

from __future__ import annotations

from collections import deque
from typing import Final

RESTARTS_MAX: Final = 10
"""Restarts of one process within the window. Arbitrary: more than the mistakes of an operator, and a few seconds' worth
of a process that dies at its start."""

WINDOW_S: Final = 60.0


class Restarts:
    """The restarts of all processes of a party, by role. Driven by its supervisor."""

    def __init__(self) -> None:
        self._at: dict[str, deque[float]] = {}

    def may_start(self, role: str, now: float) -> bool:
        """Whether the process of this role, which died, is to be started again; then it counts as started."""
        at = self._at.setdefault(role, deque(maxlen=RESTARTS_MAX))
        if len(at) == RESTARTS_MAX and now - at[0] < WINDOW_S:
            return False
        at.append(now)
        return True


STAYS_AWAY: Final = f"; it died {RESTARTS_MAX + 1} times within {WINDOW_S:g} s and stays away"
"""What is said of a process that is not started again."""
