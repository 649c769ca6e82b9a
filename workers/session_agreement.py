"""What the openers agree on when they make sessions: which ids, and whether the sessions of the last time still stand.

Between the party, which meets the others, and the worker, whose sessions they become. Nothing here waits. The one
invariant: the sessions of an agreement exist at every party or fail at every party: who cannot make its own, or lost
the link on which others have theirs, tells all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from partywire.engine.control import Abort, encode_control
from partywire.engine.errors import LinkProtocolError, PartyWireError, SetupAborted
from partywire.engine.frames import ResetCode
from partywire.engine.sessions import SessionBlock, SessionProposal, agree

from .bulk import open_bulk
from .errors import PeerAborted, PeerLost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .errors import SessionError
    from .peer_link import PeerLink
    from .rounds import Rounds
    from .session import Session
    from .worker import Worker

IDS_AHEAD_MAX = 1 << 26
"""How far a peer's next session id may be ahead of ours once we have made sessions. Parties differ by the blocks of
failed set-ups, each below 2**24; dozens of rounds with all parties lie between a peer and the end of all ids."""


class SessionAgreement:
    """Of one party. Driven by its calls, by peers that give up, and by links that are made anew."""

    def __init__(self, name: str, rounds: Rounds, worker: Callable[[], Worker]) -> None:
        """`name`: ours. `worker`: ours, as soon as the party is open."""
        self._name = name
        self._rounds = rounds
        self._worker = worker
        # What we propose as the first id of the next block.
        self.next_id = 0
        # The last round that gave session ids, and which.
        self._agreed: tuple[int, SessionBlock] | None = None
        # Which peer gave that up, and why.
        self._given_up: SetupAborted | None = None
        # Called when a peer gives up the sessions of that round, some of which may be another worker's, or its link was
        # made anew.
        self.on_given_up: Callable[[SessionError], None] | None = None

    # Reached.

    def propose(self, count: int, stride: int, is_bulk: bool = False) -> SessionProposal:
        """What we say in the round."""
        return SessionProposal(count, self.next_id, stride, is_bulk)

    def reach_untrusted(
        self, round_: int, ours: SessionProposal, outcome: Mapping[str, Mapping[str, object]]
    ) -> SessionBlock:
        """The block that follows from everybody's proposals. Its ids are given away, whoever makes the sessions.

        Ids begin again at 0 when they are used up. A peer that only says so would make us give ids away of which
        sessions, or their late frames, are still under way.

        Raises:
            LinkProtocolError: a peer's proposal is impossible.
            SetupMismatch: a peer wants another number.
        """
        proposals = {peer: SessionProposal.from_fields_untrusted(theirs, peer) for peer, theirs in outcome.items()}
        for peer, theirs in proposals.items():
            if ours.next_id and theirs.next_id > ours.next_id + IDS_AHEAD_MAX:
                limit = ours.next_id + IDS_AHEAD_MAX
                raise LinkProtocolError(peer, "next session id too far ahead", theirs.next_id, limit)
        block = agree(round_, self._name, {self._name: ours, **proposals})
        self.next_id = block.next_id
        if block.first == 0:
            self._worker().table.skip_below(0)  # ids began, or begin again, at 0
        self._agreed = round_, block
        self._given_up = None
        return block

    async def open_bulk(self, block: SessionBlock, deadline: float) -> None:
        """Have the bulk connections that the sessions of a block need. Raising or cancelled, it gives the block up.

        Raises:
            SetupAborted: a peer gave it up.
            NoBulkConnection, PeerLost, PeerClosed: see `bulk.open_bulk`.
        """
        try:
            await open_bulk(self._worker(), block.ids, deadline, self._raise_given_up)
        except BaseException as error:
            self.give_up(str(error) if isinstance(error, PartyWireError) else "making sessions was cancelled")
            raise

    def _raise_given_up(self) -> None:
        if self._given_up is not None:
            raise SetupAborted(*self._given_up.args)

    def make_sessions(self, block: SessionBlock, *, is_bulk: bool = False) -> list[Session]:
        """All the sessions of a block or none; peers that have made theirs already are told."""
        worker = self._worker()
        made: list[Session] = []
        try:
            for session_id in block.ids:
                if session_id in worker.table.live:
                    reason = f"session {session_id} is still in use, and the ids have begun again at 0"
                    raise SetupAborted(self._agreed[0] if self._agreed else -1, self._name, reason)
                made.append(worker.make_session(session_id, is_bulk=is_bulk))
        except PartyWireError as error:
            for session in made:
                session.close()
            self.give_up(str(error))
            raise
        return made

    # Given up.

    def give_up(self, reason: str) -> None:
        """The sessions of the last agreement will not be made here: every peer ends those that it has made of them.

        Each peer acts as long as it has not left a later one.
        """
        agreed, self._agreed = self._agreed, None
        if agreed is not None:
            # Said in place of our words in that round: a peer that has missed them must not make the sessions later.
            self._rounds.say(agreed[0], encode_control(Abort(agreed[0], reason)))

    def given_up_by(self, link: PeerLink, abort: Abort) -> None:
        """A peer gave up a round that had its outcome here already: its sessions will never be made there."""
        if self._agreed is None or self._agreed[0] != abort.round:
            return  # no peer can be further behind, because each later round needs all of them
        self._given_up = SetupAborted(abort.round, link.name, abort.reason)
        if self.on_given_up is not None:
            self.on_given_up(PeerAborted(link.name, self._agreed[1].first, abort.reason))
        for session_id in self._agreed[1].ids:
            session = self._worker().table.live.get(session_id)
            if session is not None:
                session.fail(PeerAborted(link.name, session_id, abort.reason), ResetCode.ABORTED, abort.reason)

    def link_was_made(self, link: PeerLink) -> PeerLost | None:
        """The sessions of the last agreement, if they still stood, ended with the former epoch of a link.

        Our first word on it says so. Returns what to tell `on_given_up`.
        """
        agreed, self._agreed = self._agreed, None
        self._rounds.link_up(link, None if agreed is None else agreed[0])
        if agreed is None:
            return None
        return PeerLost(link.name, agreed[1].first, link.epoch - 1, "the link was made anew")
