"""Which sessions are live in a worker, and what happens to frames of those that are not.

Between the party, which makes sessions from agreed ids, and the lanes, which meet ids they do not know. The one
invariant: a frame is delivered to the session that its id was agreed for, parked for a session that is being agreed
upon, or dropped and counted; it is never delivered to another session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from partywire.engine.frames import LINK_SESSION, Descriptor, ResetCode, encode_reset
from partywire.engine.session_resets import HEARD_MAX, RESET_IDS_FIRST
from partywire.engine.topology import connection_of_session

from .errors import PeerLost
from .mailbox import MESSAGE_OVERHEAD
from .session import Session

if TYPE_CHECKING:
    from partywire.engine.frames import Frame

    from .lane import Lane
    from .peer_link import PeerLink
    from .worker import Worker

UNKNOWN_IDS_MAX: Final = 1024
"""Unknown session ids that are remembered to have been answered, so that a flood gets one RESET per id and peer."""


class SessionTable:
    """Driven by the party (make, expect) and by the peers (take_unknown)."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.live: dict[int, Session] = {}
        # Every id below it was made here or skipped; frames for those that are not live are late.
        self._ceiling = 0
        # The ids of resets that were made here, the latest last. Unlike others they come in no particular order.
        self._renewed: dict[int, None] = {}
        self._expectations = 0
        self._answered: set[tuple[int, int]] = set()  # (peer, session id)

    def make(self, session_id: int, session: Session | None = None, *, is_bulk: bool = False) -> Session:
        """A session with an id on which all parties agreed, a new one or one that begins again, which keeps its class.
        Takes what was parked for it.

        A peer may have sent its messages and left before we come to make the session: then they can be received, and
        what comes behind them is PeerClosed.

        Raises:
            PeerLost: the link to a peer is broken or not up yet.
            ValueError: the id is in use, or belongs to another worker.
        """
        if session_id in self.live or not 0 <= session_id < LINK_SESSION:
            raise ValueError(f"session id {session_id} is in use or not a session id")
        is_bulk = session.is_bulk if session is not None else is_bulk
        lanes = [self._lane_of(link, session_id, is_bulk) for link in self._worker.links.values()]
        if session is None:
            session = Session(self._worker, session_id, is_bulk)
        else:
            session.begin_again(session_id)
        for lane in lanes:
            session.add_peer(lane)
        self.live[session_id] = session
        if session_id < RESET_IDS_FIRST:
            self._ceiling = max(self._ceiling, session_id + 1)
        else:
            self._renewed[session_id] = None
            if len(self._renewed) > HEARD_MAX:
                del self._renewed[next(iter(self._renewed))]
        session.register()
        for lane in lanes:
            frames = lane.link.parked_of(lane).pop(session_id, None)
            if frames:
                self._release(frames)
                lane.deliver_parked(frames)
            if lane.is_over and session_id in lane.mailboxes:
                lane.mailboxes[session_id].fail(lane.end_error(session_id))
        return session

    def _lane_of(self, link: PeerLink, session_id: int, is_bulk: bool) -> Lane:
        """The lane that carries a session to one peer; it may be over if the peer has said goodbye."""
        if link.cause or not link.connection_count:
            raise PeerLost(link.name, session_id, link.epoch, link.cause or "the link is not up yet")
        lane = link.lanes.get(connection_of_session(session_id, link.connection_count, is_bulk))
        if lane is None and is_bulk:
            raise PeerLost(link.name, session_id, link.epoch, "its bulk connection is not there")
        if lane is None:
            raise ValueError(f"session {session_id} belongs to another worker than {self._worker.index}")
        if lane.cause:
            raise PeerLost(link.name, session_id, link.epoch, lane.cause)
        return lane

    def skip_below(self, session_id: int) -> None:
        """Frames for ids below this one, if they are not live, are late and no sign of a fault.

        A lower id than before means that ids began again at 0.
        """
        self._ceiling = session_id

    def expect(self) -> None:
        """From now on frames of sessions that are not made yet are kept."""
        self._expectations += 1

    def expect_end(self) -> None:
        """The sessions of one proposal are made, or never will be. With the last one, what is parked is refused."""
        self._expectations -= 1
        if self._expectations:
            return
        for link in self._worker.links.values():
            if link.iris is not None:
                continue  # such a peer waits for nobody, so what it sends early stays for sessions still to come
            parked, link.parked = link.parked, {}
            for session_id, frames in parked.items():
                self._release(frames)
                self._refuse(link, session_id)
            parked, link.parked_bulk = link.parked_bulk, {}
            for session_id, frames in parked.items():
                self._release(frames)
                self._refuse(link, session_id, is_bulk=True)

    def take_unknown(self, lane: Lane, frame: Frame) -> None:
        """A frame for a session that is not live here."""
        session_id, descriptor, length, body = frame
        worker = self._worker
        if self.is_past(session_id):
            worker.counters.dropped_stale += 1
            return
        if self._expectations:
            kept: Frame = (session_id, descriptor, length, bytes(body) if isinstance(body, memoryview) else body)
            cost = len(kept[3]) + MESSAGE_OVERHEAD
            if worker.inbox_size + cost <= worker.inbox_size_max:
                worker.counters.parked += 1
                worker.inbox_size += cost
                lane.link.parked_of(lane).setdefault(session_id, []).append(kept)
                return
        worker.counters.dropped_unknown += 1
        if descriptor != Descriptor.RESET:
            self._refuse(lane.link, session_id, lane.is_bulk)

    def is_past(self, session_id: int) -> bool:
        """Whether a session of this id was made, or skipped; frames for one that is not live are late."""
        return session_id < self._ceiling if session_id < RESET_IDS_FIRST else session_id in self._renewed

    def forget_parked(self, link: PeerLink) -> None:
        """Nobody will receive what was kept of a peer."""
        for parked in (link.parked, link.parked_bulk):
            for frames in parked.values():
                self._release(frames)
            parked.clear()

    def _release(self, frames: list[Frame]) -> None:
        for frame in frames:
            self._worker.inbox_size -= len(frame[3]) + MESSAGE_OVERHEAD

    def _refuse(self, link: PeerLink, session_id: int, is_bulk: bool = False) -> None:
        lane = link.lanes.get(connection_of_session(session_id, max(link.connection_count, 1), is_bulk))
        if lane is None or lane.is_over or (link.index, session_id) in self._answered:
            return
        if len(self._answered) >= UNKNOWN_IDS_MAX:
            self._answered.clear()
        self._answered.add((link.index, session_id))
        reason = f"{self._worker.party.name} has no session {session_id}"
        lane.post(encode_reset(session_id, ResetCode.UNKNOWN_SESSION, reason))
