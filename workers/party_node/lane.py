"""The opener's end of one substream lane: a ring pair, the substreams that it carries, and who runs what is on them.

Between the worker, whose passes drive it, and a bridge (engine/worker_bridge) in the I/O process of a link or in the
node's process. The one invariant: whatever was written, or became ready to run, leaves the lane dirty, so it is dealt
with before the process sleeps; and once `is_over` neither ring is touched again, while who stood at a substream still
goes on, to hear of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from partywire.engine.ring_stream import RingStream
from partywire.engine.substreams.divided import DividedStream
from partywire.engine.worker_bridge.limits import BRIDGE_LIMITS, WRITE_TIMEOUT_S
from partywire.shm.errors import ShmError

from ..hot import ReceiverHot
from .runners import LoopRunner, PassRunner
from .turns import WorkerTurns

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter
    from partywire.shm.doorbell import Bell
    from partywire.shm.ring import RingReader, RingWriter

    from ..worker import Worker
    from .runners import Running

CANCEL_AFTER_S: Final = 5.0
"""What handlers may still do once their lane is over: read what had arrived, and end."""

INTERRUPTED: Final = "an exception interrupted the worker while it moved the bytes of substreams"


class LaneSubstreams(DividedStream):
    """What the lane carries. `was_ended` is the lane's."""

    def __init__(self, lane: SubstreamLane, turns: WorkerTurns, stream: RingStream, clock: Callable[[], float]) -> None:
        super().__init__(
            turns,
            stream,
            is_client=True,
            on_substream=lane.take_substream,
            peer=lane.name,
            limits=BRIDGE_LIMITS,
            write_timeout_s=WRITE_TIMEOUT_S,
            clock=clock,
        )
        self._lane = lane

    def was_ended(self, cause: str) -> None:
        """As DividedStream.was_ended."""
        self._lane.was_ended(cause)


class SubstreamLane(ReceiverHot):
    """Driven by its worker (receive, flush, retry, is_idle), by readers and writers, and by who owns it."""

    def __init__(
        self,
        worker: Worker,
        name: str,
        writer: RingWriter,
        reader: RingReader,
        bell: Bell,
        epoch: int,
        *,
        loop: asyncio.AbstractEventLoop | None,
        on_substream: Callable[[SubstreamReader, SubstreamWriter], object],
        on_over: Callable[[str], object],
        on_broken: Callable[[str], object],
    ) -> None:
        """Owns the rings and the bell.

        Args:
            name: of the process at the other end, for messages.
            loop: whose tasks run what is spawned; None: the worker's passes do.
            on_substream: called with each substream that the bridge opens.
            on_over: called once, with why; empty after a goodbye of ours.
            on_broken: called before it when it is over on our account, with why: another lane is needed.
        """
        super().__init__(reader)
        self.name = name
        self.take_substream = on_substream
        self.is_over = False
        self.cause = ""
        """Why it is over; empty after a goodbye of ours."""
        self._worker = worker
        self._bell = bell
        self._on_over = on_over
        self._on_broken = on_broken
        self._soon: list[Callable[[], object]] = []
        self._is_dirty = False
        self._is_stalled = False
        # Set while bytes are moved, which runs no code of users: found set, an exception (Ctrl-C) came in between, and
        # the next pass comes here because `is_urgent` is still set too.
        self._is_moving = False
        self._is_left = False  # this process is a fork
        self._is_broken = False  # we cannot go on, though the other end could
        self._running: set[Running] = set()
        self._runner = LoopRunner(loop) if loop is not None else PassRunner(worker, self._make_dirty)
        self._stream = RingStream(reader, writer, epoch, self._put_off, name)
        self._turns = WorkerTurns(worker, self._put_off)
        self.substreams = LaneSubstreams(self, self._turns, self._stream, self._turns.time)
        self.substreams.start()

    # Who runs on it.

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine, which lets no error of its own pass, until it ends or the party does."""
        running: Running | None = None
        has_ended = False

        def on_done() -> None:
            nonlocal has_ended
            has_ended = True
            if running is not None:
                self._running.discard(running)
            self._worker.notify()

        running = self._runner.spawn(coroutine, on_done)
        if not has_ended:
            self._running.add(running)

    @property
    def has_running(self) -> bool:
        """Whether anything that was spawned has not ended."""
        return bool(self._running)

    def cancel_running(self) -> None:
        """Have CancelledError raised in everything that was spawned."""
        for running in tuple(self._running):
            running.cancel()

    # Passes.

    def _put_off(self, callback: Callable[[], object]) -> None:
        self._soon.append(callback)
        self._make_dirty()

    def _make_dirty(self) -> None:
        if not self._is_dirty and not self._worker.is_over:
            self._is_dirty = True
            self._worker.add_dirty(self)

    def receive(self) -> int:
        """Take in what the bridge wrote, and let everybody go on who waited for it. Returns how much happened."""
        count = 0 if self.is_over else self._stream.serve()
        return count + self._turn()

    def flush(self) -> None:
        """What was written in this turn goes out, and who is ready runs."""
        self._is_dirty = False
        if self._turn():
            self._worker.has_resumed = True

    def _turn(self) -> int:
        count = self._move()
        if self._runner.is_ready:
            count += self._runner.run_ready()
            count += self._move()
        if self._soon or self._runner.is_ready:
            self._make_dirty()
        if self._stream.wants_room != self._is_stalled:
            self._note_stall()
        return count

    def _move(self) -> int:
        """Do what was put off, once around: what that puts off in turn waits for the next one."""
        if self._is_moving:
            self._is_moving = False
            self._is_broken = True
            self.lose(INTERRUPTED)
        soon = self._soon
        if not soon:
            return 0
        self._is_moving = self.is_urgent = True
        self._soon = []
        for callback in soon:
            callback()
        self._is_moving = self.is_urgent = False
        return len(soon)

    # A full ring.

    def _note_stall(self) -> None:
        self._is_stalled = not self._is_stalled
        if not self._is_stalled:
            self._worker.stalled.remove(self)
            return
        self._worker.stalled.append(self)
        if self._worker.loop_driver is not None:
            self._worker.loop_driver.schedule()  # it may sleep already, without having asked for room

    def retry(self) -> int:
        """Go on writing if there is room again. 0: not yet."""
        self._stream.serve()
        return self._turn()

    def request_space(self) -> bool:
        """Ask for a bell when there is room again. True: there already is, do not sleep."""
        return not self._stream.is_idle()

    # Sleeping.

    def is_idle(self) -> bool:
        """The look after the doorbell was armed."""
        return self.is_over or self._stream.is_idle()

    def note_sleep(self, timed_out: bool) -> None:
        """Count a sleep on this ring, and whether the net had to catch a lost wake-up."""
        if self.is_over:
            return
        try:
            self.reader.count_sleep()
            if timed_out and not self.reader.is_empty():
                self.reader.count_timeout_with_data()
        except ShmError:
            pass  # the next receive deals with it

    # Ending.

    def was_ended(self, cause: str) -> None:
        """For the substreams: they are over, and the rings given back."""
        self.is_over = True
        self.cause = cause
        self._worker.link_life.remove_substreams(self)
        if self._is_stalled:
            self._note_stall()
        if not self._is_left:
            self._bell.close()
            self._turns.call_later(CANCEL_AFTER_S, self.cancel_running)
        if self._is_broken or self._stream.is_ring_broken:
            self._on_broken(cause)
        self._on_over(cause)

    def lose(self, cause: str) -> None:
        """Nothing more will come, or what came is not to be relied on: every substream fails with `cause`."""
        if not self.is_over:
            self.substreams.abort(cause)

    def close(self) -> None:
        """Give everything back, and end what still runs here."""
        self.substreams.leave()
        self.cancel_running()
        self._runner.close()

    def leave_to_parent(self, cause: str) -> None:
        """This process is a fork: the rings, which the parent goes on using, are not to be touched."""
        if not self.is_over:
            self._is_left = True
            self._is_stalled = False  # nobody here waits for room any more
            self._stream.leave_to_parent()
            self.substreams.abort(cause)
