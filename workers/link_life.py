"""The life of a worker's links: their lanes come, end, break, come again, and are given back.

Between the supervisor's commands, what lanes and control lanes find in their rings, and the sessions on these lanes.
The one invariant: the sessions on a lane fail before its rings are given back, and before the lanes of another epoch
come; so no session writes to, or hears of, an epoch in which it was not made.

A connection that broke fails its sessions one pass after its end was found: whoever waited for what stood right before
the end is resumed in between, and has it, whether both came together or one after the other.

Rings that this process has no memory for lose the link like any other failure, and another epoch of it is asked for at
once: the side that dials waits ever longer between epochs that do not stand (`engine/redial.py`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, TypeAlias

from partywire.engine.commands import RemakeLink
from partywire.engine.control_socket import close_all
from partywire.engine.frames import ResetCode
from partywire.engine.restarts import STAYS_AWAY
from partywire.engine.shortage import describe_shortage
from partywire.shm.counters import STATE_OPEN, WORD_CONSUMER_STATE
from partywire.shm.doorbell import Bell
from partywire.shm.errors import ShmError
from partywire.shm.ring import RingReader, RingWriter
from partywire.shm.segment import Segment

from .control_lane import ControlLane
from .errors import PeerLost
from .iris_lane import IrisLane
from .lane import Lane
from .totals import Totals, add_totals
from .waiting import NEVER, Wait

if TYPE_CHECKING:
    from collections.abc import Sequence

    from partywire.engine.bulk_commands import BulkLane
    from partywire.engine.commands import Lanes
    from partywire.engine.records import StreamEnd
    from partywire.shm.fence import Fence

    from .party_node.lane import SubstreamLane
    from .peer_link import PeerLink
    from .worker import Worker

    Receiver: TypeAlias = "Lane | ControlLane | SubstreamLane | BrokenLane"
    SubstreamRings: TypeAlias = tuple[RingWriter, RingReader, Bell]


CONSUMER_STATE_OFFSET: Final = 8 * WORD_CONSUMER_STATE
TAKEN: Final = STATE_OPEN.to_bytes(8, "little")
"""What a ring's reader says of itself in the segment once it has come (shm/counters.py)."""


class BrokenLane:
    """Among what a worker receives from, for one pass: what follows from the end of a lane."""

    def __init__(self, life: LinkLife, lane: Lane, cause: str) -> None:
        self._life = life
        self._lane = lane
        self._cause = cause

    def receive(self) -> int:
        """The pass in which the end was found is over."""
        self._life.lane_has_broken(self, self._lane, self._cause)
        return 1

    def is_idle(self) -> bool:
        """The next pass is wanted at once."""
        return False

    def note_sleep(self, timed_out: bool) -> None:
        """There is none before it."""


class LinkLife:
    """Of all links of one worker. Driven by its commands, its lanes and its end; has no part in what lanes carry."""

    def __init__(self, worker: Worker, receivers: list[Receiver], fence: Fence) -> None:
        """`receivers`: what each pass of the worker reads; lanes are put there, and taken away, here."""
        self._worker = worker
        self._receivers = receivers
        self._fence = fence
        # Messages and bytes of lanes that are gone.
        self._totals_before = Totals(0, 0, 0)
        # Those of links, and of the node's process.
        self._substream_lanes: list[SubstreamLane] = []

    def totals(self) -> Totals:
        """Messages and bytes of all lanes, those that are gone included."""
        totals = self._totals_before
        for link in self._worker.links.values():
            for lane in link.lanes.values():
                totals = add_totals(totals, lane)
        return totals

    # Up.

    def add_lanes(self, message: Lanes, fds: list[int]) -> None:
        """A link is up (again): take its rings. Owns the descriptors.

        What the peer sent before its goodbye can still be received. Nothing of an epoch before this one is delivered to
        a session that is made from now on. If the rings cannot be taken the link is lost, and is made anew.
        """
        link = self._worker.links[message.peer]
        self._receive_last(link)
        self.drop_lanes(link, "the link was made anew")
        parked = (*link.parked.values(), *link.parked_bulk.values())
        self._worker.counters.dropped_stale += sum(map(len, parked))
        self._worker.table.forget_parked(link)
        link.epoch = message.epoch
        link.peer_workers = message.peer_workers
        link.connection_count = message.connection_count
        link.cause = ""
        link.is_closed = False
        try:
            self._take_rings(link, message, fds)
        except (OSError, ShmError) as error:
            self._has_no_rings(link, error)
            return
        self._put_bulk_last()
        if self._worker.is_finishing:
            self._finish_at_once(link)
        elif message.control and self._worker.on_link_up is not None:
            self._worker.on_link_up(link)

    def _take_rings(self, link: PeerLink, message: Lanes, fds: list[int]) -> None:
        """Raises OSError or ShmError if one of them cannot be taken, and then holds none."""
        end = len(fds) - (4 if message.substreams else 0)
        left = fds
        try:
            for rx in fds[3:end:2]:
                os.pwrite(rx, TAKEN, CONSUMER_STATE_OFFSET)  # though we fail below: the next but one epoch waits for it
            left = fds[2:]
            link.bell = bell = Bell.from_fds(fds[0], fds[1])
            left = fds[end:]
            rings = self._open_rings(fds[2:end], bell)
        except BaseException:
            close_all(left)
            raise
        kind = Lane if link.iris is None else IrisLane
        for connection, (writer, reader) in zip(message.connections, rings, strict=False):
            lane = kind(self._worker, link, connection, writer, reader, message.message_size_max)
            link.lanes[connection] = lane
            self._receivers.append(lane)
        if message.control:
            link.control = ControlLane(self._worker, link, *rings[len(message.connections)])
            self._receivers.append(link.control)
        if message.substreams:
            self._take_substreams(link, fds[end:])

    def _has_no_rings(self, link: PeerLink, error: Exception) -> None:
        """The I/O process takes the link for up: have it end this epoch and begin another."""
        cause = f"{self._worker.party.name} cannot map the rings of the link: {describe_shortage(error)}"
        self.lose_link(link, cause)
        self.drop_lanes(link, cause)
        self._ask_for_end(link, cause)

    def add_bulk_lane(self, message: BulkLane, fds: list[int]) -> None:
        """A bulk connection joined a link: take its rings, unless its epoch is over here. Owns the descriptors.

        If they cannot be taken the whole link is lost, and made anew: one connection of it cannot be given back.
        """
        worker = self._worker
        link = worker.links[message.peer]
        if message.epoch != link.epoch or link.bell is None or message.connection in link.lanes:
            close_all(fds)
            return
        try:
            [(writer, reader)] = self._open_rings(fds, link.bell)
        except (OSError, ShmError) as error:
            self._has_no_rings(link, error)
            return
        lane = Lane(worker, link, message.connection, writer, reader, message.message_size_max, is_bulk=True)
        link.lanes[message.connection] = lane
        self._receivers.append(lane)
        if worker.is_finishing:
            lane.try_finish()

    def _put_bulk_last(self) -> None:
        """A pass looks at everything else before bulk lanes."""
        self._receivers.sort(key=lambda receiver: isinstance(receiver, Lane) and receiver.is_bulk)

    def _take_substreams(self, link: PeerLink, fds: Sequence[int]) -> None:
        if self._worker.on_substreams is None:
            close_all(fds)
        else:
            link.substreams = self._worker.on_substreams(link, self.open_substream_rings(fds))
            self.add_substreams(link.substreams)

    def open_substream_rings(self, fds: Sequence[int]) -> SubstreamRings:
        """The rings of a substream lane, which has a bell of its own: (eventfd, page, tx, rx). Owns the descriptors.

        Raises:
            ShmError: one of them cannot be mapped; all are closed.
        """
        try:
            bell = Bell.from_fds(fds[0], fds[1])
        except BaseException:
            close_all(fds[2:])
            raise
        try:
            [(writer, reader)] = self._open_rings(fds[2:], bell)
        except BaseException:
            bell.close()
            raise
        return writer, reader, bell

    def add_substreams(self, lane: SubstreamLane) -> None:
        """Have a lane read in each pass, until it is over."""
        if not lane.is_over:
            self._substream_lanes.append(lane)
            self._receivers.append(lane)

    def remove_substreams(self, lane: SubstreamLane) -> None:
        """For lanes: this one is over."""
        if lane in self._substream_lanes:
            self._substream_lanes.remove(lane)
            self._receivers.remove(lane)

    def lose_substreams(self, cause: str) -> None:
        """Nothing more will come on any substream lane."""
        for lane in tuple(self._substream_lanes):
            lane.lose(cause)

    def _open_rings(self, fds: Sequence[int], bell: Bell) -> list[tuple[RingWriter, RingReader]]:
        """Of segments (tx, rx), one pair after the other. Owns the descriptors, also when it raises."""
        rings: list[RingWriter | RingReader] = []
        pairs = []
        try:
            for at in range(0, len(fds), 2):
                rings.append(writer := RingWriter(Segment.attach(fds[at]), self._fence, bell))
                rings.append(reader := RingReader(Segment.attach(fds[at + 1]), self._fence, bell))
                pairs.append((writer, reader))
        except BaseException:
            for ring in rings:
                ring.close()
            close_all(fds[len(rings) + 1 :])
            raise
        return pairs

    def _receive_last(self, link: PeerLink) -> None:
        """What stands in the rings of an epoch that is over, up to its end."""
        receivers: list[Lane | ControlLane] = list(link.lanes.values())
        if link.control is not None:
            receivers.append(link.control)
        for receiver in receivers:
            while not receiver.is_over and receiver.receive():
                pass

    # The peer's end.

    def end_lane(self, lane: Lane) -> None:
        """The peer said goodbye on a connection: what it sent can still be received."""
        lane.abandon("")
        for session_id, mailbox in tuple(lane.mailboxes.items()):
            mailbox.fail(lane.end_error(session_id))
        if all(other.is_over for other in lane.link.lanes.values()):
            lane.link.is_closed = True
        self._worker.notify()

    def end_control(self, link: PeerLink, end: StreamEnd) -> None:
        """The control connection is over; the data lanes have their own ends."""
        if end.clean:
            link.is_closed = True
        else:
            link.cause = link.cause or end.cause
        self._worker.notify()

    # Lost.

    def lose_lane(self, lane: Lane, cause: str, error: Exception | None = None) -> None:
        """A connection broke: in the next pass every session on it fails here and, by our RESETs, at the other parties.

        `error` is what the peer did wrong; then the connection still works in our direction, the peer is told too, and
        nothing waits for another pass.
        """
        if error is not None:
            self.fail_lane(lane, cause, error)
        elif not lane.is_over and not lane.cause:
            lane.cause = cause  # no session is made on it any more
            self._receivers.insert(0, BrokenLane(self, lane, cause))

    def lane_has_broken(self, broken: BrokenLane, lane: Lane, cause: str) -> None:
        """For BrokenLane: everybody who was woken before has had a turn."""
        self._receivers.remove(broken)
        self.fail_lane(lane, cause)

    def fail_lane(self, lane: Lane, cause: str, error: Exception | None = None) -> None:
        """As `lose_lane`, and at once."""
        if lane.is_over:
            return
        link = lane.link
        lane.is_over = error is None
        lane.peer_has_erred = error is not None
        for session_id, mailbox in tuple(lane.mailboxes.items()):
            lost = PeerLost(link.name, session_id, lane.epoch, cause)
            lost.__cause__ = error
            code = ResetCode.ABORTED if error is None else ResetCode.PROTOCOL
            mailbox.session.fail(lost, code, str(lost))
        lane.abandon(cause)
        if all(other.is_over for other in link.lanes.values()):
            link.cause = link.cause or cause
        self._worker.notify()

    def lose_ring(self, lane: Lane, cause: str) -> None:
        """We cannot use a ring of a connection any more: its sessions fail, and the link is made anew."""
        was_over = lane.is_over
        self.fail_lane(lane, cause)
        if not was_over:
            self.ask_for_link(lane.link, cause)

    def ask_for_link(self, link: PeerLink, cause: str) -> None:
        """Have the present epoch of a link ended and another one begun."""
        if not (self._worker.is_finishing or self._worker.is_over):
            self._ask_for_end(link, cause)

    def _ask_for_end(self, link: PeerLink, cause: str) -> None:
        self._worker.commands.ask(RemakeLink(self._worker.index, link.index, link.epoch, cause))

    def lose_link(self, link: PeerLink, cause: str) -> None:
        """Nothing will come from a peer any more."""
        if not link.cause or cause.endswith(STAYS_AWAY):  # which says more than how it was lost
            link.cause = cause
        for lane in tuple(link.lanes.values()):
            self.fail_lane(lane, lane.cause or cause)
        if link.control is not None:
            link.control.is_over = True
        if link.substreams is not None:
            link.substreams.lose(cause)
        self._worker.notify()

    # Our own end.

    async def finish(self, deadline: float) -> bool:
        """Say goodbye on every lane, after everything that was sent. False: a ring stayed full until the deadline, or
        is full of what a peer that broke the protocol does not take; that peer's link ends without a goodbye."""
        finished = True
        for link in self._worker.links.values():
            for lane in tuple(link.lanes.values()):
                finished &= await self._finish_lane(lane, deadline)
            if link.control is not None:
                link.control.finish()
        return finished

    def _finish_at_once(self, link: PeerLink) -> None:
        """The link came back while we say goodbye: its rings are empty, so there is room for that."""
        for lane in link.lanes.values():
            lane.try_finish()
        if link.control is not None:
            link.control.finish()

    async def _finish_lane(self, lane: Lane, deadline: float) -> bool:
        while not lane.try_finish():
            if lane.is_over:  # the peer broke the protocol, and takes nothing: nobody is left to say goodbye to
                self._ask_for_end(lane.link, lane.cause)
                return False
            if self._worker.clock() >= deadline:
                return False
            wait = Wait(self._worker)
            self._worker.set_timer(wait, deadline)
            lane.add_waiter(wait)
            try:
                await wait
            finally:
                wait.deadline = NEVER
                lane.remove_waiter(wait)
        return True

    def drop_lanes(self, link: PeerLink, cause: str) -> None:
        """Give the rings of a link back; the sessions on them fail."""
        for lane in link.lanes.values():
            self.fail_lane(lane, lane.cause or cause)
            self._totals_before = add_totals(self._totals_before, lane)
            self._receivers.remove(lane)
            lane.close()
        link.lanes.clear()
        control, link.control = link.control, None
        if control is not None:
            self._receivers.remove(control)
            control.close()
        substreams, link.substreams = link.substreams, None
        if substreams is not None:
            substreams.lose(cause)
        bell, link.bell = link.bell, None
        if bell is not None:
            bell.close()

    def free_lost(self) -> None:
        """Give back the rings of lost links, to have room for those of their next epochs: this process may have no more
        descriptors than it needs. Lanes that are still to tell a peer of its fault, or goodbye, are kept."""
        for link in self._worker.links.values():
            if link.bell is None or not link.cause:
                continue
            lanes = link.lanes.values()
            has_control = link.control is not None and not link.control.is_over
            if not has_control and all(lane.is_over and not lane.peer_has_erred for lane in lanes):
                self.drop_lanes(link, link.cause)

    def leave_to_parent(self, cause: str) -> None:
        """This process is a fork: the lanes, which the parent goes on using, are over here."""
        for substreams in tuple(self._substream_lanes):
            substreams.leave_to_parent(cause)
        self._receivers.clear()
        for link in self._worker.links.values():
            link.cause = cause
            for lane in link.lanes.values():
                lane.leave_to_parent(cause)
            if link.control is not None:
                link.control.is_over = True
