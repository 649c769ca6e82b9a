"""The worker: one compute process's share of its party. It moves arrivals into mailboxes and what is sent into rings.

Between the I/O processes (one link each), the sessions, the supervisor (control socket), and whoever drives it all
(waiting.py, scheduler.py). The one invariant: before the process sleeps it has published everything that was sent,
armed its doorbell, and looked once more at every source.

Guarantees: nothing is started, awaited or allocated per message; all messages that nobody has received yet, parked
frames among them, together stay within `inbox_size_max` (plus one message, whose session fails); an unknown session is
answered with a RESET, and late frames of a closed one are dropped and counted.
Assumptions: one thread.
"""

from __future__ import annotations

import math
import select
import time
from threading import get_ident
from typing import TYPE_CHECKING, Final

from partywire.engine import limits
from partywire.engine.commands import (
    Close,
    CommandError,
    Lanes,
    LinkLost,
    Message,
    RemakeLink,
    Welcome,
    WorkerLost,
)
from partywire.engine.control_socket import ControlClosed, ControlSocket, ControlTimeout, close_all
from partywire.engine.frames import ResetCode
from partywire.engine.polling import POLL_NS, Polling
from partywire.engine.restarts import STAYS_AWAY
from partywire.shm.doorbell import Bell, Doorbell
from partywire.shm.fence import Fence, probe
from partywire.shm.ring import RingReader, RingWriter
from partywire.shm.segment import Segment

from .allocation import keep_freed_memory
from .control_lane import ControlLane
from .errors import InboxOverflow, PartyFailed, PeerLost, SessionClosed, UnknownPeer, WorkerDied
from .forks import leave_forks
from .hot import WorkerHot, all_idle, receive_all, watch
from .iris_lane import IrisLane
from .lane import Lane
from .peer_link import PeerLink, WorkerCounters
from .session_table import SessionTable
from .timers import Timers
from .totals import Totals, add_totals
from .waiting import NEVER, Wait

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from partywire.engine.records import StreamEnd
    from partywire.engine.topology import PartySpec

    from .mailbox import Mailbox
    from .resets import SessionResets
    from .session import Session
    from .waiting import LoopDriver

INBOX_SIZE_MAX: Final = 256 * 1024 * 1024
"""Default of limits.inbox_mib."""

SLEEP_MAX_S: Final = 1.0
"""A net under the doorbell: no sleep is longer. The rings count each time it catches something."""

CONTROL_INTERVAL: Final = 64
"""Passes between two looks at the control socket while there is work; a look costs a system call."""


class Worker(WorkerHot):
    """One per process and party. Driven by exactly one driver at a time; not safe for several threads."""

    def __init__(
        self,
        party: PartySpec,
        doorbell: Doorbell,
        fence: Fence,
        control: ControlSocket | None = None,
        *,
        index: int = 0,
        workers: int = 1,
        inbox_size_max: int = INBOX_SIZE_MAX,
        message_size_max: int = limits.MESSAGE_SIZE_MAX,
    ) -> None:
        """Owns the doorbell and the control socket."""
        self.party = party
        self.index = index
        self.workers = workers
        self.clock = time.monotonic
        self.message_size_max = message_size_max
        self._doorbell = doorbell
        self._fence = fence
        self._control = control
        self.links = {peer.index: PeerLink(peer.index, peer.name, peer.iris) for peer in party.peers}
        self.counters = WorkerCounters()
        self.table = SessionTable(self)
        # Counted by the lanes, the mailboxes and the parked frames.
        self.inbox_size = 0
        self.inbox_size_max = inbox_size_max
        self.driving = False
        # The thread inside a blocking call, 0 when there is none.
        self.driving_thread = 0
        self.loop_driver: LoopDriver | None = None
        # What else a pass of the driver runs (a Scheduler's do_work).
        self.agents: list[Callable[[], int]] = []
        # Lanes whose ring was full.
        self.stalled: list[Lane] = []
        # Why nothing works any more; raised by everything that waits.
        self.failure: PartyFailed | None = None
        self.lost_workers: dict[int, WorkerDied] = {}
        # Whether this process is a fork of the one that the worker belongs to.
        self.is_of_parent = False
        # Whether the supervisor asked this process to end.
        self.is_closing = False
        # Who wants to know of commands that do not concern lanes, and of what peers write on the control lanes.
        self.on_command: Callable[[Message, list[int]], None] | None = None
        self.on_control: Callable[[PeerLink, bytes], None] | None = None
        # Who wants to know at once that a child worker died, even if another one has taken its place meanwhile.
        self.on_worker_lost: Callable[[WorkerDied], None] | None = None
        # What resets sessions; a child worker, whose sessions are all of batches, has none.
        self.resets: SessionResets | None = None
        # Who wants to know that a control lane is there (again).
        self.on_link_up: Callable[[PeerLink], None] | None = None
        # Who looks again, like everybody who waits, when a link, a worker or what a peer announced may have changed.
        self.on_notify: Callable[[], None] | None = None
        self._receivers: list[Lane | ControlLane] = []
        # Messages and bytes of lanes that are gone.
        self._totals_before = Totals(0, 0, 0)
        self._dirty: list[Lane] = []
        self._timers = Timers()
        self._deadlines = self._timers.entries
        self._event_waits: list[Wait] = []
        self._passes = 0
        self._polling = Polling()
        self._watched: dict[int, Callable[[], None]] = {}
        self._is_fully_closed = False
        # From the beginning of `finish`: a link that comes up now is told goodbye.
        self._is_finishing = False
        # Whether the supervisor's end is gone; then the socket is readable for ever and nobody looks at it.
        self._is_control_over = False
        self._poller = select.poll()
        for fd in self.descriptors():
            self._poller.register(fd, select.POLLIN)
        keep_freed_memory()
        leave_forks(self)

    @classmethod
    def from_control_socket(
        cls, control: ControlSocket, timeout_s: float, *, inbox_size_max: int = INBOX_SIZE_MAX
    ) -> tuple[Worker, Welcome, list[int]]:
        """Wait for the supervisor's Welcome and become the worker that it describes.

        Returns the worker, the Welcome, and the descriptors behind the doorbell's (a child's channel); they belong to
        the caller. On an error the control socket is the caller's to close.
        """
        welcome, fds = control.receive(timeout_s)
        if not isinstance(welcome, Welcome):
            close_all(fds)
            raise CommandError(f"{type(welcome).__name__} instead of a Welcome")
        return cls.from_welcome(control, welcome, fds, inbox_size_max=inbox_size_max), welcome, fds[2:]

    @classmethod
    def from_welcome(
        cls, control: ControlSocket, welcome: Welcome, fds: list[int], *, inbox_size_max: int = INBOX_SIZE_MAX
    ) -> Worker:
        """The worker that a Welcome describes. Owns the first two descriptors, also when it raises."""
        try:
            fence = probe()
        except BaseException:
            close_all(fds)
            raise
        return cls(
            welcome.party,
            Doorbell.from_fds(fds[0], fds[1], fence),
            fence,
            control,
            index=welcome.worker,
            workers=welcome.workers,
            inbox_size_max=inbox_size_max,
            message_size_max=welcome.options.message_size_max,
        )

    # Parties.

    def link_of(self, peer: str | int) -> PeerLink:
        """The link to a peer, by name or index.

        Raises:
            UnknownPeer: nobody, or ourselves.
        """
        for link in self.links.values():
            if peer == link.name or (peer == link.index and not isinstance(peer, bool)):
                return link
        raise UnknownPeer.of(peer, tuple(link.name for link in self.links.values()))

    # Sessions.

    def make_session(self, session_id: int) -> Session:
        """A session with an id on which all parties agreed. Raises like SessionTable.make."""
        if self.failure is not None:
            raise PartyFailed(*self.failure.args)
        return self.table.make(session_id)

    def expect_sessions(self) -> None:
        """From now on frames of sessions that are not made yet are kept. Call before a proposal goes out."""
        self.table.expect()

    def expect_sessions_end(self) -> None:
        """The sessions of one proposal are made, or never will be."""
        self.table.expect_end()

    def overflow(self, mailbox: Mailbox, size: int | None = None) -> None:
        """The budget is spent: the session whose message came last gives everything back and fails everywhere.

        `size`: of a message that was refused before its data came.
        """
        size = mailbox.size_of_latest if size is None else size
        error = InboxOverflow(mailbox.session.id, mailbox.peer, size, self.inbox_size_max, "limits.inbox_mib")
        mailbox.session.fail(error, ResetCode.OVERFLOW, str(error))

    # Sending and receiving.

    def add_dirty(self, lane: Lane) -> None:
        """A lane has something to publish at the end of the pass."""
        self._dirty.append(lane)
        if self.loop_driver is not None:
            self.loop_driver.schedule_flush()

    def flush(self) -> bool:
        """Publish everything that was sent. False: some ring is full."""
        dirty = self._dirty
        if dirty:
            try:
                self._dirty = []
                for lane in dirty:
                    lane.flush()
            except BaseException:
                # Ctrl-C. A lane that was flushed already has nothing to do when its turn comes again.
                self._dirty += dirty
                if self.loop_driver is not None:
                    self.loop_driver.schedule_flush()
                raise
        return not self.stalled

    def service(self) -> int:
        """Take in everything that has arrived, let blocked senders go on, fire timers. Never waits.

        Returns the count of things that happened; 0 means that it is time to sleep.
        """
        work = receive_all(self._receivers)
        if self.stalled:
            for lane in tuple(self.stalled):
                work += lane.retry()
        deadlines = self._deadlines
        if deadlines and deadlines[0][0] <= self.clock():
            work += self._timers.expire(self.clock())
        self._passes += 1
        if self._passes >= CONTROL_INTERVAL:
            self._passes = 0
            work += self._take_events(0)
        if work:
            self._polling.found()
        return work

    def step(self) -> int:
        """One pass: service, everybody's turn, publication."""
        work = self.service()
        for agent in tuple(self.agents):
            work += agent()
        self.flush()
        return work

    def totals(self) -> Totals:
        """Messages and bytes of all lanes, those that are gone included."""
        totals = self._totals_before
        for link in self.links.values():
            for lane in link.lanes.values():
                totals = add_totals(totals, lane)
        return totals

    # Sleeping.

    def rest(self) -> None:
        """There was no work: publish everything, then look again at once if that may pay, or sleep."""
        self.flush()
        if self.stalled or not self._polling.look_again():
            self.sleep()  # a poll would not see the room that a blocked sender waits for
        elif watch(self._receivers, POLL_NS):
            self._polling.found()

    def sleep(self, deadline: float = NEVER) -> None:
        """Publish everything, then wait until something may have happened, at the latest at the deadline."""
        self.flush()
        if not self.arm():
            self.disarm()
            return
        self.counters.sleeps += 1
        left = min(deadline, self.next_deadline()) - self.clock()
        capped = left > SLEEP_MAX_S
        timeout_s = SLEEP_MAX_S if capped else max(0.0, left)
        try:
            woken = self._take_events(timeout_s)
        finally:
            self.disarm()
        self._passes = 0
        timed_out = capped and not woken
        for receiver in self._receivers:
            if timed_out and not receiver.is_idle():
                self.counters.bells_missed += 1
            receiver.note_sleep(timed_out)

    def arm(self) -> bool:
        """Announce a sleep and look once more at every ring. False: do not sleep."""
        self._doorbell.arm()
        if not all_idle(self._receivers):
            return False
        for lane in self.stalled:
            if lane.request_space():
                return False
        return not self._dirty

    def disarm(self) -> None:
        """Nobody needs to ring."""
        self._doorbell.disarm()

    def _take_events(self, timeout_s: float) -> int:
        """Poll the descriptors and deal with those that are ready."""
        if self._is_fully_closed:
            return 0  # by a callback of this pass
        # Rounded up: a poll that ends a fraction too early would come back to sleep for 0 ms until the deadline.
        events = self._poller.poll(math.ceil(timeout_s * 1000))
        for fd, _ in events:
            self.take_event(fd)
        return len(events)

    def take_event(self, fd: int) -> None:
        """A descriptor is readable."""
        if fd == self._doorbell.fileno():
            self._doorbell.drain()
        elif self._control is not None and fd == self._control.fileno():
            self._take_commands()
        elif (callback := self._watched.get(fd)) is not None:
            callback()

    def descriptors(self) -> list[int]:
        """What a loop has to watch for reading while the doorbell is armed."""
        fds = [self._doorbell.fileno()]
        if self._control is not None and not self._is_control_over:
            fds.append(self._control.fileno())
        return fds + list(self._watched)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back whenever a descriptor is readable."""
        self._watched[fd] = callback
        self._poller.register(fd, select.POLLIN)
        if self.loop_driver is not None:
            self.loop_driver.add_descriptor(fd)

    def unwatch(self, fd: int) -> None:
        """No longer call back. Must come before the descriptor is closed."""
        if self._watched.pop(fd, None) is not None:
            self._poller.unregister(fd)
            if self.loop_driver is not None:
                self.loop_driver.remove_descriptor(fd)

    def create_future(self) -> asyncio.Future[None]:
        """A future of the loop that drives this worker.

        Raises:
            RuntimeError: no loop does.
        """
        if self.loop_driver is None:
            raise RuntimeError(
                "no asyncio loop drives this party: open it with `async with Party(...)`, "
                "or use BlockingParty and its sessions in plain code"
            )
        return self.loop_driver.loop.create_future()

    # Timers and events.

    def set_timer(self, wait: Wait, deadline: float) -> None:
        """Wake `wait` at `deadline`; `wait.deadline = NEVER` cancels."""
        wait.deadline = deadline
        if deadline < wait.timer_at:  # hot: most waits find the entry of an earlier one in their place
            self._timers.add(wait)
            if self.loop_driver is not None:
                self.loop_driver.schedule()

    def next_deadline(self) -> float:
        """When `service` next has a timer to fire; it may turn out to be a cancelled one."""
        return self._timers.next_deadline()

    async def until(self, condition: Callable[[], bool], deadline: float = NEVER) -> bool:
        """Wait until a condition holds that commands, control messages or the end of streams may change.

        False: the deadline passed. Raises PartyFailed when nothing will change any more.
        """
        while not condition():
            if self.failure is not None:
                raise PartyFailed(*self.failure.args)
            if self.clock() >= deadline:
                return False
            wait = Wait(self)
            self._event_waits.append(wait)
            if deadline < NEVER:
                self.set_timer(wait, deadline)
            try:
                await wait
            finally:
                wait.deadline = NEVER
                if wait in self._event_waits:
                    self._event_waits.remove(wait)
        return True

    def notify(self) -> None:
        """Let everybody look at their conditions again."""
        if self.on_notify is not None:
            self.on_notify()
        waits, self._event_waits = self._event_waits, []
        for wait in waits:
            wait.wake()

    # Links.

    def _take_commands(self) -> None:
        assert self._control is not None
        while True:
            try:
                received = self._control.try_receive()
            except (ControlClosed, CommandError) as error:
                if not self._is_control_over:
                    self._is_control_over = True
                    self._poller.unregister(self._control.fileno())
                if self.loop_driver is not None:
                    self.loop_driver.remove_descriptor(self._control.fileno())
                self.fail(f"its supervisor is gone: {error}")
                return
            if received is None:
                return
            self._take_command(*received)

    def look_at_commands(self) -> None:
        """Take in what the supervisor has said. Never waits, and does nothing in a thread that another one serves."""
        if self._control is None or self._is_control_over or self._is_fully_closed:
            return
        if self.loop_driver is None and self.driving_thread in (0, get_ident()):
            self._take_commands()
        elif self.loop_driver is not None and self.loop_driver.is_running_here:
            self._take_commands()
            if self.loop_driver is not None:  # a callback may have closed the party
                self.loop_driver.schedule()  # a ring that came may hold something already

    def _take_command(self, message: Message, fds: list[int]) -> None:
        match message:
            case Lanes():
                self.add_lanes(message, fds)
            case LinkLost():
                self.lose_link(self.links[message.peer], message.cause)
            case WorkerLost():
                self._lose_worker(message)
            case Close():
                self.is_closing = True
                if self.on_command is not None:
                    self.on_command(message, fds)
            case _ if self.on_command is not None:
                self.on_command(message, fds)
            case _:
                close_all(fds)
        self.notify()

    def add_lanes(self, message: Lanes, fds: list[int]) -> None:
        """A link is up (again): take its rings. Owns the descriptors.

        What the peer sent before its goodbye can still be received. Nothing of an epoch before this one is delivered to
        a session that is made from now on.
        """
        link = self.links[message.peer]
        self._receive_last(link)
        self._drop_lanes(link, "the link was made anew")
        self.counters.dropped_stale += sum(map(len, link.parked.values()))
        self.table.forget_parked(link)
        link.epoch = message.epoch
        link.peer_workers = message.peer_workers
        link.connection_count = message.connection_count
        link.cause = ""
        link.is_closed = False
        link.bell = bell = Bell.from_fds(fds[0], fds[1])
        pairs = [(fds[at], fds[at + 1]) for at in range(2, len(fds) - 1, 2)]
        for connection, pair in zip(message.connections, pairs, strict=False):
            writer, reader = self._open_rings(pair, bell)
            kind = Lane if link.iris is None else IrisLane
            self.add_lane(kind(self, link, connection, writer, reader, message.message_size_max))
        if message.control:
            writer, reader = self._open_rings(pairs[-1], bell)
            link.control = ControlLane(self, link, writer, reader)
            self._receivers.append(link.control)
        if self._is_finishing:
            self._finish_at_once(link)
        elif message.control and self.on_link_up is not None:
            self.on_link_up(link)

    def add_lane(self, lane: Lane) -> None:
        """Serve one more connection."""
        lane.link.lanes[lane.connection] = lane
        self._receivers.append(lane)

    def _open_rings(self, pair: tuple[int, int], bell: Bell) -> tuple[RingWriter, RingReader]:
        tx, rx = pair
        return (
            RingWriter(Segment.attach(tx), self._fence, bell),
            RingReader(Segment.attach(rx), self._fence, bell),
        )

    def _receive_last(self, link: PeerLink) -> None:
        """What stands in the rings of an epoch that is over, up to its end."""
        receivers: list[Lane | ControlLane] = list(link.lanes.values())
        if link.control is not None:
            receivers.append(link.control)
        for receiver in receivers:
            while not receiver.is_over and receiver.receive():
                pass

    def _drop_lanes(self, link: PeerLink, cause: str) -> None:
        """Give the rings of a link back; the sessions on them fail."""
        for lane in link.lanes.values():
            self.lose_lane(lane, cause)
            self._totals_before = add_totals(self._totals_before, lane)
            self._receivers.remove(lane)
            lane.close()
        link.lanes.clear()
        control, link.control = link.control, None
        if control is not None:
            self._receivers.remove(control)
            control.close()
        bell, link.bell = link.bell, None
        if bell is not None:
            bell.close()

    def lose_lane(self, lane: Lane, cause: str, error: Exception | None = None) -> None:
        """A connection broke: every session on it fails here and, by our RESETs, at the other parties.

        `error` is what the peer did wrong; then the connection still works in our direction, and the peer is told too.
        """
        if lane.is_over:
            return
        link = lane.link
        lane.is_over = error is None
        for session_id, mailbox in tuple(lane.mailboxes.items()):
            lost = PeerLost(link.name, session_id, lane.epoch, cause)
            lost.__cause__ = error
            code = ResetCode.ABORTED if error is None else ResetCode.PROTOCOL
            mailbox.session.fail(lost, code, str(lost))
        lane.abandon(cause)
        if all(other.is_over for other in link.lanes.values()):
            link.cause = link.cause or cause
        self.notify()

    def lose_ring(self, lane: Lane, cause: str) -> None:
        """We cannot use a ring of a connection any more: its sessions fail, and the link is made anew."""
        was_over = lane.is_over
        self.lose_lane(lane, cause)
        if not was_over:
            self.ask_for_link(lane.link, cause)

    def ask_for_link(self, link: PeerLink, cause: str) -> None:
        """Have the present epoch of a link ended and another one begun."""
        if self._control is None or self._is_finishing or self._is_fully_closed:
            return
        try:
            self._control.send(RemakeLink(self.index, link.index, link.epoch, cause))
        except (ControlClosed, ControlTimeout):
            pass  # the supervisor's end, which says more, or which follows

    def end_lane(self, lane: Lane) -> None:
        """The peer said goodbye on a connection: what it sent can still be received."""
        lane.abandon("")
        for session_id, mailbox in tuple(lane.mailboxes.items()):
            mailbox.fail(lane.end_error(session_id))
        if all(other.is_over for other in lane.link.lanes.values()):
            lane.link.is_closed = True
        self.notify()

    def end_control(self, link: PeerLink, end: StreamEnd) -> None:
        """The control connection is over; the data lanes have their own ends."""
        if end.clean:
            link.is_closed = True
        else:
            link.cause = link.cause or end.cause
        self.notify()

    def lose_link(self, link: PeerLink, cause: str) -> None:
        """Nothing will come from a peer any more."""
        if not link.cause or cause.endswith(STAYS_AWAY):  # which says more than how it was lost
            link.cause = cause
        for lane in tuple(link.lanes.values()):
            self.lose_lane(lane, cause)
        if link.control is not None:
            link.control.is_over = True
        self.notify()

    def _lose_worker(self, message: WorkerLost) -> None:
        self.lost_workers[message.index] = died = WorkerDied(self.party.name, message.index, message.cause)
        if self.on_worker_lost is not None:
            self.on_worker_lost(died)

    def fail(self, cause: str) -> None:
        """Our own party stopped working: everything that waits is told."""
        if self.failure is None:
            self.failure = PartyFailed(self.party.name, cause)
        for link in self.links.values():
            self.lose_link(link, str(self.failure))
        self.notify()

    # Ending.

    async def finish(self, deadline: float) -> bool:
        """Say goodbye on every lane, after everything that was sent. False: a ring stayed full until the deadline."""
        self._is_finishing = True
        for session in tuple(self.table.live.values()):
            session.close()
        finished = True
        for link in self.links.values():
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
            if self.clock() >= deadline:
                return False
            wait = Wait(self)
            self.set_timer(wait, deadline)
            lane.add_waiter(wait)
            try:
                await wait
            finally:
                wait.deadline = NEVER
                lane.remove_waiter(wait)
        return True

    def close(self) -> None:
        """Give back every ring, the doorbell and the control socket. May be called again."""
        if self._is_fully_closed:
            return
        self._is_fully_closed = True
        if self.loop_driver is not None:
            self.loop_driver.detach()
        if self.failure is None:
            self.failure = PartyFailed(self.party.name, "it is closed")
        for session in tuple(self.table.live.values()):
            session.close()
        for link in self.links.values():
            self._drop_lanes(link, "the party is closed")
        self._dirty.clear()
        if self._control is not None:
            self._control.close()
        self._doorbell.close()
        self.notify()

    def leave_to_parent(self) -> None:
        """This process is a fork of the one that the worker belongs to: touch nothing that is shared with it.

        The rings and the doorbell are mapped here too, so even closing them would be seen there.
        """
        if self._is_fully_closed:
            return
        self._is_fully_closed = True
        self.is_of_parent = True
        cause = "this process is a fork of the one that opened the party; open a party of its own after the fork"
        self.failure = PartyFailed(self.party.name, cause)
        self._receivers.clear()
        self._dirty.clear()
        self.stalled.clear()
        self._timers.clear()
        for link in self.links.values():
            link.cause = cause
            for lane in link.lanes.values():
                lane.leave_to_parent(cause)
            if link.control is not None:
                link.control.is_over = True
        for session in tuple(self.table.live.values()):
            session.on_final = session.on_failure = None
            session.fail(SessionClosed(session.id, cause))
        if self._control is not None:
            self._control.close()  # or the supervisor would not see the end of the opener while this process lives
