"""Resets of the sessions in an opener: `Session.reset`, and what peers say of theirs.

Between the sessions, the openers of the peers (control lanes) and the book that decides (engine/session_resets.py). The
one invariant: a session lives here only as long as no peer has left that life of it; who hears of a peer's reset ends
its own life of the session at once, so that nobody goes on alone.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from partywire.engine.control import encode_control
from partywire.engine.errors import PartyWireError
from partywire.engine.frames import ResetCode
from partywire.engine.session_resets import NumbersUsedUp, ResetBook, ResetSession

from .bulk import open_bulk
from .errors import PartyFailed, PeerAborted, PeerClosed, PeerLost, RendezvousTimeout, UnsupportedByPeer
from .waiting import deadline_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .peer_link import PeerLink
    from .session import Session
    from .worker import Worker


class SessionResets:
    """Driven by sessions (reset), by peers (take) and by links that are made anew (link_was_made)."""

    def __init__(self, worker: Worker, stride: Callable[[], int]) -> None:
        """`stride()`: the distance of the ids of worker 0's sessions, known once the links are up."""
        self._worker = worker
        self._stride = stride
        peers = {link.name: link.index for link in worker.links.values()}
        self._book = ResetBook(worker.party.index, len(peers) + 1, peers)
        # Origin -> a session that began again and so has another id.
        self._renewed: weakref.WeakValueDictionary[int, Session] = weakref.WeakValueDictionary()
        self._waiting: set[int] = set()

    async def reset(self, session: Session, timeout: float | None) -> None:
        """See Session.reset."""
        worker, origin = self._worker, session.origin
        if origin in self._waiting:
            raise RuntimeError(f"session {session.id} is being reset already")
        for link in worker.links.values():
            if link.iris is not None:
                raise UnsupportedByPeer(link.name, "resetting a session", "make new sessions")
        if worker.failure is not None:
            raise PartyFailed(*worker.failure.args)
        deadline = deadline_of(worker, timeout)
        session.abort(f"{worker.party.name} resets it")
        self._waiting.add(origin)
        worker.expect_sessions()  # from our announcement on, peers may send messages of the new life
        try:
            round_, session_id = await self._agree(session, deadline, timeout)
            try:
                if session.is_bulk:
                    await open_bulk(worker, (session_id,), deadline)
                worker.table.make(session_id, session)
            except BaseException as error:
                self._tell_all(ResetSession(origin, round_, 0, str(error) or "cancelled"))
                raise
            finally:
                session.reset_round = round_
            self._renewed[origin] = session
        finally:
            worker.expect_sessions_end()
            self._waiting.remove(origin)

    async def _agree(self, session: Session, deadline: float, timeout: float | None) -> tuple[int, int]:
        """The round that all parties meet in, and the id that follows from it."""
        origin = session.origin
        try:
            self._tell_all(self._book.begin(origin, session.reset_round, self._stride()))
        except NumbersUsedUp:
            raise PartyFailed(self._worker.party.name, "all ids for sessions that are reset are used up") from None
        outcome: tuple[int, int] | None = None

        def is_agreed() -> bool:
            nonlocal outcome
            outcome = self._book.outcome(origin, self._stride())
            if outcome is None:
                self._refuse_closed(origin, session.id)
            return outcome is not None

        try:
            await self._worker.until(is_agreed, deadline)
            if outcome is None:
                raise self._timed_out(session, timeout)
            return outcome
        except BaseException as error:
            if outcome is None:
                reason = str(error) if isinstance(error, PartyWireError) else "its reset was cancelled"
                left = self._book.withdraw(origin, reason)
                session.reset_round = left.round
                self._tell_all(left)
            raise

    def _refuse_closed(self, origin: int, session_id: int) -> None:
        missing = self._book.missing(origin)
        for link in self._worker.links.values():
            if link.is_closed and link.name in missing:
                raise PeerClosed(link.name, session_id, link.epoch)

    def _timed_out(self, session: Session, timeout: float | None) -> PartyWireError:
        missing = self._book.missing(session.origin)
        for link in self._worker.links.values():
            if link.cause and link.name in missing:
                return PeerLost(link.name, session.id, link.epoch, link.cause)
        return RendezvousTimeout(f"the reset of session {session.origin}", missing, float(timeout or 0))

    # What peers say.

    def take_untrusted(self, link: PeerLink, message: ResetSession) -> None:
        """A peer resets a session, or no longer waits for that.

        Raises:
            LinkProtocolError: see ResetBook.theirs.
        """
        try:
            followed = self._book.theirs(link.name, message, self._stride())
        except NumbersUsedUp:
            followed = None  # our own reset ends by its deadline, and the next one says why
        if followed is not None:
            self._tell_all(followed)
        if message.session in self._waiting:
            return
        session = self._renewed.get(message.session) or self._worker.table.live.get(message.session)
        if session is not None and message.round + bool(message.reason) > session.reset_round:
            reason = message.reason or f"{link.name} resets it"
            session.fail(PeerAborted(link.name, session.id, reason), ResetCode.ABORTED, reason)

    def link_was_made(self, link: PeerLink) -> None:
        """A control lane is there (again): what was said before may be lost."""
        for message in self._book.link_was_made(link.name):
            if link.control is not None:
                link.control.send(encode_control(message))

    def _tell_all(self, message: ResetSession) -> None:
        body = encode_control(message)
        for link in self._worker.links.values():
            if link.control is not None:
                link.control.send(body)
