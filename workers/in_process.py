"""A party whose links live in its opener's own process: one process in all, for programs that live in one event loop.

Between the party, which asks for it by `io = "in-process"`, and `engine/in_process`. The one invariant: whoever drives
the worker (a loop, a blocking call, a batch) drives the links with it, so both see what the other has done before the
process sleeps.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from partywire.engine import limits
from partywire.engine.in_process.links import InProcessLinks
from partywire.engine.listening import ListenError
from partywire.shm.errors import ShmError

from .errors import AddressUnavailable, PartyFailed
from .held_signals import leave_signals_to_parent, signals_here
from .hot import IS_COMPILED, all_idle, receive_all
from .lane import Lane
from .link_life import LinkLife
from .processes import Processes
from .waiting import NEVER
from .worker import SLEEP_MAX_S, Worker

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from partywire.engine.bulk_commands import BulkLane
    from partywire.engine.commands import Lanes, Message

    from .held_signals import HeldSignals

T = TypeVar("T")

LEAVE_TURNS: Final = 8
"""Turns that the links have at most when a blocking call returns: what a party says to its peers takes three."""

LEAVE_TIME_S: Final = 0.005
"""After this no further turn begins then. A turn without what arrives takes some tens of microseconds, so all of them
have their time even on a busy machine; what is not said by then is said in the next call."""

LARGE_SIZE: Final = 256 * 1024
"""Bytes of a message, on the average of late, from which on nobody looks again before it sleeps: what others copy
meanwhile takes longer than a wake-up, and who looks takes the core from them."""

AVERAGED_MIN: Final = 8
"""Messages, or as many large ones' bytes, of which it is taken: the bytes of one may have been counted before."""

RESTS_BETWEEN: Final = 64
"""How often it is taken: reading counters costs as much as a look."""

INTERRUPTED: Final = "an exception interrupted the worker while it moved bytes"


class InProcessLinkLife(LinkLife):
    """Of links whose rings have both ends here: bytes that need not stand in them pass them by."""

    apart: tuple[Lane, ...] = ()
    """Lanes that are not joined with what moves their bytes: of a link that came up at this moment."""

    def add_lanes(self, message: Lanes, fds: list[int]) -> None:
        super().add_lanes(message, fds)
        self._note(message.peer)

    def add_bulk_lane(self, message: BulkLane, fds: list[int]) -> None:
        super().add_bulk_lane(message, fds)
        self._note(message.peer)

    def _note(self, peer: int) -> None:
        if IS_COMPILED:
            self.apart += tuple(lane for lane in self._worker.links[peer].lanes.values() if lane.pump is None)

    def join(self, links: InProcessLinks) -> None:
        """Join those whose other end is there by now."""
        before = self.apart
        self.apart = tuple(
            lane
            for lane in self.apart
            if not lane.is_over and not links.join(lane.link.index, lane.connection, lane.epoch, lane)
        )
        for lane in before:
            if lane.pump is not None and not lane.is_bulk:  # fragments of bulk ones let others have their turn
                lane.cut_above(limits.FRAME_SIZE_MAX)


class InProcessWorker(Worker):
    """A worker that moves the bytes of its links as well. Its doorbell is never armed: whoever would ring is itself.

    Signals are held while it does (held_signals.py): from the first pass of a blocking call or a batch to `leave`, so
    that passes only count, and for each call of an event loop, where others may look at the handlers in between.
    """

    wants_short_slices = False
    hears_in_sleep_alone = True
    link_life_type = InProcessLinkLife
    link_life: InProcessLinkLife
    _io: InProcessLinks | None = None  # from `begin_links` to the end
    _held: HeldSignals | None = None  # while their handlers are ours
    _rests = 0  # until they are counted
    _received = (0, 0)  # messages and bytes by the last time that they were counted
    _are_large = False  # messages since the time before

    def begin_links(self, links: InProcessLinks) -> None:
        """Drive these from now on. They stay the caller's to end."""
        self._io = links
        links.begin(self)

    def flush(self) -> bool:
        """Publish everything that was sent, and give it to the kernel. False: some ring is full."""
        io = self._io
        if io is None or not self._dirty or self._send_direct():
            return super().flush()
        return self._in_step(partial(self._flush_through, io))

    def _flush_through(self, io: InProcessLinks) -> bool:
        io.hold()
        try:
            return super().flush()
        finally:
            try:
                io.serve()
            except BaseException:
                self._was_interrupted()
                raise

    def _send_direct(self) -> bool:
        """Give the kernel what it takes at once. Whether that was all."""
        dirty = self._dirty
        self._dirty = []
        try:
            for lane in dirty:
                if not (isinstance(lane, Lane) and lane.send_direct()):
                    self._dirty.append(lane)
        except BaseException:
            self._dirty += dirty  # Ctrl-C, before a byte was sent; a lane that was has nothing to do in its turn
            raise
        return not self._dirty

    def leave(self) -> None:
        """As any worker's. What is on its way to a peer goes out now: nobody else has a turn until the next call.

        Nothing is received: a peer that floods us with frames would keep the caller here.
        """
        try:
            self.flush()
            if self.loop_driver is None:
                stop = self.clock() + LEAVE_TIME_S
                for _ in range(LEAVE_TURNS):
                    if self.is_over or not self._say():
                        break
                    self.flush()
                    if self.clock() >= stop:
                        break
        finally:
            self._let_go()

    def _say(self) -> int:
        """One turn of the links, without what arrives for sessions. Returns the count of things that happened."""
        io = self._io
        if io is None:
            return 0
        events = self._watched.look(0)
        if not (events or self.stalled or io.is_due):
            return 0
        return self._in_step(partial(self._say_more, io, events))

    def _say_more(self, io: InProcessLinks, events: list[tuple[int, int]]) -> int:
        work = 0
        if events:
            arriving = io.joined_fds()
            for fd, _ in events:
                if fd not in arriving and not self.is_over:
                    work += 1
                    self._answer(fd)
        for lane in tuple(self.stalled):
            work += lane.retry()
        if io.is_due and not self.is_over:
            self._turn(io)
            work += 1
        return work

    def take_event(self, fd: int) -> bool:
        """A descriptor is readable: move what came, up to whoever waits for it. Whether anything is left for a pass."""
        held = self._held
        if held is None:
            return self._holding(partial(self.take_event, fd))
        held.depth += 1
        try:
            self._answer(fd)
            receive_all(self._receivers)
            return bool(self.stalled or self.agents or self._io is None or self._io.loop.is_due) or not all_idle(
                self._receivers
            )
        finally:
            held.depth -= 1
            if held.pending:
                held.deliver()

    def _answer(self, fd: int) -> None:
        """Call back whose descriptor is readable; the doorbell is rung where a ring has room again."""
        try:
            super().take_event(fd)
        except Exception as error:
            if self._io is None or fd == self.commands.fileno():
                raise
            self._io.fail(error)  # a bug of the links, which would be met with again and again
        except BaseException:
            self._was_interrupted()
            raise

    def service(self) -> int:
        """As any worker's, with a turn of the links if one is due."""
        held = self._held
        if held is None:
            if self.loop_driver is not None:
                return self._holding(self.service)
            held = self._held = signals_here()
            held.take(self)
        held.depth += 1
        try:
            work = super().service()
            if self.link_life.apart and self._io is not None:
                self.link_life.join(self._io)
            if (io := self._io) is not None and io.is_due:
                self._turn(io)
                work += 1
            return work
        finally:
            held.depth -= 1
            if held.pending:
                held.deliver()

    # Signals. What is written out above for every pass and every arrival is `_in_step`.

    def _in_step(self, step: Callable[[], T]) -> T:
        """Do something of which signals must not see the middle."""
        held = self._held
        if held is None:
            return self._holding(step)
        held.depth += 1
        try:
            return step()
        finally:
            held.depth -= 1
            if held.pending:
                held.deliver()

    def _holding(self, step: Callable[[], T]) -> T:
        """As above, outside the passes of a blocking call or a batch: the handlers are ours for this alone."""
        held = self._held = signals_here()
        held.depth += 1
        try:
            held.take(self)
            return step()
        finally:
            try:
                self._held = None
                held.let_go(self)
            finally:
                held.depth -= 1
                if held.pending:
                    held.deliver()

    def _let_go(self) -> None:
        """Nobody drives us now."""
        held, self._held = self._held, None
        if held is not None:
            held.depth += 1
            try:
                held.let_go(self)
            finally:
                held.depth -= 1
                if held.pending:
                    held.deliver()

    # The links.

    def _turn(self, io: InProcessLinks) -> None:
        try:
            io.loop.turn()
        except BaseException:
            self._was_interrupted()
            raise

    def _was_interrupted(self) -> None:
        """An exception that nobody held left the links amid their work. Bytes on their way between a socket and a ring
        may be missing, or would go out twice, so all links are lost before any of them moves another one."""
        if (io := self._io) is not None:
            for link in self.links.values():
                self.link_life.lose_link(link, INTERRUPTED)
            io.forsake(INTERRUPTED)

    def step(self) -> int:
        """One pass. What a pass leaves to do is seen by `arm`, unless it is an agent's."""
        if self.agents:
            return super().step()  # they may take their time, so no signal is held meanwhile
        return self._in_step(self._pass)

    def _pass(self) -> int:
        self.service()
        self.flush()
        return 0

    def rest(self) -> None:
        """There was no work: look again for a moment if that may pay, or sleep.

        Parties that share a host wake each other through the kernel, from core to core: that takes longer than what
        most messages are answered in.
        """
        # Hot: once for each batch that arrives, and so for each message of a single session.
        io = self._io
        if self._dirty:
            self.flush()
        if io is not None:
            if io.is_due or not self.may_sleep():
                return
            self._rests -= 1
            if self._rests < 0:
                self._count_received()
            if not self._are_large:
                polling = self._polling
                while polling.look_again():
                    if self._take_events(0):
                        polling.found()
                        return
        self.sleep()

    def _count_received(self) -> None:
        self._rests = RESTS_BETWEEN
        lanes = [lane for link in self.links.values() for lane in link.lanes.values()]
        received = sum(lane.messages_received for lane in lanes), sum(lane.bytes_received for lane in lanes)
        messages, size = (now - before for now, before in zip(received, self._received, strict=True))
        if messages >= AVERAGED_MIN or not 0 <= size <= AVERAGED_MIN * LARGE_SIZE:  # of links made anew: less than none
            self._received = received
            self._are_large = size > max(1, messages) * LARGE_SIZE

    def sleep(self, deadline: float = NEVER) -> None:
        """As any worker's, with nobody who could fail to ring."""
        # Hot: once for each batch that arrives, and so for each message of a single session.
        io = self._io
        if io is None:
            super().sleep(deadline)
            return
        if self._dirty:
            self.flush()
        if io.is_due or not self.may_sleep():
            return
        self.counters.sleeps += 1
        left = min(deadline, self.next_deadline()) - self.clock()
        self._take_events(min(max(0.0, left), SLEEP_MAX_S))
        self._passes = 0

    def arm(self) -> bool:
        """Look once more at everything. False: do not sleep."""
        return (self._io is None or not self._io.is_due) and self.may_sleep()

    def disarm(self) -> None:
        """Nobody rings."""

    def next_deadline(self) -> float:
        """When `service` next has something to do."""
        links = NEVER if self._io is None else self._io.loop.next_deadline()
        return min(super().next_deadline(), links)

    def has_due(self) -> None:
        """Something of the links became due."""
        if self.loop_driver is not None:
            self.loop_driver.schedule()

    def close(self) -> None:
        """As any worker's. What is published in it goes out, as far as the kernel takes it."""
        self._let_go()
        io, self._io = self._io, None
        if io is not None:
            io.detach()
        super().close()

    def leave_to_parent(self) -> None:
        """As any worker's: the sockets are the parent's."""
        self._held = None
        leave_signals_to_parent()
        io, self._io = self._io, None
        if io is not None and not self.is_over:
            io.leave_to_parent()
        super().leave_to_parent()


class InProcess(Processes):
    """The processes of a party that has none but its opener's."""

    _links: InProcessLinks | None = None

    def start(self, listener: socket.socket | None) -> Worker:
        """Listen, and become the one worker.

        Raises:
            AddressUnavailable: our own address cannot be listened on.
            PartyFailed: the machine lacks memory or descriptors.
        """
        try:
            return self._start(listener)
        except ListenError as error:
            raise AddressUnavailable(self._name, f"{self._name} {error}") from error
        except (OSError, ShmError) as error:
            raise PartyFailed(self._name, f"its links cannot be made: {error}") from error

    def _start(self, listener: socket.socket | None) -> Worker:
        links = self._links = InProcessLinks(self._start_message(), listener)
        worker: Worker | None = None
        try:
            control, welcome, doorbell = links.take_welcome()
            try:
                worker = InProcessWorker.from_welcome(
                    control, welcome, doorbell, inbox_size_max=self._config.inbox_mib << 20
                )
            except BaseException:
                control.close()
                raise
            assert isinstance(worker, InProcessWorker)
            self._control = control
            worker.begin_links(links)
            self._begin_events()
        except BaseException:
            if worker is not None:
                worker.close()
            self._end_links()
            raise
        return worker

    def tell(self, message: Message, fds: Sequence[int] = ()) -> None:
        """As for processes.

        Raises:
            PartyFailed: the party is not open.
        """
        if self._links is None:
            raise PartyFailed(self._name, "it is not open")
        self._control.send(message, fds)

    def _end_links(self) -> None:
        links, self._links = self._links, None
        if links is not None:
            links.end()

    def _end_supervisor(self) -> str:
        self._end_links()
        return ""
