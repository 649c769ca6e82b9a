"""Rounds in which all parties meet: everyone announces what it is about to do, and sees what everyone else does.

Between the openers of all parties, over their control connections. Each party counts its rounds 0, 1, 2 ... in the
order in which its program enters them; the same round must have the same kind everywhere. The one invariant: an outcome
is given only when every peer has announced the round, with our kind; so all parties get one, or all get an error.

Numbers across link epochs: what is said in one epoch of a link holds in that epoch only. In a new one both ends begin
with Resume(next round), and whoever is behind goes on at the greatest number, leaving out rounds that somebody else has
given up; it tells everybody, so that no peer waits for it in a round that it will not enter. That is how a party that
was restarted, and would begin at 0, comes to the number of those that ran on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson

from . import limits
from .control import Abort, Rendezvous, Resume
from .errors import LinkProtocolError, LocalProtocolError, SetupAborted, SetupMismatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RESUME_AHEAD_MAX: Final = 1 << 32
"""How far a peer's next round may be ahead of ours once we have entered one: no set gives up so many rounds while a
link is down, and a peer that says so would soon use all numbers up."""


class RendezvousBook:
    """Announcements of the open rounds. Driven by our program (`our`, `outcome`), by the peers (`theirs`, `resumed`)
    and by their links (`begin_epoch`)."""

    def __init__(self, our_name: str, peers: Iterable[str]) -> None:
        self._our_name = our_name
        self._peers = tuple(peers)
        if our_name in self._peers or len(set(self._peers)) != len(self._peers):
            raise ValueError("every party must have its own name")
        # The round that our program enters next.
        self._next_round = 0
        # What we announced, per open round; an entry leaves with its outcome or its error.
        self._ours: dict[int, Rendezvous] = {}
        # What each peer announced, per round that is open or that we have not entered yet.
        self._theirs: dict[str, dict[int, Rendezvous | Abort]] = {peer: {} for peer in self._peers}

    @property
    def next_round(self) -> int:
        """The number of the round that `our` takes next."""
        return self._next_round

    @property
    def peers(self) -> tuple[str, ...]:
        """Everybody whom an outcome waits for."""
        return self._peers

    def our(self, round_: int, kind: str, fields: Mapping[str, object]) -> Rendezvous:
        """Enter a round and return the announcement, which must be sent to every peer even if `outcome` then raises:
        that is how the others learn of the mismatch.

        Raises:
            LocalProtocolError: rounds are entered one after another, starting with 0.
        """
        if round_ != self._next_round:
            raise LocalProtocolError("rendezvous", f"next round {self._next_round}", f"entering round {round_}")
        self._next_round += 1
        announcement = Rendezvous(round_, kind, dict(fields))
        self._ours[round_] = announcement
        return announcement

    def abort(self, round_: int, reason: str) -> Abort:
        """Give up a round that we entered, and return the message that must be sent to every peer."""
        self._close(round_)
        return Abort(round_, reason)

    def begin_epoch(self, peer: str) -> Resume:
        """A link was made, or made anew: what its peer announced before is void. Returns what to tell it first."""
        announced = self._theirs[peer]
        announced.clear()
        for round_ in self._ours:
            announced[round_] = Abort(round_, f"the link between {peer} and {self._our_name} was made anew")
        return Resume(self._next_round)

    def resumed(self, peer: str, message: Resume) -> Resume | None:
        """A peer says where it goes on. Returns what must be sent to every peer, if that made us skip rounds.

        Raises:
            LinkProtocolError: implausibly far ahead.
        """
        next_round = message.round
        if self._next_round and next_round > self._next_round + RESUME_AHEAD_MAX:
            limit = self._next_round + RESUME_AHEAD_MAX
            raise LinkProtocolError(peer, "next rendezvous round too far ahead", next_round, f"<= {limit}")
        announced = self._theirs[peer]
        for round_ in self._ours:
            if round_ < next_round and round_ not in announced:
                announced[round_] = Abort(round_, f"{peer} goes on at round {next_round}")
        if next_round <= self._next_round:
            return None
        self._next_round = next_round
        for theirs in self._theirs.values():
            for round_ in [earlier for earlier in theirs if earlier < next_round and earlier not in self._ours]:
                del theirs[round_]
        return Resume(next_round)

    def theirs(self, peer: str, message: Rendezvous | Abort) -> None:
        """Take a peer's announcement or abort. One that concerns a round which is over here comes too late to matter;
        so does one that is repeated, because the link was made anew and nobody knew whether the first had arrived.

        Raises:
            LinkProtocolError: the peer announced a round twice with different words or is implausibly far ahead.
        """
        announced = self._theirs[peer]
        round_ = message.round
        if round_ >= self._next_round + limits.RENDEZVOUS_AHEAD_MAX:
            raise LinkProtocolError(
                peer, "rendezvous round too far ahead", round_, f"< {self._next_round + limits.RENDEZVOUS_AHEAD_MAX}"
            )
        if round_ < self._next_round and round_ not in self._ours:
            return
        if isinstance(message, Rendezvous) and announced.get(round_, message) != message:
            raise LinkProtocolError(peer, "rendezvous round announced twice", round_)
        announced[round_] = message

    def missing(self, round_: int) -> tuple[str, ...]:
        """The peers that have not announced a round; names for the message of a timeout."""
        return tuple(peer for peer in self._peers if round_ not in self._theirs[peer])

    def outcome(self, round_: int) -> dict[str, Mapping[str, object]] | None:
        """The fields of every peer in a round that we entered, or None while somebody is missing.

        An outcome or an error closes the round: it is given once.

        Raises:
            SetupMismatch: a peer is in another kind at this round; raised as soon as it is known.
            SetupAborted: a peer gave the round up.
            LocalProtocolError: we are not in this round.
        """
        ours = self._ours.get(round_)
        if ours is None:
            raise LocalProtocolError("rendezvous", f"next round {self._next_round}", f"outcome of round {round_}")
        fields: dict[str, Mapping[str, object]] = {}
        for peer in self._peers:
            message = self._theirs[peer].get(round_)
            if isinstance(message, Abort):
                self._close(round_)
                raise SetupAborted(round_, peer, message.reason)
            if message is None:
                continue
            if message.kind != ours.kind:
                self._close(round_)
                raise SetupMismatch(round_, "kind", ours.kind, message.kind, peer)
            fields[peer] = message.fields
        if len(fields) < len(self._peers):
            return None
        self._close(round_)
        return fields

    def _close(self, round_: int) -> None:
        if self._ours.pop(round_, None) is None:
            raise LocalProtocolError("rendezvous", f"next round {self._next_round}", f"closing round {round_}")
        for announced in self._theirs.values():
            announced.pop(round_, None)

    def check_invariants(self) -> None:
        """Every open round was entered, and nothing is kept of one that is over."""
        assert all(round_ < self._next_round for round_ in self._ours)
        for announced in self._theirs.values():
            for round_ in announced:
                assert round_ in self._ours or round_ >= self._next_round
                assert round_ < self._next_round + limits.RENDEZVOUS_AHEAD_MAX


def check_fields_equal(
    round_: int, ours: Mapping[str, object], outcome: Mapping[str, Mapping[str, object]], names: Iterable[str]
) -> None:
    """Compare the fields that must be the same at every party.

    Raises:
        SetupMismatch: names the first field that differs, both values, and the peer.
    """
    # Ours are compared as the others see them: JSON knows no tuples.
    ours = orjson.loads(orjson.dumps(dict(ours)))
    for name in names:
        our_value = ours.get(name)
        for peer, theirs in outcome.items():
            if theirs.get(name) != our_value:
                raise SetupMismatch(round_, name, our_value, theirs.get(name), peer)
