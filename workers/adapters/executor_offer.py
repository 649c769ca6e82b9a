"""Which of the jobs that each party has submitted run next: an agreement of all parties, without I/O.

Between the executors of all parties. Each says which jobs it has at hand, by name and in the order of their submission,
and which of them were cancelled; all draw the same conclusion. The one invariant: a job runs only if every party has
submitted it, under the same name at the same place, and no party has cancelled it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from partywire.engine.errors import LinkProtocolError, PartyWireError

if TYPE_CHECKING:
    from collections.abc import Mapping

OFFER_MAX: Final = 128
"""Jobs in one offer, and so in one batch. With names of NAME_LENGTH_MAX it fits into a control message (64 KiB)."""

NAME_LENGTH_MAX: Final = 96
"""Characters of a job's name that are compared."""


class JobMismatch(PartyWireError):
    """Raised at every party when two of them have submitted different jobs at the same place."""

    def __init__(self, number: int, ours: str, theirs: str, peer: str) -> None:
        super().__init__(number, ours, theirs, peer)
        self.number = number
        self.ours = ours
        self.theirs = theirs
        self.peer = peer

    def __str__(self) -> str:
        return (
            f"job {self.number} of the executor is {self.theirs} at {self.peer} but {self.ours} here. All parties must "
            "submit the same jobs in the same order"
        )


@dataclass(frozen=True, slots=True)
class Offer:
    """The jobs that one party has at hand: the number of the first, and the names of all."""

    first: int
    names: tuple[str, ...]
    cancelled: frozenset[int] = frozenset()
    """Places in `names`."""

    def fields(self) -> dict[str, object]:
        """The offer as fields of a rendezvous."""
        return {"first": self.first, "names": list(self.names), "cancelled": sorted(self.cancelled)}

    @classmethod
    def from_fields_untrusted(cls, fields: Mapping[str, object], peer: str) -> Offer:
        """A peer's offer.

        Raises:
            LinkProtocolError: a field is missing, not of its type, or out of its bounds.
        """
        match fields:
            case {"first": int(first), "names": list(names), "cancelled": list(cancelled)}:
                pass
            case _:
                raise LinkProtocolError(peer, "offer of jobs without its fields, but", len(fields))
        if not 1 <= len(names) <= OFFER_MAX:
            raise LinkProtocolError(peer, "number of offered jobs", len(names), OFFER_MAX)
        if not all(isinstance(name, str) and len(name) <= NAME_LENGTH_MAX for name in names):
            raise LinkProtocolError(peer, "offer of jobs with a name that is none", len(names))
        if not all(type(place) is int and 0 <= place < len(names) for place in cancelled):
            raise LinkProtocolError(peer, "offer of jobs with a cancelled one that is not in it", len(names))
        return cls(first, tuple(printable(name) for name in names), frozenset(cancelled))


@dataclass(frozen=True, slots=True)
class Agreement:
    """What all parties do with the first `count` of the jobs that they offered."""

    count: int
    cancelled: Mapping[int, str]
    """Place -> the first party that has cancelled the job."""


def agree(us: str, offers: Mapping[str, Offer]) -> Agreement:
    """The same at every party that calls it with what all said; `offers` has every party's, in index order.

    Raises:
        JobMismatch: two parties offer different jobs.
    """
    ours = offers[us]
    for peer, theirs in offers.items():
        if theirs.first != ours.first:
            raise JobMismatch(ours.first, "next", f"not next, but job {theirs.first} is,", peer)
    count = min(len(offer.names) for offer in offers.values())
    for place in range(count):
        for peer, theirs in offers.items():
            if theirs.names[place] != ours.names[place]:
                raise JobMismatch(ours.first + place, ours.names[place], theirs.names[place], peer)
    cancelled = {
        place: next(name for name, offer in offers.items() if place in offer.cancelled)
        for place in range(count)
        if any(place in offer.cancelled for offer in offers.values())
    }
    return Agreement(count, cancelled)


def printable(name: str) -> str:
    """A job's name as the parties compare and show it."""
    text = "".join(character if character.isprintable() else "?" for character in name)
    return text[:NAME_LENGTH_MAX]
