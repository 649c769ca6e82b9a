"""Rounds in which all parties meet: everyone announces what it is about to do, and sees what everyone else does.

Between the openers of all parties, over their control connections. Each party counts its rounds 0, 1, 2 ... in the
order in which its program enters them; the same round must have the same kind everywhere. The one invariant: an outcome
is given only when every peer has announced the round, with our kind; so all parties get one, or all get an error.

Links are lost and made anew. Both ends of a new epoch say first where they stand (Resume). A peer in the same life goes
on in the rounds that are open, where it says its last words again. One that was started anew would begin at 0: what its
former life announced is void, and it goes on at the greatest number that it hears, in the round where the others wait
for it if there is one. Whoever skips rounds tells everybody, so that nobody waits for it in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from . import limits
from .control import Abort, Rendezvous, Resume
from .errors import LinkProtocolError, LocalProtocolError, SetupAborted, SetupMismatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RESUME_AHEAD_MAX: Final = 1 << 32
"""How far a peer's next round may be ahead of ours once we have entered one: no set gives up so many rounds while a
link is down, and a peer that says so would soon use all numbers up."""


class _Skipped(Abort):
    """Stands where a peer says nothing any more: it goes on behind that round."""


class Resumption(NamedTuple):
    """What a peer's Resume asks of us."""

    is_same_life: bool
    """It may have missed what we said last, which must be said again; else only what we said in the open rounds."""
    has_skipped: bool
    """Every peer must be told where we stand now."""


class RendezvousBook:
    """Announcements of the open rounds. Driven by our program (`our`, `outcome`), by the peers (`theirs`, `resumed`)
    and by new epochs of their links (`resume`)."""

    def __init__(self, our_name: str, peers: Iterable[str], life: str = "") -> None:
        """`life` names this process to the peers, so that they tell it from one that is started after it."""
        self._our_name = our_name
        self._peers = tuple(peers)
        if our_name in self._peers or len(set(self._peers)) != len(self._peers):
            raise ValueError("every party must have its own name")
        self._life = life
        # The life of each peer, once it has said so.
        self._lives: dict[str, str] = {}
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

    def resume(self, peer: str, said: Iterable[int] = ()) -> Resume:
        """What to tell a peer first in a new epoch of its link. `said`: rounds in which we can repeat our words."""
        announced = self._theirs[peer]
        waiting = [round_ for round_ in self._ours if round_ not in announced]
        return Resume(min(waiting, default=self._next_round), self._life, tuple(said))

    def resumed(self, peer: str, message: Resume) -> Resumption:
        """A peer says where it stands.

        Raises:
            LinkProtocolError: implausibly far ahead.
        """
        next_round = message.round
        if self._next_round and next_round > self._next_round + RESUME_AHEAD_MAX:
            limit = self._next_round + RESUME_AHEAD_MAX
            raise LinkProtocolError(peer, "next rendezvous round too far ahead", next_round, f"<= {limit}")
        announced = self._theirs[peer]
        # One that was never heard may have lost its first words, and ours, with an epoch before this one.
        is_same_life = self._lives.get(peer, message.life) == message.life
        self._lives[peer] = message.life
        if not is_same_life:
            announced.clear()
        for round_ in self._ours:
            if round_ < next_round and round_ not in announced and round_ not in message.said:
                announced[round_] = _Skipped(round_, f"{peer} goes on at round {next_round}")
        has_skipped = next_round > self._next_round
        if has_skipped:
            self._next_round = next_round
            for theirs in self._theirs.values():
                for round_ in [earlier for earlier in theirs if earlier < next_round and earlier not in self._ours]:
                    del theirs[round_]
        return Resumption(is_same_life, has_skipped)

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

    def is_open(self, round_: int) -> bool:
        """Whether we entered a round and have not left it."""
        return round_ in self._ours

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
                raise SetupAborted(round_, peer, message.reason, isinstance(message, _Skipped))
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
