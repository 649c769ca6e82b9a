"""The common steps of one party: rounds that all parties enter in the same order.

Between whoever calls for a step, the rounds (who said what), and the links on which peers come to it. The one
invariant: a round that was entered ends for everybody, with an outcome or with a word of ours that gives it up, so the
next one has the same number at every party.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from partywire.engine.control import Rendezvous, encode_control
from partywire.engine.errors import PartyWireError

from .errors import PartyFailed, PeerClosed, PeerLost, RendezvousTimeout
from .iris_sessions import refuse_common_step
from .waiting import NEVER, deadline_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .peer_link import PeerLink
    from .rounds import Rounds
    from .worker import Worker

MAKE_SESSIONS = "make_sessions"
"""The one common step in which a peer without a control connection is not missed: its ids follow without a word."""

PATIENCE_LOOK_S = 1.0
"""How often a common step that waits for a lost link looks whether it has waited long enough."""


class CommonSteps:
    """Driven by the party's calls, one at a time or several at once, each in a round of its own."""

    def __init__(self, rounds: Rounds, worker: Callable[[], Worker], why_lost: Callable[[PeerLink], str]) -> None:
        """`worker`: ours, as soon as the party is open. `why_lost`: all that is known of the loss of a link."""
        self._rounds = rounds
        self._book = rounds.book
        self._worker = worker
        self._why_lost = why_lost

    async def meet(
        self, kind: str, fields: Mapping[str, object], timeout: float | None, patience: float | None = None
    ) -> tuple[int, dict[str, Mapping[str, object]]]:
        """Enter the next round and wait for all peers. Returns its number and what every peer said in it, by name.

        With `patience` the link to a peer that has not come may be lost for so many seconds. Raising or cancelled, it
        gives the round up at every party.

        Raises:
            SetupMismatch, SetupAborted: a peer is in a step of another kind, or gave this one up.
            RendezvousTimeout, PeerLost, PeerClosed: a peer did not come.
            UnsupportedByPeer: a peer speaks iris-mpc's protocol, and the step is not MAKE_SESSIONS.
        """
        worker = self._worker()
        if kind != MAKE_SESSIONS:
            refuse_common_step(worker, kind)
        deadline = deadline_of(worker, timeout)
        if not await worker.until(lambda: not self._rounds.silent, deadline):
            raise RendezvousTimeout(kind, self._rounds.silent, float(timeout or 0))
        round_ = self._book.next_round
        body = encode_control(Rendezvous(round_, kind, fields))  # raises before anybody is told
        self._book.our(round_, kind, fields)
        self._rounds.say(round_, body)
        lost_at: dict[str, float] = {}
        outcome: dict[str, Mapping[str, object]] | None = None
        is_over = False

        def is_complete() -> bool:
            nonlocal outcome, is_over
            is_over = True  # the book closes the round with whatever it raises
            outcome = self._book.outcome(round_)
            is_over = outcome is not None
            if outcome is None:
                self._refuse_missing(round_, patience, lost_at)
            return is_over

        try:
            look_s = NEVER if patience is None else min(patience, PATIENCE_LOOK_S)
            while not await worker.until(is_complete, min(deadline, worker.clock() + look_s)):
                if worker.clock() >= deadline:
                    break
            if outcome is not None:
                return round_, outcome
            assert timeout is not None
            raise RendezvousTimeout(kind, self._book.missing(round_), float(timeout))
        except BaseException as error:
            if not is_over:
                reason = str(error) if isinstance(error, PartyWireError) else f"{kind} was cancelled"
                self._rounds.say(round_, encode_control(self._book.abort(round_, reason)))
            raise

    def _refuse_missing(self, round_: int, patience: float | None, lost_at: dict[str, float]) -> None:
        """Whoever is missing and gone will not come any more; with patience, once it has been gone for so long."""
        if (failure := self._worker().failure) is not None:
            raise PartyFailed(*failure.args)  # with it every link is over, and no peer is to blame
        missing = self._book.missing(round_)
        now = self._worker().clock()
        for link in self._worker().links.values():
            if link.cause and link.name in missing:
                if patience is None or now - lost_at.setdefault(link.name, now) >= patience:
                    raise PeerLost(link.name, None, link.epoch, self._why_lost(link))
            else:
                lost_at.pop(link.name, None)
            if link.name in missing and link.is_closed:
                raise PeerClosed(link.name, None, link.epoch)

    def refuse(self, kind: str, reason: str) -> None:
        """Take part in the next common step by giving it up: nobody waits for us there, and rounds stay in step."""
        round_ = self._book.next_round
        self._book.our(round_, kind, {})
        self._rounds.say(round_, encode_control(self._book.abort(round_, reason)))
