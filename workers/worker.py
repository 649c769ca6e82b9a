"""The worker: one compute process's share of its party. It moves arrivals into mailboxes and what is sent into rings.

Between the rings of all links, the sessions, and whoever drives it all (waiting.py, scheduler.py); how links come and
go is in link_life.py, what the supervisor says in command_socket.py. The one invariant: before the process sleeps it
has published everything that was sent, armed its doorbell, and looked once more at every source.

Guarantees: nothing is started, awaited or allocated per message; all messages that nobody has received yet, parked
frames among them, together stay within `inbox_size_max` (plus one message, whose session fails); an unknown session is
answered with a RESET, and late frames of a closed one are dropped and counted.
Assumptions: one thread.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar, Final

from partywire.engine import limits
from partywire.engine.commands import CommandError, Message, Welcome
from partywire.engine.control_socket import ControlSocket, close_all
from partywire.engine.frames import ResetCode
from partywire.engine.polling import POLL_NS, Polling
from partywire.engine.time_slice import restore_slices, shorten_slices
from partywire.shm.doorbell import Doorbell
from partywire.shm.fence import Fence, probe

from .allocation import keep_freed_memory
from .command_socket import CommandSocket
from .errors import InboxOverflow, PartyFailed, SessionClosed, UnknownPeer, WorkerDied
from .forks import leave_forks
from .hot import WorkerHot, all_idle, receive_all, watch
from .link_life import LinkLife
from .peer_link import PeerLink, WorkerCounters
from .session_table import SessionTable
from .timers import Timers
from .waiting import NEVER, Wait
from .watched import WatchedDescriptors

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from partywire.engine.topology import PartySpec

    from .lane import Lane
    from .link_life import Receiver, SubstreamRings
    from .mailbox import Mailbox
    from .party_node.lane import SubstreamLane
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

    link_life_type: ClassVar[type[LinkLife]] = LinkLife
    """What a subclass's links live by."""
    hears_in_sleep_alone: ClassVar[bool] = False
    """Whether nothing arrives between two passes but in `rest`, so that looking first is of no use."""
    wants_short_slices: ClassVar[bool] = True
    """Whether who waits for a message and who moves it are different threads, of which neither may wait for a slice."""

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
        self.stalled: list[Lane | SubstreamLane] = []
        # Whether a flush let somebody go on (substreams do), for whom the driver has to look before it sleeps.
        self.has_resumed = False
        # Why nothing works any more; raised by everything that waits.
        self.failure: PartyFailed | None = None
        self.lost_workers: dict[int, WorkerDied] = {}
        # From the beginning of `finish`: a link that comes up now is told goodbye.
        self.is_finishing = False
        # Whether the thread that made it runs in short time slices on its account.
        self.has_short_slices = False
        # Whether nothing is left here: closed, or left to the parent.
        self.is_over = False
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
        # Who takes the substream lane of a link, which is there only if somebody does.
        self.on_substreams: Callable[[PeerLink, SubstreamRings], SubstreamLane] | None = None
        # Lanes of all links, of every kind, which `link_life` puts there and takes away.
        self._receivers: list[Receiver] = []
        self.link_life = self.link_life_type(self, self._receivers, fence)
        self._dirty: list[Lane | SubstreamLane] = []
        self._timers = Timers()
        self._deadlines = self._timers.entries
        self._event_waits: list[Wait] = []
        self._passes = 0
        self._polling = Polling()
        self._watched = WatchedDescriptors(doorbell.fileno())
        self.commands = CommandSocket(self, control)
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
        doorbell = Doorbell.from_fds(fds[0], fds[1], fence)
        try:
            worker = cls(
                welcome.party,
                doorbell,
                fence,
                control,
                index=welcome.worker,
                workers=welcome.workers,
                inbox_size_max=inbox_size_max,
                message_size_max=welcome.options.message_size_max,
            )
        except BaseException:
            doorbell.close()  # no descriptor was left for the epoll
            raise
        if cls.wants_short_slices:
            worker.has_short_slices = shorten_slices()
        return worker

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

    def make_session(self, session_id: int, *, is_bulk: bool = False) -> Session:
        """A session with an id on which all parties agreed. Raises like SessionTable.make."""
        if self.failure is not None:
            raise PartyFailed(*self.failure.args)
        return self.table.make(session_id, is_bulk=is_bulk)

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

    def add_dirty(self, lane: Lane | SubstreamLane) -> None:
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

    def leave(self) -> None:
        """A driver that is no event loop goes away: publish everything that was sent."""
        self.flush()

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
            if not self.is_over:  # by a callback
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
        return self.may_sleep()

    def may_sleep(self) -> bool:
        """Whether there is nothing to do at the moment."""
        if self.has_resumed:
            self.has_resumed = False
            return False
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
        events = [] if self.is_over else self._watched.look(timeout_s)
        for fd, _ in events:
            if self.is_over:
                break  # by the callback of another one; or this is a fork that was made there
            self.take_event(fd)
        return len(events)

    def take_event(self, fd: int) -> bool:
        """A descriptor is readable. Whether a pass has to follow."""
        if fd == self._doorbell.fileno():
            self._doorbell.drain()
        elif (callback := self._watched.callbacks.get(fd)) is not None:
            callback()
        return True

    def descriptors(self) -> list[int]:
        """What a loop has to watch for reading while the doorbell is armed."""
        return [self._doorbell.fileno(), *self._watched.callbacks]

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call back whenever a descriptor is readable, in the place of what was called for it before.

        Raises:
            PartyFailed: the party is closed, or this process is a fork.
            OSError: as `WatchedDescriptors.add`.
        """
        if self.is_over:
            assert self.failure is not None
            raise PartyFailed(*self.failure.args)
        self._watched.add(fd, callback)
        if self.loop_driver is not None:
            self.loop_driver.add_descriptor(fd)

    def unwatch(self, fd: int) -> None:
        """No longer call back. Must come before the descriptor is closed."""
        if self._watched.discard(fd) and self.loop_driver is not None:
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

    def fail(self, cause: str) -> None:
        """Our own party stopped working: everything that waits is told."""
        if self.failure is None:
            self.failure = PartyFailed(self.party.name, cause)
        for link in self.links.values():
            self.link_life.lose_link(link, str(self.failure))
        self.link_life.lose_substreams(str(self.failure))
        self.notify()

    # Ending.

    async def finish(self, deadline: float) -> bool:
        """Close all sessions and say goodbye to all peers. False: a ring stayed full until the deadline."""
        self.is_finishing = True
        for session in tuple(self.table.live.values()):
            session.close()
        return await self.link_life.finish(deadline)

    def close(self) -> None:
        """Give back every ring, the doorbell and the control socket. May be called again."""
        if self.is_over:
            return
        self.is_over = True
        if self.has_short_slices:
            restore_slices()
        if self.loop_driver is not None:
            self.loop_driver.detach()
        if self.failure is None:
            self.failure = PartyFailed(self.party.name, "it is closed")
        for session in tuple(self.table.live.values()):
            session.close()
        for link in self.links.values():
            self.link_life.drop_lanes(link, "the party is closed")
        self.link_life.lose_substreams("the party is closed")
        self._dirty.clear()
        self.commands.close()
        self._watched.close()
        self._doorbell.close()
        self.notify()

    def leave_to_parent(self) -> None:
        """This process is a fork of the one that the worker belongs to: touch nothing that is shared with it.

        The rings and the doorbell are mapped here too, so even closing them would be seen there.
        """
        if self.is_over:
            return
        self.is_over = True
        self.is_of_parent = True
        cause = "this process is a fork of the one that opened the party; open a party of its own after the fork"
        self.failure = PartyFailed(self.party.name, cause)
        self._watched.close()
        self._dirty.clear()
        self.stalled.clear()
        self._timers.clear()
        self.link_life.leave_to_parent(cause)
        for session in tuple(self.table.live.values()):
            session.on_final = session.on_failure = None
            session.fail(SessionClosed(session.id, cause))
        self.commands.close()  # or the supervisor would not see the end of the opener while this process lives
