"""Callers whom a pool turned away, for whoever wonders why a peer does not come.

Between the pair engine, which turned them away, and its pairs that have no link. Anybody may dial, so what is
remembered decides nothing. The one invariant: a crowd of strangers takes no memory beyond ENTRIES_MAX of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ENTRIES_MAX: Final = 3
"""Callers that are told apart; of more the one that has been away longest is forgotten."""


@dataclass(slots=True)
class _Entry:
    words: str
    place: str
    count: int = 0


class TurnedAway:
    """Of one pool. Driven by its engine."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}  # by who it was, as far as that can be told; the latest last

    def note(self, who: str, words: str, place: str) -> None:
        """A caller from the host `place` was turned away; `who` is the same each time that it comes, if it can be."""
        entry = self._entries.pop(who, None)
        if entry is None:
            entry = _Entry(words, place)
        entry.count += 1
        entry.words, entry.place = words, place
        self._entries[who] = entry
        if len(self._entries) > ENTRIES_MAX:
            del self._entries[next(iter(self._entries))]

    def forget(self, who: str) -> None:
        """That one is a peer."""
        self._entries.pop(who, None)

    def words_at(self, places: frozenset[str] | None) -> str:
        """What was said of callers from these hosts, or from any; empty if there were none."""
        told = [
            f"a caller was turned away {'once' if entry.count == 1 else f'{entry.count} times'}: {entry.words}"
            for entry in self._entries.values()
            if places is None or entry.place in places
        ]
        return "; ".join(told)
