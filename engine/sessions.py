"""Which ids the next sessions get: every party proposes, and all compute the same block from the same proposals.

Between the openers of all parties, as the fields of a rendezvous. The one invariant: `agree` depends only on the set of
proposals, not on who calls it, and never gives an id that a party may still be using.

The block begins at the greatest of all next ids, so a party that was restarted (and proposes 0) simply skips the ids it
does not remember.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import limits
from .errors import LinkProtocolError, SetupMismatch
from .session_resets import RESET_IDS_FIRST

if TYPE_CHECKING:
    from collections.abc import Mapping

_STRIDE_MAX = limits.CONNECTIONS_MAX * limits.WORKERS_MAX
"""Bounds what a peer can make us skip. The least common multiple of all worker counts, any two of which give at most
CONNECTIONS_MAX, is far below it."""


_NORMAL = "normal"
_BULK = "bulk"
_SHOWN_MAX = 40


@dataclass(frozen=True, slots=True)
class SessionProposal:
    """What one party asks for: `count` sessions whose ids are `stride` apart, none below `next_id`.

    A stride that is a multiple of every party's worker count puts all the sessions on the same worker everywhere.

    Raises:
        TypeError: the count is no whole number.
        ValueError: a value is out of its bounds.
    """

    count: int
    next_id: int
    stride: int = 1
    is_bulk: bool = False
    """Whether they travel on bulk connections."""

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not hasattr(self.count, "__index__"):
            raise TypeError(f"the number of sessions is a whole number, not a {type(self.count).__name__}")
        object.__setattr__(self, "count", operator.index(self.count))  # one of numpy's is no JSON
        if not 1 <= self.count <= limits.SESSIONS_MAX:
            raise ValueError(f"{self.count} sessions, between 1 and {limits.SESSIONS_MAX} are allowed in one call")
        if not 0 <= self.next_id <= RESET_IDS_FIRST:
            raise ValueError(f"next id {self.next_id} is not a session id")
        if not 1 <= self.stride <= _STRIDE_MAX:
            raise ValueError(f"stride {self.stride}, between 1 and {_STRIDE_MAX} are allowed")

    @property
    def class_name(self) -> str:
        """As peers say it."""
        return _BULK if self.is_bulk else _NORMAL

    def fields(self) -> dict[str, object]:
        """The proposal as fields of a rendezvous."""
        return {"count": self.count, "next_id": self.next_id, "stride": self.stride, "class": self.class_name}

    @classmethod
    def from_fields_untrusted(cls, fields: Mapping[str, object], peer: str = "") -> SessionProposal:
        """A peer's proposal; fields with other names are left to the caller.

        Raises:
            LinkProtocolError: a field is missing, not a number, or out of its bounds.
        """
        values: list[int] = []
        for name in ("count", "next_id", "stride"):
            value = fields.get(name)
            if type(value) is not int:
                raise LinkProtocolError(peer, f"{name} of a session proposal is not a number but", type(value).__name__)
            values.append(value)
        class_ = fields.get("class")
        if class_ not in (_NORMAL, _BULK):
            raise LinkProtocolError(peer, "class of sessions in a proposal", repr(class_)[:_SHOWN_MAX])
        try:
            return cls(values[0], values[1], values[2], class_ == _BULK)
        except ValueError as error:
            raise LinkProtocolError(peer, "session proposal out of bounds", str(error)) from None


@dataclass(frozen=True, slots=True)
class SessionBlock:
    """The ids that all parties agreed on."""

    first: int
    count: int
    stride: int = 1

    @property
    def ids(self) -> range:
        """The session ids in order."""
        return range(self.first, self.first + self.count * self.stride, self.stride)

    @property
    def next_id(self) -> int:
        """What this party proposes as next id from now on."""
        return self.first + self.count * self.stride


def agree(round_: int, our_name: str, proposals: Mapping[str, SessionProposal]) -> SessionBlock:
    """The block that follows from everybody's proposals, ours among them.

    The first id is a multiple of the stride. Ids start again at 0 when the block would pass RESET_IDS_FIRST:
    three thousand million ids later nothing of the old sessions is under way.

    Raises:
        SetupMismatch: a peer wants another number of sessions, another stride, or another class.
    """
    ours = proposals[our_name]
    for peer, theirs in proposals.items():
        if theirs.count != ours.count:
            raise SetupMismatch(round_, "number of sessions", ours.count, theirs.count, peer)
        if theirs.stride != ours.stride:
            raise SetupMismatch(round_, "stride of session ids", ours.stride, theirs.stride, peer)
        if theirs.is_bulk != ours.is_bulk:
            raise SetupMismatch(round_, "class of sessions", ours.class_name, theirs.class_name, peer)
    greatest = max(proposal.next_id for proposal in proposals.values())
    first = -(-greatest // ours.stride) * ours.stride
    if first + ours.count * ours.stride > RESET_IDS_FIRST:
        first = 0
    return SessionBlock(first, ours.count, ours.stride)
