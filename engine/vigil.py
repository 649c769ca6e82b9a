"""Which processes of a party still answer: each is asked now and then, and given up when it has been silent too long.

Between the supervisor's loop, which has the time and the sockets, and nothing else: no I/O. A process that is stopped
for good (SIGSTOP, a debugger, a host that starves it) neither ends nor says anything, so nobody would ever hear of what
it served. The one invariant: only a process that was asked, and whose answers were looked for after its patience had
passed, is given up; so one that answered in time never is, however late we look ourselves.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

LATENESS_S: Final = 1.0
"""This much later than it was time to look, we were stopped ourselves, as perhaps the others: all begin anew."""


@dataclass(slots=True)
class _Watched:
    ask_at: float
    asked_at: float | None = None


class Vigil(Generic[Key]):
    """Driven by its owner's loop: look for answers, `tick`, sleep for `timeout_s`. Times are of a monotonic clock."""

    def __init__(self, interval_s: float, patience_s: float) -> None:
        """Each is asked every `interval_s`, and given up `patience_s` behind a question without an answer."""
        self._interval_s = interval_s
        self._patience_s = patience_s
        self._watched: dict[Key, _Watched] = {}
        self._due = float("inf")

    def watch(self, key: Key, now: float) -> None:
        """Ask it from now on."""
        self._watched[key] = _Watched(now + self._interval_s)
        self._due = min(self._due, now + self._interval_s)

    def forget(self, key: Key) -> None:
        """It has ended. What is not watched may be forgotten too."""
        self._watched.pop(key, None)

    def answered(self, key: Key, now: float) -> None:
        """It has."""
        if (watched := self._watched.get(key)) is not None:
            watched.asked_at = None
            watched.ask_at = now + self._interval_s

    def tick(self, now: float) -> tuple[list[Key], list[Key]]:
        """Whom to ask now, and whom to give up (once). Answers that have come are taken before."""
        was_stopped = now - self._due > LATENESS_S
        ask: list[Key] = []
        silent: list[Key] = []
        self._due = float("inf")
        for key, watched in list(self._watched.items()):
            if watched.asked_at is None:
                if now >= watched.ask_at:
                    watched.asked_at = now
                    ask.append(key)
            elif was_stopped:
                watched.asked_at = now
            elif now >= watched.asked_at + self._patience_s:
                silent.append(key)
                del self._watched[key]
                continue
            next_at = watched.ask_at if watched.asked_at is None else watched.asked_at + self._patience_s
            self._due = min(self._due, next_at)
        return ask, silent

    def timeout_s(self, now: float) -> float | None:
        """How long to sleep at most; None while nobody is watched."""
        return None if self._due == float("inf") else max(0.0, self._due - now)
