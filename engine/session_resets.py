"""How all parties give one session a fresh id, whoever asks first and however many sessions are reset at once.

Between the openers of all parties, over their control connections. Sessions are matched by their *origin*, the id that
they were made with, and by a round that counts the lives of one session: neither the order of calls nor what became of
an earlier reset matters. The one invariant: parties that finish the same round of a session get the same id, and no
other round of any session ever gets that id.

Why the id is unique: each announcement has a number that its party never uses again, of which the remainder by the
number of parties names the party. The greatest number of a round therefore belongs to one announcement of one session.

Why it comes to an end: whoever hears of a later round than its own leaves its own and announces that one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .errors import LinkProtocolError
from .frames import LINK_SESSION, printable_untrusted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RESET_IDS_FIRST: Final = 3 << 30
"""Ids from here on are given by resets, those below by common steps: the two need not know of each other."""

NUMBERS_AHEAD_MAX: Final = 1 << 20
"""How far a peer's number may be above all that we have seen, once we have seen one. Each reset uses one per party."""

HEARD_MAX: Final = 65_536
"""Sessions of which we remember what a peer announced. Beyond, the oldest is forgotten, and its reset times out."""

_REASON_LENGTH_MAX: Final = 300
_NUMBER_MAX: Final = LINK_SESSION - RESET_IDS_FIRST


@dataclass(frozen=True, slots=True)
class ResetSession:
    """The sender wants a fresh id for a session; or, with a `reason`, it has left that round."""

    session: int
    round: int
    number: int
    reason: str = ""

    def document(self) -> dict[str, object]:
        """What travels as JSON."""
        return {
            "type": "reset session",
            "session": self.session,
            "round": self.round,
            "number": self.number,
            "reason": self.reason[:_REASON_LENGTH_MAX],
        }

    @classmethod
    def from_document_untrusted(cls, document: Mapping[str, object], peer: str) -> ResetSession:
        """The inverse, for a document of this type whose round was checked.

        Raises:
            LinkProtocolError: fields that are missing, extra, or out of their bounds.
        """
        match document:
            case {"type": _, "session": int(session), "round": int(round_), "number": int(number), "reason": str(why)}:
                if len(document) == 5 and 0 <= session < LINK_SESSION and 0 <= number <= _NUMBER_MAX:
                    text = printable_untrusted(why[:_REASON_LENGTH_MAX].encode("utf-8", "replace"))
                    return cls(session, round_, number, text)
        raise LinkProtocolError(peer, "reset of a session without its fields, or out of bounds, fields", len(document))


class NumbersUsedUp(Exception):
    """Raised when no id is left for a reset; a party that is opened anew has all of them."""


class ResetBook:
    """Driven by our program (begin, outcome, withdraw), the peers (theirs) and their links (link_was_made)."""

    def __init__(self, index: int, parties: int, peers: Mapping[str, int]) -> None:
        """`peers`: name -> party index."""
        self._index = index
        self._parties = parties
        self._peers = dict(peers)
        # How often numbers were drawn, here or by anybody whose number we saw.
        self._drawn = 0
        # Our announcements that wait, by origin.
        self._ours: dict[int, ResetSession] = {}
        # The latest that each peer said of each session.
        self._heard: dict[str, dict[int, ResetSession]] = {peer: {} for peer in self._peers}

    def begin(self, origin: int, round_after: int, stride: int) -> ResetSession:
        """Take part in the next round of a session, behind `round_after`, the latest that we finished or left. The
        announcement must be sent to all peers.

        Raises:
            NumbersUsedUp: see there.
        """
        heard = (said.get(origin) for said in self._heard.values())
        rounds = [message.round + bool(message.reason) for message in heard if message is not None]
        announcement = self._announcement(origin, max([round_after + 1, *rounds]), stride)
        self._ours[origin] = announcement
        return announcement

    def _announcement(self, origin: int, round_: int, stride: int) -> ResetSession:
        number = self._drawn * self._parties + self._index
        if fresh_id(number, stride) + stride > LINK_SESSION:
            raise NumbersUsedUp
        self._drawn += 1
        return ResetSession(origin, round_, number)

    def theirs(self, peer: str, message: ResetSession, stride: int) -> ResetSession | None:
        """Take a peer's word. Returns our announcement of a later round, to be sent to all, if we follow it there.

        Raises:
            LinkProtocolError: its number is not one of its own, or implausibly far ahead.
            NumbersUsedUp: see there.
        """
        if not message.reason:
            self._check_number_untrusted(peer, message.number)
        heard = self._heard[peer]
        before = heard.pop(message.session, None)
        if before is not None and before.round > message.round:
            message = before
        heard[message.session] = message
        if len(heard) > HEARD_MAX:
            del heard[next(iter(heard))]
        ours = self._ours.get(message.session)
        least = message.round + bool(message.reason)
        if ours is None or ours.round >= least:
            return None
        followed = self._announcement(message.session, least, stride)
        self._ours[message.session] = followed
        return followed

    def _check_number_untrusted(self, peer: str, number: int) -> None:
        if number % self._parties != self._peers[peer]:
            raise LinkProtocolError(peer, "number of a reset that is another party's", number)
        drawn = number // self._parties + 1
        if self._drawn and drawn > self._drawn + NUMBERS_AHEAD_MAX:
            raise LinkProtocolError(peer, "number of a reset too far ahead", drawn, self._drawn + NUMBERS_AHEAD_MAX)
        self._drawn = max(self._drawn, drawn)

    def outcome(self, origin: int, stride: int) -> tuple[int, int] | None:
        """(round, fresh id) once every peer has announced our round, or None. Given once."""
        ours = self._ours[origin]
        numbers = [ours.number]
        for heard in self._heard.values():
            message = heard.get(origin)
            if message is None or message.reason or message.round != ours.round:
                return None
            numbers.append(message.number)
        del self._ours[origin]
        return ours.round, fresh_id(max(numbers), stride)

    def missing(self, origin: int) -> tuple[str, ...]:
        """The peers that have not announced our round."""
        ours = self._ours[origin]
        said = {peer: heard.get(origin) for peer, heard in self._heard.items()}
        return tuple(
            peer for peer, word in said.items() if word is None or word.reason or word.round != ours.round
        )

    def withdraw(self, origin: int, reason: str) -> ResetSession:
        """Leave the round of a session, for good. What is returned must be sent to all peers."""
        ours = self._ours.pop(origin)
        return ResetSession(origin, ours.round, ours.number, reason or "no reason given")

    def link_was_made(self, peer: str) -> Sequence[ResetSession]:
        """A link has a new epoch: what its peer announced before may be of another life, and it says again what holds.
        Returns what we have to say again."""
        heard = self._heard[peer]
        for origin in [origin for origin, message in heard.items() if not message.reason]:
            del heard[origin]
        return list(self._ours.values())

    def check_invariants(self) -> None:
        """Numbers are drawn before they are used, and nothing is kept without bound."""
        assert all(message.number // self._parties < self._drawn for message in self._ours.values())
        assert all(len(heard) <= HEARD_MAX for heard in self._heard.values())


def fresh_id(number: int, stride: int) -> int:
    """The session id of a number: a multiple of `stride`, so that it belongs to the same worker as the origin."""
    return (-(-RESET_IDS_FIRST // stride) + number) * stride
