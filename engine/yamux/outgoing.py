"""Which substreams have something to send, in the order of their turns. Without I/O.

Between the session, which emits one frame for each turn, and its substreams. The one invariant: a substream with
something to send has its turn, or is unhurried: what it has to send then (an acknowledgement, an end that answers the
peer's) is waited for by nobody, and goes with whatever is sent next, at most UNHURRIED_S later.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from .overdue import Overdue

if TYPE_CHECKING:
    from collections.abc import Callable

    from .substream import Substream

UNHURRIED_S: Final = 0.01
"""Long enough for an answer of whoever was asked to take it along, which spares the peer a wake-up."""


class Outgoing:
    """Of one session. Times are in seconds, of its clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.urgent: Substream | None = None
        """The one substream, if any, whose frames go before those of all others."""
        self.turns: Final[deque[Substream]] = deque()
        self._clock = clock
        self._unhurried = Overdue(UNHURRIED_S, "")
        self._is_in_haste = False

    def add(self, substream: Substream) -> None:
        """It gets its turn."""
        if not substream.is_in_turn:
            substream.is_in_turn = True
            self.add_again(substream)

    def add_again(self, substream: Substream) -> None:
        """It had its turn, and has more to send."""
        (self.turns.appendleft if substream is self.urgent else self.turns.append)(substream)

    def add_unhurried(self, substream: Substream) -> None:
        """It gets its turn when any other does, or in UNHURRIED_S."""
        if self._is_in_haste:
            self.add(substream)
        elif substream not in self._unhurried:
            self._unhurried.begin(substream, self._clock())

    def hurry(self) -> None:
        """Something is sent, or was waited for long enough: who is unhurried gets its turn."""
        if self._unhurried:
            for substream in self._unhurried:
                self.add(substream)
            self._unhurried.clear()

    def hurry_from_now_on(self) -> None:
        """One of the sides is leaving: nothing waits any more."""
        self._is_in_haste = True
        self.hurry()

    @property
    def deadline(self) -> float:
        """When to hurry; infinity: not for anybody."""
        return self._unhurried.deadline

    def clear(self) -> None:
        """Nothing more goes out."""
        self.turns.clear()
        self._unhurried.clear()
