"""The one way to wait, and the three who can drive it.

Between an operation that cannot go on (a message is not there, a ring is full, a peer has not come) and whoever resumes
it. An operation is a coroutine that awaits a `Wait`; nobody else may be awaited by it. The drivers are `run_blocking`
(a plain call), the Scheduler (scheduler.py, many coroutines, resumed directly) and `LoopDriver` (an asyncio loop, where
each wait that is really needed costs one future). The one invariant: a Wait resumes at most one coroutine, a resumed
coroutine looks again at what it waited for, and so a wake-up too many is harmless.

Guarantees: what is already there is taken without yielding; under the first two drivers a wait makes no object at all.
Assumptions: one thread per worker.
"""

from __future__ import annotations

from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

from .hot import WaitHot
from .hot_pure import NEVER as NEVER

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine, Generator

    from .worker import Worker

T = TypeVar("T")


class Timeout(float):
    """The timeout of a call of several steps: its value is the whole, `deadline` says when that ends."""

    deadline: float

    def __new__(cls, seconds: float, deadline: float) -> Timeout:
        """`deadline` on the worker's clock."""
        timeout = super().__new__(cls, seconds)
        timeout.deadline = deadline
        return timeout


def deadline_of(worker: Worker, timeout: float | None) -> float:
    """When a call with this timeout gives up."""
    if timeout is None:
        return NEVER
    return timeout.deadline if isinstance(timeout, Timeout) else worker.clock() + timeout


def shared_timeout(worker: Worker, timeout: float | None) -> float | None:
    """One timeout for all the steps of a call that begins now."""
    return None if timeout is None else Timeout(timeout, deadline_of(worker, timeout))


class Wait(WaitHot):
    """One place where a coroutine can stand still. Reusable; one coroutine at a time."""

    __slots__ = ()

    def _await_in_loop(self) -> Generator[Any, None, None]:
        future = self.worker.create_future()
        waker = self.waker = partial(_resolve, future)
        try:
            yield from future
        finally:
            if self.waker is waker:  # between the wake-up and this turn somebody else may have come to stand here
                self.waker = None


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


# Driver: a plain call.


def run_blocking(worker: Worker, coroutine: Coroutine[Any, Any, T]) -> T:
    """Run an operation to its end in this thread, serving the worker's rings meanwhile, and publish what it sent.

    May be nested: a synchronous job inside a scheduler uses it, and meanwhile other sessions only receive.

    An exception of a signal's handler (Ctrl-C) may leave it at any moment. The operation is cancelled then, unless it
    has ended already: what such an operation sent is published by the next call.

    Raises:
        RuntimeError: another thread is inside such a call.
    """
    nested = worker.driving
    thread = get_ident()
    if nested and worker.driving_thread not in (0, thread):
        coroutine.close()
        raise RuntimeError(
            f"two threads use party {worker.party.name} at once; a party and its sessions belong to one thread"
        )
    if not nested:
        worker.driving_thread = thread
    worker.driving = True
    try:  # with no call before it: an exception (Ctrl-C) may come behind any
        woken = _Flag()
        try:
            while True:
                wait = coroutine.send(None)
                if not isinstance(wait, Wait):
                    raise RuntimeError("only the asynchronous form of Party and Session can await asyncio")
                woken.is_set = False
                waker = wait.waker = woken.set
                try:
                    while not woken.is_set:
                        if not worker.service():
                            worker.rest()
                finally:
                    if wait.waker is waker:
                        wait.waker = None
        except StopIteration as stop:
            result: T = stop.value
    except BaseException:
        worker.driving = nested
        if not nested:
            worker.driving_thread = 0
        try:
            coroutine.close()
        finally:
            _leave(worker, nested)
        raise
    worker.driving = nested
    if not nested:
        worker.driving_thread = 0
    # An exception in a call from here on would take a message with it that was received, so there is none where nothing
    # was sent: where others move the bytes, an empty `_dirty` says that `leave` would do nothing.
    if worker._dirty or worker.hears_in_sleep_alone or worker.loop_driver is not None:
        _leave(worker, nested)
    return result


def _leave(worker: Worker, nested: bool) -> None:
    """A blocking call is over."""
    if nested:
        worker.flush()
    else:
        worker.leave()
    if worker.loop_driver is not None:
        worker.loop_driver.schedule()


class _Flag:
    """Set by a Wait, read by the loop around it."""

    __slots__ = ("is_set",)

    def __init__(self) -> None:
        self.is_set = False

    def set(self) -> None:
        self.is_set = True


# Driver: an asyncio loop.


class LoopDriver:
    """Lets an asyncio (or uvloop) loop drive a worker: the loop sleeps on the worker's doorbell.

    Driven by the loop's callbacks only. What tasks send within one turn of the loop is published together after it.
    """

    def __init__(self, worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
        self._worker = worker
        self._loop = loop
        self._is_scheduled = False
        self._is_flush_scheduled = False
        self._is_armed = False
        self._is_attached = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that resumes coroutines which wait on this worker."""
        return self._loop

    @property
    def is_running_here(self) -> bool:
        """Whether this is a call from inside the loop."""
        from asyncio import get_running_loop  # who drives a worker without asyncio imports none

        try:
            return get_running_loop() is self._loop
        except RuntimeError:
            return False

    def attach(self) -> None:
        """Take over the worker. At most one driver of this kind at a time."""
        if self._worker.loop_driver is not None:
            raise RuntimeError("another asyncio loop drives this party already")
        self._worker.loop_driver = self
        self._is_attached = True
        for fd in self._worker.descriptors():
            self._loop.add_reader(fd, self._wake, fd)
        self.schedule()

    def detach(self) -> None:
        """Leave the worker alone. Publishes what was sent. May be called again."""
        if not self._is_attached:
            return
        self._is_attached = False
        self._worker.loop_driver = None
        if self._worker.is_of_parent:
            return  # a fork shares even the loop's epoll with its parent
        for fd in self._worker.descriptors():
            self._loop.remove_reader(fd)
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, NEVER  # else the next attach would rely on it
        self._worker.disarm()
        self._worker.flush()

    def add_descriptor(self, fd: int) -> None:
        """The worker watches one more descriptor."""
        self._loop.add_reader(fd, self._wake, fd)

    def remove_descriptor(self, fd: int) -> None:
        """The worker no longer watches a descriptor."""
        self._loop.remove_reader(fd)

    def schedule(self) -> None:
        """Serve the worker at the loop's next turn."""
        if not self._is_scheduled and self._is_attached:
            self._is_scheduled = True
            self._loop.call_soon(self._pump)

    def schedule_flush(self) -> None:
        """Publish after everything that is ready in the loop has run."""
        if not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_scheduled = False
        if self._is_attached and not self._worker.flush():
            self.schedule()  # a ring is full: only _pump asks for a bell when there is room again

    def _wake(self, fd: int) -> None:
        if self._worker.take_event(fd):
            self._pump()

    def _pump(self) -> None:
        self._is_scheduled = False
        if not self._is_attached or self._worker.is_of_parent:
            return
        if self._is_armed:
            self._is_armed = False
            self._worker.disarm()
        if self._worker.step():
            self.schedule()
            return
        if self._is_attached:  # a step may run anything, also what closes the party
            self._is_armed = True
            if self._worker.arm():
                self._set_timer()
            else:
                self.schedule()

    def _set_timer(self) -> None:
        at = self._worker.next_deadline()
        if at >= self._timer_at and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if at < NEVER:
            self._timer_at = at
            self._timer = self._loop.call_later(max(0.0, at - self._worker.clock()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_at = NEVER
        self._pump()
